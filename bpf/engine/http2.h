/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * HTTP/2 frames (RFC 9113) of one direction of a connection, as a function of (state, bytes): nothing depends on where
 * the bytes were cut into messages. `http2_step` takes in what it can of the bytes that the caller shows in a window
 * and says what it met; what is not needed is skipped without being looked at.
 */
#pragma once

#include "engine/hpack.h"

enum http2_state {
	HTTP2_PREFACE = 0, /* the client's 24 bytes */
	HTTP2_TOKEN,	   /* they are not there: a method of HTTP/1.x perhaps */
	HTTP2_FRAME,	   /* nine bytes of frame header */
	HTTP2_PAD_LENGTH,
	HTTP2_PRIORITY,
	HTTP2_PROMISED,
	HTTP2_BLOCK,
	HTTP2_DATA,
	HTTP2_SETTINGS,
	HTTP2_RESET,
	HTTP2_SKIP,
};

enum http2_event {
	EVENT_END = 0,	   /* the message has no more bytes */
	EVENT_NONE = 1,	   /* went on a bit */
	EVENT_MORE = 2,	   /* the window must show `want` bytes, or as many as there are, from `position` on */
	EVENT_HEADERS = 3, /* a header block is whole: [block.position, block.end) of block.bytes */
	EVENT_PROMISE = 4, /* the same, of PUSH_PROMISE */
	EVENT_DATA = 5,	   /* DATA stands at `position`, `remaining` bytes of it: the caller takes it in (http2_take) */
	EVENT_RESET = 6,   /* RST_STREAM: `stream`, `code` */
	EVENT_GOAWAY = 7,
	EVENT_EDIT = 8,	   /* `edit_count` bytes of the message at `edit_position` become `edit_value` and `edit_second` */
	EVENT_REWRITE = 9, /* the caller's own: a frame is replaced */
	EVENT_CUT = 10,	   /* `whole`: the message ends within the frame that begins at `position` */
};

enum http2_type {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_PRIORITY = 2,
	FRAME_RST_STREAM = 3,
	FRAME_SETTINGS = 4,
	FRAME_PUSH_PROMISE = 5,
	FRAME_PING = 6,
	FRAME_GOAWAY = 7,
	FRAME_WINDOW_UPDATE = 8,
	FRAME_CONTINUATION = 9,
};

#define FLAG_END_STREAM 0x1
#define FLAG_ACK 0x1
#define FLAG_END_HEADERS 0x4
#define FLAG_PADDED 0x8
#define FLAG_PRIORITY 0x20
#define FLAG_UNKNOWN 0x80 /* of a header block: a CONTINUATION has flags that mean nothing there */

/* No frame's type (RFC 9113 section 4.1: ignored): of those that HTTP/3 keeps free for the purpose (RFC 9114 7.2.8), one that
 * HTTP/2 has room for. */
#define FRAME_IGNORED 0xdb

#define FRAME_HEADER_SIZE 9
#define FRAME_TYPE_AT 3 /* in its header */
#define RESET_SIZE (FRAME_HEADER_SIZE + 4)
#define NO_FRAME 0xffffffff
#define PREFACE_SIZE 24
#define MAX_TOKEN 16
#define SETTINGS_HEADER_TABLE_SIZE 1

/* Where a header block that came in parts is put together, in hpack_block.bytes; the window is before it. */
#define ASSEMBLY HEADER_BLOCK_SIZE

/* One direction. Zeros and `http2_start` make the initial state. */
struct http2_direction {
	struct hpack_table table;
	__u32 stream;	    /* of the frame in hand */
	__u32 remaining;    /* of its payload, without padding */
	__u32 padding;
	__u32 block_stream; /* of the header block that is not whole yet; 0: none */
	__u32 block_length; /* bytes of it in the assembly */
	__u8 state;
	__u8 type;
	__u8 flags;	    /* of the frame in hand */
	__u8 block_flags;   /* of the HEADERS frame that began the block */
	__u8 promise;	    /* that was a PUSH_PROMISE */
	__u8 client;	    /* the client sends this direction */
	__u8 begun;	    /* the first frame, SETTINGS, was there */
	__u8 held_count;
	__u8 held[16];	    /* the beginning of what comes in a fixed size */
};

