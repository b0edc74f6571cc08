/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What follows when policies forbid a connection, or its calls cannot be judged. */
#pragma once

#include "mesh/breaking.h"
#include "mesh/policy.h"
#include "mesh/reading.h"

static __always_inline void judge_as(struct connection *conn, struct dial *dial)
{
	struct judgement judged;

	dial->client = conn->ends[ROLE_CLIENT].workload;
	dial->server = conn->ends[ROLE_SERVER].workload;
	dial->port = conn->server_port;
	dial->has_source = 1;
	judge(dial, &judged);
	conn->policies = judged.generation;
	conn->verdict = judged.verdict;
	conn->policy = judged.policy;
	conn->rule = judged.rule;
}

/* Whether calls are judged one by one. */
static __always_inline int is_open(const struct connection *conn)
{
	return conn->policies && !conn->verdict;
}

/* Whether the owner of the policies lets calls pass that cannot be read. What is denied is not among them. */
static __always_inline int may_go_unread(const struct connection *conn, const struct reading *reading)
{
	struct policy *policy;

	if (!conn)
		return 0;
	if (!is_open(conn))
		return 1;
	if (reading && (reading->off == REASON_POLICY || reading->off >= REASON_HEADER_REPEATED))
		return 0;
	policy = policy_of(conn->policies, conn->ends[ROLE_SERVER].workload);
	return policy && policy->allow_unreadable;
}

/* Whether the reading judges, from the connection's first byte on. */
static __always_inline int is_judged(const struct connection *conn, const struct reading *reading)
{
	return reading && reading->judges && !reading->off && conn->observers[ROLE_CLIENT] != OBSERVER_NONE &&
	       conn->observers[ROLE_SERVER] == OBSERVER_SENDER;
}

static __always_inline __u32 why_forbidden(struct connection *conn, __u64 id)
{
	struct reading *reading;
	struct policy *policy;

	if (is_denied(conn->verdict))
		return REASON_POLICY;
	if (!is_open(conn))
		return REASON_NONE;
	reading = bpf_map_lookup_elem(&readings, &id);
	if (is_judged(conn, reading) || may_go_unread(conn, reading))
		return REASON_NONE;
	if (reading && !reading->off && !reading->judges) {
		policy = policy_of(conn->policies, conn->ends[ROLE_SERVER].workload);
		if (!policy || !policy->observe_existing)
			return REASON_EXISTING;
		conn->verdict = POLICY_END;
		return REASON_NONE;
	}
	if (reading && reading->off)
		return reading->off;
	return conn->reason != REASON_NONE ? conn->reason : REASON_HELPER_FAILED;
}

static __noinline int forbid(struct connection *conn, const struct sock *sk, __u32 reason)
{
	struct counters *count = this_cpu_counters();

	if (!conn || conn->broken)
		return 0;
	conn->verdict |= POLICY_END | POLICY_DENY;
	if (count)
		__sync_fetch_and_add(&count->denied_connections, 1);
	return break_connection(conn, sk, reason);
}

/* Other policies have come: an open connection that they forbid ends. `sk`: the server's socket. */
static __noinline int judge_again(struct connection *conn, __u64 id, const struct sock *sk)
{
	const struct settings *conf = current_settings();
	const struct sock_common *common;
	struct dial dial = {};
	__u32 reason;

	if (!conn || !conf || conn->policies == conf->policies)
		return 0;
	common = &kernel_cast(struct sock, sk)->__sk_common;
	if (common->skc_family == AF_INET) {
		map_ip4((__u32 *)dial.source, common->skc_daddr);
		map_ip4((__u32 *)dial.destination, common->skc_rcv_saddr);
	} else {
		bpf_probe_read_kernel(dial.source, sizeof(dial.source), &common->skc_v6_daddr);
		bpf_probe_read_kernel(dial.destination, sizeof(dial.destination), &common->skc_v6_rcv_saddr);
	}
	judge_as(conn, &dial);
	reason = why_forbidden(conn, id);
	if (reason != REASON_NONE)
		forbid(conn, sk, reason);
	return 0;
}

/* The connection has left the hooks, or what it sends cannot be read any more. Returns whether its bytes may pass. */
static __noinline int may_pass_unread(struct connection *conn, __u64 id, const struct sock *sk)
{
	const struct settings *conf = current_settings();
	struct reading *reading = bpf_map_lookup_elem(&readings, &id);

	if (!conn || !conf)
		return 0;
	/* Whoever takes the policies away lets their connections go. */
	if (conf->draining || may_go_unread(conn, reading))
		return 1;
	forbid(conn, sk, reading && reading->off ? reading->off : conn->reason);
	return 0;
}
