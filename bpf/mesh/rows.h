/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Telemetry of calls: rows of counters and records of single ones. */
#pragma once

#include "mesh/reading.h"

#define GRPC_CANCELLED 1
#define GRPC_UNKNOWN 2
#define GRPC_DEADLINE_EXCEEDED 4
#define GRPC_PERMISSION_DENIED 7
#define GRPC_RESOURCE_EXHAUSTED 8
#define GRPC_UNIMPLEMENTED 12
#define GRPC_INTERNAL 13
#define GRPC_UNAVAILABLE 14
#define GRPC_UNAUTHENTICATED 16

/* RFC 9113 section 7. */
#define NO_ERROR 0x0
#define INTERNAL_ERROR 0x2
#define REFUSED_STREAM 0x7
#define CANCEL 0x8
#define ENHANCE_YOUR_CALM 0xb
#define INADEQUATE_SECURITY 0xc

/* A client's timer may fire a little before the deadline that it announced: C-core announces it rounded up, and some
 * time passes between the announcement and its being sent. */
#define DEADLINE_TOLERANCE_NS 5000000ULL
#define DEADLINE_TOLERANCE_SHARE 32

/* The status that a caller makes of an answer that has none (gRPC's http-grpc-status-mapping.md). */
static __always_inline __u32 status_of_http(__u32 status)
{
	switch (status) {
	case 400:
		return GRPC_INTERNAL;
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 403:
		return GRPC_PERMISSION_DENIED;
	case 404:
		return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return GRPC_UNAVAILABLE;
	}
	return GRPC_UNKNOWN;
}

/* The status that a caller sees when its stream is reset (gRPC over HTTP/2, "Errors"). */
static __always_inline __u32 status_of_reset(enum ending ending, __u32 code)
{
	switch (code) {
	case NO_ERROR:
		/* A client that gives a call up without a fault of anybody's: a GOAWAY has refused it. */
		return ending == ENDING_CLIENT_RESET ? GRPC_UNAVAILABLE : GRPC_INTERNAL;
	case INTERNAL_ERROR:
		/* How Envoy gives a call up whose own client has. */
		return ending == ENDING_CLIENT_RESET ? GRPC_CANCELLED : GRPC_INTERNAL;
	case REFUSED_STREAM:
		return GRPC_UNAVAILABLE;
	case CANCEL:
		return GRPC_CANCELLED;
	case ENHANCE_YOUR_CALM:
		return GRPC_RESOURCE_EXHAUSTED;
	case INADEQUATE_SECURITY:
		return GRPC_PERMISSION_DENIED;
	}
	return GRPC_INTERNAL;
}

/* grpc-timeout as header_value packs it; 0: none, or longer than anybody waits. */
static __always_inline __u64 timeout_ns(__u32 packed)
{
	__u64 number = packed >> 3;

	switch (packed & 7) {
	case 1:
		return number * 3600000000000ULL;
	case 2:
		return number * 60000000000ULL;
	case 3:
		return number * 1000000000ULL;
	case 4:
		return number * 1000000ULL;
	case 5:
		return number * 1000ULL;
	case 6:
		return number;
	}
	return 0;
}

/* Whether a call that was cancelled after so long had its deadline behind it, as its client sees it. */
static __always_inline int is_past_deadline(const struct call *call, enum ending ending, __u64 elapsed)
{
	__u64 timeout = timeout_ns(call->timeout);

	if (ending == ENDING_CLIENT_RESET)
		elapsed += DEADLINE_TOLERANCE_NS + timeout / DEADLINE_TOLERANCE_SHARE;
	return call->timeout && elapsed >= timeout;
}

/* How many of the `room` bounds are below the value: its bucket. */
#define search_bucket(bounds, room, value)                                                                                \
	({                                                                                                            \
		__u32 __index = 0;                                                                                    \
		for (__u32 __step = (room) / 2; __step; __step /= 2) {                                                \
			__u64 __below = ((bounds)[masked(__index + __step - 1, room)] - (value)) >> 63;               \
			opaque(__below);                                                                              \
			__index += __step * (__u32)__below;                                                           \
		}                                                                                                     \
		__index;                                                                                              \
	})

static __always_inline __u32 duration_bucket(const struct buckets *buckets, __u64 duration)
{
	__u64 cell = duration >> DURATION_CELL_BITS;
	__u32 bucket;

	if (unlikely(cell >= DURATION_CELLS))
		return search_bucket(buckets->duration_ns, DURATION_BOUNDS, duration);
	bucket = buckets->duration_cells[masked(cell, DURATION_CELLS)];
	return bucket + (duration > buckets->duration_ns[masked(bucket, DURATION_BOUNDS)]);
}

