/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A denied call is changed where its header block stands as a whole, and what has reached the server cannot be changed
 * any more. So where requests are judged as they arrive, the part of a block that has come waits for the rest: it is cut
 * off its segment's end and put before the next one. In the end the socket gets every byte that TCP has counted; until
 * then they count as received and unread, as they are.
 */
#pragma once

#include "mesh/observe.h"

struct shift {
	struct __sk_buff *skb;
	__u32 left;
	__u16 grows;
	__u16 failed;
};

static long shift_piece(__u32 index, struct shift *shift)
{
	__u32 piece = shift->left < MAX_CUT_PIECE ? shift->left : MAX_CUT_PIECE;

	if (!piece)
		return 1;
	if (bpf_skb_adjust_room(shift->skb, shift->grows ? (int)piece : -(int)piece, 0, 0)) {
		shift->failed = 1;
		return 1;
	}
	shift->left -= piece;
	return 0;
}

/* Takes `size` bytes off the front, or puts as many there. 0, or -1 without memory for it: the helper copies. */
static __noinline int shift_front(struct __sk_buff *skb, __u32 size, __u32 grows)
{
	struct shift shift = { .skb = skb, .left = size, .grows = grows };

#ifdef ZH_FAIL_CUT
	return -1;
#endif
	bpf_loop(MAX_CUT_PIECES, shift_piece, &shift, 0);
	return shift.failed || shift.left ? -1 : 0;
}

/* Moves what is held, from its byte `from` on, between the beginning of block.bytes and its pieces. 0, or -1. */
static __noinline int move_held(struct scratch *scratch, __u64 id, __u32 from, __u32 length, int keep)
{
	struct piece_key key = { .connection = id, .role = ROLE_CLIENT };
	__u32 i;

	loop_below (i, HEADER_BLOCK_SIZE / PIECE_SIZE) {
		if (i * PIECE_SIZE >= length)
			break;
		if ((i + 1) * PIECE_SIZE <= from)
			continue;
		key.index = i;
		if (move_piece(scratch, &key, i * PIECE_SIZE, keep))
			return -1;
	}
	return 0;
}

/* Adds the segment's bytes from `at` to its end to what is held. 0, or -1. */
static __noinline int hold_bytes(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading, __u32 at)
{
	struct half *half = &reading->halves[ROLE_CLIENT];
	__u32 held = half->held, count = skb->len - at;

	if (held + count > MAX_BLOCK_SIZE || move_held(scratch, reading->id, held, held, 0))
		return -1;
	count = at_most(count, HEADER_BLOCK_SIZE);
	engine_opaque(count);
	if (!count || bpf_skb_load_bytes(skb, at, &scratch->pass.block.bytes[masked(held, HEADER_BLOCK_SIZE)], count)) {
		count_error(HELPER_SKB_LOAD_BYTES);
		return -1;
	}
	if (move_held(scratch, reading->id, held, held + count, 1))
		return -1;
	half->held = held + count;
	return 0;
}

/* Puts what is held before the segment. 0, or -1. */
static __noinline int put_back(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading)
{
	struct half *half = &reading->halves[ROLE_CLIENT];
	__u32 held = at_most(half->held, HEADER_BLOCK_SIZE);

	if (move_held(scratch, reading->id, 0, held, 0) || shift_front(skb, held, 1))
		return -1;
	engine_opaque(held);
	if (!held || bpf_skb_store_bytes(skb, 0, scratch->pass.block.bytes, held, 0)) {
		count_error(HELPER_SKB_STORE_BYTES);
		return -1;
	}
	drop_pieces(reading->id, ROLE_CLIENT, held);
	half->held = 0;
	return 0;
}

/* The segment's bytes from `at` on wait. 1: nothing is left of it; 0; or -1. */
static __noinline int hold_back(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading, __u32 at)
{
	if (hold_bytes(skb, scratch, reading, at))
		return -1;
	if (!at)
		return shift_front(skb, skb->len, 0) ? -1 : 1;
	if (bpf_skb_change_tail(skb, at, 0)) {
		count_error(HELPER_SKB_CHANGE_TAIL);
		return -1;
	}
	return 0;
}

/* What is held goes before the segment, if that may end the first frame of its block. Returns as hold_back. */
static __always_inline int take_held(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading)
{
	const struct half *half = &reading->halves[ROLE_CLIENT];

	if (!reading->off && half->held + skb->len < half->direction.remaining)
		return hold_back(skb, scratch, reading, 0);
	return put_back(skb, scratch, reading);
}
