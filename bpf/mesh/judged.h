/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Header blocks on connections whose calls are judged: read with their texts, changed where a call is denied. */
#pragma once

#include "mesh/draining.h"

/* Takes in the block's next field, if it is a reference to one that is known. Returns whether it has. */
static __noinline int take_reference(const struct hpack_table *table, struct scratch *scratch, struct client_texts *kept)
{
	struct hpack_block *block = &scratch->pass.block;
	struct known_field *known = known_next(table, block, kept);
	__u32 name, value, start = block->position;

	if (!known || !hpack_next_short(table, block, &name, &value))
		return 0;
	hear(&scratch->heard, name, value);
	note_order(&scratch->judging, name);
	take_known(&scratch->judging, known);
	if (name == NAME_PATH) {
		block->form = FORM_INDEXED;
		hpack_note_path(block, start);
	}
	return 1;
}

/* Reads the block of the pass with all texts, and writes it anew where references need it. 0, or a negated reason. */
static __noinline int decode_judged(struct reading *reading, struct scratch *scratch, const struct policy *policy,
				    struct client_texts *kept)
{
	struct hpack_table *table = &reading->halves[ROLE_CLIENT].direction.table;
	struct hpack_block *block = &scratch->pass.block;
	__u32 rewrites = reading->halves[ROLE_CLIENT].altered, start, i;
	int result;

	block->fields = 0;
	block->paths = 0;
	block->path_length = 0;
	block->path_entry = 0;
	__builtin_memset(&scratch->heard, 0, sizeof(scratch->heard));
	__builtin_memset(&scratch->judging, 0, sizeof(scratch->judging));
	scratch->judging.generation = reading->policies;
	rewrite_begin(&scratch->rewrite, REWRITE_PLAIN, 0);
	begin_known(kept, reading->policies);
	loop_below (i, HEADER_BLOCK_SIZE + 1) {
		if (policy && likely(!rewrites) && take_reference(table, scratch, kept))
			continue;
		start = block->position;
		result = hpack_next(table, block, &kept->texts);
		if (result <= 0)
			return result;
		if (likely(block->form != FORM_SIZE_UPDATE)) {
			hear(&scratch->heard, block->name, block->value);
			note_order(&scratch->judging, block->name);
			if (policy)
				judge_field(&scratch->judging, policy, block, kept);
		}
		if (unlikely(rewrites))
			rewrite_field(table, &scratch->rewrite, block, start);
	}
	return 0;
}

/* Who let the call of the block through, or did not. */
static __noinline int decide_call(struct reading *reading, struct scratch *scratch)
{
	struct judging *judging = &scratch->judging;
	struct judgement *judged = &scratch->judged;
	__u32 deny, allow;

	deny = reading->deny;
	allow = reading->allow;
	judged->generation = judging->generation;
	judged->verdict = verdict_of(deny, allow);
	if (!judged->verdict) {
		deny = judge_call(judging, deny);
		allow = judge_call(judging, allow);
		judged->verdict = verdict_of(deny, allow);
	}
	name_decision(judged);
	judging->decider = pack_decider(judged->policy, judged->rule);
	judging->denied = is_denied(judged->verdict);
	return 0;
}

/* Counts what is only reported of the call. */
static __always_inline void count_reports(const struct reports *reports)
{
	struct counters *count;

	if (likely(!(reports->audit | reports->dry_run)))
		return;
	count = this_cpu_counters();
	if (!count)
		return;
	__sync_fetch_and_add(&count->audited_calls, reports->audit != 0);
	__sync_fetch_and_add(&count->dry_run_denied_calls, (reports->dry_run & DECIDER_DENY) != 0);
}

/* To the end of a diagram that is only reported, for the call. */
static __always_inline __u32 report_end(const struct scratch *scratch, __u32 root)
{
	return judge_call(&scratch->judging, walk_dial(scratch->judging.generation, root, &scratch->dial));
}

/* What AUDIT policies and dry runs say of the call. */
static __noinline int report_call(struct reading *reading, struct scratch *scratch, const struct policy *policy)
{
	struct judging *judging = &scratch->judging;

	if (!policy || likely(!reports_any(policy)))
		return 0;
	dial_of(reading, &scratch->dial);
	if (policy->audit)
		judging->reports.audit = auditor_of(judging->generation, report_end(scratch, policy->audit));
	if (policy->dry_deny)
		judging->reports.dry_run =
			decider_of(judging->generation, verdict_of(report_end(scratch, policy->dry_deny),
								   report_end(scratch, policy->dry_allow)));
	count_reports(&judging->reports);
	return 0;
}

