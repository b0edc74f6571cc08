/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * gRPC messages in the DATA of one stream and direction: each has a prefix of a flag and its length (gRPC over HTTP/2,
 * Length-Prefixed-Message), and both may lie across frames and writes.
 */
#pragma once

#include "engine/http2.h"

#define GRPC_PREFIX_SIZE 5

/* One direction of a call. */
struct grpc_stream {
	__u64 bytes;	    /* of DATA, without padding */
	__u32 remaining;    /* of the message in hand; while a prefix is coming, what has come of the length */
	__u32 messages;	    /* of which the prefix was there */
	__u32 tag;	    /* the caller's own */
	__u8 prefix_count;  /* bytes of the prefix that have come */
	__u8 opaque;	    /* not gRPC, or not any more: bytes only */
	__u8 compressed;    /* a message was */
	__u8 malformed;	    /* REASON_GRPC_FLAG */
};

/* Opaque bytes that are certain to come next in this direction, whatever they are. */
ENGINE_INLINE __u32 grpc_opaque(const struct http2_direction *dir, const struct grpc_stream *stream)
{
	if (dir->state == HTTP2_SKIP)
		return dir->remaining;
	if (dir->state != HTTP2_DATA)
		return 0;
	if (!stream || stream->opaque)
		return dir->remaining;
	if (stream->prefix_count)
		return 0;
	return stream->remaining < dir->remaining ? stream->remaining : dir->remaining;
}

/* Takes in one byte of a prefix. */
ENGINE_INLINE void grpc_prefix(struct grpc_stream *stream, __u32 byte)
{
	if (!stream->prefix_count) {
		stream->remaining = 0;
		stream->prefix_count = 1;
		if (byte == 1)
			stream->compressed = 1;
		if (byte > 1) {
			stream->malformed = 1;
			stream->opaque = 1;
		}
		return;
	}
	stream->remaining = stream->remaining << 8 | byte;
	if (++stream->prefix_count == GRPC_PREFIX_SIZE) {
		stream->prefix_count = 0;
		stream->messages++;
	}
}

ENGINE_INLINE __u32 grpc_least(__u32 first, __u32 second, __u32 third)
{
	__u32 least = first < second ? first : second;

	return least < third ? least : third;
}

/*
 * Takes in the DATA that stands at the position, a message or a part of one at a time. Returns EVENT_NONE (call again
 * while the frame has bytes), EVENT_MORE, EVENT_END.
 */
ENGINE_INLINE int grpc_data(struct http2_direction *dir, struct http2_pass *pass, struct grpc_stream *stream)
{
	const __u8 *bytes;
	__u32 left, part, rest;

	left = pass->size - pass->position;
	if (!left)
		return EVENT_END;
	part = grpc_opaque(dir, stream);
	if (part) {
		if (part > left)
			part = left;
		if (!stream->opaque)
			stream->remaining -= part;
	} else {
		part = http2_available(pass);
		if (!part)
			return http2_more(pass, GRPC_PREFIX_SIZE);
		bytes = &pass->block.bytes[http2_at(pass)];
		if (likely(!stream->prefix_count && part >= GRPC_PREFIX_SIZE && dir->remaining >= GRPC_PREFIX_SIZE &&
			   bytes[0] <= 1)) {
			part = GRPC_PREFIX_SIZE;
			stream->compressed |= bytes[0];
			stream->remaining = load_be64(bytes) >> 24;
			stream->messages++;
			rest = grpc_least(stream->remaining, dir->remaining - part, left - part);
			stream->remaining -= rest;
			part += rest;
		} else {
			part = 1;
			grpc_prefix(stream, bytes[0]);
		}
	}
	stream->bytes += part;
	http2_take(dir, pass, part);
	return EVENT_NONE;
}