/* Where a header block began in this pass: what of it has come can be given back. */
struct http2_mark {
	__u32 position; /* of its first byte in the message; NO_FRAME: it has not begun, or not in this message */
	__u32 remaining;
	__u32 padding;
	__u32 stream;
	__u32 block_stream;
	__u8 type;
	__u8 flags;
	__u8 reserved[2];
};

/* One pass over one message; scratch. The window is block.bytes[0 .. filled), and shows the message from `start` on. */
struct http2_pass {
	struct hpack_block block;
	__u32 size;	/* of the message */
	__u32 position; /* next byte to take in */
	__u32 start;
	__u32 filled;
	__u32 want;
	__u32 stream; /* of the event */
	__u32 flags;
	__u32 code;
	__u32 edit_position;
	__u32 edit_value;
	__u32 edit_second;
	__u32 edit_count;
	__u32 frame; /* where the frame of a header block begins in the message; NO_FRAME: it is not whole in the window */
	__u32 whole; /* frames of headers of the usual form are taken in as a whole, so that they can be replaced */
	struct http2_mark mark;
};

ENGINE_INLINE void http2_start(struct http2_direction *dir, int client)
{
	dir->table.max_size = HPACK_TABLE_SIZE;
	dir->client = client;
	dir->state = client ? HTTP2_PREFACE : HTTP2_FRAME;
}

/* Bytes that the window shows at `position`. */
ENGINE_INLINE __u32 http2_available(const struct http2_pass *pass)
{
	__u32 offset = pass->position - pass->start;

	return offset < pass->filled ? pass->filled - offset : 0;
}

ENGINE_INLINE __u32 http2_at(const struct http2_pass *pass)
{
	return (pass->position - pass->start) & (WINDOW_SIZE - 1);
}

/* Asks for bytes; without any left the message has ended. */
ENGINE_INLINE int http2_more(struct http2_pass *pass, __u32 want)
{
	if (pass->position >= pass->size)
		return EVENT_END;
	pass->want = want;
	return EVENT_MORE;
}

/* Takes in `count` bytes of the frame's payload. */
ENGINE_INLINE void http2_take(struct http2_direction *dir, struct http2_pass *pass, __u32 count)
{
	pass->position += count;
	dir->remaining -= count;
}

/* The frame's payload is done: its padding is next, then a frame. */
ENGINE_INLINE void http2_finish_payload(struct http2_direction *dir)
{
	dir->remaining = dir->padding;
	dir->padding = 0;
	dir->state = dir->remaining ? HTTP2_SKIP : HTTP2_FRAME;
}

/*
 * 1 once `count` bytes, at most nine, are in `held`. Else 0, and there are none in the window. The payload's length is
 * the caller's to check before.
 */
ENGINE_INLINE int http2_hold(struct http2_direction *dir, struct http2_pass *pass, __u32 count)
{
	__u32 available = http2_available(pass);

	for (__u32 i = 0; i < FRAME_HEADER_SIZE; i++) {
		if (dir->held_count >= count)
			break;
		if (!available)
			return 0;
		dir->held[dir->held_count & 15] = pass->block.bytes[http2_at(pass)];
		dir->held_count++;
		pass->position++;
		available--;
	}
	dir->held_count = 0;
	return 1;
}

ENGINE_INLINE __u32 http2_held_u32(const struct http2_direction *dir)
{
	return (__u32)dir->held[0] << 24 | (__u32)dir->held[1] << 16 | (__u32)dir->held[2] << 8 | dir->held[3];
}

