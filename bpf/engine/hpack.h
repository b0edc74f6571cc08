/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * HPACK (RFC 7541): reads header blocks field by field. The dynamic table mirrors the encoder's in size and order; of
 * an entry it keeps its lengths and what the mesh remembers of the value; the strings only where somebody asks for them.
 */
#pragma once

#include "engine/headers.h"
#include "engine/huffman.h"
#include "shared/reasons.h"

#define HPACK_BUFFER_SIZE (2 * HEADER_BLOCK_SIZE)
#define HPACK_STATICS 61
#define HPACK_ENTRY_OVERHEAD 32 /* RFC 7541 4.1 */

enum hpack_form {
	FORM_INDEXED,
	FORM_INCREMENTAL,
	FORM_LITERAL,
	FORM_NEVER,
	FORM_SIZE_UPDATE
};

struct hpack_entry {
	__u32 value;
	__u32 size : 13;
	__u32 name_length : 12;
	__u32 name : 6;
	__u32 altered : 1; /* the decoder was given another string of this length (engine/denial.h) */
};

/* Zeros, and max_size = HPACK_TABLE_SIZE, are the initial state. Entries are numbered from 1 as they are inserted. */
struct hpack_table {
	struct hpack_entry entries[HPACK_ENTRIES];
	__u32 inserted; /* ever: the number of the newest */
	__u16 count;
	__u16 size;
	__u16 max_size;
	__u16 reserved;
};

/*
 * The strings of a table's entries, name and value in a row; of one that is longer than TEXT_SIZE its beginning. A ring:
 * an entry begins below HPACK_TABLE_SIZE and may end beyond it, the next one begins at 0 then. Whatever an entry is
 * written over has at least HPACK_TABLE_SIZE bytes between its beginning and the new one's end, and the table does not
 * hold so many: it has been evicted.
 */
struct hpack_texts {
	__u8 bytes[HPACK_TABLE_SIZE + 2 * TEXT_SIZE];
	__u16 offsets[HPACK_ENTRIES];
	__u32 next;
};

/* One header block that is read, and the field that was read last; scratch. */
struct hpack_block {
	__u8 bytes[HPACK_BUFFER_SIZE]; /* the rest of the block is at [position, end) */
	__u8 text[2 * TEXT_SIZE];      /* decoded strings: first half the last one, second half the last :path */
	__u8 name_text[TEXT_SIZE + 8]; /* of the last field, where texts are kept; `text` has its value then */
	__u32 position;
	__u32 end;
	__u32 text_length;  /* of the last string, also beyond TEXT_SIZE: then `text` holds its beginning */
	__u32 path_length;  /* of the last :path that was a literal or static, likewise */
	__u32 path_entry;   /* the table entry that this path was inserted as; 0: none */
	__u32 form;	    /* enum hpack_form */
	__u32 name;	    /* enum hpack_name */
	__u32 value;	    /* header_value; of FORM_SIZE_UPDATE the size */
	__u32 name_length;
	__u32 value_length;
	__u32 entry;	    /* the table entry that was referenced as a whole or inserted; 0: none */
	__u32 name_entry;   /* the table entry whose name a literal took; 0: none */
	__u32 static_index; /* of the static entry that was referenced, as a whole or for its name; 0: none */
	__u32 fields;	    /* read so far, size updates apart */
	__u32 bit;	    /* of `bytes`, where a string in Huffman code is decoded */
	__u32 altered;	    /* the entry that was referenced is */
	__u32 huffman;	    /* the last string was in Huffman code */
	__u32 string_at;    /* its first byte */
	__u32 value_at;	    /* of a literal: its value, with the length before it */
	__u32 path_at;	    /* the last :path: its representation, */
	__u32 path_form;    /* enum hpack_form, */
	__u32 path_text_at; /* of a literal, the first byte of its string, */
	__u32 path_huffman; /* in Huffman code, */
	__u32 path_size;    /* and its bytes there */
	__u32 paths;	    /* read so far in the block: the caller begins with 0 */
};

/* RFC 7541, appendix A. */
struct hpack_static {
	__u32 value;
	__u8 name;
	__u8 name_length;
	__u8 value_length;
	__u8 reserved;
	char name_text[28];
	char value_text[16];
};

