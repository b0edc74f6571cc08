/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Ending a connection from inside. No helper resets one from a hook, so it is broken: what a member sends fails (SK_DROP
 * in the sender hook: EACCES), what reaches a member by TCP is dropped, and the agent is asked for the reset.
 *
 * What came before `accept` waits in TCP's own queue until the program reads: the receiver hook runs then
 * (tcp_bpf_recvmsg_parser). A socket that is reset before leaves the hooks, and its program would read what nobody has
 * judged. So nobody resets one while it has such bytes: neither the agent, nor the peer (mesh/guard.h).
 */
#pragma once

#include "mesh/telemetry.h"
#include "shared/kernel.h"

/* Where the agent finds the socket. */
static __noinline int name_socket(struct reset_request *request, const struct sock *sk)
{
	const struct sock_common *common = &kernel_cast(struct sock, sk)->__sk_common;
	const struct net *net = common->skc_net.net;

	request->cookie = common->skc_cookie.counter;
	request->netns = kernel_cast(struct net, net)->ns.inum;
	request->family = common->skc_family;
	request->local_port = common->skc_num;
	request->remote_port = __builtin_bswap16(common->skc_dport);
	if (request->family == AF_INET) {
		*(__u32 *)request->local = common->skc_rcv_saddr;
		*(__u32 *)request->remote = common->skc_daddr;
	} else {
		bpf_probe_read_kernel(request->local, sizeof(request->local), &common->skc_v6_rcv_saddr);
		bpf_probe_read_kernel(request->remote, sizeof(request->remote), &common->skc_v6_daddr);
	}
	return 0;
}

/* Whether the program may still read bytes that no hook has seen, if the socket is reset. */
static __always_inline int hides_bytes(const struct sock *sk)
{
	return !sk->sk_socket || sk->sk_receive_queue.qlen || sk->sk_backlog.len;
}

/* Asks for a reset. `early`: it is too early for one; the agent, woken, has all open connections looked at again. */
static __noinline int ask_for_reset(const struct sock *sk, __u32 reason, int early)
{
	struct reset_request request = { .reason = reason, .early = early };

	if (!sk)
		return 0;
	sk = kernel_cast(struct sock, sk);
	name_socket(&request, sk);
	if (bpf_ringbuf_output(&resets, &request, sizeof(request), 0))
		count_error(HELPER_RINGBUF_OUTPUT);
	return 0;
}

static __always_inline int request_reset(const struct sock *sk, __u32 reason)
{
	return sk ? ask_for_reset(sk, reason, hides_bytes(kernel_cast(struct sock, sk))) : 0;
}

/* Whether the agent is asked. A stream that could not go on ends for its programs when they write (REASON_OVERLAP). */
static __always_inline int wants_reset(__u32 reason)
{
	return reason != REASON_OVERLAP;
}

static __always_inline void break_reception(const struct end *end, __u32 reason)
{
	__u64 cookie = end->cookie;
	struct reception *reception = bpf_map_lookup_elem(&receptions, &cookie);

	if (reception)
		reception->broken = reason;
}

/* No byte may pass from now on. `sk`: one of its sockets, whose hook runs. */
static __noinline int break_connection(struct connection *conn, const struct sock *sk, __u32 reason)
{
	if (!conn || READ_ONCE(conn->broken))
		return 0;
	WRITE_ONCE(conn->broken, 1);
	if (conn->reason == REASON_NONE)
		count_not_shortcut(reason);
	conn->reason = reason;
	if (!conn->leave_ns)
		WRITE_ONCE(conn->leave_ns, bpf_ktime_get_ns());
	break_reception(&conn->ends[ROLE_CLIENT], reason);
	break_reception(&conn->ends[ROLE_SERVER], reason);
	if (wants_reset(reason))
		request_reset(sk, reason);
	return 0;
}