/* The client's first bytes: the preface, or what else they look like. */
ENGINE_GLOBAL int http2_preface(struct http2_direction *dir, struct http2_pass *pass)
{
	static const __u8 preface[32] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	__u32 byte, count;

	if (!dir || !pass)
		return -REASON_NOT_HTTP;
	if (!http2_available(pass))
		return http2_more(pass, PREFACE_SIZE);
	byte = pass->block.bytes[http2_at(pass)];
	count = dir->held_count;
	if (dir->state == HTTP2_PREFACE && byte == preface[count & 31]) {
		pass->position++;
		dir->held_count++;
		if (dir->held_count == PREFACE_SIZE) {
			dir->held_count = 0;
			dir->state = HTTP2_FRAME;
		}
		return EVENT_NONE;
	}
	if (!count && byte == 0x16) /* a TLS handshake record */
		return -REASON_TLS;
	if (dir->state == HTTP2_PREFACE && count > 3) /* "PRI ": a request line all the same */
		return -REASON_HTTP1;
	if (byte == ' ' && count >= 3)
		return -REASON_HTTP1;
	if (byte < 'A' || byte > 'Z' || count >= MAX_TOKEN)
		return -REASON_NOT_HTTP;
	dir->state = HTTP2_TOKEN;
	dir->held_count++;
	pass->position++;
	return EVENT_NONE;
}

/* What a frame header may not say (RFC 9113 section 6); beyond that, streams' states are the servers' to check. */
ENGINE_INLINE int http2_check(const struct http2_direction *dir, __u32 length)
{
	__u32 type = dir->type, stream = dir->stream;

	if (!dir->begun) {
		if (type == FRAME_SETTINGS && !stream && !(dir->flags & FLAG_ACK) && length % 6 == 0)
			return 0;
		return dir->client ? REASON_FRAME_ORDER : REASON_NOT_HTTP;
	}
	if (dir->block_stream ? type != FRAME_CONTINUATION || stream != dir->block_stream : type == FRAME_CONTINUATION)
		return REASON_FRAME_ORDER;
	switch (type) {
	case FRAME_DATA:
	case FRAME_HEADERS:
		return stream ? 0 : REASON_FRAME_STREAM;
	case FRAME_PRIORITY:
		if (!stream)
			return REASON_FRAME_STREAM;
		return length == 5 ? 0 : REASON_FRAME_SIZE;
	case FRAME_RST_STREAM:
		if (!stream)
			return REASON_FRAME_STREAM;
		return length == 4 ? 0 : REASON_FRAME_SIZE;
	case FRAME_SETTINGS:
		if (stream)
			return REASON_FRAME_STREAM;
		return (dir->flags & FLAG_ACK ? length != 0 : length % 6) ? REASON_FRAME_SIZE : 0;
	case FRAME_PUSH_PROMISE:
		if (dir->client)
			return REASON_FRAME_ORDER;
		return stream ? 0 : REASON_FRAME_STREAM;
	case FRAME_PING:
		if (stream)
			return REASON_FRAME_STREAM;
		return length == 8 ? 0 : REASON_FRAME_SIZE;
	case FRAME_GOAWAY:
		if (stream)
			return REASON_FRAME_STREAM;
		return length >= 8 ? 0 : REASON_FRAME_SIZE;
	case FRAME_WINDOW_UPDATE:
		return length == 4 ? 0 : REASON_FRAME_SIZE;
	}
	return 0;
}

/* Where a frame's payload begins, by type and flags. */
ENGINE_INLINE __u32 http2_after_padding(const struct http2_direction *dir)
{
	switch (dir->type) {
	case FRAME_DATA:
		return HTTP2_DATA;
	case FRAME_HEADERS:
		return dir->flags & FLAG_PRIORITY ? HTTP2_PRIORITY : HTTP2_BLOCK;
	case FRAME_PUSH_PROMISE:
		return HTTP2_PROMISED;
	case FRAME_PRIORITY:
		return HTTP2_PRIORITY;
	case FRAME_CONTINUATION:
		return HTTP2_BLOCK;
	case FRAME_RST_STREAM:
		return HTTP2_RESET;
	case FRAME_SETTINGS:
		return HTTP2_SETTINGS;
	}
	return HTTP2_SKIP;
}

