/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Run by user space (BPF_PROG_RUN), attached to nothing. */
#include "mesh/inspect.h"
#include "mesh/open_calls.h"

SEC("syscall")
int zerohop_inspect(void *ctx)
{
	return inspect_all();
}

SEC("syscall")
int zerohop_open_calls(void *ctx)
{
	return count_open_calls();
}
