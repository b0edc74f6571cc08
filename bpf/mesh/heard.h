/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What a header block says, as far as calls need it. Calls repeat themselves: the same bytes say the same as long as the
 * HPACK table is as it was, so the last block of each kind is remembered with what it said.
 */
#pragma once

#include "mesh/methods.h"

static __always_inline __u32 table_mark(const struct hpack_table *table)
{
	return (__u32)table->count << 16 | table->max_size;
}

/* Copies or compares the block's bytes; beyond its end come whatever bytes, which a mask takes away. */
static __always_inline __u64 block_word(const struct hpack_block *block, __u32 index, __u32 length)
{
	__u32 rest = length - index * 8;
	__u64 word = *(const __u64 *)&block->bytes[masked(block->position, 2 * HEADER_BLOCK_SIZE) + index * 8];

	return rest < 8 ? word & ((1ULL << (rest * 8 & 63)) - 1) : word;
}

static __always_inline int repeats(const struct repeated *last, const struct hpack_block *block,
				   const struct hpack_table *table)
{
	__u32 length = block->end - block->position;

	if (last->length != length || !length || last->inserted != table->inserted || last->mark != table_mark(table))
		return 0;
	for (__u32 i = 0; i < REPEATED_SIZE / 8; i++) {
		if (i * 8 >= length)
			break;
		if (last->words[i] != block_word(block, i, length))
			return 0;
	}
	return 1;
}

static __always_inline void remember(struct repeated *last, const struct hpack_block *block,
				     const struct hpack_table *table, __u32 position)
{
	__u32 length = block->end - position;

	for (__u32 i = 0; i < REPEATED_SIZE / 8; i++) {
		if (i * 8 >= length)
			break;
		last->words[i] = block_word(block, i, length);
	}
	last->length = length;
	last->inserted = table->inserted;
	last->mark = table_mark(table);
}

static __always_inline void hear(struct heard *heard, __u32 name, __u32 value)
{
	switch (name) {
	case NAME_PATH:
		heard->method = value;
		break;
	case NAME_STATUS:
		heard->status = value;
		break;
	case NAME_CONTENT_TYPE:
		heard->grpc |= value == 1 ? HEARD_GRPC : 0;
		break;
	case NAME_METHOD:
		heard->grpc |= value == 1 ? 0 : HEARD_NOT_POST;
		break;
	case NAME_GRPC_STATUS:
		heard->grpc_status = value + 1;
		break;
	case NAME_GRPC_TIMEOUT:
		heard->timeout = value;
		break;
	}
}

/* Decodes the header block of the pass. Returns 0, or a negated reason. */
static __noinline int decode_block(struct hpack_table *table, struct scratch *scratch)
{
	struct hpack_block *block = &scratch->pass.block;
	__u32 i, name, value;
	int result;

	block->fields = 0;
	block->paths = 0;
	block->path_length = 0;
	block->path_entry = 0;
	__builtin_memset(&scratch->heard, 0, sizeof(scratch->heard));
	loop_below (i, HEADER_BLOCK_SIZE + 1) {
		if (!hpack_next_short(table, block, &name, &value)) {
			result = hpack_next(table, block, NULL);
			if (result <= 0)
				return result;
			name = block->name;
			value = block->value;
		}
		hear(&scratch->heard, name, value);
	}
	return 0;
}

/* A path that came as text, or with a reference to one that nobody has numbered yet, becomes a method. */
static __always_inline void resolve_method(struct reading *reading, struct scratch *scratch)
{
	struct heard *heard = &scratch->heard;

	if (!is_grpc(heard)) {
		heard->method = METHOD_OVERFLOW;
	} else if (heard->method == VALUE_UNRESOLVED) {
		/* Without a length it stands for a path that came with no gRPC call: nobody kept it. */
		heard->method = method_number(scratch, reading->destination, scratch->pass.block.path_length);
		hpack_remember(&reading->halves[ROLE_CLIENT].direction.table, scratch->pass.block.path_entry, heard->method);
	}
}

/* Decodes the header block of the pass, and remembers it if calls may repeat it. Returns 0, or a negated reason. */
__noinline int read_new_block(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct hpack_block *block;
	struct hpack_table *table;
	struct repeated *last;
	__u32 position, inserted, mark;
	int reason;

	if (!reading || !scratch)
		return -REASON_HPACK_TRUNCATED;
	role &= 1;
	block = &scratch->pass.block;
	table = &reading->halves[role].direction.table;
	last = &reading->halves[role].repeated[scratch->pass.flags & FLAG_END_STREAM];
	position = block->position;
	inserted = table->inserted;
	mark = table_mark(table);
	reason = decode_block(table, scratch);
	if (reason)
		return reason;
	if (role == ROLE_CLIENT)
		resolve_method(reading, scratch);
	last->length = 0;
	if (inserted == table->inserted && mark == table_mark(table) && block->end - position <= REPEATED_SIZE) {
		block->position = position;
		remember(last, block, table, position);
		last->heard = scratch->heard;
	}
	return 0;
}

/* Reads the header block of the pass into `heard`. Returns 0, or a negated reason. */
static __always_inline int read_block(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct half *half = &reading->halves[role];
	struct repeated *last = &half->repeated[scratch->pass.flags & FLAG_END_STREAM];

	if (unlikely(!repeats(last, &scratch->pass.block, &half->direction.table)))
		return read_new_block(reading, scratch, role);
	scratch->heard = last->heard;
	return 0;
}