/* `head`: the header's first eight bytes; `last`: its ninth. */
ENGINE_INLINE int http2_begin_frame(struct http2_direction *dir, struct http2_pass *pass, __u64 head, __u32 last)
{
	int reason;

	dir->remaining = head >> 40;
	dir->type = head >> 32;
	dir->flags = head >> 24;
	dir->stream = ((__u32)head << 8 | last) & 0x7fffffff;
	dir->padding = 0;
	reason = http2_check(dir, dir->remaining);
	if (reason)
		return -reason;
	dir->begun = 1;
	if (dir->type == FRAME_HEADERS || dir->type == FRAME_PUSH_PROMISE) {
		dir->block_stream = dir->stream;
		dir->block_flags = dir->flags;
		dir->block_length = 0;
		dir->promise = dir->type == FRAME_PUSH_PROMISE;
	} else if (dir->type == FRAME_CONTINUATION && (dir->flags & ~FLAG_END_HEADERS)) {
		dir->block_flags |= FLAG_UNKNOWN;
	}
	if ((dir->flags & FLAG_PADDED) &&
	    (dir->type == FRAME_DATA || dir->type == FRAME_HEADERS || dir->type == FRAME_PUSH_PROMISE))
		dir->state = HTTP2_PAD_LENGTH;
	else
		dir->state = http2_after_padding(dir);
	if (dir->state == HTTP2_SKIP && !dir->remaining)
		dir->state = HTTP2_FRAME;
	if (dir->type == FRAME_GOAWAY) {
		pass->stream = 0;
		return EVENT_GOAWAY;
	}
	return EVENT_NONE;
}

/* Gives back what has come in this pass of a header block that is not whole. Returns where it begins; NO_FRAME: nowhere. */
ENGINE_INLINE __u32 http2_give_back(struct http2_direction *dir, const struct http2_pass *pass)
{
	const struct http2_mark *mark = &pass->mark;

	if (!dir->block_stream || mark->position >= pass->size)
		return NO_FRAME;
	dir->state = HTTP2_BLOCK;
	dir->remaining = mark->remaining;
	dir->padding = mark->padding;
	dir->stream = mark->stream;
	dir->block_stream = mark->block_stream;
	dir->type = mark->type;
	dir->flags = mark->flags;
	dir->block_length = 0;
	dir->held_count = 0;
	return mark->position;
}

/* Where a byte of the block, at `at` of block.bytes, stands in the message; NO_FRAME: it is not in the first frame of a
 * block that began there. */
ENGINE_INLINE __u32 http2_position(const struct http2_pass *pass, __u32 at)
{
	if (at < WINDOW_SIZE)
		return pass->start + at;
	at -= ASSEMBLY;
	return pass->mark.position == NO_FRAME || at >= pass->mark.remaining ? NO_FRAME : pass->mark.position + at;
}

/* A part of a header block: read where it stands if it is whole, else put together. */
ENGINE_INLINE int http2_block(struct http2_direction *dir, struct http2_pass *pass)
{
	__u32 available, left, part, to;

	if (!dir->block_length) {
		pass->mark.position = pass->position;
		pass->mark.remaining = dir->remaining;
		pass->mark.padding = dir->padding;
		pass->mark.stream = dir->stream;
		pass->mark.block_stream = dir->block_stream;
		pass->mark.type = dir->type;
		pass->mark.flags = dir->flags;
	}
	available = http2_available(pass);
	left = pass->size - pass->position;
	if (!dir->block_length && (dir->flags & FLAG_END_HEADERS) && dir->remaining <= WINDOW_SIZE &&
	    dir->remaining <= left) {
		if (available < dir->remaining)
			return http2_more(pass, dir->remaining);
		pass->block.position = http2_at(pass);
		pass->block.end = pass->block.position + dir->remaining;
		http2_take(dir, pass, dir->remaining);
	} else if (dir->remaining) {
		if (!available)
			return http2_more(pass, dir->remaining);
		part = at_most(at_most(available, dir->remaining), WINDOW_SIZE);
		if (dir->block_length + part > MAX_BLOCK_SIZE)
			return -REASON_BLOCK_TOO_LARGE;
		to = at_most(ASSEMBLY + dir->block_length, ASSEMBLY + MAX_BLOCK_SIZE);
		copy_bytes(&pass->block.bytes[to], part, &pass->block.bytes[http2_at(pass)]);
		dir->block_length += part;
		http2_take(dir, pass, part);
		return EVENT_NONE;
	} else {
		if (!(dir->flags & FLAG_END_HEADERS)) {
			http2_finish_payload(dir);
			return EVENT_NONE;
		}
		pass->block.position = ASSEMBLY;
		pass->block.end = ASSEMBLY + dir->block_length;
	}
	http2_finish_payload(dir);
	pass->stream = dir->block_stream;
	pass->flags = dir->block_flags;
	pass->frame = NO_FRAME;
	dir->block_stream = 0;
	dir->block_length = 0;
	return dir->promise ? EVENT_PROMISE : EVENT_HEADERS;
}

