/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Requests that are judged are read by their sender's hook, unless it cannot have a frame of headers as a whole
 * (mesh/whole.h): a header block of several frames, or in a longer or less usual one, ends with its message, or TCP may not
 * take all of it, for room or for memory. Then requests are read where they arrive, as those of other callers are, until
 * everything that was sent has been read there.
 *
 * The sender's hook decides both ways, under its socket's lock. It hands over before the bytes that it has not read are
 * sent, and takes back when what the receiver's hook has read ends where the next byte is sent: nothing is on its way.
 */
#pragma once

#include "mesh/readings.h"

static __always_inline struct reception *reception_of(const struct end *end)
{
	__u64 cookie = end->cookie;

	return bpf_map_lookup_elem(&receptions, &cookie);
}

/* From the byte `seq` on, requests are read by `server`'s hook. 0, or -1: it has none. */
static __noinline int hand_over(struct reading *reading, const struct end *server, __u32 seq)
{
	struct reception *reception = reception_of(server);

	if (!reception || !reading)
		return -1;
	reception->read_from = seq;
	reception->read_to = seq;
	reading->halves[ROLE_CLIENT].handed = 1;
	__sync_lock_test_and_set(&reception->reads, READS_HANDED);
	return 0;
}

/* Whether requests can be read by their sender's hook again, from the byte `seq` on. */
static __noinline int take_back(struct reading *reading, const struct end *server, __u32 seq)
{
	struct reception *reception = reception_of(server);

	/* Beside the order of memory, this changes nothing. */
	if (!reception || !reading || __sync_val_compare_and_swap(&reception->read_to, seq, seq) != seq ||
	    reading->halves[ROLE_CLIENT].held)
		return 0;
	reading->halves[ROLE_CLIENT].handed = 0;
	reading->halves[ROLE_CLIENT].next_seq = seq;
	reading->shown_to = seq;
	__sync_lock_test_and_set(&reception->reads, READS_SHOWN);
	return 1;
}

/* The receiver's hook has read what it was handed, up to `seq`. */
static __always_inline void report_read(struct reception *reception, __u32 seq)
{
	__sync_lock_test_and_set(&reception->read_to, seq);
}
