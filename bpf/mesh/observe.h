/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* One pass of the engine over one message: what both hooks have in common. */
#pragma once

#include "mesh/judged.h"

/* Of a message that is looked at: enough for a call's headers and the beginning of its message. */
#define LOOK_SIZE 512

/* More steps than the longest message can need, a frame header and a payload each. */
#define MAX_STEPS (1 << 20)

/* Keeps the PIECE_SIZE bytes at `at` of block.bytes as the piece, or gets them back. 0, or -1: it is missing. */
static __noinline int move_piece(struct scratch *scratch, struct piece_key *key, __u32 at, int keep)
{
	__u8 *part = &scratch->pass.block.bytes[at_most(at, HPACK_BUFFER_SIZE - PIECE_SIZE)];
	struct piece *piece;

	if (keep) {
		if (!bpf_map_update_elem(&pieces, key, part, BPF_ANY))
			return 0;
		count_error(HELPER_MAP_UPDATE);
		return -1;
	}
	piece = bpf_map_lookup_elem(&pieces, key);
	if (!piece)
		return -1;
	copy_bytes(part, PIECE_SIZE, piece);
	return 0;
}

/* Moves a partial header block from the assembly to its pieces, or back. Returns 0, or -1 when a piece is missing. */
__noinline int move_pieces(struct scratch *scratch, __u64 id, __u32 role, __u32 length, int keep)
{
	struct piece_key key = { .connection = id, .role = role };
	__u32 i;

	if (!scratch)
		return -1;
	loop_below (i, HEADER_BLOCK_SIZE / PIECE_SIZE) {
		if (i * PIECE_SIZE >= length)
			break;
		key.index = i;
		if (move_piece(scratch, &key, ASSEMBLY + i * PIECE_SIZE, keep))
			return -1;
	}
	return 0;
}

static __noinline int drop_pieces(__u64 id, __u32 role, __u32 length)
{
	struct piece_key key = { .connection = id, .role = role };
	__u32 i;

	loop_below (i, HEADER_BLOCK_SIZE / PIECE_SIZE) {
		if (i * PIECE_SIZE >= length)
			break;
		key.index = i;
		bpf_map_delete_elem(&pieces, &key);
	}
	return 0;
}

/* What follows from a step of the engine. Returns an event that the caller has to see to, or a negated reason. */
static __always_inline int follow_step(struct reading *reading, struct scratch *scratch, __u32 role, int event)
{
	struct counters *count;
	int reason;

	switch (event) {
	case EVENT_DATA:
		return on_data(reading, scratch, role);
	case EVENT_HEADERS:
		/* The caller's, whose stack is less deep. */
		if (unlikely(reading->judges) && (role == ROLE_CLIENT || reading->denials))
			return EVENT_HEADERS;
		fallthrough;
	case EVENT_PROMISE:
		reason = read_block(reading, scratch, role);
		if (unlikely(reason))
			return reason;
		if (event == EVENT_HEADERS)
			on_headers(reading, scratch, role);
		return EVENT_NONE;
	case EVENT_RESET:
		return on_reset(reading, scratch, role);
	case EVENT_GOAWAY:
		count = this_cpu_counters();
		if (count)
			__sync_fetch_and_add(&count->goaways, 1);
		return EVENT_NONE;
	}
	return event;
}

/*
 * Frames of the usual form that are taken before anything else is looked at. Where the kernel mitigates what processors
 * speculate of returns, a call costs what ten instructions do.
 */
#define QUICK_STEPS 2

/* Steps of the engine. Returns an event that the caller has to see to, or a negated reason. */
__noinline int take_steps(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct http2_direction *dir;
	int event;
	__u32 i;

	if (!reading || !scratch)
		return EVENT_END;
	role &= 1;
	dir = &reading->halves[role].direction;
	for (i = 0; i < QUICK_STEPS; i++) {
		if (dir->state != HTTP2_FRAME)
			break;
		event = http2_quick(dir, &scratch->pass);
		if (event == EVENT_NONE || event == EVENT_END)
			break;
		event = follow_step(reading, scratch, role, event);
		if (event != EVENT_NONE)
			return event;
	}
	event = http2_step(dir, &scratch->pass);
	return follow_step(reading, scratch, role, event);
}

