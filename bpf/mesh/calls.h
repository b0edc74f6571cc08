/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Calls of a connection: begun by a request's header block, ended by the response's end or by a reset. */
#pragma once

#include "mesh/heard.h"
#include "mesh/rows.h"

static __always_inline struct shared_call *shared_slot(__u64 id, __u32 stream)
{
	__u32 first = id * HASH_FACTOR >> 40;
	__u32 index = (first + (stream >> 1 & (SHARED_RUN - 1))) & (SHARED_SLOTS - 1);

	return bpf_map_lookup_elem(&shared_calls, &index);
}

/* How many calls of the connection are kept elsewhere: none too few, for what is returned meanwhile was not so before. */
static __always_inline __u32 spilled_calls(const struct reading *reading)
{
	__u32 returned = READ_ONCE(reading->halves[ROLE_CLIENT].returned) + READ_ONCE(reading->halves[ROLE_SERVER].returned);

	return READ_ONCE(reading->halves[ROLE_CLIENT].spilled) - returned;
}

static __always_inline int is_stream(const struct call *call, __u32 stream)
{
	return READ_ONCE(call->state) >> 32 == stream;
}

/* A call that is not in its connection's own slot. */
static __noinline struct call *find_spilled(__u64 id, __u32 stream)
{
	struct call_key key = { .connection = id, .stream = stream };
	struct shared_call *shared = shared_slot(id, stream);
	struct call *call;

	if (shared && shared->connection == id && is_stream(&shared->call, stream))
		return &shared->call;
	call = bpf_map_lookup_elem(&calls, &key);
	return call && is_stream(call, stream) ? call : NULL;
}

static __always_inline struct call *find_call(struct reading *reading, __u32 stream)
{
	struct call *call = &reading->slots[(stream >> 1) & (CALL_SLOTS - 1)];

	if (likely(is_stream(call, stream)))
		return call;
	return spilled_calls(reading) ? find_spilled(reading->id, stream) : NULL;
}

/* Gives the place of a spilled call back. */
static __noinline int return_place(struct reading *reading, __u32 stream, __u32 role, __u32 place)
{
	struct call_key key = { .connection = reading->id, .stream = stream };
	struct shared_call *shared;

	if (place == PLACE_TABLE) {
		bpf_map_delete_elem(&calls, &key);
	} else {
		shared = shared_slot(key.connection, stream);
		if (shared)
			WRITE_ONCE(shared->connection, 0);
	}
	reading->halves[role & 1].returned++;
	return 0;
}

/* Both directions may be at one call at a time, which is two updates of its state at most. */
#define STATE_TRIES 4

/*
 * Adds to what has become of a call, and frees its place once it is over: whoever completes it does, and nobody touches
 * it afterwards. Returns the state's low half as it was before, or -1: the call is another's by now.
 */
static __always_inline int advance_call(struct reading *reading, struct call *call, __u32 stream, __u32 role,
					__u32 more)
{
	__u32 place = call->traits & PLACE_MASK;

	for (__u32 i = 0; i < STATE_TRIES; i++) {
		__u64 before = READ_ONCE(call->state), after = before | more;

		if (before >> 32 != stream)
			return -1;
		/* Who ends the response counts it, so an ended call is a counted one. */
		if ((after & CALL_OVER) == CALL_OVER)
			after = 0;
		if (__sync_val_compare_and_swap(&call->state, before, after) != before)
			continue;
		if (!after && place != PLACE_OWN)
			return_place(reading, stream, role, place);
		return before & CALL_OVER;
	}
	return -1;
}

/* All of a call but its state. */
static __always_inline void fill_call(struct call *call, struct scratch *scratch, __u32 place, __u32 judges)
{
	__u32 grpc = is_grpc(&scratch->heard);

	call->start_ns = now_of(scratch);
	__builtin_memset(call->halves, 0, sizeof(call->halves));
	call->halves[ROLE_CLIENT].opaque = !grpc;
	call->halves[ROLE_SERVER].opaque = !grpc;
	call->method = scratch->heard.method;
	call->timeout = scratch->heard.timeout;
	call->http_status = 0;
	call->grpc_status = 0;
	call->traits = place | (grpc ? TRAIT_GRPC : 0);
	call->dry_run = 0;
	if (unlikely(judges)) {
		call->traits |= scratch->judging.denied ? TRAIT_DENIED : 0;
		call->dry_run = scratch->judging.reports.dry_run;
		call->halves[ROLE_CLIENT].tag = scratch->judging.decider;
		call->halves[ROLE_SERVER].tag = scratch->judging.reports.audit;
	}
}

