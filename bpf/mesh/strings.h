/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Strings to classes: which of a destination's patterns match, by one walk whatever their number. */
#pragma once

#include "mesh/policy.h"

static __always_inline __u64 text_word(const __u8 *text, __u32 offset, __u32 size)
{
	__u64 word = *(const __u64 *)&text[masked(offset, TEXT_SIZE)];

	return size < 8 ? word & ((1ULL << (size * 8 & 63)) - 1) : word;
}

/* Exact strings, eight bytes a step. 0: it is none of them. */
static __noinline __u32 find_exact(__u32 generation, __u32 node, const __u8 *text, __u32 length)
{
	struct policy_row *row;
	__u32 i, size;

	loop_below (i, TEXT_SIZE / 8) {
		size = length - 8 * i;
		if (size > 8) {
			row = policy_row(generation, node, 8, text_word(text, 8 * i, 8));
			if (!row)
				return 0;
			node = row->next;
			continue;
		}
		row = policy_row(generation, node, 8 + size, text_word(text, 8 * i, size));
		return row ? row->next : 0;
	}
	return 0;
}

/* Prefixes, suffixes and templates, a byte a step. 0: none of them matches. */
static __noinline __u32 find_pattern(__u32 generation, __u32 state, const __u8 *text, __u32 length)
{
	struct policy_row *row;
	__u32 i;

	loop_below (i, TEXT_SIZE) {
		if (i >= length)
			break;
		row = policy_row(generation, state, 1, text[masked(i, TEXT_SIZE)]);
		if (!row)
			row = policy_row(generation, state, POLICY_NODE, 0);
		if (!row || !row->next)
			return 0;
		state = row->next;
	}
	row = policy_row(generation, state, 0, 0);
	return row ? row->next : 0;
}

/* The class of `length` bytes, at most TEXT_SIZE; eight more may be read. */
static __noinline __u32 string_class(__u32 generation, const struct automaton *automaton, const __u8 *text, __u32 length)
{
	__u32 found = 0;

	if (!length)
		return automaton->empty;
	if (automaton->words)
		found = find_exact(generation, automaton->words, text, length);
	if (!found && automaton->bytes)
		found = find_pattern(generation, automaton->bytes, text, length);
	return found ? found & ~POLICY_END : automaton->other;
}
