/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What reaches a member by TCP. Passing it on puts it into the very queue that redirected bytes take, which is what
 * keeps the order when the two mix, and what makes FIONREAD right.
 *
 * A segment may begin with bytes that came before: a retransmission that carries new bytes too, or a retransmission
 * that the backlog has joined with what follows it (tcp_add_backlog). tcp_recvmsg() skips such bytes, tcp_read_skb()
 * does not, so the reader would get them twice; here they are cut off.
 */
#pragma once

#include "mesh/enforcing.h"
#include "mesh/observe.h"

struct cut {
	struct __sk_buff *skb;
	__u32 left;
	__u32 failed;
};

static long cut_piece(__u32 index, struct cut *cut)
{
	__u32 piece = cut->left < MAX_CUT_PIECE ? cut->left : MAX_CUT_PIECE;

	if (!piece)
		return 1;
	if (bpf_skb_adjust_room(cut->skb, -(int)piece, 0, 0)) {
		cut->failed = 1;
		return 1;
	}
	cut->left -= piece;
	return 0;
}

/* Takes `size` bytes off the front. 0, or -1 without memory for it: the helper copies what it takes off. */
static __noinline int cut_front(struct __sk_buff *skb, __u32 size)
{
	struct cut cut = { .skb = skb, .left = size };

#ifdef ZH_FAIL_CUT
	return -1;
#endif
	bpf_loop(MAX_CUT_PIECES, cut_piece, &cut, 0);
	return cut.failed || cut.left ? -1 : 0;
}

/* The stream cannot go on without a wrong byte. */
static __noinline int break_off(struct reception *reception, const struct sock *sk)
{
	struct connection *conn;
	__u64 id;

	if (!reception)
		return 0;
	id = reception->connection;
	reception->broken = REASON_OVERLAP;
	count_error(HELPER_SKB_ADJUST_ROOM);
	conn = bpf_map_lookup_elem(&connections, &id);
	return break_connection(conn, sk, REASON_OVERLAP);
}

/* What no sender hook has seen: `size` bytes of the peer's. -1: they may not pass. */
static __always_inline int read_received(struct __sk_buff *skb, const struct reception *reception, __u32 size,
					 const struct sock *sk)
{
	__u64 id = reception->connection;
	struct reading *reading = bpf_map_lookup_elem(&readings, &id);
	__u32 role = (reception->role ^ 1) & 1;
	struct connection *conn;
	struct scratch *scratch;

	if (!reading || reading->off)
		return 0;
	scratch = acquire_scratch();
	if (!scratch) {
		stop_reading(reading, REASON_NO_SCRATCH);
	} else {
		scratch->firm = 1;
		scratch->received = 1;
		read_message(reading, scratch, role, size, skb, fetch_skb, edit_skb, rewrite_skb);
		release_scratch(scratch);
	}
	if (likely(!reading->off || !reading->judges))
		return 0;
	conn = bpf_map_lookup_elem(&connections, &id);
	return may_pass_unread(conn, id, sk) ? 0 : -1;
}

/* The receiver hook: one segment, or several that were joined, under the receiver's lock. */
static __always_inline int receive_segment(struct __sk_buff *skb)
{
	const struct sk_buff *kern = bpf_cast_to_kern_ctx(skb);
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct reception *reception = bpf_map_lookup_elem(&receptions, &cookie);
	const struct tcp_skb_cb *segment;
	__u32 len = skb->len, overlap;

	if (!reception || !len)
		return SK_PASS;
	if (unlikely(reception->broken)) {
		if (wants_reset(reception->broken))
			request_reset(kern->sk, reception->broken);
		return SK_DROP;
	}
	segment = kernel_cast(struct tcp_skb_cb, kern->cb);
	overlap = reception->next_seq - segment->seq;
	if (likely((__s32)overlap <= 0)) {
		reception->next_seq = segment->seq + len;
		if (reception->reads && read_received(skb, reception, len, kern->sk))
			return SK_DROP;
		return SK_PASS;
	}
#ifdef ZH_BREAK_OVERLAP
	return SK_PASS;
#endif
	if (overlap > len)
		overlap = len;
	if (cut_front(skb, overlap)) {
		break_off(reception, kern->sk);
		return SK_DROP;
	}
	if (overlap == len)
		return SK_DROP;
	reception->next_seq += len - overlap;
	if (reception->reads && read_received(skb, reception, len - overlap, kern->sk))
		return SK_DROP;
	return SK_PASS;
}
