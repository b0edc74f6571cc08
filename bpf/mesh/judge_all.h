/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A walk over the open connections: those end that are broken, or that other policies forbid by now. */
#pragma once

#include "mesh/connection.h"

static long judge_open(void *map, __u64 *id, struct connection *conn, void *context)
{
	const struct end *server = &conn->ends[ROLE_SERVER];
	__u64 address = READ_ONCE(server->sock);
	const struct sock *sk;

	if (!(server->flags & END_OPEN) || !address)
		return 0;
	sk = kernel_cast(struct sock, address);
	if ((__u64)sk->__sk_common.skc_cookie.counter != server->cookie)
		return 0;
	if (conn->broken && wants_reset(conn->reason))
		request_reset(sk, conn->reason); /* again: it was too early, or nobody has seen to it */
	else if (!conn->broken)
		judge_again(conn, *id, sk);
	return 0;
}

static __always_inline int judge_all(void)
{
	__u32 context = 0;

	bpf_for_each_map_elem(&connections, judge_open, &context, 0);
	return 0;
}
