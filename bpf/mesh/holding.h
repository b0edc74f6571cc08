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

/* Adds the segment's bytes from `at` to its end to what is held. 0, or -1. */
static __noinline int hold_bytes(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading, __u32 at)
{
	struct piece_key key = { .connection = reading->id, .role = ROLE_CLIENT };
	struct half *half = &reading->halves[ROLE_CLIENT];
	__u32 i, to, offset, count, held = half->held, end = held + skb->len - at;

	if (end > MAX_BLOCK_SIZE)
		return -1;
	loop_below (i, HEADER_BLOCK_SIZE / PIECE_SIZE) {
		key.index = held / PIECE_SIZE + i;
		to = i ? key.index * PIECE_SIZE : held;
		if (to >= end)
			break;
		offset = masked(to, PIECE_SIZE);
		if (offset && move_piece(scratch, &key, 0, 0))
			return -1;
		count = at_most(at_most(PIECE_SIZE - offset, end - to), PIECE_SIZE);
		engine_opaque(count);
		if (!count || bpf_skb_load_bytes(skb, at + to - held, &scratch->pass.block.bytes[offset], count)) {
			count_error(HELPER_SKB_LOAD_BYTES);
			return -1;
		}
		if (move_piece(scratch, &key, 0, 1))
			return -1;
	}
	half->held = end;
	return 0;
}

/* Puts what is held before the segment. 0, or -1. */
__noinline int put_back(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading)
{
	struct piece_key key = { .role = ROLE_CLIENT };
	struct half *half;
	__u32 held, i, count;

	if (!skb || !scratch || !reading)
		return -1;
	key.connection = reading->id;
	half = &reading->halves[ROLE_CLIENT];
	held = half->held;

	if (shift_front(skb, held, 1))
		return -1;
	loop_below (i, HEADER_BLOCK_SIZE / PIECE_SIZE) {
		if (i * PIECE_SIZE >= held)
			break;
		key.index = i;
		if (move_piece(scratch, &key, 0, 0))
			return -1;
		bpf_map_delete_elem(&pieces, &key);
		count = at_most(held - i * PIECE_SIZE, PIECE_SIZE);
		engine_opaque(count);
		if (!count || bpf_skb_store_bytes(skb, i * PIECE_SIZE, scratch->pass.block.bytes, count, 0)) {
			count_error(HELPER_SKB_STORE_BYTES);
			return -1;
		}
	}
	half->held = 0;
	return 0;
}

/* The segment ends at `at`: bpf_skb_change_tail makes none so long. So its bytes move towards its end, and its front goes. */
static __noinline int move_to_end(struct __sk_buff *skb, struct scratch *scratch, __u32 at)
{
	__u8 *bytes = scratch->pass.block.bytes;
	__u32 i, end, count, by = skb->len - at;

	loop_below (i, MAX_SEGMENT / WINDOW_SIZE) {
		if (i * WINDOW_SIZE >= at)
			break;
		end = at - i * WINDOW_SIZE;
		count = at_most(end, WINDOW_SIZE);
		engine_opaque(count);
		if (!count || bpf_skb_load_bytes(skb, end - count, bytes, count) ||
		    bpf_skb_store_bytes(skb, end - count + by, bytes, count, 0)) {
			count_error(HELPER_SKB_STORE_BYTES);
			return -1;
		}
	}
	return shift_front(skb, by, 0);
}

/* The segment's bytes from `at` on wait. 1: nothing is left of it; 0; or -1. */
__noinline int hold_back(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading, __u32 at)
{
	if (!skb || !scratch || !reading)
		return -1;
	if (hold_bytes(skb, scratch, reading, at))
		return -1;
	if (!at)
		return shift_front(skb, skb->len, 0) ? -1 : 1;
	if (at > MAX_TAIL_CHANGE)
		return move_to_end(skb, scratch, at);
	if (bpf_skb_change_tail(skb, at, 0)) {
		count_error(HELPER_SKB_CHANGE_TAIL);
		return -1;
	}
	return 0;
}

/* What is held goes before the segment, if that may end the first frame of its block; else both wait. Returns as above. */
static __always_inline int take_held(struct __sk_buff *skb, struct scratch *scratch, struct reading *reading)
{
	const struct half *half = &reading->halves[ROLE_CLIENT];

	if (reading->off || half->held + skb->len >= half->direction.remaining)
		return put_back(skb, scratch, reading);
	return hold_back(skb, scratch, reading, 0);
}
