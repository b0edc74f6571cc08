/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * How much of a message TCP takes for certain (tcp_sendmsg_locked): it asks for room when it begins a segment, and never
 * in the middle of one. Of what it does not take, the program hears, and sends it again.
 */
#pragma once

#include "shared/kernel.h"

/* What a new segment adds to the send buffer's account beside its bytes, with room for one that is not full. */
#define SEND_OVERHEAD 16384

/* The same of a segment that is begun for a small piece. */
#define SMALL_OVERHEAD 4096

/* Fragments that a segment may have for certain, with room for the piece's. */
#define SURE_FRAGMENTS 12

/* Bytes of which any message can be taken, with room for what the hook adds to as many. */
static __always_inline __u32 sending_room(const struct sock *sk)
{
	__s32 room = sk->sk_sndbuf - SEND_OVERHEAD - sk->sk_wmem_queued;

	return room < 0 ? 0 : room / 2;
}

/* Whether the last segment, which has not been sent, takes so many bytes more. */
static __always_inline int joins_last(const struct sock *sk, __u32 size)
{
	const struct tcp_sock *tcp = kernel_cast(struct tcp_sock, sk);
	const struct skb_shared_info *shared;
	const struct sk_buff *last;

	if (!sk->sk_write_queue.qlen)
		return 0;
	last = kernel_cast(struct sk_buff, sk->sk_write_queue.prev);
	shared = kernel_cast(struct skb_shared_info, last->head + last->end);
	return last->len + size <= (__u32)tcp->gso_segs * tcp->mss_cache && shared->nr_frags < SURE_FRAGMENTS;
}

/* Whether a piece of so few bytes is taken as a whole, although there is not much room. */
static __noinline int surely_fits(const struct sock *sk, __u32 size)
{
	const struct tcp_sock *tcp;

	if (!sk)
		return 0;
	sk = kernel_cast(struct sock, sk);
	tcp = kernel_cast(struct tcp_sock, sk);
	if (tcp->notsent_lowat)
		return 0;
	return (__s32)(sk->sk_sndbuf - sk->sk_wmem_queued - SMALL_OVERHEAD) >= (__s32)size || joins_last(sk, size);
}