/*
 * One byte of SETTINGS. A table size beyond what the mirror holds is lowered to it: byte by byte, the largest value that
 * is neither above the limit nor above what was announced, so that the parts may come in different messages.
 */
ENGINE_GLOBAL int http2_setting(struct http2_direction *dir, struct http2_pass *pass)
{
	__u32 byte, at, limit;

	if (!dir || !pass)
		return -REASON_FRAME_ORDER;
	if (!dir->remaining) {
		http2_finish_payload(dir);
		return EVENT_NONE;
	}
	if (!http2_available(pass))
		return http2_more(pass, dir->remaining);
	byte = pass->block.bytes[http2_at(pass)];
	at = dir->held_count;
	dir->held_count = at == 5 ? 0 : at + 1;
	http2_take(dir, pass, 1);
	if (at < 2) {
		dir->held[at & 15] = byte;
		dir->held[2] = 0; /* the value's bytes so far are the limit's */
		return EVENT_NONE;
	}
	if (dir->held[0] || dir->held[1] != SETTINGS_HEADER_TABLE_SIZE || dir->held[2] == 1)
		return EVENT_NONE;
	limit = HPACK_TABLE_SIZE >> (8 * (5 - at) & 31) & 0xff;
	if (byte < limit && dir->held[2] == 0)
		dir->held[2] = 1; /* below it, whatever comes */
	else if (byte > limit && dir->held[2] == 0)
		dir->held[2] = 2; /* above it: the rest is the limit's */
	if (dir->held[2] != 2 || byte == limit)
		return EVENT_NONE;
	pass->edit_position = pass->position - 1;
	pass->edit_value = limit;
	pass->edit_count = 1;
	return EVENT_EDIT;
}

/* What has a fixed size: the header of a frame, and what stands before or in place of its payload. */
ENGINE_INLINE int http2_fixed(struct http2_direction *dir, struct http2_pass *pass)
{
	const __u8 *head;
	__u32 size = 0;

	switch (dir->state) {
	case HTTP2_FRAME:
		if (likely(!dir->held_count && http2_available(pass) >= FRAME_HEADER_SIZE)) {
			head = &pass->block.bytes[http2_at(pass)];
			pass->position += FRAME_HEADER_SIZE;
		} else {
			if (!http2_hold(dir, pass, FRAME_HEADER_SIZE))
				return http2_more(pass, FRAME_HEADER_SIZE);
			head = dir->held;
		}
		return http2_begin_frame(dir, pass, load_be64(head), head[8]);
	case HTTP2_PAD_LENGTH:
		size = 1;
		break;
	case HTTP2_PRIORITY:
		size = 5;
		break;
	case HTTP2_PROMISED:
	case HTTP2_RESET:
		size = 4;
		break;
	}
	if (!dir->held_count && dir->remaining < size)
		return -REASON_FRAME_SIZE;
	if (!http2_hold(dir, pass, size))
		return http2_more(pass, size);
	dir->remaining -= size;
	switch (dir->state) {
	case HTTP2_PAD_LENGTH:
		dir->padding = dir->held[0];
		if (dir->padding > dir->remaining)
			return -REASON_FRAME_PADDING;
		dir->remaining -= dir->padding;
		dir->state = http2_after_padding(dir);
		return EVENT_NONE;
	case HTTP2_PRIORITY:
		/* Servers pass such a frame over in ways of their own, its block undecoded or what follows taken for frames. */
		if ((http2_held_u32(dir) & 0x7fffffff) == dir->stream)
			return -REASON_FRAME_STREAM;
		if (dir->type == FRAME_PRIORITY) {
			http2_finish_payload(dir);
			return EVENT_NONE;
		}
		break;
	case HTTP2_RESET:
		pass->stream = dir->stream;
		pass->code = http2_held_u32(dir);
		http2_finish_payload(dir);
		return EVENT_RESET;
	}
	dir->state = HTTP2_BLOCK;
	return EVENT_NONE;
}

