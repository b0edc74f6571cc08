/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* An inspection: one walk over the open connections, for what people and metrics ask now and then. */
#pragma once

#include "mesh/shortcut.h"

struct walk {
	struct inspection *result;
};

static __always_inline void count_workload(__u32 id, int shortcut)
{
	struct workload_connections one = { .connections = 1, .shortcut_connections = shortcut }, *sum;

	if (!id)
		return;
	sum = bpf_map_lookup_elem(&workload_connections, &id);
	if (sum) {
		sum->connections++;
		sum->shortcut_connections += shortcut;
	} else if (bpf_map_update_elem(&workload_connections, &id, &one, BPF_NOEXIST)) {
		count_error(HELPER_MAP_UPDATE);
	}
}

/* Remembers which message is the first in the queue and since when: a reader that reads changes it. */
static __always_inline void note_unread(struct inspection *result, __u64 id, struct connection *conn, struct end *end,
					const struct sock *sk)
{
	const struct sk_psock *psock = psock_of(sk);
	__u64 first = 0;
	__u32 slot;

	if (is_member(sk))
		first = first_message(psock);
	if (first != end->unread_head) {
		end->unread_head = first;
		end->unread_since = result->now;
	}
	if (!first)
		return;
	slot = result->unread_count++;
	opaque(slot);
	if (slot < MAX_UNREAD) {
		result->unread[slot].connection = id;
		result->unread[slot].since = end->unread_since;
		result->unread[slot].workload = end->workload;
		result->unread[slot].port = conn->server_port;
	}
}

static __noinline int inspect_end(struct inspection *result, __u64 id, struct connection *conn, __u32 role)
{
	const struct sock *sk;
	struct end *end;
	__u64 address;

	if (!result || !conn)
		return 0;
	role &= 1;
	end = &conn->ends[role];
	address = READ_ONCE(end->sock);
	if (!(end->flags & END_OPEN) || !address)
		return 0;
	sk = kernel_cast(struct sock, address);
	if ((__u64)sk->__sk_common.skc_cookie.counter != end->cookie)
		return 0;
	conn->seen_ns = result->now;
	result->shortcut_bytes += end->shortcut_bytes;
	result->carrier_switches += end->switches;
	result->tcp_bytes += tcp_bytes_of(conn, role, kernel_cast(struct tcp_sock, address));
	count_workload(end->workload, conn->reason == REASON_NONE);
	if ((end->flags & (END_ENROLLED | END_LEFT)) == END_ENROLLED) {
		result->members++;
		note_unread(result, id, conn, end, sk);
	}
	return 0;
}

static long inspect_connection(void *map, __u64 *id, struct connection *conn, struct walk *walk)
{
	__u32 zero = 0;
	struct inspection *result = bpf_map_lookup_elem(&inspections, &zero);

	if (!result)
		return 1;
	result->connections++;
	inspect_end(result, *id, conn, ROLE_CLIENT);
	inspect_end(result, *id, conn, ROLE_SERVER);
	/* Sockets that closed while nothing was attached to their cgroup said no word of it. */
	if (conn->seen_ns != result->now && READ_ONCE(conn->open_ends)) {
		forget_reception(&conn->ends[ROLE_CLIENT]);
		forget_reception(&conn->ends[ROLE_SERVER]);
		close_reading(*id, 1);
		bpf_map_delete_elem(map, id);
	}
	return 0;
}

static __always_inline int inspect_all(void)
{
	__u32 zero = 0;
	struct inspection *result = bpf_map_lookup_elem(&inspections, &zero);
	struct walk walk = {};

	if (!result)
		return -1;
	__builtin_memset(result, 0, __builtin_offsetof(struct inspection, unread));
	result->now = bpf_ktime_get_ns();
	return bpf_for_each_map_elem(&connections, inspect_connection, &walk, 0);
}
