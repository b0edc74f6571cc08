/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Kernel TLS reads the receive queue, which a member's verdict has emptied: the kernel warns
 * (tls_strp_load_anchor_with_queue) and the connection stands still. A member that asks for an upper-layer protocol is
 * told what a kernel without it says, and programs encrypt by themselves then.
 */
#pragma once

#include "mesh/telemetry.h"
#include "shared/kernel.h"

#define TCP_ULP 31
#define ENOENT 2

/* 1: the kernel goes on with setsockopt; 0: it fails. */
static __always_inline int allow_option(struct bpf_sockopt *ctx)
{
	struct membership *member;
	struct connection *conn;
	__u32 flags;

	if (ctx->level != IPPROTO_TCP || ctx->optname != TCP_ULP || !ctx->sk)
		return 1;
	member = bpf_sk_storage_get(&memberships, ctx->sk, NULL, 0);
	conn = member ? bpf_map_lookup_elem(&connections, &member->connection) : NULL;
	if (!conn)
		return 1;
	flags = conn->ends[member->role & 1].flags;
	if ((flags & (END_OPEN | END_ENROLLED | END_LEFT)) != (END_OPEN | END_ENROLLED))
		return 1;
	bpf_set_retval(-ENOENT);
	return 0;
}