#define STATIC(kind, name_literal, value_literal, number)                                                             \
	{                                                                                                             \
		.value = number, .name = kind, .name_length = sizeof(name_literal) - 1,                               \
		.value_length = sizeof(value_literal) - 1, .name_text = name_literal, .value_text = value_literal     \
	}

static const struct hpack_static hpack_statics[64] = {
	[1] = STATIC(NAME_AUTHORITY, ":authority", "", 0),
	[2] = STATIC(NAME_METHOD, ":method", "GET", 2),
	[3] = STATIC(NAME_METHOD, ":method", "POST", 1),
	[4] = STATIC(NAME_PATH, ":path", "/", VALUE_UNRESOLVED),
	[5] = STATIC(NAME_PATH, ":path", "/index.html", VALUE_UNRESOLVED),
	[6] = STATIC(NAME_SCHEME, ":scheme", "http", 0),
	[7] = STATIC(NAME_SCHEME, ":scheme", "https", 0),
	[8] = STATIC(NAME_STATUS, ":status", "200", 200),
	[9] = STATIC(NAME_STATUS, ":status", "204", 204),
	[10] = STATIC(NAME_STATUS, ":status", "206", 206),
	[11] = STATIC(NAME_STATUS, ":status", "304", 304),
	[12] = STATIC(NAME_STATUS, ":status", "400", 400),
	[13] = STATIC(NAME_STATUS, ":status", "404", 404),
	[14] = STATIC(NAME_STATUS, ":status", "500", 500),
	[15] = STATIC(NAME_OTHER, "accept-charset", "", 0),
	[16] = STATIC(NAME_OTHER, "accept-encoding", "gzip, deflate", 0),
	[17] = STATIC(NAME_OTHER, "accept-language", "", 0),
	[18] = STATIC(NAME_OTHER, "accept-ranges", "", 0),
	[19] = STATIC(NAME_OTHER, "accept", "", 0),
	[20] = STATIC(NAME_OTHER, "access-control-allow-origin", "", 0),
	[21] = STATIC(NAME_OTHER, "age", "", 0),
	[22] = STATIC(NAME_OTHER, "allow", "", 0),
	[23] = STATIC(NAME_OTHER, "authorization", "", 0),
	[24] = STATIC(NAME_OTHER, "cache-control", "", 0),
	[25] = STATIC(NAME_OTHER, "content-disposition", "", 0),
	[26] = STATIC(NAME_OTHER, "content-encoding", "", 0),
	[27] = STATIC(NAME_OTHER, "content-language", "", 0),
	[28] = STATIC(NAME_OTHER, "content-length", "", 0),
	[29] = STATIC(NAME_OTHER, "content-location", "", 0),
	[30] = STATIC(NAME_OTHER, "content-range", "", 0),
	[31] = STATIC(NAME_CONTENT_TYPE, "content-type", "", 0),
	[32] = STATIC(NAME_OTHER, "cookie", "", 0),
	[33] = STATIC(NAME_OTHER, "date", "", 0),
	[34] = STATIC(NAME_OTHER, "etag", "", 0),
	[35] = STATIC(NAME_OTHER, "expect", "", 0),
	[36] = STATIC(NAME_OTHER, "expires", "", 0),
	[37] = STATIC(NAME_OTHER, "from", "", 0),
	[38] = STATIC(NAME_OTHER, "host", "", 0),
	[39] = STATIC(NAME_OTHER, "if-match", "", 0),
	[40] = STATIC(NAME_OTHER, "if-modified-since", "", 0),
	[41] = STATIC(NAME_OTHER, "if-none-match", "", 0),
	[42] = STATIC(NAME_OTHER, "if-range", "", 0),
	[43] = STATIC(NAME_OTHER, "if-unmodified-since", "", 0),
	[44] = STATIC(NAME_OTHER, "last-modified", "", 0),
	[45] = STATIC(NAME_OTHER, "link", "", 0),
	[46] = STATIC(NAME_OTHER, "location", "", 0),
	[47] = STATIC(NAME_OTHER, "max-forwards", "", 0),
	[48] = STATIC(NAME_OTHER, "proxy-authenticate", "", 0),
	[49] = STATIC(NAME_OTHER, "proxy-authorization", "", 0),
	[50] = STATIC(NAME_OTHER, "range", "", 0),
	[51] = STATIC(NAME_OTHER, "referer", "", 0),
	[52] = STATIC(NAME_OTHER, "refresh", "", 0),
	[53] = STATIC(NAME_OTHER, "retry-after", "", 0),
	[54] = STATIC(NAME_OTHER, "server", "", 0),
	[55] = STATIC(NAME_OTHER, "set-cookie", "", 0),
	[56] = STATIC(NAME_OTHER, "strict-transport-security", "", 0),
	[57] = STATIC(NAME_OTHER, "transfer-encoding", "", 0),
	[58] = STATIC(NAME_OTHER, "user-agent", "", 0),
	[59] = STATIC(NAME_OTHER, "vary", "", 0),
	[60] = STATIC(NAME_OTHER, "via", "", 0),
	[61] = STATIC(NAME_OTHER, "www-authenticate", "", 0),
};

