/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * How a call is denied without a byte more or less towards the server, and how the server's refusal becomes a denial.
 *
 * Towards the server the :path is changed in place to one that no method has, so that the server's own gRPC refuses the
 * call before any handler: UNIMPLEMENTED, as a lone header block or in trailers after one; or, where HTTP has the first
 * word, an error of HTTP's with a body. Towards the client grpc-status and grpc-message are exchanged, and an error becomes
 * 403, which is PERMISSION_DENIED (gRPC, "HTTP to gRPC Status Code Mapping"). Both tables of a direction keep entries of
 * the same sizes in the same order; where an entry's string is not what the encoder meant, it is marked `altered`, and
 * later references to it are written out.
 */
#pragma once

#include "engine/hpack.h"

#define MAX_EDITS 2

/* The longest header block that is written anew, and how much longer it may become. */
#define REWRITE_LIMIT 4096
#define REWRITE_SIZE (2 * REWRITE_LIMIT)

/* Bytes of a block: at[i] becomes value[i]. */
struct hpack_edits {
	__u32 count;
	__u32 at[MAX_EDITS];
	__u8 value[MAX_EDITS];
	__u8 reserved[2];
};

/* What a block is written anew for. */
enum rewriting {
	REWRITE_PLAIN = 0, /* what it refers to is not what its encoder meant */
	REWRITE_LAST = 1,  /* it is the refusal of a denied call, or the end of one */
	REWRITE_FIRST = 2, /* more of such a refusal is to come */
};

/* A block that is written anew. */
struct hpack_rewrite {
	__u8 bytes[REWRITE_SIZE];
	__u32 length;
	__u32 changed;	   /* it is not the block that came */
	enum rewriting kind;
	__u32 status;	   /* of the denial */
	__u32 http;	   /* :status as it is written; 0: there is none */
	__u32 grpc;	   /* its content-type was there */
	__u32 verdict;	   /* grpc-status or grpc-message was */
	__u32 failed;
};

/* ":path: /", which no method has either. */
#define INDEXED_SLASH 0x84

#define HUFFMAN_SLASH 0x18
#define HUFFMAN_DASH 0x16
#define HUFFMAN_SLASH_WIDTH 6

#define DENIAL_MESSAGE "RBAC: access denied"

#define HTTP_OK 200
#define HTTP_FIRST_ERROR 400
#define HTTP_FORBIDDEN 403

/* The second '/' of a string in Huffman code that begins with one, as a bit; the first where there is no other; 0: none. */
ENGINE_GLOBAL __u32 denial_find_slash(const struct hpack_block *block)
{
	__u32 bit, end, i, byte, width, first;
	__u64 window;

	if (!block)
		return 0;
	first = bit = block->path_text_at * 8;
	end = bit + block->path_size * 8;
	loop_below (i, HPACK_BUFFER_SIZE) {
		window = load_be64(&block->bytes[masked(bit >> 3, HPACK_BUFFER_SIZE)]) << (bit & 7);
		byte = window >> 56;
		width = huffman_short_widths[byte];
		if (!width)
			width = huffman_long_width(window >> 32);
		if (bit + width > end)
			return i ? first : 0;
		if (width == HUFFMAN_SLASH_WIDTH && byte >> 2 == HUFFMAN_SLASH) {
			if (i)
				return bit;
		} else if (!i) {
			return 0;
		}
		bit += width;
	}
	return 0;
}

/* The same of a plain string, as a position. */
ENGINE_GLOBAL __u32 denial_find_plain_slash(const struct hpack_block *block)
{
	__u32 i, at;

	if (!block || !block->path_size || block->bytes[masked(block->path_text_at, HPACK_BUFFER_SIZE)] != '/')
		return 0;
	loop_below (i, TEXT_SIZE) {
		at = block->path_text_at + 1 + i;
		if (1 + i >= block->path_size)
			return block->path_text_at;
		if (block->bytes[masked(at, HPACK_BUFFER_SIZE)] == '/')
			return at;
	}
	return 0;
}

/* The entry with this number has another string than its encoder meant. 0: there is none. */
ENGINE_INLINE void mark_altered(struct hpack_table *table, __u32 entry)
{
	if (entry && table->inserted - entry < table->count)
		table->entries[masked(entry - 1, HPACK_ENTRIES)].altered = 1;
}

ENGINE_INLINE void denial_edit(struct hpack_edits *edits, __u32 index, __u32 at, __u32 value)
{
	edits->at[index] = at;
	edits->value[index] = value;
	edits->count = index + 1;
}

/*
 * The bytes of the block that was just read that make its server refuse the call. 0, or -1: there are none, as the :path
 * is not there once, is a longer reference, or does not begin with '/'. What the server's table keeps of it is marked.
 */
