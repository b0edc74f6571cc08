/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * How much of a message TCP takes for certain (tcp_sendmsg_locked): it asks for room when it begins a segment, and never
 * in the middle of one, and for memory all the time. Of what it does not take, the program hears, and sends it again.
 */
#pragma once

#include "shared/kernel.h"

/* More than any send buffer holds. */
#define MAX_UNSENT (1U << 30)

/* What a new segment adds to the send buffer's account beside its bytes, with room for one that is not full. */
#define SEND_OVERHEAD 16384

/* What each segment adds, and a message is sent with one for each of its elements at most (tcp_bpf_push), which is so many
 * (MAX_MSG_FRAGS and two). */
#define SEGMENT_OVERHEAD 2560
#define MESSAGE_ELEMENTS 19

/* Fragments of a segment (MAX_SKB_FRAGS), and what one of them holds: a part of a page. */
#define SEGMENT_FRAGMENTS 17
#define FRAGMENT_SIZE 4096

/* Pages between what is charged and a limit, so that a message is not refused (__sk_mem_raise_allocated), whatever other
 * sockets and programs take meanwhile. */
#define MEMORY_MARGIN 1024

/* Levels of cgroups that may have limits. */
#define CGROUP_LEVELS 16

/* Whether a cgroup's pages, or those of one above it, are near their limit. */
static __noinline int is_near_limit(const struct page_counter *counter)
{
	__u32 i;

	loop_below (i, CGROUP_LEVELS) {
		if (!counter)
			return 0;
		counter = kernel_cast(struct page_counter, counter);
		if ((__u64)counter->usage.counter + MEMORY_MARGIN > counter->max)
			return 1;
		counter = counter->parent;
	}
	return 1;
}

/* Whether the socket surely gets memory for a message. Its cgroups are asked twice: v1 has limits for TCP alone. */
static __noinline int has_memory(const struct sock *sk)
{
	__s64 allocated = 0, limit = 0;
	const struct mem_cgroup *cgroup;
	const struct proto *proto;

	if (!sk)
		return 0;
	sk = kernel_cast(struct sock, sk);
	proto = kernel_cast(struct proto, sk->__sk_common.skc_prot);
	bpf_probe_read_kernel(&allocated, sizeof(allocated), proto->memory_allocated);
	bpf_probe_read_kernel(&limit, sizeof(limit), proto->sysctl_mem);
	if (allocated + MEMORY_MARGIN > limit)
		return 0;
	if (!kernel_has(sk->sk_memcg))
		return 1;
	cgroup = sk->sk_memcg;
	if (likely(!cgroup))
		return 1;
	if (is_near_limit(&cgroup->memory))
		return 0;
	return !kernel_has(cgroup->tcpmem) || !is_near_limit(&cgroup->tcpmem);
}

/* Room for what begins a segment (sk_stream_memory_free): in the send buffer, and in what may wait to be sent. TCP may have
 * used more. */
static __always_inline __s32 segment_room(const struct sock *sk)
{
	const struct tcp_sock *tcp = kernel_cast(struct tcp_sock, sk);
	const struct net *net = kernel_cast(struct net, sk->__sk_common.skc_net.net);
	__u32 limit = tcp->notsent_lowat ? tcp->notsent_lowat : net->ipv4.sysctl_tcp_notsent_lowat;
	__s32 room = sk->sk_sndbuf - sk->sk_wmem_queued, unsent = tcp->write_seq - tcp->snd_nxt;

	if (limit <= MAX_UNSENT && (__s32)limit - unsent < room)
		room = (__s32)limit - unsent;
	return room;
}

/* Bytes of which any message can be taken, with room for what the hook adds to as many. */
static __always_inline __u32 sending_room(const struct sock *sk)
{
	__s32 room = segment_room(sk) - SEND_OVERHEAD;

	return room < 0 ? 0 : room / 2;
}

/* The same of this message, of as many bytes as there are in it and some that are put between them. */
static __always_inline __u32 message_room(const struct sk_msg *kern, const struct sock *sk)
{
	__u32 elements = kern->sg.end - kern->sg.start;
	__s32 room;

	if (elements > MESSAGE_ELEMENTS)
		elements += MESSAGE_ELEMENTS;
	room = segment_room(sk) - (__s32)(elements + 3) * SEGMENT_OVERHEAD;
	return room < 0 ? 0 : room / 2;
}

/* How long a segment becomes (tcp_xmit_size_goal). */
static __always_inline __u32 segment_goal(const struct tcp_sock *tcp)
{
	return tcp->gso_segs > 1 ? tcp->gso_segs * tcp->mss_cache : tcp->mss_cache;
}

/* Whether the last segment, which has not been sent, takes so many bytes more, in so many fragments of their own. */
static __always_inline int joins_last(const struct sock *sk, const struct tcp_sock *tcp, __u32 size, __u32 fragments)
{
	const struct skb_shared_info *shared;
	const struct sk_buff *last;

	last = kernel_cast(struct sk_buff, sk->sk_write_queue.prev);
	shared = kernel_cast(struct skb_shared_info, last->head + last->end);
	return last->len + size <= segment_goal(tcp) && shared->nr_frags + fragments <= SEGMENT_FRAGMENTS;
}

/*
 * How many of `size` bytes, which are one element of the message or less, are surely taken. What the last segment takes
 * leaves room as long as it is less than there is, and then a new one takes the rest. (tcp_bpf_push sends each element
 * by itself, so that each may begin a segment.) `fragments`: that they need if they join the last segment.
 */
static __noinline __u32 sure_bytes(const struct sock *sk, __u32 size, __u32 fragments)
{
	const struct tcp_sock *tcp;
	__u32 goal, sure;
	__s32 room;

	if (!sk)
		return 0;
	sk = kernel_cast(struct sock, sk);
	tcp = kernel_cast(struct tcp_sock, sk);
	if (sk->sk_write_queue.qlen && joins_last(sk, tcp, size, fragments))
		return size;
	room = segment_room(sk);
	if (room <= 0)
		return 0;
	goal = segment_goal(tcp);
	sure = sk->sk_write_queue.qlen && (__u32)room < goal ? (__u32)room : goal;
	return size < sure ? size : sure;
}
