/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What is kept from the sockets of workloads with policies, before TCP sees it, because no other hook could:
 *
 * - data for a listener, in a SYN (TCP fast open) or with the handshake's last ACK: the socket that is made of it has the
 *   bytes before it is in the hooks. Peers send them again, once they are answered (a SYN-ACK is repeated after a second).
 *   A listener with TCP_DEFER_ACCEPT gets its last ACK: members are safe all the same, their hook runs when they read;
 * - a SYN that asks for MPTCP: such a socket cannot be in the hooks. Peers ask again without;
 * - whatever comes to a denied socket that the hooks do not have;
 * - a peer's reset for a socket of which no byte may pass unseen, while it has such bytes: it would take the socket out of
 *   the hooks with them still to be read (mesh/breaking.h). The program reads through the hook, and what it sends then is
 *   answered by the next reset.
 */
#pragma once

#include "mesh/enforcing.h"
#include "mesh/identity.h"

#define TCP_FLAGS_OFFSET 13
#define TCP_OFFSET_OFFSET 12
#define TCP_HEADER_SIZE 20
#define TCP_SYN 2
#define TCP_RST 4
#define IPV6_HEADER_SIZE 40

/* RFC 9293 section 3.1, RFC 8684 section 3. */
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MPTCP 30
#define OPTIONS_SIZE 40

/* A packet's TCP header. */
struct segment {
	__u32 offset; /* of the header; 0: it is not found: IPv6 with other headers before it */
	__u32 size;
	__u32 payload;
	__u32 flags;
};

/* Finds the header of a packet that begins with its IP header. 0, or -1: it is not TCP. */
static __always_inline int find_segment(struct __sk_buff *skb, struct segment *segment)
{
	__u8 first = 0, protocol = 0, parts[2] = {};
	__u32 size, end;

	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return -1;
	segment->offset = 0;
	segment->payload = 1;
	segment->flags = TCP_RST;
	if (first >> 4 == 4) {
		size = (first & 15) * 4;
		if (bpf_skb_load_bytes(skb, 9, &protocol, 1) || protocol != IPPROTO_TCP)
			return -1;
	} else {
		size = IPV6_HEADER_SIZE;
		if (bpf_skb_load_bytes(skb, 6, &protocol, 1))
			return -1;
		if (protocol != IPPROTO_TCP)
			return 0;
	}
	if (bpf_skb_load_bytes(skb, size + TCP_OFFSET_OFFSET, parts, 2))
		return -1;
	segment->offset = size;
	segment->size = (parts[0] >> 4) * 4;
	segment->flags = parts[1];
	end = size + segment->size;
	segment->payload = skb->len > end ? skb->len - end : 0;
	return 0;
}

static __noinline int asks_for_mptcp(struct __sk_buff *skb, __u32 position, __u32 end)
{
	__u8 option[2];
	__u32 i;

	loop_below (i, OPTIONS_SIZE) {
		if (position >= end || bpf_skb_load_bytes(skb, position, option, 1) || option[0] == OPTION_END)
			return 0;
		if (option[0] == OPTION_MPTCP)
			return 1;
		if (option[0] == OPTION_NOP) {
			position++;
			continue;
		}
		if (bpf_skb_load_bytes(skb, position, option, 2) || option[1] < 2)
			return 0;
		position += option[1];
	}
	return 0;
}

/* Whether policies say anything of the listener's connections. */
static __noinline int is_policed(struct sock *listener)
{
	const struct settings *conf = current_settings();
	__u32 workload;

	if (!conf || !listener)
		return 0;
	workload = workload_of(listener);
	return workload && conf->policies && policy_of(conf->policies, workload);
}

/* TCP_DEFER_ACCEPT: it takes the last ACK only with data. */
static __always_inline int waits_for_data(const struct sock *listener)
{
	return kernel_cast(struct inet_connection_sock, listener)->icsk_accept_queue.rskq_defer_accept != 0;
}

/* A packet for a listener. 1: it goes on; 0: it is dropped. */
static __always_inline int admit_opening(struct __sk_buff *skb, const struct segment *segment, struct sock *listener)
{
	struct counters *count;

	if (likely(!segment->payload) &&
	    (!(segment->flags & TCP_SYN) || likely(!asks_for_mptcp(skb, segment->offset + TCP_HEADER_SIZE,
								   segment->offset + segment->size))))
		return 1;
	if (!is_policed(listener) || (!(segment->flags & (TCP_SYN | TCP_RST)) && waits_for_data(listener)))
		return 1;
	count = this_cpu_counters();
	if (count)
		__sync_fetch_and_add(&count->openings_dropped, 1);
	return 0;
}

/* 1: the packet goes on; 0: it is dropped. */
static __always_inline int admit_packet(struct __sk_buff *skb)
{
	struct membership *member;
	struct connection *conn;
	struct sk_buff *kern = bpf_cast_to_kern_ctx(skb);
	struct bpf_sock *own = skb->sk;
	struct segment segment;
	const struct sock *sk;
	struct end *end;
	__u64 address;

	if (!own || find_segment(skb, &segment))
		return 1;
	if (kernel_cast(struct sock, kern->sk)->__sk_common.skc_state == TCP_LISTEN)
		return admit_opening(skb, &segment, kern->sk);
	member = bpf_sk_storage_get(&memberships, own, NULL, 0);
	if (!member)
		return 1;
	if (likely(!(segment.flags & TCP_RST)))
		return !member->shut;
	conn = bpf_map_lookup_elem(&connections, &member->connection);
	if (!conn || (!conn->broken && !is_open(conn)))
		return 1;
	end = &conn->ends[member->role & 1];
	address = READ_ONCE(end->sock);
	if (!(end->flags & END_OPEN) || !address)
		return 1;
	sk = kernel_cast(struct sock, address);
	return !hides_bytes(sk);
}
