/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A peer's reset takes a socket out of the hooks, with what came before `accept` still to be read (mesh/breaking.h). On a
 * connection of which no byte may pass unseen, such a reset is dropped: the program reads through the hook, and what it
 * sends then is answered by the next reset.
 */
#pragma once

#include "mesh/enforcing.h"

#define TCP_FLAGS_OFFSET 13
#define TCP_RST 4
#define IPV6_HEADER_SIZE 40

/* Whether the packet, which begins with its IP header, is a TCP segment with RST. IPv6 with other headers between: taken
 * for one, which costs a look and no more. */
static __always_inline int is_reset(struct __sk_buff *skb)
{
	__u8 first = 0, protocol = 0, flags = 0;
	__u32 size;

	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return 0;
	if (first >> 4 == 4) {
		size = (first & 15) * 4;
		if (bpf_skb_load_bytes(skb, 9, &protocol, 1))
			return 0;
	} else {
		size = IPV6_HEADER_SIZE;
		if (bpf_skb_load_bytes(skb, 6, &protocol, 1))
			return 0;
		if (protocol != IPPROTO_TCP)
			return 1;
	}
	if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, size + TCP_FLAGS_OFFSET, &flags, 1))
		return 0;
	return (flags & TCP_RST) != 0;
}

/* 1: the packet goes on; 0: it is dropped. */
static __always_inline int admit_packet(struct __sk_buff *skb)
{
	struct membership *member;
	struct connection *conn;
	const struct sock *sk;
	struct end *end;
	__u64 address;

	if (likely(!is_reset(skb)) || !skb->sk)
		return 1;
	member = bpf_sk_storage_get(&memberships, skb->sk, NULL, 0);
	conn = member ? bpf_map_lookup_elem(&connections, &member->connection) : NULL;
	if (!conn || (!conn->broken && !is_open(conn)))
		return 1;
	end = &conn->ends[member->role & 1];
	address = READ_ONCE(end->sock);
	if (!(end->flags & END_OPEN) || !address)
		return 1;
	sk = kernel_cast(struct sock, address);
	return !hides_bytes(sk);
}
