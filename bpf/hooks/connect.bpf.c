/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Attached to cgroups: where a connection goes, and what getpeername says of it. */
#include "mesh/dialling.h"

SEC("cgroup/connect4")
int zerohop_connect4(struct bpf_sock_addr *ctx)
{
	return connect_ip4(ctx);
}

SEC("cgroup/connect6")
int zerohop_connect6(struct bpf_sock_addr *ctx)
{
	return connect_ip6(ctx);
}

SEC("cgroup/getpeername4")
int zerohop_peername4(struct bpf_sock_addr *ctx)
{
	return peername_ip4(ctx);
}

SEC("cgroup/getpeername6")
int zerohop_peername6(struct bpf_sock_addr *ctx)
{
	return peername_ip6(ctx);
}