static __noinline int count_denied_call(void)
{
	struct counters *count = this_cpu_counters();

	if (count)
		__sync_fetch_and_add(&count->denied_calls, 1);
	return 0;
}

/* Judges the call of the block, and takes down what is only reported. */
static __noinline int judge_block(struct reading *reading, struct scratch *scratch, const struct policy *policy,
				  struct client_texts *kept)
{
	struct judging *judging = &scratch->judging;
	struct known_call *known = known_call(judging, kept);

	if (likely(is_known_call(judging, known))) {
		judging->decider = known->decider;
		judging->reports = known->reports;
		count_reports(&judging->reports);
		return 0;
	}
	decide_call(reading, scratch);
	report_call(reading, scratch, policy);
	if (judging->denied || judging->doubts)
		return 0;
	known->policies = judging->generation;
	known->decider = judging->decider;
	known->reports = judging->reports;
	known->classes = judging->classes;
	return 0;
}

/* Changes the block so that its server refuses the call. EVENT_EDIT, or a negated reason: it costs the connection. */
static __noinline int refuse_call(struct reading *reading, struct scratch *scratch, const struct policy *policy)
{
	int result;

	count_denied_call();
	if (scratch->judged.verdict & POLICY_DOUBT)
		return -(int)scratch->judging.doubt;
	if (!policy || !is_grpc(&scratch->heard) || policy->deny_reset)
		return -REASON_CANNOT_REFUSE;
	result = edit_path(&reading->halves[ROLE_CLIENT], scratch);
	reading->denials += result == EVENT_EDIT;
	return result;
}

static __always_inline int is_new_stream(const struct reading *reading, __u32 stream)
{
	return stream > reading->halves[ROLE_CLIENT].last_stream;
}

/*
 * Flags of frames of headers that all servers take alike. gRPC's C core pays no heed to FLAG_PADDED and decodes the padding,
 * which makes another request of it than the one that is read here; what others make of flags without a meaning, nobody knows.
 */
#define PLAIN_FLAGS (FLAG_END_STREAM | FLAG_END_HEADERS | FLAG_PRIORITY)

/* A header block of the client's. Returns an event, or a negated reason. */
__noinline int read_request(struct reading *reading, struct scratch *scratch)
{
	struct hpack_table *table;
	struct hpack_block *block;
	struct client_texts *kept;
	struct repeated *last;
	struct policy *policy;
	__u32 position, inserted, mark;
	__u64 id;
	int result;

	if (!reading || !scratch)
		return -REASON_HPACK_TRUNCATED;
	if (unlikely(scratch->pass.flags & ~PLAIN_FLAGS))
		return -REASON_HEADERS_FLAGS;
	block = &scratch->pass.block;
	table = &reading->halves[ROLE_CLIENT].direction.table;
	last = &reading->halves[ROLE_CLIENT].repeated[scratch->pass.flags & FLAG_END_STREAM];
	if (likely(last->policies == reading->policies && repeats(last, block, table) &&
		   is_new_stream(reading, scratch->pass.stream) && !is_draining(reading))) {
		scratch->heard = last->heard;
		scratch->judging.denied = 0;
		scratch->judging.decider = last->decider;
		scratch->judging.reports = last->reports;
		count_reports(&last->reports);
		on_headers(reading, scratch, ROLE_CLIENT);
		return EVENT_NONE;
	}
	id = reading->id;
	kept = bpf_map_lookup_elem(&client_texts, &id);
	if (!kept)
		return -REASON_HELPER_FAILED;
	policy = reading->policies ? policy_of(reading->policies, reading->destination) : NULL;
	position = block->position;
	inserted = table->inserted;
	mark = table_mark(table);
	result = decode_judged(reading, scratch, policy, kept);
	if (result)
		return result;
	if (unlikely(scratch->judging.order & ORDER_LATE))
		return -REASON_HEADERS_ORDER;
	last->length = 0;
	if (!is_new_stream(reading, scratch->pass.stream) || !(scratch->pass.stream & 1)) {
		/* Trailers: they ask for nothing, and a stream that ended may not begin again. */
		if (block->paths)
			return -REASON_FRAME_STREAM;
		on_headers(reading, scratch, ROLE_CLIENT);
		return scratch->rewrite.changed ? EVENT_REWRITE : EVENT_NONE;
	}
	if (is_draining(reading))
		return turn_away(reading, scratch);
	if (policy)
		judge_block(reading, scratch, policy, kept);
	if (unlikely(scratch->rewrite.changed && !scratch->firm && !scratch->judging.denied))
		return turn_away(reading, scratch);
	resolve_method(reading, scratch);
	if (unlikely(scratch->judging.denied)) {
		result = refuse_call(reading, scratch, policy);
		if (result < 0)
			return result;
		on_headers(reading, scratch, ROLE_CLIENT);
		return EVENT_EDIT;
	}
	if (inserted == table->inserted && mark == table_mark(table) && block->end - position <= REPEATED_SIZE &&
	    !scratch->rewrite.changed) {
		block->position = position;
		remember(last, block, table, position);
		last->heard = scratch->heard;
		last->policies = reading->policies;
		last->decider = scratch->judging.decider;
		last->reports = scratch->judging.reports;
	}
	on_headers(reading, scratch, ROLE_CLIENT);
	return scratch->rewrite.changed ? EVENT_REWRITE : EVENT_NONE;
}