/* A call whose slot is another's. */
static __noinline int spill_call(struct reading *reading, struct scratch *scratch, __u32 stream, __u64 state)
{
	struct call_key key = { .connection = reading->id, .stream = stream };
	struct shared_call *shared = shared_slot(key.connection, stream);
	struct call call = {};

	if (shared && !__sync_val_compare_and_swap(&shared->connection, 0, key.connection)) {
		fill_call(&shared->call, scratch, PLACE_SHARED, reading->judges);
		WRITE_ONCE(shared->call.state, state);
	} else {
		fill_call(&call, scratch, PLACE_TABLE, reading->judges);
		call.state = state;
		if (bpf_map_update_elem(&calls, &key, &call, BPF_NOEXIST)) {
			count_error(HELPER_MAP_UPDATE);
			return 0;
		}
	}
	reading->halves[ROLE_CLIENT].spilled++;
	return 0;
}

/* A request's first header block, and perhaps all of it: only the hook that reads requests comes here. */
static __always_inline void begin_call(struct reading *reading, struct scratch *scratch, __u32 stream, __u32 ends)
{
	struct call *slot = &reading->slots[(stream >> 1) & (CALL_SLOTS - 1)];
	__u64 state = (__u64)stream << 32 | (ends ? CALL_REQUEST_ENDED : 0);

	reading->halves[ROLE_CLIENT].last_stream = stream;
	if (unlikely(READ_ONCE(slot->state))) {
		spill_call(reading, scratch, stream, state);
		return;
	}
	fill_call(slot, scratch, PLACE_OWN, reading->judges);
	WRITE_ONCE(slot->state, state);
}

/*
 * Counts the call of a stream that ends by `more`, unless it was counted. Since it was found, the other direction's hook
 * may have ended it, and its place be nobody's or another's; so a copy is counted, and only if it was still there afterwards.
 */
static __always_inline void end_call(struct reading *reading, struct call *call, struct scratch *scratch, __u32 stream,
				     __u32 role, __u32 more, enum ending ending)
{
	int before;

	scratch->ended = *call;
	before = advance_call(reading, call, stream, role, more | CALL_COUNTED);
	if (before >= 0 && !(before & CALL_COUNTED))
		finish_call(reading, scratch, stream, ending);
}

/* One direction of a call has ended. Its record stays until the other has too. */
static __always_inline void end_half(struct reading *reading, struct call *call, struct scratch *scratch, __u32 role,
				     __u32 stream)
{
	if (role == ROLE_CLIENT)
		advance_call(reading, call, stream, role, CALL_REQUEST_ENDED);
	else
		end_call(reading, call, scratch, stream, role, CALL_RESPONSE_ENDED, ENDING_COMPLETE);
}

/* A whole header block of a stream, decoded into the scratch. */
static __always_inline void on_headers(struct reading *reading, struct scratch *scratch, __u32 role)
{
	__u32 stream = scratch->pass.stream, ends = scratch->pass.flags & FLAG_END_STREAM;
	struct call *call;

	if (role == ROLE_CLIENT) {
		/* A new stream is nowhere yet: no use in looking for it. */
		if (likely((stream & 1) && stream > reading->halves[ROLE_CLIENT].last_stream)) {
			begin_call(reading, scratch, stream, ends);
			return;
		}
		if (!ends)
			return;
	}
	call = find_call(reading, stream);
	if (!call)
		return;
	if (role == ROLE_SERVER) {
		if (scratch->heard.status >= 200)
			call->http_status = scratch->heard.status;
		if (scratch->heard.grpc_status)
			call->grpc_status = scratch->heard.grpc_status;
	}
	if (ends)
		end_half(reading, call, scratch, role, stream);
}

/* Whether the server sends a message for a denied call: what has been done is not for its caller. */
static __always_inline int answers_denied(const struct call *call, __u32 role)
{
	return unlikely(call->traits & TRAIT_DENIED) && role == ROLE_SERVER && call->http_status < HTTP_FIRST_ERROR;
}

