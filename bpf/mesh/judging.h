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

/* ASCII letters become small ones. -1: there is user information, which some servers leave out and others do not. */
static __noinline int fold_host(__u8 *text, __u32 length)
{
	__u32 i, at;
	int result = 0;

	loop_below (i, TEXT_SIZE) {
		if (i >= length)
			break;
		at = masked(i, TEXT_SIZE);
		if (text[at] >= 'A' && text[at] <= 'Z')
			text[at] |= 0x20;
		else if (text[at] == '@')
			result = -1;
	}
	return result;
}

/*
 * The length of a path without its query. -1: servers may read it otherwise than it is written (no slash at its beginning,
 * escapes, parameters, dot segments, empty segments, backslashes, bytes beyond ASCII), so that no pattern tells which one is
 * meant.
 */
static __noinline int plain_path(const __u8 *text, __u32 length)
{
	__u32 i, byte, last = 0;
	int dots = 0;

	if (!length || text[0] != '/')
		return -1;
	loop_below (i, TEXT_SIZE) {
		if (i >= length)
			break;
		byte = text[masked(i, TEXT_SIZE)];
		if (byte == '?' || byte == '#')
			return dots ? -1 : (int)i;
		if (byte <= ' ' || byte >= 0x7f || byte == '%' || byte == ';' || byte == '\\' ||
		    (byte == '/' && (last == '/' || dots)))
			return -1;
		dots = byte == '.' && (last == '/' || dots) && dots < 2 ? dots + 1 : 0;
		last = byte;
	}
	return dots ? -1 : (int)length;
}

/* The class of a string, and whether it is in doubt. */
static __always_inline int classify(const struct judging *judging, const struct policy *policy, struct hpack_block *block,
				    struct known_field *known, __u32 index)
{
	const struct automaton *automaton;
	__u32 length = block->value_length;
	int plain;

	index = at_most(index, POLICY_STRINGS - 1);
	automaton = &policy->strings[index];
	if (!automaton->words && !automaton->bytes && automaton->empty == automaton->other)
		return 0; /* no policy asks for it */
	known->attribute = FIELD_ASKED + index;
	if (length > TEXT_SIZE) {
		known->doubt = REASON_HEADER_TOO_LONG;
		return 0;
	}
	if (index == STRING_HOST && fold_host(block->text, length))
		known->doubt = REASON_HOST_NOT_NORMAL;
	if (index == STRING_PATH) {
		plain = plain_path(block->text, length);
		if (plain < 0)
			known->doubt = REASON_PATH_NOT_NORMAL;
		else
			length = plain;
	}
	known->class = string_class(judging->generation, automaton, block->text, length);
	return 0;
}

/* The number among the attributes of calls of a field that was read with its texts; -1: no policy asks for it. */
static __noinline int field_attribute(const struct judging *judging, const struct policy *policy,
				      const struct hpack_block *block)
{
	__u32 length = block->name_length, number;

	switch (block->name) {
	case NAME_METHOD:
		return STRING_METHOD;
	case NAME_PATH:
		return STRING_PATH;
	case NAME_AUTHORITY:
		return STRING_HOST;
	case NAME_SCHEME:
	case NAME_STATUS:
	case NAME_PSEUDO:
		return -1;
	case NAME_OTHER:
		if (is_text(block->name_text, length, "host"))
			return STRING_HOST;
	}
	if (length > TEXT_SIZE)
		return -1;
	number = string_class(judging->generation, &policy->names, block->name_text, length);
	return number ? (int)(STRING_HEADER + number - 1) : -1;
}

/* Takes in a field. */
static __always_inline void take_known(struct judging *judging, const struct known_field *known)
{
	__u32 index = known->attribute - FIELD_ASKED;

	if (known->attribute < FIELD_ASKED)
		return;
	index = at_most(index, POLICY_STRINGS - 1);
	if (judging->seen & 1U << index) {
		doubt(judging, index, REASON_HEADER_REPEATED);
		return;
	}
	judging->seen |= 1U << index;
	if (unlikely(known->doubt))
		doubt(judging, index, known->doubt);
	judging->classes.of[index] = known->class;
}

/* RFC 9113 section 8.3: pseudo-headers stand before all others. */
static __always_inline void note_order(struct judging *judging, __u32 name)
{
	if (name == NAME_OTHER || name > NAME_PSEUDO)
		judging->order |= ORDER_REGULAR;
	else if (unlikely(judging->order))
		judging->order |= ORDER_LATE;
}