/* Reads a block of the server's, and writes it anew. 0, or a negated reason. */
static __noinline int decode_rewritten(struct reading *reading, struct scratch *scratch, enum rewriting kind)
{
	struct half *half = &reading->halves[ROLE_SERVER];
	struct hpack_table *table = &half->direction.table;
	struct hpack_block *block = &scratch->pass.block;
	__u32 start, i;
	int result;

	block->fields = 0;
	block->paths = 0;
	block->path_length = 0;
	block->path_entry = 0;
	__builtin_memset(&scratch->heard, 0, sizeof(scratch->heard));
	rewrite_begin(&scratch->rewrite, kind, GRPC_PERMISSION_DENIED);
	loop_below (i, HEADER_BLOCK_SIZE + 1) {
		start = block->position;
		result = hpack_next(table, block, NULL);
		if (result < 0)
			return result;
		if (!result)
			break;
		hear(&scratch->heard, block->name, block->value);
		rewrite_field(table, &scratch->rewrite, block, start);
	}
	half->altered |= kind != REWRITE_PLAIN;
	return rewrite_end(&scratch->rewrite) ? -REASON_CANNOT_REFUSE : 0;
}

/* Whether a block that does not end its stream may begin a refusal: gRPC's trailers are to come, or a body that tells of an
 * error. What else is answered has been done, and is not for its caller. */
static __always_inline int begins_refusal(const struct heard *heard)
{
	if (heard->status == HTTP_OK)
		return heard->grpc & HEARD_GRPC;
	return heard->status < HTTP_OK || heard->status >= HTTP_FIRST_ERROR;
}

/* A header block of the server's, once a call was denied. Returns an event, or a negated reason. */
__noinline int read_answer(struct reading *reading, struct scratch *scratch)
{
	struct call *call;
	__u32 refused, firm, last;
	int result;

	if (!reading || !scratch)
		return -REASON_HPACK_TRUNCATED;
	call = find_call(reading, scratch->pass.stream);
	refused = call && (call->traits & TRAIT_DENIED);
	firm = scratch->firm && scratch->pass.frame != NO_FRAME;
	last = scratch->pass.flags & FLAG_END_STREAM;
	reading->halves[ROLE_SERVER].repeated[0].length = 0;
	reading->halves[ROLE_SERVER].repeated[1].length = 0;
	result = decode_rewritten(reading, scratch, !refused || !firm ? REWRITE_PLAIN : last ? REWRITE_LAST : REWRITE_FIRST);
	if (!result)
		result = tell_client(reading, scratch);
	if (result)
		return result;
	if (refused) {
		if (!last && !begins_refusal(&scratch->heard))
			return -REASON_CANNOT_REFUSE;
		if (likely(firm)) {
			scratch->heard.status = scratch->rewrite.http;
			if (last || scratch->rewrite.verdict)
				scratch->heard.grpc_status = GRPC_PERMISSION_DENIED + 1;
		}
	}
	on_headers(reading, scratch, ROLE_SERVER);
	if (!scratch->rewrite.changed && !scratch->goaway)
		return EVENT_NONE;
	if (likely(firm))
		return EVENT_REWRITE;
	/* There is no room for it: of what is refused, the caller learns it with another status. */
	return refused ? EVENT_NONE : -REASON_CANNOT_REFUSE;
}