ENGINE_GLOBAL int denial_neutralise(struct hpack_table *table, const struct hpack_block *block, struct hpack_edits *edits)
{
	__u32 at, bit, word, flip;

	if (!table || !block || !edits || block->paths != 1)
		return -1;
	edits->count = 0;
	at = block->path_at;
	if (block->path_form == FORM_INDEXED) {
		if (block->bytes[masked(at, HPACK_BUFFER_SIZE)] == 0xff)
			return -1;
		denial_edit(edits, 0, at, INDEXED_SLASH);
		return 0;
	}
	if (!block->path_huffman) {
		at = denial_find_plain_slash(block);
		if (!at)
			return -1;
		denial_edit(edits, 0, at, '-');
	} else {
		bit = denial_find_slash(block);
		if (!bit)
			return -1;
		at = bit >> 3;
		flip = (HUFFMAN_SLASH ^ HUFFMAN_DASH) << (16 - HUFFMAN_SLASH_WIDTH - (bit & 7));
		word = (__u32)block->bytes[masked(at, HPACK_BUFFER_SIZE)] << 8 | block->bytes[masked(at + 1, HPACK_BUFFER_SIZE)];
		word ^= flip;
		denial_edit(edits, 0, at, word >> 8 & 0xff);
		if (flip & 0xff)
			denial_edit(edits, 1, at + 1, word & 0xff);
	}
	mark_altered(table, block->path_entry);
	return 0;
}

/* Begins with nothing. */
ENGINE_INLINE void rewrite_begin(struct hpack_rewrite *rewrite, enum rewriting kind, __u32 status)
{
	rewrite->length = 0;
	rewrite->changed = kind == REWRITE_LAST;
	rewrite->kind = kind;
	rewrite->status = status;
	rewrite->http = 0;
	rewrite->grpc = 0;
	rewrite->verdict = 0;
	rewrite->failed = 0;
}

ENGINE_INLINE void rewrite_append(struct hpack_rewrite *rewrite, const void *bytes, __u32 count)
{
	__u32 to = rewrite->length;

	if (to > REWRITE_LIMIT || count > REWRITE_LIMIT) {
		rewrite->failed = 1;
		return;
	}
	copy_bytes(&rewrite->bytes[at_most(to, REWRITE_LIMIT)], at_most(count, REWRITE_LIMIT), bytes);
	rewrite->length = to + count;
}

ENGINE_INLINE void rewrite_byte(struct hpack_rewrite *rewrite, __u32 byte)
{
	rewrite->bytes[masked(rewrite->length, REWRITE_SIZE)] = byte;
	rewrite->length++;
}

/* A string literal in plain, its length below 127. */
#define rewrite_text(rewrite, literal)                                                                                \
	({                                                                                                            \
		static const char __text[32] = literal;                                                               \
		rewrite_byte(rewrite, sizeof(literal) - 1);                                                           \
		rewrite_append(rewrite, __text, sizeof(literal) - 1);                                                 \
	})

/* :status, with `form` and the name of static entry 8. */
ENGINE_INLINE void rewrite_http_status(struct hpack_rewrite *rewrite, __u32 form, __u32 status)
{
	rewrite_byte(rewrite, form | 8);
	rewrite_byte(rewrite, 3);
	rewrite_byte(rewrite, '0' + status / 100 % 10);
	rewrite_byte(rewrite, '0' + status / 10 % 10);
	rewrite_byte(rewrite, '0' + status % 10);
	rewrite->changed = 1;
}

/* A status of gRPC's in decimal, as a string literal. */
ENGINE_INLINE void rewrite_status(struct hpack_rewrite *rewrite, __u32 status)
{
	rewrite_byte(rewrite, status < 10 ? 1 : 2);
	if (status >= 10)
		rewrite_byte(rewrite, '1');
	rewrite_byte(rewrite, '0' + status % 10);
}

ENGINE_GLOBAL int rewrite_raw(struct hpack_rewrite *rewrite, const struct hpack_block *block, __u32 from)
{
	if (!rewrite || !block)
		return 0;
	rewrite_append(rewrite, &block->bytes[masked(from, HPACK_BUFFER_SIZE)], block->position - from);
	return 0;
}

/* The field that was read, with `form` and a name of its own before its value. */
ENGINE_GLOBAL int rewrite_name(struct hpack_rewrite *rewrite, const struct hpack_block *block, __u32 form, int altered)
{
	if (!rewrite || !block)
		return 0;
	rewrite_byte(rewrite, form);
	if (block->name == NAME_GRPC_STATUS && altered)
		rewrite_text(rewrite, "grpc-statut");
	else if (block->name == NAME_GRPC_STATUS)
		rewrite_text(rewrite, "grpc-status");
	else if (altered)
		rewrite_text(rewrite, "grpc-messaga");
	else
		rewrite_text(rewrite, "grpc-message");
	rewrite->changed = 1;
	return rewrite_raw(rewrite, block, block->value_at);
}

