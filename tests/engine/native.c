// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* The engine as a native library. */
#include "shim.h"

#define EXPORT(name, ...)                                                                                             \
	int name(struct shim_state *state, struct shim *shim);                                                        \
	int name(struct shim_state *state, struct shim *shim)                                                         \
	{                                                                                                             \
		return shim_##__VA_ARGS__;                                                                            \
	}

EXPORT(engine_client, start(state, shim, 1))
EXPORT(engine_server, start(state, shim, 0))
EXPORT(engine_block, block(state, shim))
EXPORT(engine_field, field(state, shim))
EXPORT(engine_remember, remember(state, shim))
EXPORT(engine_message, message(state, shim))
EXPORT(engine_lead, lead(state, shim))
EXPORT(engine_step, step(state, shim))
EXPORT(engine_data, data(state, shim))
EXPORT(engine_stream, stream(state, shim))
EXPORT(engine_rewrite, rewrite(state, shim))
EXPORT(engine_neutralise, neutralise(state, shim))

const __u32 engine_state_size = sizeof(struct shim_state);
const __u32 engine_shim_size = sizeof(struct shim);
