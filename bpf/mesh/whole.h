/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Where calls were denied, frames of headers are taken in as a whole, for each may have to be replaced by a longer one. A
 * server that writes such a frame in two parts is not told: its first byte, a zero in every frame that is replaced
 * and in whatever replaces it, goes out, and the rest of the first part waits for the second.
 */
#pragma once

#include "mesh/fitting.h"
#include "mesh/observe.h"

/* How much longer frames become at most, answers from 13 bytes to 91; requests only with paths beyond 200 bytes more. */
#define FRAME_GROWTH 8

/* A frame of headers is hardly longer. */
#define FRAMES_SIZE 512

/* Whether the first byte of a frame has gone out alone. */
static __always_inline int has_begun_frame(const struct reading *reading)
{
	const struct http2_direction *dir = &reading->halves[ROLE_CLIENT].direction;

	return dir->state == HTTP2_FRAME && dir->held_count;
}

/* How many bytes can be taken, whatever becomes of the frames in them. 0: that is not known of any. */
static __noinline __u32 rewritable_bytes(const struct reading *reading, __u32 role, const struct sock *sk, __u32 size)
{
	const struct http2_direction *dir;
	__u32 room, some;

	if (!reading || !sk)
		return 0;
	dir = &reading->halves[role & 1].direction;
	room = sending_room(kernel_cast(struct sock, sk)) / (FRAME_GROWTH / 2);
	if (room >= size || room >= WINDOW_SIZE)
		return room < size ? room : size;
	if (dir->state != HTTP2_FRAME || dir->held_count > 1 || dir->block_stream)
		return 0;
	some = size < FRAMES_SIZE ? size : FRAMES_SIZE;
	return surely_fits(sk, FRAME_GROWTH * some + reading->halves[ROLE_SERVER].held) ? some : 0;
}

/* Copies the first `count` bytes of the message to the beginning of the window. 0, or -1. */
static __noinline int copy_front(struct sk_msg_md *msg, struct scratch *scratch, __u32 count)
{
	if (!msg || !scratch || count > WINDOW_SIZE)
		return -1;
	scratch->pass.position = 0;
	scratch->pass.size = count;
	scratch->pass.want = count;
	scratch->base = 0;
	return fetch_msg(msg, scratch);
}

/* Where the pieces of an answer's frame are. */
static __noinline int move_answer(struct scratch *scratch, __u64 id, __u32 length, int keep)
{
	struct piece_key key = { .connection = id, .role = ROLE_SERVER };
	__u32 i;

	loop_below (i, WINDOW_SIZE / PIECE_SIZE) {
		if (i * PIECE_SIZE >= length)
			break;
		key.index = i;
		if (move_piece(scratch, &key, i * PIECE_SIZE, keep))
			return -1;
	}
	return 0;
}

/*
 * The message is the first part of a frame: its first byte goes out now, and the others wait where `keeps`; else they come
 * again at once. 0, or -1: it cannot be parted here.
 */
static __noinline int part_answer(struct sk_msg_md *msg, struct scratch *scratch, struct reading *reading, int keeps)
{
	struct half *half = &reading->halves[ROLE_SERVER];
	__u32 count = keeps ? msg->size : 1;

	if (half->direction.held_count || copy_front(msg, scratch, count) || scratch->pass.block.bytes[0])
		return -1;
	if (count > 1) {
		if (move_answer(scratch, reading->id, count, 1))
			return -1;
		if (bpf_msg_pop_data(msg, 1, count - 1, 0)) {
			count_error(HELPER_MSG_PUSH_DATA);
			return -1;
		}
		half->held = count - 1;
	}
	half->direction.held[0] = 0;
	half->direction.held_count = 1;
	scratch->changed = 1;
	return 0;
}

/* What has waited goes before the message. Returns how much that is, or -1. */
static __noinline int join_answer(struct sk_msg_md *msg, struct scratch *scratch, struct reading *reading)
{
	struct half *half = &reading->halves[ROLE_SERVER];
	__u32 held = at_most(half->held, WINDOW_SIZE), i;
	__u8 *data;

	if (move_answer(scratch, reading->id, held + 1, 0))
		return -1;
	if (bpf_msg_push_data(msg, 0, held, 0) || bpf_msg_pull_data(msg, 0, held, 0)) {
		count_error(HELPER_MSG_PUSH_DATA);
		return -1;
	}
	loop_below (i, WINDOW_SIZE) {
		if (i >= held)
			break;
		data = msg->data;
		data += masked(i, WINDOW_SIZE);
		if ((void *)(data + 1) > msg->data_end)
			return -1;
		*data = scratch->pass.block.bytes[masked(i + 1, HPACK_BUFFER_SIZE)];
	}
	drop_pieces(reading->id, ROLE_SERVER, held + 1);
	half->held = 0;
	return held;
}