/* Whether a frame may be of headers, of the usual form and for the window, by what follows its first byte, a zero. */
ENGINE_INLINE int http2_may_be_headers(const __u8 *bytes, __u32 count)
{
	return (count < 1 || bytes[0] < WINDOW_SIZE >> 8) && (count < 3 || bytes[2] == FRAME_HEADERS) &&
	       (count < 4 || (bytes[3] & (FLAG_PADDED | FLAG_PRIORITY | FLAG_END_HEADERS)) == FLAG_END_HEADERS);
}

/*
 * A frame that is whole in the window, and like most: the same as the long way does, in a fraction of the steps. Returns
 * EVENT_END, having done nothing, for every other one; EVENT_MORE for one that a larger window would show; where frames
 * of headers are to be whole, EVENT_CUT for one that is not, or may become one.
 */
ENGINE_INLINE int http2_quick(struct http2_direction *dir, struct http2_pass *pass)
{
	__u32 available = http2_available(pass), at = http2_at(pass), length, stream, flags, left;
	const __u8 *bytes = &pass->block.bytes[at];
	__u64 head;

	if (dir->held_count || dir->block_stream || !dir->begun)
		return EVENT_END;
	if (unlikely(available < FRAME_HEADER_SIZE)) {
		left = pass->size - pass->position;
		if (left < FRAME_HEADER_SIZE && (!pass->whole || available == left))
			return pass->whole && left && !bytes[0] && http2_may_be_headers(&bytes[1], left - 1) ? EVENT_CUT :
														EVENT_END;
		pass->want = FRAME_HEADER_SIZE;
		return EVENT_MORE;
	}
	head = load_be64(bytes);
	length = head >> 40;
	flags = head >> 24 & 0xff;
	stream = ((__u32)head << 8 | bytes[8]) & 0x7fffffff;
	switch (head >> 32 & 0xff) {
	case FRAME_DATA:
		if (!stream || (flags & FLAG_PADDED))
			return EVENT_END;
		dir->type = FRAME_DATA;
		dir->flags = flags;
		dir->stream = stream;
		dir->remaining = length;
		dir->padding = 0;
		dir->state = HTTP2_DATA;
		pass->stream = stream;
		pass->position += FRAME_HEADER_SIZE;
		return EVENT_DATA;
	case FRAME_HEADERS:
		if (!stream || (flags & (FLAG_PADDED | FLAG_PRIORITY | FLAG_END_HEADERS)) != FLAG_END_HEADERS)
			return EVENT_END;
		if (unlikely(length > available - FRAME_HEADER_SIZE)) {
			/* In the window it is seen as a whole, if the message has it so. */
			if (length > WINDOW_SIZE - FRAME_HEADER_SIZE)
				return EVENT_END;
			if (FRAME_HEADER_SIZE + length > pass->size - pass->position)
				return pass->whole ? EVENT_CUT : EVENT_END;
			pass->want = FRAME_HEADER_SIZE + length;
			return EVENT_MORE;
		}
		pass->block.position = at + FRAME_HEADER_SIZE;
		pass->block.end = at + FRAME_HEADER_SIZE + length;
		pass->stream = stream;
		pass->flags = flags;
		pass->frame = pass->position;
		pass->position += FRAME_HEADER_SIZE + length;
		return EVENT_HEADERS;
	case FRAME_WINDOW_UPDATE:
		if (length != 4 || available < FRAME_HEADER_SIZE + 4)
			return EVENT_END;
		pass->position += FRAME_HEADER_SIZE + 4;
		return EVENT_NONE;
	}
	return EVENT_END;
}

