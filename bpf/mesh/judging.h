/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Calls are judged when their request's header block is whole. Each field that the destination's policies ask for becomes
 * a class; where the connection's walk down the diagram stopped, the call's goes on with these.
 */
#pragma once

#include "mesh/reading.h"
#include "mesh/strings.h"

#define STRING_METHOD 0
#define STRING_PATH (ATTRIBUTE_PATH - ATTRIBUTE_METHOD)
#define STRING_HOST (ATTRIBUTE_HOST - ATTRIBUTE_METHOD)
#define STRING_HEADER (ATTRIBUTE_HEADER - ATTRIBUTE_METHOD)
#define CALL_STEPS (POLICY_STRINGS + 1)

static __always_inline void dial_of(const struct reading *reading, struct dial *dial)
{
	dial->client = reading->source;
	dial->server = reading->destination;
	dial->port = reading->destination_port;
	dial->has_source = 1;
	__builtin_memcpy(dial->source, reading->source_address, sizeof(dial->source));
	__builtin_memcpy(dial->destination, reading->destination_address, sizeof(dial->destination));
}

/* Judges the connection anew where other policies have come: its next calls are judged from there. */
static __noinline int refresh_policies(struct reading *reading, struct scratch *scratch)
{
	const struct settings *conf = current_settings();
	__u32 generation;

	if (!conf)
		return 0;
	generation = READ_ONCE(conf->policies);
	if (likely(reading->policies == generation))
		return 0;
	if (generation) {
		dial_of(reading, &scratch->dial);
		judge(&scratch->dial, &scratch->judged);
		generation = scratch->judged.generation;
		reading->deny = scratch->judged.deny;
		reading->allow = scratch->judged.allow;
	}
	reading->policies = generation;
	return 0;
}

static __always_inline void doubt(struct judging *judging, __u32 index, __u32 reason)
{
	judging->doubts |= 1U << index;
	if (!judging->doubt)
		judging->doubt = reason;
}

/* ASCII letters become small ones. */
static __noinline int fold_case(__u8 *text, __u32 length)
{
	__u32 i, at;

	loop_below (i, TEXT_SIZE) {
		if (i >= length)
			break;
		at = masked(i, TEXT_SIZE);
		if (text[at] >= 'A' && text[at] <= 'Z')
			text[at] |= 0x20;
	}
	return 0;
}

/*
 * The length of a path without its query. -1: servers may read it otherwise than it is written (escapes, dot segments,
 * empty segments, backslashes, bytes beyond ASCII), so that no pattern tells which one is meant.
 */
static __noinline int plain_path(const __u8 *text, __u32 length)
{
	__u32 i, byte, last = 0;
	int dots = 0;

	loop_below (i, TEXT_SIZE) {
		if (i >= length)
			break;
		byte = text[masked(i, TEXT_SIZE)];
		if (byte == '?' || byte == '#')
			return dots ? -1 : (int)i;
		if (byte <= ' ' || byte >= 0x7f || byte == '%' || byte == '\\' || (byte == '/' && (last == '/' || dots)))
			return -1;
		dots = byte == '.' && (last == '/' || dots) && dots < 2 ? dots + 1 : 0;
		last = byte;
	}
	return dots ? -1 : (int)length;
}

static __noinline int judge_text(struct judging *judging, const struct policy *policy, __u8 *text, __u32 length,
				 __u32 index)
{
	const struct automaton *automaton;
	int plain;

	index = at_most(index, POLICY_STRINGS - 1);
	automaton = &policy->strings[index];
	if (!automaton->words && !automaton->bytes && automaton->empty == automaton->other)
		return 0; /* no policy asks for it */
	if (judging->seen & 1U << index) {
		doubt(judging, index, REASON_HEADER_REPEATED);
		return 0;
	}
	judging->seen |= 1U << index;
	if (length > TEXT_SIZE) {
		doubt(judging, index, REASON_HEADER_TOO_LONG);
		return 0;
	}
	if (index == STRING_HOST)
		fold_case(text, length);
	if (index == STRING_PATH) {
		plain = plain_path(text, length);
		if (plain < 0)
			doubt(judging, index, REASON_PATH_NOT_NORMAL);
		else
			length = plain;
	}
	judging->classes[index] = string_class(judging->generation, automaton, text, length);
	return 0;
}

/* Takes in the field that was read last, with its texts. */
__noinline int judge_field(struct judging *judging, const struct policy *policy, struct hpack_block *block)
{
	__u32 length, name, number;

	if (!judging || !policy || !block)
		return 0;
	length = block->name_length;
	name = block->name;

	if (name == NAME_METHOD)
		return judge_text(judging, policy, block->text, block->value_length, STRING_METHOD);
	if (name == NAME_PATH)
		return judge_text(judging, policy, block->text, block->value_length, STRING_PATH);
	if (name == NAME_AUTHORITY || (name == NAME_OTHER && is_text(block->name_text, length, "host")))
		return judge_text(judging, policy, block->text, block->value_length, STRING_HOST);
	if (name == NAME_SCHEME || name == NAME_STATUS || name == NAME_PSEUDO || length > TEXT_SIZE)
		return 0;
	number = string_class(judging->generation, &policy->names, block->name_text, length);
	if (number)
		return judge_text(judging, policy, block->text, block->value_length, STRING_HEADER + number - 1);
	return 0;
}

/* The verdict on the block's call: an end of the diagram, denied with POLICY_DOUBT where that asks for what is in doubt. */
__noinline int judge_call(const struct judging *judging, __u32 next)
{
	struct policy_row *row;
	__u32 node, fallback, index, i;

	if (!judging)
		return POLICY_END | POLICY_DENY;
	loop_below (i, CALL_STEPS) {
		if (next & POLICY_END)
			return next;
		node = next;
		row = policy_row(judging->generation, node, POLICY_NODE, 0);
		if (!row)
			break;
		fallback = row->next;
		index = row->extra - ATTRIBUTE_METHOD;
		if (index >= POLICY_STRINGS)
			break;
		if (judging->doubts & 1U << index)
			return POLICY_END | POLICY_DENY | POLICY_DOUBT;
		row = policy_row(judging->generation, node, POLICY_EDGE, judging->classes[at_most(index, POLICY_STRINGS - 1)]);
		next = row ? row->next : fallback;
	}
	return next & POLICY_END ? next : POLICY_END | POLICY_DENY;
}

/* A reading whose calls policies may come to judge: keeps the texts of the client's table from its beginning. 0, or -1. */
static __noinline int prepare_judging(struct reading *reading)
{
	const struct settings *conf = current_settings();
	__u64 id = reading->id;
	struct policy *policy;
	__u32 zero = 0;
	void *blank;

	if (!conf || !conf->policies)
		return 0;
	policy = policy_of(conf->policies, reading->destination);
	if (!policy || !policy->layer7)
		return 0;
	blank = bpf_map_lookup_elem(&blank_texts, &zero);
	if (!blank || bpf_map_update_elem(&client_texts, &id, blank, BPF_ANY)) {
		count_error(HELPER_MAP_UPDATE);
		return -1;
	}
	reading->judges = 1;
	return 0;
}
