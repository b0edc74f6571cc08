/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Methods get numbers when they are first called, so that a call carries a number and never a name. */
#pragma once

#include "mesh/reading.h"

#define METHOD_OVERFLOW 0
#define METHOD_LAST 0xffffffff /* in `method_counts`: the last number given */
#define HASH_FACTOR 0x9e3779b97f4a7c15ULL

static __always_inline __u64 *text_words(struct scratch *scratch)
{
	return (__u64 *)&scratch->pass.block.text[TEXT_SIZE];
}

/* Keyed by a secret, so that nobody can choose colliding paths; equality is checked all the same. */
static __noinline __u64 hash_path(struct scratch *scratch, __u32 length, __u64 seed)
{
	__u64 hash = seed ^ length, word, *words;
	__u32 i, tail;

	if (!scratch)
		return 0;
	words = text_words(scratch);
	loop_below (i, TEXT_SIZE / 8) {
		if (i * 8 >= length)
			break;
		word = words[i & (TEXT_SIZE / 8 - 1)];
		tail = length - i * 8;
		if (tail < 8)
			word &= (1ULL << (tail * 8)) - 1;
		hash = (hash ^ word) * HASH_FACTOR;
		hash ^= hash >> 29;
	}
	return hash;
}

static __noinline int same_path(const struct method *method, struct scratch *scratch, __u32 length)
{
	const __u64 *known, *words;
	__u32 i, tail;
	__u64 difference;

	if (!method || !scratch || method->length != length)
		return 0;
	known = (const __u64 *)method->path;
	words = text_words(scratch);
	loop_below (i, TEXT_SIZE / 8) {
		if (i * 8 >= length)
			break;
		difference = known[i & (TEXT_SIZE / 8 - 1)] ^ words[i & (TEXT_SIZE / 8 - 1)];
		tail = length - i * 8;
		if (tail < 8)
			difference &= (1ULL << (tail * 8)) - 1;
		if (difference)
			return 0;
	}
	return 1;
}

/* The counter under `key`, made when it is not there. */
static __always_inline __u32 *method_counter(__u32 key)
{
	__u32 none = 0, *counter;

	counter = bpf_map_lookup_elem(&method_counts, &key);
	if (counter)
		return counter;
	bpf_map_update_elem(&method_counts, &key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&method_counts, &key);
}

/* The number of the path in the second half of the text; METHOD_OVERFLOW when it may not have one. */
__noinline int method_number(struct scratch *scratch, __u32 destination, __u32 length)
{
	struct settings *conf = current_settings();
	struct method_key key = { .destination = destination };
	struct counters *count = this_cpu_counters();
	struct method *known;
	__u32 *learned, *last;

	if (!scratch || !conf || !count)
		return METHOD_OVERFLOW;
	if (!length || length > TEXT_SIZE)
		goto overflow;
	key.hash = hash_path(scratch, length, conf->method_seed);
	known = bpf_map_lookup_elem(&methods, &key);
	if (known) {
		if (same_path(known, scratch, length))
			return known->number;
		goto overflow;
	}
	learned = method_counter(destination);
	last = method_counter(METHOD_LAST);
	if (!learned || !last || *learned >= conf->max_methods)
		goto overflow;
	copy_bytes(scratch->method.path, at_most(length, TEXT_SIZE), &scratch->pass.block.text[TEXT_SIZE]);
	scratch->method.length = length;
	scratch->method.number = __sync_fetch_and_add(last, 1) + 1;
	if (!bpf_map_update_elem(&methods, &key, &scratch->method, BPF_NOEXIST)) {
		__sync_fetch_and_add(learned, 1);
		return scratch->method.number;
	}
	/* Another CPU was first, or there is no room. */
	known = bpf_map_lookup_elem(&methods, &key);
	if (known && same_path(known, scratch, length))
		return known->number;
	count_error(HELPER_MAP_UPDATE);
overflow:
	__sync_fetch_and_add(&count->overflows, 1);
	return METHOD_OVERFLOW;
}
