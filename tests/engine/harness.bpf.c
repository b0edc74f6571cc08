// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The engine as programs that user space runs with BPF_PROG_TEST_RUN; the names are native.c's. */
#include "shim.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct shim_state);
} states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct shim);
} shims SEC(".maps");

#define PROGRAM(program, ...)                                                                                         \
	SEC("syscall")                                                                                                \
	int program(void *context)                                                                                    \
	{                                                                                                             \
		__u32 zero = 0;                                                                                       \
		struct shim_state *state = bpf_map_lookup_elem(&states, &zero);                                       \
		struct shim *shim = bpf_map_lookup_elem(&shims, &zero);                                               \
                                                                                                                      \
		return state && shim ? shim_##__VA_ARGS__ : -REASON_MAX;                                              \
	}

PROGRAM(engine_client, start(state, shim, 1))
PROGRAM(engine_server, start(state, shim, 0))
PROGRAM(engine_block, block(state, shim))
PROGRAM(engine_field, field(state, shim))
PROGRAM(engine_remember, remember(state, shim))
PROGRAM(engine_message, message(state, shim))
PROGRAM(engine_lead, lead(state, shim))
PROGRAM(engine_step, step(state, shim))
PROGRAM(engine_data, data(state, shim))
PROGRAM(engine_stream, stream(state, shim))
PROGRAM(engine_rewrite, rewrite(state, shim))
PROGRAM(engine_neutralise, neutralise(state, shim))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