ENGINE_GLOBAL __s64 hpack_long_integer(struct hpack_block *block, __u32 prefix)
{
	__u64 value = prefix;
	__u32 position, end, byte, shift;

	if (!block)
		return -REASON_HPACK_TRUNCATED;
	position = block->position;
	end = block->end;
	for (shift = 0; shift < 35; shift += 7) {
		if (position >= end)
			return -REASON_HPACK_TRUNCATED;
		byte = block->bytes[masked(position, HPACK_BUFFER_SIZE)];
		position++;
		value += (__u64)(byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if (value > 0xffffffff)
			break;
		block->position = position;
		return value;
	}
	return -REASON_HPACK_INTEGER;
}

/* The integer at the position, which is within the block; `limit` is its prefix's mask. Negative: -enum reason. */
ENGINE_INLINE __s64 hpack_integer(struct hpack_block *block, __u32 limit)
{
	__u32 prefix = block->bytes[masked(block->position, HPACK_BUFFER_SIZE)] & limit;

	block->position++;
	if (likely(prefix < limit))
		return prefix;
	return hpack_long_integer(block, prefix);
}

/* Reads a string literal into the first half of the text. Returns 0, or a negated reason. */
ENGINE_GLOBAL int hpack_string(struct hpack_block *block)
{
	__u32 position, huffman;
	__s64 length;

	if (!block || block->position >= block->end)
		return -REASON_HPACK_TRUNCATED;
	huffman = block->bytes[masked(block->position, HPACK_BUFFER_SIZE)] & 0x80;
	length = hpack_integer(block, 0x7f);
	if (length < 0)
		return length;
	position = block->position;
	if (length > block->end - position)
		return -REASON_HPACK_TRUNCATED;
	block->position = position + length;
	block->huffman = huffman;
	block->string_at = position;
	block->text_length = 0;
	if (!huffman) {
		block->text_length = length;
		copy_bytes(block->text, at_most(length, TEXT_SIZE), &block->bytes[masked(position, HPACK_BUFFER_SIZE)]);
		return 0;
	}
	block->bit = position * 8;
	if (huffman_decode(block->bytes, HPACK_BUFFER_SIZE, &block->bit, block->position * 8, block->text,
			   &block->text_length))
		return -REASON_HPACK_HUFFMAN;
	return 0;
}

/* Drops the oldest entries until the table is no larger than `limit`. */
ENGINE_GLOBAL int hpack_evict(struct hpack_table *table, __u32 limit)
{
	__u32 i;

	if (!table)
		return 0;
	loop_below (i, HPACK_ENTRIES) {
		if (table->size <= limit)
			break;
		table->size -= table->entries[masked(table->inserted - table->count, HPACK_ENTRIES)].size;
		table->count--;
	}
	return 0;
}

/* The strings of the field that was read become those of entry `number`. */
ENGINE_GLOBAL int hpack_keep_texts(struct hpack_texts *texts, const struct hpack_block *block, __u32 number)
{
	__u32 name, value, at;

	if (!texts || !block)
		return 0;
	name = at_most(block->name_length, TEXT_SIZE);
	value = at_most(block->value_length, TEXT_SIZE);
	at = masked(texts->next, HPACK_TABLE_SIZE);
	texts->offsets[masked(number - 1, HPACK_ENTRIES)] = at;
	copy_bytes(&texts->bytes[at], name, block->name_text);
	copy_bytes(&texts->bytes[at + name], value, block->text);
	at += name + value;
	texts->next = at < HPACK_TABLE_SIZE ? at : 0;
	return 0;
}

/* Inserts the field that was read. One that the table cannot hold empties it (RFC 7541 4.4). */
ENGINE_INLINE void hpack_insert(struct hpack_table *table, struct hpack_block *block, struct hpack_texts *texts)
{
	__u32 size = block->name_length + block->value_length + HPACK_ENTRY_OVERHEAD, max_size = table->max_size;
	struct hpack_entry *entry;

	if (size > max_size) {
		table->count = 0;
		table->size = 0;
		return;
	}
	if (table->size + size > max_size)
		hpack_evict(table, max_size - size);
	entry = &table->entries[masked(table->inserted, HPACK_ENTRIES)];
	entry->value = block->value;
	entry->size = size;
	entry->name_length = block->name_length;
	entry->name = block->name;
	entry->altered = 0;
	table->size += size;
	table->count++;
	block->entry = ++table->inserted;
	if (unlikely(texts))
		hpack_keep_texts(texts, block, block->entry);
}

/* The path's text moves where it stays until the next one. */
ENGINE_INLINE void hpack_keep_path(struct hpack_block *block, const void *text, __u32 length)
{
	block->path_length = length;
	block->path_entry = block->entry;
	copy_bytes(&block->text[TEXT_SIZE], at_most(length, TEXT_SIZE), text);
}

/* The name of the field that was looked up becomes the block's, and its value, if that is `wanted`. */
ENGINE_GLOBAL int hpack_recall_texts(const struct hpack_texts *texts, struct hpack_block *block, int wanted)
{
	const struct hpack_static *field;
	__u32 name, value, at;

	if (!texts || !block)
		return 0;
	if (block->static_index) {
		field = &hpack_statics[masked(block->static_index, 64)];
		copy_bytes(block->name_text, sizeof(field->name_text), field->name_text);
		if (wanted)
			copy_bytes(block->text, sizeof(field->value_text), field->value_text);
		return 0;
	}
	name = at_most(block->name_length, TEXT_SIZE);
	value = at_most(block->value_length, TEXT_SIZE);
	at = masked(texts->offsets[masked(block->entry - 1, HPACK_ENTRIES)], HPACK_TABLE_SIZE);
	copy_bytes(block->name_text, name, &texts->bytes[at]);
	if (wanted)
		copy_bytes(block->text, value, &texts->bytes[at + name]);
	return 0;
}

/* Looks an index up in both tables (RFC 7541 2.3.3): fills in the field. Returns 0, or a negated reason. */
ENGINE_INLINE int hpack_look_up(const struct hpack_table *table, struct hpack_block *block, __u32 index)
{
	const struct hpack_static *field;
	const struct hpack_entry *entry;
	__u32 age, number;

	if (index - 1 < HPACK_STATICS) {
		field = &hpack_statics[masked(index, 64)];
		block->static_index = index;
		block->name = field->name;
		block->value = field->value;
		block->name_length = field->name_length;
		block->value_length = field->value_length;
		return 0;
	}
	age = index - HPACK_STATICS - 1;
	if (age >= table->count)
		return -REASON_HPACK_INDEX;
	number = table->inserted - age;
	entry = &table->entries[masked(number - 1, HPACK_ENTRIES)];
	block->entry = number;
	block->name = entry->name;
	block->value = entry->value;
	block->name_length = entry->name_length;
	block->value_length = entry->size - entry->name_length - HPACK_ENTRY_OVERHEAD;
	block->altered = entry->altered;
	return 0;
}

/* Where the :path stands that was just read. */
ENGINE_INLINE void hpack_note_path(struct hpack_block *block, __u32 start)
{
	block->paths++;
	block->path_at = start;
	block->path_form = block->form;
	block->path_huffman = block->huffman;
	block->path_text_at = block->string_at;
	block->path_size = block->position - block->string_at;
}

ENGINE_INLINE int hpack_size_update(struct hpack_table *table, struct hpack_block *block)
{
	__s64 size = hpack_integer(block, 0x1f);

	if (size < 0)
		return size;
	if (size > HPACK_TABLE_SIZE || block->fields)
		return -REASON_HPACK_TABLE_SIZE;
	block->form = FORM_SIZE_UPDATE;
	block->name = NAME_OTHER;
	block->value = size;
	table->max_size = size;
	hpack_evict(table, size);
	return 1;
}

/* What is not an indexed field. `texts` may be NULL. */
ENGINE_GLOBAL int hpack_literal(struct hpack_table *table, struct hpack_block *block, struct hpack_texts *texts)
{
	__u32 first;
	__s64 index;
	int result;

	if (!table || !block)
		return -REASON_HPACK_TRUNCATED;
	first = block->bytes[masked(block->position, HPACK_BUFFER_SIZE)];
	if ((first & 0xe0) == 0x20)
		return hpack_size_update(table, block);
	block->form = first & 0x40 ? FORM_INCREMENTAL : first & 0x10 ? FORM_NEVER : FORM_LITERAL;
	index = hpack_integer(block, first & 0x40 ? 0x3f : 0x0f);
	if (index < 0)
		return index;
	if (index) {
		result = hpack_look_up(table, block, index);
		if (result)
			return result;
		if (unlikely(texts))
			hpack_recall_texts(texts, block, 0);
		block->name_entry = block->entry;
		block->entry = 0;
	} else {
		result = hpack_string(block);
		if (result)
			return result;
		block->name_length = block->text_length;
		block->name = header_name(block->text, block->text_length);
		if (unlikely(texts))
			copy_bytes(block->name_text, TEXT_SIZE, block->text);
	}
	block->value_at = block->position;
	result = hpack_string(block);
	if (result)
		return result;
	block->value_length = block->text_length;
	block->value = header_value(block->name, block->text, block->text_length);
	if (block->form == FORM_INCREMENTAL)
		hpack_insert(table, block, texts);
	if (block->name == NAME_PATH)
		hpack_keep_path(block, block->text, block->text_length);
	block->fields++;
	return 1;
}

/*
 * Reads the next field, or size update. Returns 1, 0 at the block's end, or a negated enum reason: then neither the
 * block nor the table can be used any more. `texts`, of this table, may be NULL.
 */
ENGINE_GLOBAL int hpack_next(struct hpack_table *table, struct hpack_block *block, struct hpack_texts *texts)
{
	__u32 start;
	__s64 index;
	int result;

	if (!table || !block)
		return -REASON_HPACK_TRUNCATED;
	if (block->position >= block->end)
		return 0;
	block->entry = 0;
	block->name_entry = 0;
	block->static_index = 0;
	block->altered = 0;
	start = block->position;
	if (!(block->bytes[masked(start, HPACK_BUFFER_SIZE)] & 0x80)) {
		result = hpack_literal(table, block, texts);
		if (result > 0 && block->name == NAME_PATH)
			hpack_note_path(block, start);
		return result;
	}
	block->form = FORM_INDEXED;
	index = hpack_integer(block, 0x7f);
	if (index < 0)
		return index;
	result = hpack_look_up(table, block, index);
	if (result)
		return result;
	if (unlikely(texts))
		hpack_recall_texts(texts, block, 1);
	if (block->name == NAME_PATH)
		hpack_note_path(block, start);
	if (unlikely(block->static_index && block->name == NAME_PATH))
		hpack_keep_path(block, hpack_statics[masked(index, 64)].value_text, block->value_length);
	block->fields++;
	return 1;
}

/*
 * The same for a field that is one byte, an index, which most fields of a repeated call are: only its name and value.
 * Returns 0, and does nothing, for every other field.
 */
ENGINE_INLINE int hpack_next_short(const struct hpack_table *table, struct hpack_block *block, __u32 *name, __u32 *value)
{
	const struct hpack_static *field;
	const struct hpack_entry *entry;
	__u32 index, age;

	if (block->position >= block->end)
		return 0;
	index = block->bytes[masked(block->position, HPACK_BUFFER_SIZE)] - 0x80;
	if (index - 1 < HPACK_STATICS) {
		field = &hpack_statics[masked(index, 64)];
		if (unlikely(field->name == NAME_PATH))
			return 0;
		*name = field->name;
		*value = field->value;
	} else {
		age = index - HPACK_STATICS - 1;
		if (index > 0x7e || age >= table->count)
			return 0;
		entry = &table->entries[masked(table->inserted - age - 1, HPACK_ENTRIES)];
		*name = entry->name;
		*value = entry->value;
	}
	block->position++;
	block->fields++;
	return 1;
}

/* Sets the value of an entry, if the table still has it. */
ENGINE_INLINE void hpack_remember(struct hpack_table *table, __u32 entry, __u32 value)
{
	if (entry && table->inserted - entry < table->count)
		table->entries[masked(entry - 1, HPACK_ENTRIES)].value = value;
}