/* What is known of the table's fields is of the generation by which the call is judged. */
static __noinline int begin_known(struct client_texts *kept, __u32 generation)
{
	__u32 i;

	if (likely(kept->generation == generation))
		return 0;
	kept->generation = generation;
	loop_below (i, HPACK_ENTRIES + KNOWN_STATICS)
		kept->fields[at_most(i, HPACK_ENTRIES + KNOWN_STATICS - 1)].attribute = FIELD_UNKNOWN;
	return 0;
}

/* What is known of the field at the block's position, if that is an index of one byte. */
static __always_inline struct known_field *known_next(const struct hpack_table *table, const struct hpack_block *block,
						      struct client_texts *kept)
{
	__u32 index, age, number;
	struct known_field *known;

	if (block->position >= block->end)
		return NULL;
	index = block->bytes[masked(block->position, HPACK_BUFFER_SIZE)] - 0x80;
	age = index - HPACK_STATICS - 1;
	if (index <= 0x7e && age < table->count) {
		number = table->inserted - age;
		known = &kept->fields[masked(number - 1, HPACK_ENTRIES)];
	} else if (IS_KNOWN_STATIC(index)) {
		number = index;
		known = &kept->fields[HPACK_ENTRIES + masked(index, KNOWN_STATICS)];
	} else {
		return NULL;
	}
	return known->number == (__u16)number && known->attribute != FIELD_UNKNOWN ? known : NULL;
}

/* Where what is known of the field that was read is kept; else `spare`. */
static __always_inline struct known_field *known_slot(const struct hpack_block *block, struct client_texts *kept,
						      struct known_field *spare)
{
	struct known_field *known = spare;

	if (block->entry) {
		known = &kept->fields[masked(block->entry - 1, HPACK_ENTRIES)];
		known->number = block->entry;
	} else if (block->form == FORM_INDEXED && IS_KNOWN_STATIC(block->static_index)) {
		known = &kept->fields[HPACK_ENTRIES + masked(block->static_index, KNOWN_STATICS)];
		known->number = block->static_index;
	}
	known->class = 0;
	known->attribute = FIELD_UNASKED;
	known->doubt = 0;
	return known;
}

/* What a reference to a path becomes longer by beside the path, when it is written out. */
#define ALTERED_OVERHEAD 8

/* Changes the :path of the block that was read so that its server refuses the call. EVENT_EDIT, or a negated reason. */
static __always_inline int edit_path(struct half *half, struct scratch *scratch)
{
	struct http2_pass *pass = &scratch->pass;
	struct hpack_edits *edits = &scratch->edits;
	__u32 growth;

	if (denial_neutralise(&half->direction.table, &pass->block, edits))
		return -REASON_CANNOT_REFUSE;
	pass->edit_position = http2_position(pass, edits->at[0]);
	if (pass->edit_position == NO_FRAME ||
	    (edits->count > 1 && http2_position(pass, edits->at[1]) != pass->edit_position + 1))
		return -REASON_CANNOT_REFUSE;
	growth = pass->block.path_length + ALTERED_OVERHEAD;
	if (pass->block.path_form == FORM_INCREMENTAL && half->altered < growth)
		half->altered = growth;
	pass->edit_value = edits->value[0];
	pass->edit_second = edits->value[1];
	pass->edit_count = edits->count;
	return EVENT_EDIT;
}

/* The place of calls that are like this one in what policies take from them. */
static __always_inline struct known_call *known_call(const struct judging *judging, struct client_texts *kept)
{
	return &kept->calls[masked(judging->classes.of[STRING_PATH], KNOWN_CALLS)];
}

/* Whether one like it was let through by the same policies. */
static __always_inline int is_known_call(const struct judging *judging, const struct known_call *known)
{
	const __u64 *ours = (const __u64 *)judging->classes.of, *theirs = (const __u64 *)known->classes.of;
	__u64 difference = 0;

	for (__u32 i = 0; i < sizeof(struct classes) / 8; i++)
		difference |= ours[i] ^ theirs[i];
	return !difference && known->policies == judging->generation && !judging->doubts;
}

/* Takes in the field that was read last, with its texts. */
__noinline int judge_field(struct judging *judging, const struct policy *policy, struct hpack_block *block,
			   struct client_texts *kept)
{
	struct known_field *known;
	int index;

	if (!judging || !policy || !block || !kept)
		return 0;
	known = known_slot(block, kept, &judging->spare);
	index = field_attribute(judging, policy, block);
	if (index >= 0)
		classify(judging, policy, block, known, index);
	take_known(judging, known);
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
		row = policy_row(judging->generation, node, POLICY_EDGE, judging->classes.of[at_most(index, POLICY_STRINGS - 1)]);
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