/* A :path that the table does not have as the encoder meant it: as a literal. Its text is in the block. */
ENGINE_GLOBAL int rewrite_path(struct hpack_rewrite *rewrite, const struct hpack_block *block)
{
	__u32 length;

	if (!rewrite || !block)
		return 0;
	length = block->value_length;
	if (length > TEXT_SIZE) {
		rewrite->failed = 1;
		return 0;
	}
	rewrite_byte(rewrite, 0x04); /* without indexing, the name of static entry 4 */
	if (length < 0x7f) {
		rewrite_byte(rewrite, length);
	} else {
		rewrite_byte(rewrite, 0x7f);
		if (length - 0x7f >= 0x80) {
			rewrite_byte(rewrite, 0x80 | ((length - 0x7f) & 0x7f));
			rewrite_byte(rewrite, (length - 0x7f) >> 7);
		} else {
			rewrite_byte(rewrite, length - 0x7f);
		}
	}
	rewrite_append(rewrite, block->text, length);
	rewrite->changed = 1;
	return 0;
}

/* Of a refusal, what says why. */
ENGINE_GLOBAL int rewrite_verdict(struct hpack_table *table, struct hpack_rewrite *rewrite, const struct hpack_block *block)
{
	if (!table || !rewrite || !block)
		return 0;
	rewrite->verdict = 1;
	rewrite->changed = 1;
	if (block->form != FORM_INCREMENTAL)
		return 0; /* left out: no table knows of it */
	mark_altered(table, block->entry);
	return rewrite_name(rewrite, block, 0x40, 1);
}

/* The :status of a refusal. 1: it is written; 0: it stays as it is. */
ENGINE_GLOBAL int rewrite_refusal(struct hpack_table *table, struct hpack_rewrite *rewrite, const struct hpack_block *block)
{
	__u32 status;

	if (!table || !rewrite || !block)
		return 0;
	status = block->value;
	rewrite->http = status;
	if (status < HTTP_FIRST_ERROR) {
		/* Something else is answered than that this is not to be had. */
		if (status != HTTP_OK && (rewrite->kind == REWRITE_LAST || status > HTTP_OK || status < 100))
			rewrite->failed = 1;
		return 0;
	}
	if (status == HTTP_FORBIDDEN)
		return 0;
	rewrite->http = HTTP_FORBIDDEN;
	if (block->form == FORM_INCREMENTAL)
		mark_altered(table, block->entry);
	rewrite_http_status(rewrite, block->form == FORM_INCREMENTAL ? 0x40 : 0, HTTP_FORBIDDEN);
	return 1;
}

/* What refers to an entry that the decoder has another string of. */
ENGINE_GLOBAL int rewrite_reference(struct hpack_rewrite *rewrite, const struct hpack_block *block)
{
	if (!rewrite || !block)
		return 0;
	rewrite->changed = 1;
	if (block->name == NAME_PATH)
		return rewrite_path(rewrite, block);
	if (block->name == NAME_STATUS) {
		rewrite_http_status(rewrite, 0, block->value);
		return 0;
	}
	if (block->form != FORM_INDEXED)
		return rewrite_name(rewrite, block, block->form == FORM_INCREMENTAL ? 0x40 : block->form == FORM_NEVER ? 0x10 : 0, 0);
	if (block->name != NAME_GRPC_STATUS)
		return 0; /* a message that no table has any more */
	rewrite_byte(rewrite, 0);
	rewrite_text(rewrite, "grpc-status");
	rewrite_status(rewrite, block->value);
	return 0;
}

/* Takes in the field that was read last, from `start` on. */
ENGINE_INLINE void rewrite_field(struct hpack_table *table, struct hpack_rewrite *rewrite, const struct hpack_block *block,
				 __u32 start)
{
	if (block->form == FORM_SIZE_UPDATE) {
		rewrite_raw(rewrite, block, start);
		return;
	}
	if (block->name == NAME_CONTENT_TYPE && block->value == 1)
		rewrite->grpc = 1;
	if (rewrite->kind) {
		if (block->name == NAME_GRPC_STATUS || block->name == NAME_GRPC_MESSAGE) {
			rewrite_verdict(table, rewrite, block);
			return;
		}
		if (block->name == NAME_STATUS && rewrite_refusal(table, rewrite, block))
			return;
	}
	/* The name of a :path or :status is what it was: only the string after it was altered. */
	if (block->altered && !((block->name == NAME_PATH || block->name == NAME_STATUS) && block->form != FORM_INDEXED))
		rewrite_reference(rewrite, block);
	else
		rewrite_raw(rewrite, block, start);
}

/* After the last field. 0, or -1: the block cannot be written anew. */
ENGINE_GLOBAL int rewrite_end(struct hpack_rewrite *rewrite)
{
	if (!rewrite)
		return -1;
	if (rewrite->kind == REWRITE_LAST || rewrite->verdict) {
		if (rewrite->http == HTTP_OK && !rewrite->grpc) {
			rewrite_byte(rewrite, 0);
			rewrite_text(rewrite, "content-type");
			rewrite_text(rewrite, "application/grpc");
		}
		rewrite_byte(rewrite, 0);
		rewrite_text(rewrite, "grpc-status");
		rewrite_status(rewrite, rewrite->status);
		rewrite_byte(rewrite, 0);
		rewrite_text(rewrite, "grpc-message");
		rewrite_text(rewrite, DENIAL_MESSAGE);
	}
	return rewrite->failed || rewrite->length > REWRITE_LIMIT ? -1 : 0;
}