/* Makes the scratch ready for a message of `size` bytes. 0, or a reason. */
static __always_inline int begin_pass(struct reading *reading, struct scratch *scratch, __u32 role,
				      __u32 size)
{
	struct http2_direction *dir = &reading->halves[role].direction;
	struct http2_pass *pass = &scratch->pass;

	pass->size = size;
	pass->position = scratch->from;
	pass->start = 0;
	pass->filled = 0;
	pass->mark.position = NO_FRAME;
	pass->whole = scratch->whole;
	scratch->lead = dir->state == HTTP2_FRAME && dir->held_count == 1;
	scratch->base = 0;
	scratch->now = 0;
	scratch->changed = 0;
	scratch->cut = NO_FRAME;
	scratch->goaway = 0;
	if (unlikely(dir->block_length) && move_pieces(scratch, reading->id, role, dir->block_length, 0))
		return REASON_HELPER_FAILED;
	return 0;
}

/* After the last step: keeps what has come of a header block, forgets the pieces of one that is whole. */
static __always_inline int end_pass(struct reading *reading, struct scratch *scratch, __u32 role,
				    __u32 before)
{
	__u32 length = reading->halves[role].direction.block_length;

	if (unlikely(before > length))
		drop_pieces(reading->id, role, before);
	/* Also when as much is there as before: it may be of the next block. */
	if (unlikely(length) && move_pieces(scratch, reading->id, role, length, 1))
		return REASON_HELPER_FAILED;
	return 0;
}

/* The direction turned out not to be HTTP/2, or was malformed. */
static __always_inline void give_up(struct reading *reading, __u32 role, __u32 reason)
{
	if (reason == REASON_HTTP1)
		recognise(reading, SPEAKS_HTTP1);
	else if (reason == REASON_TLS)
		recognise(reading, SPEAKS_TLS);
	else if (reason == REASON_NOT_HTTP)
		recognise(reading, SPEAKS_OTHER);
	stop_reading(reading, reason);
}

/*
 * Reads a message of the direction that `role` sends. `fetch(context, scratch)` fills the window from the position on,
 * `edit(context, scratch)` writes bytes of the message, `rewrite(context, scratch, reading)` exchanges a frame for another; all
 * return 0, or -1. Where calls are judged, scratch->cut says from where on the message is to be read once more, with what
 * comes after it: the part of a header block, or of an answer's frame, that it ends with.
 */
#define read_message(reading, scratch, role, size, context, fetch, edit, rewrite)                                 \
	({                                                                                                            \
		struct http2_direction *__dir = &(reading)->halves[role].direction;                                         \
		__u32 __before = __dir->block_length, __i;                                                            \
		int __event = -begin_pass(reading, scratch, role, size);                                          \
		if (unlikely((reading)->judges))                                                                      \
			refresh_policies(reading, scratch);                                                           \
		loop_below (__i, MAX_STEPS) {                                                                         \
			if (__event < 0)                                                                              \
				break;                                                                                \
			__event = take_steps(reading, scratch, role);                                                 \
			if (__event == EVENT_END || __event == EVENT_CUT)                                             \
				break;                                                                                \
			if (__event == EVENT_MORE && fetch(context, scratch))                                         \
				__event = -REASON_HELPER_FAILED;                                                      \
			if (unlikely(__event == EVENT_HEADERS))                                                       \
				__event = (role) == ROLE_CLIENT ? read_request(reading, scratch) :                    \
								  read_answer(reading, scratch);                      \
			if (__event == EVENT_EDIT && edit(context, scratch))                                          \
				__event = -REASON_HELPER_FAILED;                                                      \
			if (__event == EVENT_REWRITE && rewrite(context, scratch, reading))                           \
				__event = -REASON_CANNOT_REFUSE;                                                      \
		}                                                                                                     \
		if (unlikely(__event >= 0 && (reading)->judges && (role) == ROLE_CLIENT))                             \
			(scratch)->cut = http2_give_back(__dir, &(scratch)->pass);                                    \
		if (unlikely(__event == EVENT_CUT))                                                                   \
			(scratch)->cut = (scratch)->pass.position;                                                    \
		if (__event >= 0)                                                                                     \
			__event = -end_pass(reading, scratch, role, __before);                                    \
		if (unlikely((reading)->speaks == SPEAKS_UNKNOWN && __dir->client && __dir->state > HTTP2_TOKEN))                   \
			recognise(reading, SPEAKS_HTTP2);                                                             \
		if (unlikely(__event < 0))                                                                            \
			give_up(reading, role, -__event);                                                             \
	})