static __always_inline __u32 size_bucket(const struct buckets *buckets, __u64 size)
{
	if (unlikely(size >= SIZE_CELLS))
		return search_bucket(buckets->bytes, SIZE_BOUNDS, size);
	return buckets->size_cells[masked(size, SIZE_CELLS)];
}

/*
 * Makes a row; where there is no memory for one, or no room, finds another to count in, which all CPUs share as a rule.
 * `key->reentrant` says so.
 */
static __noinline struct series *new_row(struct series_key *key)
{
	struct series_key overflow = { .ending = ENDING_COMPLETE, .grpc_status = GRPC_STATUS_NONE, .protocol = PROTOCOL_HTTP2 };
	struct series *row, *blank;
	struct counters *count;
	__u32 zero = 0;

	blank = bpf_map_lookup_elem(&blank_series, &zero);
	if (!blank)
		return NULL;
	if (!bpf_map_update_elem(&series, key, blank, BPF_NOEXIST)) {
		row = bpf_map_lookup_elem(&series, key);
		if (row)
			return row;
	}
	bpf_map_update_elem(&spare_series, key, blank, BPF_NOEXIST);
	row = bpf_map_lookup_elem(&spare_series, key);
	key->reentrant = 1;
	if (row)
		return row;
	count = this_cpu_counters();
	if (count)
		__sync_fetch_and_add(&count->overflows, 1);
	return bpf_map_lookup_elem(&series, &overflow);
}

/* Adds to a number of this CPU's row. Hooks may interrupt each other: those that have done so share another row. */
#define add_to(number, amount, reentrant)                                                                             \
	({                                                                                                            \
		if (unlikely(reentrant))                                                                              \
			__sync_fetch_and_add(&(number), amount);                                                      \
		else                                                                                                  \
			(number) += (amount);                                                                         \
	})

#define add_bucket(histogram, bucket, limit, reentrant)                                                               \
	({                                                                                                            \
		__u64 __bucket = (__u32)(bucket);                                                                     \
		opaque(__bucket);                                                                                     \
		if (__bucket < (limit))                                                                               \
			add_to((histogram)[__bucket], 1, reentrant);                                                  \
	})

static __always_inline void add_row(const struct call *call, struct series_key *key, __u64 elapsed)
{
	const struct grpc_stream *request = &call->halves[ROLE_CLIENT], *response = &call->halves[ROLE_SERVER];
	const struct buckets *bounds;
	struct series *row = bpf_map_lookup_elem(&series, key);
	__u32 zero = 0, reentrant;

	if (unlikely(!row))
		row = new_row(key);
	reentrant = key->reentrant;
	bounds = bpf_map_lookup_elem(&buckets, &zero);
	if (!row || !bounds)
		return;
	add_to(row->calls, 1, reentrant);
	add_to(row->duration_ns, elapsed, reentrant);
	add_to(row->request_bytes, request->bytes, reentrant);
	add_to(row->response_bytes, response->bytes, reentrant);
	add_to(row->request_messages, request->messages, reentrant);
	add_to(row->response_messages, response->messages, reentrant);
	add_bucket(row->durations, duration_bucket(bounds, elapsed), DURATION_BUCKETS,
		   reentrant);
	add_bucket(row->request_sizes, size_bucket(bounds, request->bytes), SIZE_BUCKETS,
		   reentrant);
	add_bucket(row->response_sizes, size_bucket(bounds, response->bytes), SIZE_BUCKETS,
		   reentrant);
}

/* Sets a record's number: a reader that sees it sees what was written before, and nothing of what is written after. */
static __always_inline void mark_flow(struct flow *flow, __u64 sequence)
{
	const struct settings *conf = current_settings();

	if (likely(conf && conf->ordered_stores)) {
		__asm__ volatile("" ::: "memory");
		WRITE_ONCE(flow->sequence, sequence);
		__asm__ volatile("" ::: "memory");
	} else {
		/* A full barrier, too. */
		__sync_lock_test_and_set(&flow->sequence, sequence);
	}
}

