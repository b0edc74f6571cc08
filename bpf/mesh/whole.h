/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Where calls are judged, frames of headers are taken in as a whole, for each may have to be changed or replaced by a longer
 * one. A program that writes such a frame in two parts is not told: its first byte, a zero in every frame that is
 * replaced and in whatever replaces it, goes out, and the rest of the first part waits for the second.
 */
#pragma once

#include "mesh/fitting.h"
#include "mesh/observe.h"

/* How much longer a message becomes at most: answers' frames from 13 bytes to 91; requests' only with paths beyond 200
 * bytes more. */
#define FRAME_GROWTH 8

/* An answer's frame becomes so much longer at most, by a denial and a GOAWAY; a request's by a path. */
#define ANSWER_GROWTH 160

/* Bytes after the first part of a frame that surely end it, or nearly so. */
#define REST_SIZE 512

static __always_inline __u32 frame_growth(const struct reading *reading, __u32 role)
{
	if (!may_rewrite(reading, role))
		return 0;
	return role == ROLE_CLIENT ? reading->halves[ROLE_CLIENT].altered : ANSWER_GROWTH;
}

/* The message's first element, which has at least `count` bytes then. 0: it cannot. */
static __always_inline __u32 first_element(struct sk_msg_md *msg, __u32 count)
{
	if ((long)msg->data_end - (long)msg->data < (long)count && bpf_msg_pull_data(msg, 0, count, 0)) {
		count_error(HELPER_MSG_PULL_DATA);
		return 0;
	}
	return (long)msg->data_end - (long)msg->data;
}

/* Fragments of the first `size` bytes, which are one element. */
static __always_inline __u32 fragments_of(struct sk_msg_md *msg, __u32 size)
{
	const struct sk_msg *kern = bpf_cast_to_kern_ctx(msg);
	__u64 data = 0;

	/* Linux 7 has no arithmetic for what is loaded from a void pointer's field. */
	bpf_probe_read_kernel(&data, sizeof(data), &kern->data);
	return 1 + ((data & (FRAGMENT_SIZE - 1)) + size - 1) / FRAGMENT_SIZE;
}

/* Moves the message's first `size` bytes to a page of their own, so that they follow nothing that has been sent. */
static __always_inline int move_away(struct sk_msg_md *msg, __u32 size)
{
	if (!bpf_msg_push_data(msg, 1, 1, 0) && !bpf_msg_pop_data(msg, 1, 1, 0) && !bpf_msg_pull_data(msg, 0, size, 0))
		return 0;
	count_error(HELPER_MSG_PUSH_DATA);
	return -1;
}

/* Of a frame that the message begins with, its first byte gone before if `lead`: as certain_bytes. */
static __always_inline __u32 certain_frame(struct sk_msg_md *msg, const struct sock *sk, __u32 growth, __u32 lead)
{
	__u32 size = msg->size, header = FRAME_HEADER_SIZE - lead, element, length, head;
	__u64 word;

	element = first_element(msg, at_most(size, FRAME_HEADER_SIZE));
	if (size < header || !element)
		return element && sure_bytes(sk, size, fragments_of(msg, size)) == size ? size : 0;
	bpf_probe_read_kernel(&word, sizeof(word), msg->data);
	word = __builtin_bswap64(word);
	if (lead)
		word >>= 8;
	length = header + (word >> 40);
	head = word >> 24;
	if ((head >> 8 & 0xff) != FRAME_HEADERS) {
		length = at_most(length, element);
		length = sure_bytes(sk, length, fragments_of(msg, length));
		return length < header ? 0 : length;
	}
	if ((head & (FLAG_PADDED | FLAG_PRIORITY | FLAG_END_HEADERS)) != FLAG_END_HEADERS || length > WINDOW_SIZE)
		return 0;
	if (length > size) /* its first byte alone will go */
		return sure_bytes(sk, 1, 1) ? size : 0;
	/* As long as it may be. The engine has it as one element, or makes it one. */
	if (first_element(msg, length) && length + growth <= FRAGMENT_SIZE &&
	    sure_bytes(sk, length + growth, lead ? 1 : fragments_of(msg, length)) == length + growth)
		return length;
	/* Its first byte goes alone. It is to come again, rather than to be taken and the others not. */
	if (!lead && segment_room(sk) <= 0 && !move_away(msg, length) && sure_bytes(sk, length + growth, 1) == length + growth)
		return length;
	return 0;
}