/* How many bytes the window is to show: what is asked for, some more, and no more than there are. */
static __always_inline __u32 window_size(const struct http2_pass *pass)
{
	__u32 size = pass->want < LOOK_SIZE ? LOOK_SIZE : pass->want;

	return at_most(at_most(size, pass->size - pass->position), WINDOW_SIZE);
}

/* The sender hook's window: the part of the message that the kernel shows, or makes linear. */
static __always_inline int fetch_msg(struct sk_msg_md *msg, struct scratch *scratch)
{
	struct http2_pass *pass = &scratch->pass;
	__u32 position = pass->position, count = window_size(pass), offset;
	long linear = (long)msg->data_end - (long)msg->data;

	offset = position - scratch->base;
	if (position < scratch->base || offset + count > linear) {
		if (bpf_msg_pull_data(msg, position, position + count, 0)) {
			count_error(HELPER_MSG_PULL_DATA);
			return -1;
		}
		scratch->base = position;
		offset = 0;
	}
	if (bpf_probe_read_kernel(pass->block.bytes, count, msg->data + (offset & 0xffff)))
		return -1;
	pass->start = position;
	pass->filled = count;
	return 0;
}

static __noinline int edit_msg(struct sk_msg_md *msg, struct scratch *scratch)
{
	struct http2_pass *pass = &scratch->pass;
	__u32 position = pass->edit_position, count = pass->edit_count;
	__u8 *data;

	if (bpf_msg_pull_data(msg, position, position + count, 0)) {
		count_error(HELPER_MSG_PULL_DATA);
		return -1;
	}
	scratch->base = position;
	scratch->changed = 1;
	data = msg->data;
	if ((void *)(data + 1) > msg->data_end)
		return -1;
	data[0] = pass->edit_value;
	if (count < 2)
		return 0;
	if ((void *)(data + 2) > msg->data_end)
		return -1;
	data[1] = pass->edit_second;
	return 0;
}

static __always_inline void put_u32(__u8 *to, __u32 value)
{
	to[0] = value >> 24;
	to[1] = value >> 16;
	to[2] = value >> 8;
	to[3] = value;
}

static __always_inline void put_frame_header(__u8 *to, __u32 length, __u32 type, __u32 flags, __u32 stream)
{
	to[0] = length >> 16;
	to[1] = length >> 8;
	to[2] = length;
	to[3] = type;
	to[4] = flags;
	put_u32(&to[5], stream);
}

/* What stands before the block that is written anew: a GOAWAY where one is due, and the frame's header. Returns its size. */
static __always_inline __u32 put_prefix(struct scratch *scratch, const struct reading *reading)
{
	const struct http2_pass *pass = &scratch->pass;
	__u32 length = scratch->rewrite.length;
	__u8 *prefix = scratch->prefix;

	if (likely(!scratch->goaway)) {
		put_frame_header(prefix, length, FRAME_HEADERS, pass->flags, pass->stream);
		return FRAME_HEADER_SIZE;
	}
	put_frame_header(prefix, GOAWAY_SIZE - FRAME_HEADER_SIZE, FRAME_GOAWAY, 0, 0);
	put_u32(&prefix[FRAME_HEADER_SIZE], reading->last_good);
	put_u32(&prefix[FRAME_HEADER_SIZE + 4], 0);
	put_frame_header(&prefix[GOAWAY_SIZE], length, FRAME_HEADERS, pass->flags, pass->stream);
	return GOAWAY_SIZE + FRAME_HEADER_SIZE;
}

