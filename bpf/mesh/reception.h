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
#include "mesh/handing.h"
#include "mesh/holding.h"
#include "mesh/leads.h"

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

/*
 * Pages that a sender on this node shares with its segment (sendfile, splice, vmsplice) can change between this look at them
 * and the program's, so what is judged is copied first. Where there is no memory for that, what is not said to be shared
 * may go on. 0, or -1.
 */
static __always_inline int make_private(struct __sk_buff *skb)
{
	const struct sk_buff *kern = bpf_cast_to_kern_ctx(skb);
	const struct skb_shared_info *shared;

	if (likely(!kern->data_len) || likely(!bpf_skb_pull_data(skb, skb->len)))
		return 0;
	count_error(HELPER_SKB_PULL_DATA);
	kern = bpf_cast_to_kern_ctx(skb);
	shared = kernel_cast(struct skb_shared_info, (__u64)kern->head + kern->end);
	return shared->flags & SKBFL_SHARED_FRAG ? -1 : 0;
}

/* Reads the segment, whose first byte is `seq`. 0; 1: nothing is left of it; -1: there is a gap in the stream now. */
static __always_inline int read_segment(struct __sk_buff *skb, struct reception *reception, struct reading *reading,
				   struct scratch *scratch, __u32 seq)
{
	__u32 role = (reception->role ^ 1) & 1;
	int result;

	if (unlikely(reading->judges && role == ROLE_CLIENT) && make_private(skb))
		return -1;
	scratch->from = 0;
	if (reception->reads == READS_HANDED && (__s32)(reception->read_from - seq) > 0)
		scratch->from = reception->read_from - seq;
	if (scratch->from >= skb->len)
		return 0;
	if (unlikely(role == ROLE_CLIENT && reading->halves[ROLE_CLIENT].held)) {
		result = take_held(skb, scratch, reading);
		if (result)
			return result;
	}
	if (reading->off)
		return 0;
	scratch->firm = 0;
	scratch->whole = 0;
	read_message(reading, scratch, role, skb->len, skb, fetch_skb, edit_skb, rewrite_skb);
	if (unlikely(!reading->off && scratch->cut != NO_FRAME))
		return hold_back(skb, scratch, reading, scratch->cut);
	return 0;
}

/* Whether the segment, whose first byte is `seq`, is what the sender's hook was shown, or may pass all the same. */
static __noinline int was_shown(struct __sk_buff *skb, const struct reception *reception, struct reading *reading, __u32 seq,
				const struct sock *sk)
{
	if (!reading || !reception)
		return 0;
	if (likely(reception->reads == READS_HANDED || (__s32)(seq + skb->len - READ_ONCE(reading->shown_to)) <= 0) &&
	    likely(check_leads(skb, reading, seq)))
		return 1;
	stop_reading(reading, REASON_UNSEEN);
	return may_pass_unread(bpf_map_lookup_elem(&connections, &reading->id), reading->id, sk);
}

/* What no sender hook has seen, from `seq` on. -1: it may not pass, or nothing is left of it. */
static __always_inline int read_received(struct __sk_buff *skb, struct reception *reception, __u32 seq,
					 const struct sock *sk)
{
	__u64 id = reception->connection;
	struct reading *reading = bpf_map_lookup_elem(&readings, &id);
	__u32 end = seq + skb->len;
	struct connection *conn;
	struct scratch *scratch;
	int result;

	if (!reading || (reading->off && !reading->halves[ROLE_CLIENT].held))
		return 0;
	if (reception->reads != READS_ALL && !was_shown(skb, reception, reading, seq, sk))
		return -1;
	if (likely(reception->reads == READS_SHOWN))
		return 0;
	scratch = acquire_scratch();
	if (!scratch) {
		stop_reading(reading, REASON_NO_SCRATCH);
		result = reading->halves[ROLE_CLIENT].held ? -1 : 0;
	} else {
		result = read_segment(skb, reception, reading, scratch, seq);
		release_scratch(scratch);
	}
	if (unlikely(result < 0)) {
		stop_reading(reading, REASON_HELPER_FAILED);
		conn = bpf_map_lookup_elem(&connections, &id);
		break_connection(conn, sk, REASON_HELPER_FAILED);
		return -1;
	}
	if (reception->reads == READS_HANDED)
		report_read(reception, end);
	if (likely(!reading->off || !reading->judges))
		return -result;
	conn = bpf_map_lookup_elem(&connections, &id);
	return may_pass_unread(conn, id, sk) ? -result : -1;
}

/* What comes next, from `seq` on. Its number counts as passed on when it has been looked at. */
static __always_inline int read_on(struct __sk_buff *skb, struct reception *reception, __u32 seq, const struct sock *sk)
{
	__u32 end = seq + skb->len;
	int result = SK_PASS;

	if (reception->reads && read_received(skb, reception, seq, sk))
		result = SK_DROP;
	WRITE_ONCE(reception->next_seq, end);
	return result;
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
	if (likely((__s32)overlap <= 0))
		return read_on(skb, reception, segment->seq, kern->sk);
#ifdef ZH_BREAK_OVERLAP
	return SK_PASS;
#endif
	if (overlap > len)
		overlap = len;
	if (shift_front(skb, overlap, 0)) {
		break_off(reception, kern->sk);
		return SK_DROP;
	}
	if (overlap == len)
		return SK_DROP;
	return read_on(skb, reception, reception->next_seq, kern->sk);
}