/* DATA at the position of the pass: a message, or a part of one. EVENT_NONE or another, or a negated reason. */
static __always_inline int on_data(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct http2_direction *dir = &reading->halves[role].direction;
	struct call *call = find_call(reading, dir->stream);
	int event;

	if (dir->remaining) {
		if (likely(call)) {
			if (answers_denied(call, role))
				return -REASON_CANNOT_REFUSE;
			event = grpc_data(dir, &scratch->pass, &call->halves[role]);
			if (event != EVENT_NONE)
				return event;
		} else {
			if (scratch->pass.position >= scratch->pass.size)
				return EVENT_END;
			http2_take(dir, &scratch->pass, at_most(dir->remaining, scratch->pass.size - scratch->pass.position));
		}
		if (dir->remaining)
			return EVENT_NONE;
	}
	http2_finish_payload(dir);
	if (call && (dir->flags & FLAG_END_STREAM))
		end_half(reading, call, scratch, role, dir->stream);
	return EVENT_NONE;
}

/*
 * Resets of calls that were denied while their callers were still sending. Both sides may say so at once, and to some
 * servers (nghttp2's, so Node's) many resets by a client are an attack, for which they end the connection. So where a server
 * resets what it has refused by itself, the client's reset becomes a frame of a type that nobody knows. Some of them may
 * wait for the server's, and as many more as it has sent: Node refuses a whole batch before it resets the first of it.
 */
#define MIN_RESETS_AHEAD 16
#define MAX_RESETS_AHEAD 1024

/* The frame that was just read becomes one that is ignored. EVENT_EDIT; EVENT_NONE: it has gone out in part. */
static __always_inline int drop_reset(struct scratch *scratch)
{
	struct http2_pass *pass = &scratch->pass;

	if (pass->position < scratch->from + RESET_SIZE)
		return EVENT_NONE;
	pass->edit_position = pass->position - RESET_SIZE + FRAME_TYPE_AT;
	pass->edit_value = FRAME_IGNORED;
	pass->edit_count = 1;
	return EVENT_EDIT;
}

/* The client resets a call that its server has refused (`before` it, as advance_call says). As drop_reset. */
static __always_inline int reset_refused(struct reading *reading, struct scratch *scratch, int before)
{
	struct half *half = &reading->halves[ROLE_CLIENT];
	__u32 sent = READ_ONCE(reading->halves[ROLE_SERVER].resets);
	__s32 ahead = half->resets - sent, limit = at_most(MIN_RESETS_AHEAD + at_most(sent, MAX_RESETS_AHEAD), MAX_RESETS_AHEAD);

	/* Unless the server has just reset it. */
	if (before >= 0 && (!reading->resets_refused || ahead >= limit))
		return EVENT_NONE;
	if (drop_reset(scratch) == EVENT_NONE)
		return EVENT_NONE;
	if (before >= 0)
		half->resets += ahead < 0 ? 1 - ahead : 1;
	return EVENT_EDIT;
}

/* RST_STREAM on a connection of which calls were denied. EVENT_NONE or EVENT_EDIT; EVENT_END: it is like any other. */
static __noinline int reset_among_denials(struct reading *reading, struct scratch *scratch, __u32 role, struct call *call)
{
	struct half *half = &reading->halves[role & 1];
	__u32 stream = scratch->pass.stream;
	int before;

	if (!call) {
		if (!(stream & 1) || stream > reading->halves[ROLE_CLIENT].last_stream)
			return EVENT_END;
		if (role == ROLE_CLIENT)
			return drop_reset(scratch);
		/* Of what the client has reset, too: they have crossed. */
		reading->resets_refused = 1;
		half->resets++;
		return EVENT_NONE;
	}
	if (!(call->traits & TRAIT_DENIED) || (READ_ONCE(call->state) & CALL_OVER) != (CALL_RESPONSE_ENDED | CALL_COUNTED))
		return EVENT_END;
	before = advance_call(reading, call, stream, role, CALL_OVER);
	if (role == ROLE_CLIENT)
		return reset_refused(reading, scratch, before);
	reading->resets_refused = 1;
	if (before < 0)
		half->resets++;
	return EVENT_NONE;
}

/* RST_STREAM. EVENT_NONE, or EVENT_EDIT. */
__noinline int on_reset(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct counters *count = this_cpu_counters();
	struct call *call;
	int event;

	if (!reading || !scratch || !count)
		return EVENT_NONE;
	role &= 1;
	__sync_fetch_and_add(&count->resets, 1);
	call = find_call(reading, scratch->pass.stream);
	if (unlikely(reading->denials)) {
		event = reset_among_denials(reading, scratch, role, call);
		if (event != EVENT_END)
			return event;
	}
	if (call)
		end_call(reading, call, scratch, scratch->pass.stream, role, CALL_OVER,
			 role == ROLE_CLIENT ? ENDING_CLIENT_RESET : ENDING_SERVER_RESET);
	return EVENT_NONE;
}