/* Writes the prefix, from its byte `lead` on, and the block after it to the linear part. 0, or -1. */
static __noinline int write_frame(struct sk_msg_md *msg, struct scratch *scratch, __u32 prefix, __u32 lead)
{
	__u32 length, i, byte;
	__u8 *data, *end;

	if (!msg || !scratch)
		return -1;
	length = prefix + scratch->rewrite.length;
	loop_below (i, REWRITE_LIMIT + PREFIX_SIZE) {
		if (i + lead >= length)
			return 0;
		byte = i + lead < prefix ? scratch->prefix[masked(i + lead, PREFIX_SIZE)] :
					   scratch->rewrite.bytes[masked(i + lead - prefix, REWRITE_SIZE)];
		data = msg->data;
		end = msg->data_end;
		data += masked(i, REWRITE_SIZE);
		if (data + 1 > end)
			return -1;
		*data = byte;
	}
	return -1;
}

/* Puts another block into the frame of headers that the pass has just read, and a GOAWAY before it where one is due. */
static __noinline int rewrite_msg(struct sk_msg_md *msg, struct scratch *scratch, const struct reading *reading)
{
	struct http2_pass *pass = &scratch->pass;
	__u32 prefix = put_prefix(scratch, reading), frame = pass->frame, lead = frame ? 0 : scratch->lead;
	__u32 was = pass->position - frame, is = prefix - lead + scratch->rewrite.length;
	long failed = 0;

	if (frame == NO_FRAME || !scratch->firm)
		return -1;
	if (is > was)
		failed = bpf_msg_push_data(msg, frame + FRAME_HEADER_SIZE - 1, is - was, 0);
	else if (is < was)
		failed = bpf_msg_pop_data(msg, frame + FRAME_HEADER_SIZE - 1, was - is, 0);
	if (failed || bpf_msg_pull_data(msg, frame, frame + is, 0)) {
		count_error(HELPER_MSG_PUSH_DATA);
		return -1;
	}
	scratch->base = frame;
	scratch->changed = 1;
	scratch->goaway = 0;
	if (write_frame(msg, scratch, prefix, lead))
		return -1;
	pass->size += is - was;
	pass->position = frame + is;
	pass->start = pass->position;
	pass->filled = 0;
	return 0;
}

/* The receiver hook's. */
static __always_inline int fetch_skb(struct __sk_buff *skb, struct scratch *scratch)
{
	struct http2_pass *pass = &scratch->pass;
	__u32 position = pass->position, count = window_size(pass);

	engine_opaque(count);
	if (!count || bpf_skb_load_bytes(skb, position, pass->block.bytes, count)) {
		count_error(HELPER_SKB_LOAD_BYTES);
		return -1;
	}
	pass->start = position;
	pass->filled = count;
	return 0;
}

static __always_inline int edit_skb(struct __sk_buff *skb, struct scratch *scratch)
{
	__u8 values[2] = { scratch->pass.edit_value, scratch->pass.edit_second };
	__u32 position = scratch->pass.edit_position;

	if (bpf_skb_store_bytes(skb, position, values, 1, 0) ||
	    (scratch->pass.edit_count > 1 && bpf_skb_store_bytes(skb, position + 1, &values[1], 1, 0))) {
		count_error(HELPER_SKB_STORE_BYTES);
		return -1;
	}
	return 0;
}

/* What was received keeps its length: the socket's sequence numbers count it. */
static __always_inline int rewrite_skb(struct __sk_buff *skb, struct scratch *scratch, const struct reading *reading)
{
	return -1;
}
