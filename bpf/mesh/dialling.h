/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What a socket of a workload that connects is answered: where to, and whether it may as far as that is known by then. */
#pragma once

#include "mesh/policy.h"
#include "mesh/rows.h"
#include "mesh/virtual.h"

#define SOCK_STREAM 1
#define ECONNREFUSED 111

static __always_inline int is_tcp(const struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP;
}

/* The answer to `connect`. 1: it goes on; 0: it fails, with EPERM unless something else is set. */
static __always_inline int refuse(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

/* Who would take the connection in this network namespace: its workload; 0: none, or nobody listens there. */
static __noinline __u32 listener_at(struct bpf_sock_addr *ctx, const struct endpoint_key *address)
{
	const __u32 *words = (const __u32 *)address->address;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *found;
	__u32 workload;

	if (!words[0] && !words[1] && words[2] == __builtin_bswap32(0xffff)) {
		tuple.ipv4.daddr = words[3];
		tuple.ipv4.dport = __builtin_bswap16((__u16)address->port);
		found = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, words, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.dport = __builtin_bswap16((__u16)address->port);
		found = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!found)
		return 0;
	workload = workload_of(kernel_cast(struct sock, found));
	bpf_sk_release(found);
	return workload;
}

/* A refused connection is known by its record alone. */
static __noinline int record_refusal(struct bpf_sock_addr *ctx, const struct dial *dial, const struct judgement *judged)
{
	struct reports reports;
	__u64 sequence = 0;
	struct flow *flow;

	report_connection(judged->generation, dial, &reports);
	flow = next_flow(&sequence);
	if (!flow)
		return 0;
	__builtin_memset(&flow->end_ns, 0, sizeof(*flow) - __builtin_offsetof(struct flow, end_ns));
	flow->end_ns = bpf_ktime_get_ns();
	flow->source = dial->client;
	flow->destination = dial->server;
	flow->grpc_status = GRPC_STATUS_NONE;
	flow->kind = FLOW_CONNECTION;
	flow->family = ctx->family;
	flow->destination_port = dial->port;
	flow->reason = REASON_POLICY;
	flow->verdict = VERDICT_DENY;
	flow->policy = judged->policy;
	flow->rule = judged->rule;
	flow->audit = reports.audit;
	flow->dry_run = reports.dry_run;
	__builtin_memcpy(flow->destination_address, dial->destination, sizeof(flow->destination_address));
	mark_flow(flow, sequence);
	return 0;
}

/*
 * Refuses what policies forbid whatever address the socket will have. The answer to the SYN is judged all the same: a
 * listener in another network namespace, or one behind a translated address, is not seen from here.
 */
static __noinline int may_connect(struct bpf_sock_addr *ctx, const struct endpoint_key *address)
{
	struct bpf_sock_addr_kern *kern = bpf_cast_to_kern_ctx(ctx);
	const struct settings *conf = current_settings();
	struct judgement judged;
	struct counters *count;
	struct dial dial = {};

	if (!conf || !conf->policies)
		return 1;
	dial.server = listener_at(ctx, address);
	if (!dial.server)
		return 1;
	dial.client = workload_of(kern->sk);
	dial.port = address->port;
	__builtin_memcpy(dial.destination, address->address, sizeof(dial.destination));
	judge(&dial, &judged);
	if (!is_denied(judged.verdict))
		return 1;
	count = this_cpu_counters();
	if (count)
		__sync_fetch_and_add(&count->refused_connections, 1);
	record_refusal(ctx, &dial, &judged);
	return 0;
}

static __always_inline int connect_ip4(struct bpf_sock_addr *ctx)
{
	struct endpoint_key address = { .port = __builtin_bswap16((__u16)ctx->user_port) };
	int result;

	if (!is_tcp(ctx) || !ctx->sk)
		return 1;
	map_ip4((__u32 *)address.address, ctx->user_ip4);
	result = translate(ctx, &address);
	if (result < 0)
		return refuse();
	if (result > 0)
		set_user_ip4(ctx, &address);
	return may_connect(ctx, &address);
}

static __always_inline int connect_ip6(struct bpf_sock_addr *ctx)
{
	struct endpoint_key address = { .port = __builtin_bswap16((__u16)ctx->user_port) };
	__u32 *words = (__u32 *)address.address;
	int result;

	if (!is_tcp(ctx) || !ctx->sk)
		return 1;
	words[0] = context_u32(ctx, user_ip6[0]);
	words[1] = context_u32(ctx, user_ip6[1]);
	words[2] = context_u32(ctx, user_ip6[2]);
	words[3] = context_u32(ctx, user_ip6[3]);
	result = translate(ctx, &address);
	if (result < 0)
		return refuse();
	if (result > 0)
		set_user_ip6(ctx, &address);
	return may_connect(ctx, &address);
}

