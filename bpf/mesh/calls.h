/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Calls of a connection: begun by a request's header block, ended by the response's end or by a reset. */
#pragma once

#include "mesh/heard.h"
#include "mesh/rows.h"

static __always_inline struct shared_call *shared_slot(__u64 id, __u32 stream)
{
	__u32 index = ((__u32)(id * HASH_FACTOR >> 40) + (stream >> 1)) & (SHARED_SLOTS - 1);

	return bpf_map_lookup_elem(&shared_calls, &index);
}

/* A call that is not in its connection's own slot. */
static __noinline struct call *find_spilled(__u64 id, __u32 stream)
{
	struct call_key key = { .connection = id, .stream = stream };
	struct shared_call *shared = shared_slot(id, stream);

	if (shared && shared->connection == id && shared->call.stream == stream)
		return &shared->call;
	return bpf_map_lookup_elem(&calls, &key);
}

static __always_inline struct call *find_call(struct reading *reading, __u32 stream)
{
	struct call *call = &reading->slots[(stream >> 1) & (CALL_SLOTS - 1)];

	if (likely(call->stream == stream))
		return call;
	return READ_ONCE(reading->spilled) ? find_spilled(reading->id, stream) : NULL;
}

static __noinline int remove_spilled(struct reading *reading, struct call *call)
{
	struct call_key key = { .connection = reading->id, .stream = call->stream };
	struct shared_call *shared;

	if (call->place == PLACE_TABLE) {
		if (bpf_map_delete_elem(&calls, &key))
			return 0;
	} else {
		shared = shared_slot(key.connection, key.stream);
		if (!shared || __sync_val_compare_and_swap(&shared->call.stream, key.stream, 0) != key.stream)
			return 0;
		__sync_lock_test_and_set(&shared->connection, 0);
	}
	__sync_fetch_and_add(&reading->spilled, -1);
	return 0;
}

/* Both directions may be done with a call at one time: whoever finds it there removes it. */
static __always_inline void remove_call(struct reading *reading, struct call *call)
{
	if (call->place == PLACE_OWN)
		WRITE_ONCE(call->stream, 0);
	else if (call->stream)
		remove_spilled(reading, call);
}

/* All of a call but its stream. */
static __always_inline void fill_call(struct call *call, struct scratch *scratch)
{
	__builtin_memset(call, 0, sizeof(*call));
	call->start_ns = now_of(scratch);
	call->grpc = scratch->heard.grpc;
	call->method = scratch->heard.method;
	call->timeout = scratch->heard.timeout;
	if (!call->grpc) {
		call->halves[ROLE_CLIENT].opaque = 1;
		call->halves[ROLE_SERVER].opaque = 1;
	}
}

/* A call whose slot is another's. */
static __noinline int spill_call(struct reading *reading, struct scratch *scratch, __u32 stream)
{
	struct call_key key = { .connection = reading->id, .stream = stream };
	struct shared_call *shared = shared_slot(key.connection, stream);
	struct call call;

	if (shared && !__sync_val_compare_and_swap(&shared->connection, 0, key.connection)) {
		fill_call(&shared->call, scratch);
		shared->call.place = PLACE_SHARED;
		__sync_lock_test_and_set(&shared->call.stream, stream);
		__sync_fetch_and_add(&reading->spilled, 1);
		return 0;
	}
	fill_call(&call, scratch);
	call.stream = stream;
	call.place = PLACE_TABLE;
	if (bpf_map_update_elem(&calls, &key, &call, BPF_NOEXIST)) {
		count_error(HELPER_MAP_UPDATE);
		return 0;
	}
	__sync_fetch_and_add(&reading->spilled, 1);
	return 0;
}

/* A request's first header block: only the hook that reads requests comes here. */
static __always_inline int begin_call(struct reading *reading, struct scratch *scratch, __u32 stream)
{
	struct call *slot;
	if (stream > reading->halves[ROLE_CLIENT].last_stream)
		reading->halves[ROLE_CLIENT].last_stream = stream;
	slot = &reading->slots[(stream >> 1) & (CALL_SLOTS - 1)];
	if (unlikely(slot->stream))
		return spill_call(reading, scratch, stream);
	fill_call(slot, scratch);
	slot->stream = stream;
	return 0;
}

/* One direction of a call has ended. Its record stays until the other has too. */
static __always_inline void end_half(struct reading *reading, struct call *call, struct scratch *scratch, __u32 role)
{
	if (role == ROLE_CLIENT) {
		call->request_ended = 1;
		if (call->response_ended)
			remove_call(reading, call);
		return;
	}
	finish_call(reading, call, ENDING_COMPLETE, 0, now_of(scratch));
	call->response_ended = 1;
	if (call->request_ended)
		remove_call(reading, call);
}

/* A whole header block of a stream, decoded into the scratch. */
static __always_inline int on_headers(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct call *call;
	__u32 stream;

	if (!reading || !scratch)
		return 0;
	role &= 1;
	stream = scratch->pass.stream;
	call = find_call(reading, stream);
	if (role == ROLE_CLIENT) {
		if (!call && (stream & 1) && stream > reading->halves[ROLE_CLIENT].last_stream) {
			begin_call(reading, scratch, stream);
			call = find_call(reading, stream);
		}
		if (call && (scratch->pass.flags & FLAG_END_STREAM))
			end_half(reading, call, scratch, role);
		return 0;
	}
	if (!call)
		return 0;
	if (scratch->heard.status >= 200)
		call->http_status = scratch->heard.status;
	if (scratch->heard.grpc_status)
		call->grpc_status = scratch->heard.grpc_status;
	if (scratch->pass.flags & FLAG_END_STREAM)
		end_half(reading, call, scratch, role);
	return 0;
}

/* DATA at the position of the pass. */
__noinline int on_data(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct http2_direction *dir;
	struct grpc_stream unknown = { .opaque = 1 };
	struct call *call;
	int event;

	if (!reading || !scratch)
		return EVENT_END;
	role &= 1;
	dir = &reading->halves[role].direction;
	call = find_call(reading, dir->stream);
	while (dir->remaining) {
		event = grpc_data(dir, &scratch->pass, call ? &call->halves[role] : &unknown);
		if (event != EVENT_NONE)
			return event;
		if (dir->remaining)
			return EVENT_NONE;
	}
	http2_finish_payload(dir);
	if (call && (dir->flags & FLAG_END_STREAM))
		end_half(reading, call, scratch, role);
	return EVENT_NONE;
}

__noinline int on_reset(struct reading *reading, struct scratch *scratch, __u32 role)
{
	struct counters *count = this_cpu_counters();
	struct call *call;

	if (!reading || !scratch || !count)
		return 0;
	count->resets++;
	call = find_call(reading, scratch->pass.stream);
	if (!call)
		return 0;
	finish_call(reading, call, role == ROLE_CLIENT ? ENDING_CLIENT_RESET : ENDING_SERVER_RESET,
		    scratch->pass.code, now_of(scratch));
	remove_call(reading, call);
	return 0;
}
