/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A walk over the calls in flight, for what people and metrics ask now and then: calls themselves need not count it. */
#pragma once

#include "mesh/rows.h"

static __noinline int count_open(struct reading *reading, struct call *call)
{
	struct series_key key;
	__u64 one = 1, *sum;

	if (!reading || !call || !call->state || (call->state & CALL_COUNTED))
		return 0;
	key_of(reading, call, &key);
	sum = bpf_map_lookup_elem(&open_calls, &key);
	if (sum)
		*sum += 1;
	else if (bpf_map_update_elem(&open_calls, &key, &one, BPF_NOEXIST))
		count_error(HELPER_MAP_UPDATE);
	return 0;
}

static long count_slots(void *map, __u64 *id, struct reading *reading, void *context)
{
	__u32 i;

	if (reading->off)
		return 0;
	loop_below (i, CALL_SLOTS)
		count_open(reading, &reading->slots[i & (CALL_SLOTS - 1)]);
	return 0;
}

static long count_shared(void *map, __u32 *index, struct shared_call *shared, void *context)
{
	__u64 id = shared->connection;
	struct reading *reading = id ? bpf_map_lookup_elem(&readings, &id) : NULL;

	if (reading && !reading->off)
		count_open(reading, &shared->call);
	return 0;
}

static long count_spilled(void *map, struct call_key *key, struct call *call, void *context)
{
	struct reading *reading = bpf_map_lookup_elem(&readings, &key->connection);

	if (reading && !reading->off)
		count_open(reading, call);
	return 0;
}

static __always_inline int count_open_calls(void)
{
	__u32 context = 0;

	bpf_for_each_map_elem(&readings, count_slots, &context, 0);
	bpf_for_each_map_elem(&shared_calls, count_shared, &context, 0);
	bpf_for_each_map_elem(&calls, count_spilled, &context, 0);
	return 0;
}