/* How many bytes can be taken for certain, whatever becomes of the frames of headers in them. 0: that is not known. */
__noinline __u32 certain_bytes(struct sk_msg_md *msg, const struct reading *reading, __u32 role)
{
	__u32 room, size, growth;
	const struct sk_msg *kern;
	const struct half *half;
	const struct sock *sk;

	if (!msg || !reading)
		return 0;
	kern = bpf_cast_to_kern_ctx(msg);
	sk = kern->sk;
	role &= 1;
	half = &reading->halves[role];
	size = msg->size;
	growth = frame_growth(reading, role);
	room = message_room(kern, sk);
	if (growth)
		room /= FRAME_GROWTH / 2;
	if (room >= size + half->held)
		return size;
	if (room >= WINDOW_SIZE + half->held)
		return room - half->held;
	if (half->held) {
		size = at_most(size, REST_SIZE);
		growth += half->held + size + 3 * SEGMENT_OVERHEAD;
		return segment_room(sk) > (__s32)growth ? size : 0;
	}
	switch (half->direction.state) {
	case HTTP2_FRAME:
		if (half->direction.held_count > 1 || half->direction.block_stream)
			return 0;
		return certain_frame(msg, sk, growth, half->direction.held_count);
	case HTTP2_PRIORITY:
		if (half->direction.block_stream)
			return 0;
		fallthrough;
	case HTTP2_DATA:
	case HTTP2_SKIP:
	case HTTP2_SETTINGS:
		size = at_most(half->direction.remaining, at_most(first_element(msg, 1), size));
		return sure_bytes(sk, size, fragments_of(msg, size));
	}
	return 0;
}

/*
 * Where it is not known how much TCP takes: the length of the frame of headers of which the first byte has gone. Single bytes
 * of it go out then, as if they were given back (mesh/sent.h). 0: there is none; NO_FRAME: what there is cannot be read
 * as a whole.
 */
__noinline __u32 rest_of_headers(struct sk_msg_md *msg, const struct reading *reading, __u32 role)
{
	const struct http2_direction *dir;
	__u32 length, element, count, type;
	const struct half *half;
	__u64 word;

	if (!msg || !reading)
		return 0;
	half = &reading->halves[role & 1];
	dir = &half->direction;
	count = dir->held_count;
	if (dir->state == HTTP2_BLOCK || half->held)
		return NO_FRAME;
	if (dir->state != HTTP2_FRAME || !count)
		return 0;
	element = first_element(msg, at_most(msg->size, sizeof(word)));
	bpf_probe_read_kernel(&word, sizeof(word), msg->data);
	word = __builtin_bswap64(word);
	if (count > FRAME_TYPE_AT)
		type = dir->held[FRAME_TYPE_AT];
	else if (element > FRAME_TYPE_AT - count)
		type = word >> (56 - 8 * (FRAME_TYPE_AT - count)) & 0xff;
	else
		return NO_FRAME;
	if (type != FRAME_HEADERS)
		return 0;
	if (count > 1 || dir->held[0] || element < sizeof(word))
		return NO_FRAME;
	length = FRAME_HEADER_SIZE - 1 + (word >> 48);
	return length <= msg->size && length < WINDOW_SIZE ? length : NO_FRAME;
}

/* Keeps what the pass has changed of the last `count` bytes that were read, for they may be written again. */
static __always_inline void keep_edit(struct half *half, const struct http2_pass *pass, __u32 count)
{
	half->edit_distance = count - pass->edit_position;
	half->edit_count = pass->edit_count;
	half->edit_values[0] = pass->edit_value;
	half->edit_values[1] = pass->edit_second;
}

