/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Reading what a member sends, each byte once. What the hook is shown and what TCP then takes are not the same: when the
 * send buffer is full in the middle of a message, the rest is given back to the program, which sends it again, and the
 * kernel does not show the next message (tcp_bpf_send_verdict keeps its verdict after an error). So the write sequence
 * number tells what became of what was shown, and a message that may not fit is taken in pieces of which it does not
 * matter where they are cut: a single byte, or a part of what is opaque.
 */
#pragma once

#include "mesh/whole.h"
#include "mesh/handing.h"
#include "mesh/tables.h"

/* Opaque bytes that are taken at a time where they may not fit. */
#define TIGHT_PIECE 1024

/* The half call that the bytes to come belong to; NULL: none, or not DATA. */
static __always_inline struct grpc_stream *stream_in_hand(struct reading *reading, __u32 role)
{
	struct http2_direction *dir = &reading->halves[role].direction;
	struct call *call;

	if (dir->state != HTTP2_DATA)
		return NULL;
	call = find_call(reading, dir->stream);
	return call ? &call->halves[role] : NULL;
}

/* `count` bytes went out that were not shown: no matter if all of them were opaque. */
__noinline int skip_unseen(struct reading *reading, __u32 role, __u32 count)
{
	struct http2_direction *dir;
	struct grpc_stream *stream;

	if (!reading)
		return 0;
	role &= 1;
	dir = &reading->halves[role].direction;
	stream = stream_in_hand(reading, role);
	if (grpc_opaque(dir, stream) <= count) {
		stop_reading(reading, REASON_UNSEEN);
		return 0;
	}
	dir->remaining -= count;
	if (stream) {
		stream->bytes += count;
		if (!stream->opaque)
			stream->remaining -= count;
	}
	return 0;
}

/* How many bytes of a message that TCP will carry can be read now. */
__noinline int readable_bytes(struct reading *reading, __u32 role, __u32 size, __u32 room)
{
	__u32 opaque;

	if (!reading || room >= size)
		return size;
#ifdef ZH_BREAK_PIECES
	return size;
#endif
	if (room >= LOOK_SIZE)
		return room;
	role &= 1;
	/* After an error the kernel passes so much unseen, or more if that fails too: little, and far from the end. */
	opaque = grpc_opaque(&reading->halves[role].direction, stream_in_hand(reading, role)) / 8;
	if (opaque > TIGHT_PIECE)
		opaque = TIGHT_PIECE;
	if (opaque < 2)
		return 1;
	return opaque < size ? opaque : size;
}

/* The verdict is for `bytes`; 0: for the whole message. What an earlier piece of it named stands until it is taken back. */
static __always_inline void name_bytes(struct sk_msg_md *msg, const struct sk_msg *kern, __u32 bytes)
{
	if (unlikely(bytes != kern->apply_bytes) && bpf_msg_apply_bytes(msg, bytes))
		count_error(HELPER_MSG_APPLY_BYTES);
}

/* What goes before the server's message, so that it can be read: as many bytes, or a negated reason. */
static __always_inline int begin_answers(struct sk_msg_md *msg, struct scratch *scratch, struct reading *reading, int fits)
{
	int more = 0;

	if (unlikely(reading->arriving)) {
		reading->arriving = 0;
		if (fits)
			more = forbid_table(msg);
	} else if (unlikely(reading->halves[ROLE_SERVER].held)) {
		if (!fits)
			return -REASON_CANNOT_REFUSE;
		more = join_answer(msg, scratch, reading);
	}
	return more < 0 ? -REASON_HELPER_FAILED : more;
}

/* How many bytes can go of a message that is read until `cut`; `ends`: the program has no more for now. */
static __always_inline __u32 bytes_until(struct sk_msg_md *msg, struct scratch *scratch, struct reading *reading, __u32 role,
					 int ends)
{
	if (role == ROLE_CLIENT || scratch->cut)
		return scratch->cut;
	if (part_answer(msg, scratch, reading, ends))
		stop_reading(reading, REASON_CANNOT_REFUSE);
	return 1;
}

/* The sender hook reads a message, or its beginning. Returns for how many bytes the verdict is; 0: it reads no more; -1:
 * it can read no more, and no byte may pass unread. What it leaves to the receiver's hook is not to go past TCP. */
