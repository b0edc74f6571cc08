/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* One object, so that the hooks share their maps without a BPF linker at build time. */
#include "hooks/sockops.bpf.c"
#include "hooks/sender.bpf.c"
#include "hooks/receiver.bpf.c"
#include "hooks/inspect.bpf.c"
#include "hooks/options.bpf.c"
#include "hooks/connect.bpf.c"
#include "hooks/guard.bpf.c"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