/* Changes again what was changed of the message's first `count` bytes; what was read ends `left` bytes from there. 0, or -1. */
__noinline int repeat_edit(struct sk_msg_md *msg, const struct reading *reading, __u32 role, __u32 left, __u32 count)
{
	const struct half *half;
	__u32 at, i;
	__u8 *data;

	if (!msg || !reading)
		return -1;
	half = &reading->halves[role & 1];
	for (i = 0; i < sizeof(half->edit_values); i++) {
		at = left - half->edit_distance + i;
		if (i >= half->edit_count || left + i < half->edit_distance || at >= count)
			continue;
		if (bpf_msg_pull_data(msg, at, at + 1, 0)) {
			count_error(HELPER_MSG_PULL_DATA);
			return -1;
		}
		data = msg->data;
		if ((void *)(data + 1) > msg->data_end)
			return -1;
		*data = half->edit_values[i];
	}
	return 0;
}

/*
 * The message begins with `left` bytes that were read before. Returns for how many the verdict is; NO_FRAME: for one, of which
 * it is not certain that it is taken; 0: the same, and it may not be written once more as it is.
 */
__noinline __u32 read_before(struct sk_msg_md *msg, const struct reading *reading, __u32 role, __u32 left)
{
	const struct half *half;
	const struct sk_msg *kern;
	const struct sock *sk;
	__u32 count;

	if (!msg || !reading)
		return 0;
	kern = bpf_cast_to_kern_ctx(msg);
	sk = kern->sk;
	half = &reading->halves[role & 1];
	count = at_most(at_most(left, first_element(msg, 1)), msg->size);
	/* Without room for a segment, what was before them has just joined the last one, and they follow it. */
	count = sure_bytes(sk, count, segment_room(sk) > 0 ? fragments_of(msg, count) : 0);
	if (count)
		return count;
	return half->edit_count && left - half->edit_distance < half->edit_count ? 0 : NO_FRAME;
}

/* Copies `count` bytes of the message, from `at` on, to the beginning of the window. 0, or -1. */
static __noinline int copy_part(struct sk_msg_md *msg, struct scratch *scratch, __u32 at, __u32 count)
{
	if (!msg || !scratch || count > WINDOW_SIZE)
		return -1;
	scratch->pass.position = at;
	scratch->pass.size = at + count;
	scratch->pass.want = count;
	return fetch_msg(msg, scratch);
}

/* Where the pieces of a frame's first part are. */
static __noinline int move_part(struct scratch *scratch, __u64 id, __u32 role, __u32 length, int keep)
{
	struct piece_key key = { .connection = id, .role = role };
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
 * The message ends with the first part of a frame, from the cut on: its first byte goes out now, and the others wait where
 * `keeps`; else they come again at once. 0, or -1: it cannot be parted here.
 */
__noinline int part_frame(struct sk_msg_md *msg, struct scratch *scratch, struct reading *reading, __u32 role,
				 int keeps)
{
	struct half *half;
	__u32 count, at;

	if (!msg || !scratch || !reading)
		return -1;
	role &= 1;
	half = &reading->halves[role];
	at = scratch->cut;
	count = keeps ? msg->size - at : 1;
	if (half->direction.state != HTTP2_FRAME || half->direction.held_count || copy_part(msg, scratch, at, count) ||
	    scratch->pass.block.bytes[0])
		return -1;
	if (count > 1) {
		if (move_part(scratch, reading->id, role, count, 1))
			return -1;
		if (bpf_msg_pop_data(msg, at + 1, count - 1, 0)) {
			count_error(HELPER_MSG_PUSH_DATA);
			return -1;
		}
		half->held = count - 1;
		scratch->changed = 1;
	}
	half->direction.held[0] = 0;
	half->direction.held_count = 1;
	return 0;
}

/* What has waited goes before the message. Returns how much that is, or -1. */
__noinline int join_frame(struct sk_msg_md *msg, struct scratch *scratch, struct reading *reading, __u32 role)
{
	struct half *half;
	__u32 held, i;
	__u8 *data;

	if (!msg || !scratch || !reading)
		return -1;
	role &= 1;
	half = &reading->halves[role];
	held = at_most(half->held, WINDOW_SIZE);
	if (move_part(scratch, reading->id, role, held + 1, 0))
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
	drop_pieces(reading->id, role, held + 1);
	half->held = 0;
	return held;
}