static __always_inline __s64 read_sent(struct sk_msg_md *msg, const struct sk_msg *kern, const struct connection *conn,
				       __u64 id, __u32 role, __u32 *shortcut)
{
	struct reading *reading = bpf_map_lookup_elem(&readings, &id);
	const struct sock *sk = kern->sk;
	__u32 write_seq = kernel_cast(struct tcp_sock, sk)->write_seq, size = msg->size, shown, room, named = 0, grown = 0;
	int fits = 1, more = 0;
	struct scratch *scratch;
	__s32 unseen;

	if (!reading || reading->off)
		return 0;
	if (unlikely(reading->halves[role].handed) && !take_back(reading, &conn->ends[ROLE_SERVER], write_seq))
		goto leave;
	unseen = write_seq - reading->halves[role].next_seq;
	shown = size;
	if (unlikely(unseen > 0))
		skip_unseen(reading, role, unseen);
	if (!*shortcut) {
		room = sending_room(sk);
		if (unlikely(may_rewrite(reading, role))) {
			shown = rewritable_bytes(reading, role, sk, size);
			fits = shown != 0;
			if (!fits && role == ROLE_CLIENT && unseen >= 0 && has_begun_frame(reading))
				goto hand_over;
			if (!fits)
				shown = readable_bytes(reading, role, size, 0);
		} else if (unlikely(room < size)) {
			if (reading->judges && role == ROLE_CLIENT && unseen >= 0)
				goto hand_over;
			shown = readable_bytes(reading, role, size, room);
			fits = shown <= room;
		}
	}
	if (unlikely(unseen < 0)) {
		/* It was read before and comes again: as the program wrote it, and not as it was changed. */
		if (unlikely(reading->judges && reading->halves[role].changed_seq &&
			     (__s32)(write_seq - reading->halves[role].changed_seq) < -1))
			goto stop;
		if (shown > (__u32)-unseen)
			shown = -unseen;
		if (*shortcut)
			reading->halves[role].next_seq -= shown;
	} else {
		scratch = acquire_scratch();
		if (!scratch) {
			stop_reading(reading, REASON_NO_SCRATCH);
			return reading->judges ? -1 : 0;
		}
		scratch->from = 0;
		scratch->firm = fits;
		scratch->received = 0;
		if (unlikely(reading->judges && role == ROLE_SERVER)) {
			more = begin_answers(msg, scratch, reading, fits);
			if (more < 0) {
				stop_reading(reading, -more);
				more = 0;
			}
			shown += more;
		}
		read_message(reading, scratch, role, shown, msg, fetch_msg, edit_msg, rewrite_msg);
		shown -= more;
		grown = scratch->pass.size - shown;
		if (unlikely(scratch->cut != NO_FRAME)) {
			/* A redirect is not taken back for the rest of its message (sk_psock_map_verd). */
			*shortcut = 0;
			shown = bytes_until(msg, scratch, reading, role, shown == size) - grown;
		}
		/* What went past TCP is not given back; what was changed before has gone out. */
		reading->halves[role].changed_seq = 0;
		if (unlikely((scratch->changed || more) && !*shortcut))
			reading->halves[role].changed_seq = (write_seq + shown + grown) | 1;
		release_scratch(scratch);
		reading->halves[role].next_seq = *shortcut ? write_seq : write_seq + shown + grown;
		if (unlikely(!(shown + grown)))
			goto hand_over;
	}
	if (unlikely(reading->off && reading->judges))
		return -1;
	/*
	 * A piece that may not fit has its length named, although it is all there is: so much passes unseen after an error,
	 * else a whole message would.
	 */
	if (unlikely(shown < size || !fits))
		named = shown + grown;
	name_bytes(msg, kern, named);
	return (__u32)(shown + grown);
hand_over:
	if (role == ROLE_SERVER || hand_over(reading, &conn->ends[ROLE_SERVER], write_seq))
		goto stop;
leave:
	*shortcut = 0;
	name_bytes(msg, kern, 0);
	return size;
stop:
	stop_reading(reading, role == ROLE_SERVER ? REASON_CANNOT_REFUSE : REASON_UNSEEN);
	return -1;
}