/* A record of this CPU's own to fill, and its sequence number to publish it by; NULL: none is wanted. */
static __always_inline struct flow *next_flow(__u64 *sequence)
{
	const struct settings *conf = current_settings();
	__u32 zero = 0, index, sampling;
	struct flow *flow;
	__u64 *last;

	if (!conf)
		return NULL;
	sampling = conf->flow_sampling;
	if (!sampling || (sampling > 1 && bpf_get_prandom_u32() % sampling))
		return NULL;
	last = bpf_map_lookup_elem(&flow_counts, &zero);
	if (!last)
		return NULL;
	*sequence = __sync_fetch_and_add(last, 1) + 1;
	index = bpf_get_smp_processor_id() * FLOWS_PER_CPU + ((*sequence - 1) & (FLOWS_PER_CPU - 1));
	flow = bpf_map_lookup_elem(&flows, &index);
	if (flow)
		mark_flow(flow, 0);
	return flow;
}

static __always_inline void record_call(const struct reading *reading, const struct call *call,
					const struct series_key *key, __u32 stream, __u64 now, __u32 code)
{
	__u64 sequence = 0;
	struct flow *flow = next_flow(&sequence);

	if (!flow)
		return;
	flow->end_ns = now;
	flow->connection = reading->id;
	flow->latency_ns = now - call->start_ns;
	flow->request_bytes = call->halves[ROLE_CLIENT].bytes;
	flow->response_bytes = call->halves[ROLE_SERVER].bytes;
	flow->request_messages = call->halves[ROLE_CLIENT].messages;
	flow->response_messages = call->halves[ROLE_SERVER].messages;
	flow->source = key->source;
	flow->destination = key->destination;
	flow->service = key->service;
	flow->method = key->method;
	flow->stream = stream;
	flow->reset_code = code;
	flow->http_status = key->http_status;
	flow->grpc_status = key->grpc_status;
	flow->ending = key->ending;
	flow->protocol = key->protocol;
	flow->kind = FLOW_CALL;
	flow->deadline = key->deadline;
	flow->family = reading->family;
	flow->source_port = reading->source_port;
	flow->destination_port = reading->destination_port;
	flow->reason = call->traits & TRAIT_DENIED ? REASON_POLICY : REASON_NONE;
	flow->policy = decider_policy(call->halves[ROLE_CLIENT].tag);
	flow->rule = decider_rule(call->halves[ROLE_CLIENT].tag);
	flow->audit = call->halves[ROLE_SERVER].tag;
	flow->dry_run = call->dry_run;
	flow->verdict = call->traits & TRAIT_DENIED ? VERDICT_DENY : VERDICT_ALLOW;
	__builtin_memcpy(flow->source_address, reading->source_address, sizeof(flow->source_address));
	__builtin_memcpy(flow->destination_address, reading->destination_address, sizeof(flow->destination_address));
	mark_flow(flow, sequence);
}

static __always_inline void key_of(const struct reading *reading, const struct call *call, struct series_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = reading->source;
	key->destination = reading->destination;
	key->service = reading->service;
	key->method = call->method;
	key->protocol = call->traits & TRAIT_GRPC ? PROTOCOL_GRPC : PROTOCOL_HTTP2;
}

/* Counts the call that has just ended, perhaps by a RST_STREAM of the pass. */
__noinline int finish_call(struct reading *reading, struct scratch *scratch, __u32 stream, enum ending ending)
{
	const struct call *call;
	struct series_key key;
	__u32 status = GRPC_STATUS_NONE, code = 0;
	__u64 now, elapsed;

	if (!reading || !scratch)
		return 0;
	call = &scratch->ended;
	now = now_of(scratch);
	elapsed = now - call->start_ns;
	key_of(reading, call, &key);
	key.ending = ending;
	key.http_status = call->http_status;
	key.reentrant = scratch->index != 0;
	if (ending == ENDING_CLIENT_RESET || ending == ENDING_SERVER_RESET)
		code = scratch->pass.code;
	if (call->traits & TRAIT_GRPC) {
		if (ending == ENDING_COMPLETE)
			status = call->grpc_status ? call->grpc_status - 1 : status_of_http(call->http_status);
		else if (ending == ENDING_CLIENT_RESET && call->http_status && call->http_status != HTTP_OK)
			status = status_of_http(call->http_status); /* it gave up what was no gRPC */
		else if (ending == ENDING_CLIENT_RESET || ending == ENDING_SERVER_RESET)
			status = status_of_reset(ending, code);
		else
			status = GRPC_UNAVAILABLE;
		if (status == GRPC_CANCELLED && ending != ENDING_COMPLETE && is_past_deadline(call, ending, elapsed))
			status = GRPC_DEADLINE_EXCEEDED;
		key.deadline = status == GRPC_DEADLINE_EXCEEDED;
	}
	key.grpc_status = status;
	add_row(call, &key, elapsed);
	record_call(reading, call, &key, stream, now, code);
	return 0;
}
