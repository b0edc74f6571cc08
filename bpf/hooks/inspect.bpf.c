/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Run by user space (BPF_PROG_RUN), attached to nothing. */
#include "mesh/inspect.h"
#include "mesh/judge_all.h"
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

/* Of a kind that may use every map, as those that may sleep may not. */
SEC("cgroup_skb/egress")
int zerohop_judge_all(struct __sk_buff *skb)
{
	return judge_all();
}