/*
 * The rest of a frame whose first byte, a zero, has gone before, where frames of headers are to be whole. Returns as
 * `http2_quick`.
 */
ENGINE_GLOBAL int http2_lead(struct http2_direction *dir, struct http2_pass *pass)
{
	__u32 available, left, at, length, size = FRAME_HEADER_SIZE - 1;
	const __u8 *bytes;
	__u64 head;

	if (!dir || !pass)
		return -REASON_FRAME_ORDER;
	left = pass->size - pass->position;
	if (dir->held_count != 1 || dir->held[0] || dir->block_stream || !dir->begun || !left)
		return EVENT_END;
	available = http2_available(pass);
	if (available < size && available < left)
		return http2_more(pass, size);
	at = http2_at(pass);
	bytes = &pass->block.bytes[at];
	if (left < size)
		return http2_may_be_headers(bytes, left) ? EVENT_CUT : EVENT_END;
	head = load_be64(bytes);
	length = head >> 48;
	if ((head >> 40 & 0xff) != FRAME_HEADERS || !(head & 0x7fffffff) || length > WINDOW_SIZE - FRAME_HEADER_SIZE ||
	    (head >> 32 & (FLAG_PADDED | FLAG_PRIORITY | FLAG_END_HEADERS)) != FLAG_END_HEADERS)
		return EVENT_END;
	size += length;
	if (left < size)
		return EVENT_CUT;
	if (available < size)
		return http2_more(pass, size);
	dir->held_count = 0;
	pass->block.position = at + FRAME_HEADER_SIZE - 1;
	pass->block.end = at + size;
	pass->stream = head & 0x7fffffff;
	pass->flags = head >> 32 & 0xff;
	pass->frame = pass->position;
	pass->position += size;
	return EVENT_HEADERS;
}

/*
 * Goes on in the message. Returns an enum http2_event, or a negated reason: the direction can be read no further.
 * After EVENT_DATA the caller takes the payload in, and ends it with `http2_finish_payload` when nothing remains.
 */
ENGINE_INLINE int http2_step(struct http2_direction *dir, struct http2_pass *pass)
{
	__u32 left, part;
	int event;

	if (dir->state == HTTP2_FRAME) {
		event = http2_quick(dir, pass);
		if (likely(event != EVENT_END))
			return event;
		if (unlikely(pass->whole && dir->held_count)) {
			event = http2_lead(dir, pass);
			if (event != EVENT_END)
				return event;
		}
		event = http2_fixed(dir, pass);
		if (event != EVENT_NONE || (dir->state != HTTP2_BLOCK && dir->state != HTTP2_DATA))
			return event;
	}
	switch (dir->state) {
	case HTTP2_PREFACE:
	case HTTP2_TOKEN:
		return http2_preface(dir, pass);
	case HTTP2_BLOCK:
		return http2_block(dir, pass);
	case HTTP2_SETTINGS:
		return http2_setting(dir, pass);
	case HTTP2_DATA:
		pass->stream = dir->stream;
		return EVENT_DATA;
	case HTTP2_SKIP:
		left = pass->size - pass->position;
		if (!left)
			return EVENT_END;
		part = left < dir->remaining ? left : dir->remaining;
		http2_take(dir, pass, part);
		if (!dir->remaining)
			http2_finish_payload(dir);
		return EVENT_NONE;
	}
	return http2_fixed(dir, pass);
}
