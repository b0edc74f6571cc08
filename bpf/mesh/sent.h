/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Reading what a member sends, each byte once. What the hook is shown and what TCP then takes are not the same: when the
 * send buffer is full in the middle of a message, the rest is given back to the program, which sends it again, and the
 * kernel does not show the next message (tcp_bpf_send_verdict keeps its verdict after an error). So the write sequence
 * number tells what became of what was shown, and a message that may not fit is taken in pieces of which it does not
 * matter where they are cut: a single byte, or a part of what is opaque.
 *
 * What comes again may be other bytes. So of requests that are judged nothing is read here that TCP may not take, but for
 * payload, of which only the length matters, and frames' headers, which are looked at again where they arrive (mesh/leads.h).
 * What else there is, is read there as well (mesh/handing.h).
 */
#pragma once

#include "mesh/whole.h"
#include "mesh/handing.h"
#include "mesh/leads.h"
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

/* Bytes to come of a frame's payload, which nothing depends on but where they end. */
static __always_inline __u32 payload_left(const struct http2_direction *dir)
{
	switch (dir->state) {
	case HTTP2_PRIORITY:
		return dir->block_stream ? 0 : dir->remaining;
	case HTTP2_DATA:
	case HTTP2_SKIP:
	case HTTP2_SETTINGS:
	case HTTP2_RESET:
		return dir->remaining;
	}
	return 0;
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

/* What goes before the message, so that it can be read: as many bytes, or a negated reason. */
static __always_inline int begin_message(struct sk_msg_md *msg, struct scratch *scratch, struct reading *reading, __u32 role,
					 int fits)
{
	int more = 0;

	if (unlikely(reading->arriving && role == ROLE_SERVER)) {
		reading->arriving = 0;
		if (fits)
			more = forbid_table(msg);
	} else if (unlikely(reading->halves[role].held)) {
		if (!fits)
			return -REASON_CANNOT_REFUSE;
		more = join_frame(msg, scratch, reading, role);
	}
	return more < 0 ? -REASON_HELPER_FAILED : more;
}

/*
 * How many bytes can go of a message that is read until `cut`; `ends`: the program has no more for now. 0: none, unless
 * the receiver's hook reads them.
 */
static __always_inline __u32 bytes_until(struct sk_msg_md *msg, const struct sk_msg *kern, struct scratch *scratch,
					 struct reading *reading, __u32 role, int ends, __u32 *shortcut)
{
	if ((*shortcut || !scratch->cut) && !part_frame(msg, scratch, reading, role, ends))
		return scratch->cut + 1;
	/* A redirect is not taken back for the rest of its message (sk_psock_map_verd). */
	if (*shortcut && role == ROLE_CLIENT && message_room(kern, kern->sk) < scratch->cut)
		stop_reading(reading, REASON_CANNOT_REFUSE);
	*shortcut = 0;
	if (scratch->cut || role == ROLE_CLIENT)
		return scratch->cut;
	stop_reading(reading, REASON_CANNOT_REFUSE);
	return 1;
}

/* What of a message is read now. */
struct portion {
	__u32 shown; /* bytes of it */
	__u32 rest;  /* it is the rest of a frame that goes out in single bytes, of this length; 0: it is not */
	int fits;    /* TCP takes all of it, for certain */
};

/* Whether the beginning of a request that TCP may not take can be read all the same; `seq`: its first byte. */
static __noinline int may_come_again(struct sk_msg_md *msg, struct reading *reading, __u32 seq)
{
	const struct http2_direction *dir = &reading->halves[ROLE_CLIENT].direction;
	__u8 *data;

	if (payload_left(dir))
		return 1;
	/* A frame of headers is whole, or read where it arrives; others' first byte is a zero for whoever waits for the rest. */
	if (dir->state != HTTP2_FRAME || dir->block_stream ||
	    (dir->held_count && rest_of_headers(msg, reading, ROLE_CLIENT)))
		return 0;
	data = msg->data;
	if ((void *)(data + 1) > msg->data_end || (!dir->held_count && *data))
		return 0;
	return !keep_lead(reading, seq, *data);
}

/* Where frames of headers are taken in as a whole. 0, or -1: nothing of it is read here. */
static __always_inline int choose_frames(struct sk_msg_md *msg, const struct sk_msg *kern, struct reading *reading, __u32 role,
					 __u32 seq, struct portion *now)
{
	if (role == ROLE_CLIENT && !has_memory(kern->sk))
		return -1;
	now->shown = certain_bytes(msg, reading, role);
	now->fits = now->shown != 0;
	if (now->fits)
		return 0;
	if (role == ROLE_CLIENT) {
		now->shown = readable_bytes(reading, role, msg->size, 0);
		return !reading->halves[ROLE_CLIENT].held && may_come_again(msg, reading, seq) ? 0 : -1;
	}
	now->rest = rest_of_headers(msg, reading, role);
	if (now->rest == NO_FRAME)
		now->rest = 0;
	now->shown = now->rest ? now->rest : readable_bytes(reading, role, msg->size, 0);
	return 0;
}

/* How much of a message is read that TCP carries, `unseen` as read_sent has it. 0, or -1: nothing of it is read here. */
static __always_inline int choose_portion(struct sk_msg_md *msg, const struct sk_msg *kern, struct reading *reading, __u32 role,
					__s32 unseen, __u32 seq, struct portion *now)
{
	__u32 room;

	if (unlikely(keeps_whole(reading, role))) {
		if (likely(unseen >= 0))
			return choose_frames(msg, kern, reading, role, seq, now);
		now->shown = read_before(msg, reading, role, -unseen);
		now->fits = now->shown != NO_FRAME;
		if (!now->fits)
			now->shown = 1;
		return now->shown ? 0 : -1;
	}
	room = sending_room(kern->sk);
	if (unlikely(room < msg->size)) {
		now->shown = readable_bytes(reading, role, msg->size, room);
		now->fits = now->shown <= room;
	}
	return 0;
}

/*
 * The sender hook reads a message, or its beginning. `early`: it may be queued before one that was read before it. Returns
 * for how many bytes the verdict is; 0: it reads no more; -1: it can read no more, and no byte may pass unread. What it
 * leaves to the receiver's hook is not to go past TCP.
 */
static __always_inline __s64 read_sent(struct sk_msg_md *msg, const struct sk_msg *kern, const struct connection *conn,
				       __u64 id, __u32 role, int early, __u32 *shortcut)
{
	struct reading *reading = bpf_map_lookup_elem(&readings, &id);
	const struct sock *sk = kern->sk;
	__u32 write_seq = kernel_cast(struct tcp_sock, sk)->write_seq, size = msg->size, named = 0, grown = 0;
	struct portion now = { .shown = size, .fits = 1 };
	struct scratch *scratch;
	struct half *half;
	__s32 unseen;
	int more = 0;

	if (!reading || reading->off)
		return 0;
	if (unlikely(early)) {
		stop_reading(reading, REASON_WRITERS_OVERLAP);
		return reading->judges ? -1 : 0;
	}
	half = &reading->halves[role];
	if (unlikely(has_leads(reading)) && role == ROLE_CLIENT)
		forget_leads(reading, &conn->ends[ROLE_SERVER]);
	if (unlikely(half->handed) && !take_back(reading, &conn->ends[ROLE_SERVER], write_seq))
		goto leave;
	if (*shortcut && unlikely(frame_growth(reading, role)) && !has_memory((void *)READ_ONCE(conn->ends[role ^ 1].sock)))
		*shortcut = 0;
	unseen = write_seq - half->next_seq;
	/* TCP has taken less than was certain, and other bytes may have come after that. */
	if (unlikely(unseen < 0) && reading->judges && role == ROLE_CLIENT)
		goto stop;
	if (unlikely(unseen > 0))
		skip_unseen(reading, role, unseen);
	if (!*shortcut && choose_portion(msg, kern, reading, role, unseen, write_seq, &now)) {
		if (role == ROLE_CLIENT && !half->held)
			goto hand_over;
		goto stop;
	}
	if (unlikely(unseen < 0)) {
		/* It was read before and comes again: as the program wrote it, and not as it was changed. */
		if (unlikely(half->changed_seq && (__s32)(write_seq - half->changed_seq) < 0))
			goto stop;
		if (now.shown > (__u32)-unseen)
			now.shown = -unseen;
		if (unlikely(half->edit_count) && repeat_edit(msg, reading, role, -unseen, now.shown))
			goto stop;
		if (*shortcut)
			half->next_seq -= now.shown;
	} else {
		scratch = acquire_scratch();
		if (!scratch) {
			stop_reading(reading, REASON_NO_SCRATCH);
			return reading->judges ? -1 : 0;
		}
		scratch->from = 0;
		scratch->firm = now.fits;
		scratch->whole = (now.fits || now.rest) && keeps_whole(reading, role);
		if (unlikely(reading->judges)) {
			more = begin_message(msg, scratch, reading, role, now.fits);
			if (more < 0) {
				stop_reading(reading, -more);
				more = 0;
			}
			now.shown += more;
		}
		scratch->more = more;
		scratch->shortcut = *shortcut;
		scratch->role = role;
		scratch->rest = now.rest;
		scratch->shown = now.shown;
		role = READ_ONCE(scratch->role) & 1;
		half = &reading->halves[role];
		read_message(reading, scratch, role, READ_ONCE(scratch->shown), msg, fetch_msg, edit_msg, rewrite_msg);
		/* In registers, the verifier would go on once for each value of them. */
		now.fits = READ_ONCE(scratch->firm);
		more = READ_ONCE(scratch->more);
		now.rest = READ_ONCE(scratch->rest);
		*shortcut = READ_ONCE(scratch->shortcut);
		now.shown = READ_ONCE(scratch->shown) - more;
		grown = scratch->pass.size - now.shown;
		if (unlikely(scratch->cut != NO_FRAME))
			now.shown = bytes_until(msg, kern, scratch, reading, role, now.shown == size, shortcut) - grown;
		/* What went past TCP is not given back; what was changed before has gone out. */
		half->changed_seq = 0;
		half->edit_count = 0;
		half->next_seq = *shortcut ? write_seq : write_seq + now.shown + grown;
		if (role == ROLE_CLIENT)
			WRITE_ONCE(reading->shown_to, half->next_seq + payload_left(&half->direction));
		if (unlikely(now.rest)) {
			if (scratch->changed)
				keep_edit(half, &scratch->pass, now.rest);
			now.shown = 1;
		} else if (unlikely((scratch->changed || more) && !*shortcut)) {
			half->changed_seq = half->next_seq ? half->next_seq : 1;
		}
		release_scratch(scratch);
		if (unlikely(!(now.shown + grown)))
			goto hand_over;
	}
	if (unlikely(reading->off && reading->judges))
		return -1;
	/*
	 * A piece that may not fit has its length named, although it is all there is: so much passes unseen after an error,
	 * else a whole message would.
	 */
	if (unlikely(now.shown < size || !now.fits))
		named = now.shown + grown;
	name_bytes(msg, kern, named);
	return (__u32)(now.shown + grown);
hand_over:
	if (role == ROLE_SERVER || hand_over(reading, &conn->ends[ROLE_SERVER], write_seq))
		goto stop;
leave:
	*shortcut = 0;
	name_bytes(msg, kern, 0);
	return size;
stop:
	stop_reading(reading, role == ROLE_SERVER || half->held ? REASON_CANNOT_REFUSE : REASON_UNSEEN);
	return -1;
}
