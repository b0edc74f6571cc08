/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Where TCP may not take a frame's header, the sender's hook reads its bytes one by one. What comes again when one was not taken
 * is not shown, and need not be the same. So the hook keeps what it has read, and where that arrives, the receiver's looks.
 *
 * Only the sender's hook writes here: a byte before it is sent, and that there is none when it has arrived.
 */
#pragma once

#include "mesh/handing.h"

static __always_inline int has_leads(const struct reading *reading)
{
	return (reading->leads[0].count | reading->leads[1].count) != 0;
}

/* Forgets what has arrived and was looked at: its sequence numbers come round again. */
static __noinline int forget_leads(struct reading *reading, const struct end *server)
{
	struct reception *reception = reception_of(server);
	struct lead *lead;

	if (!reception || !reading)
		return 0;
	for (__u32 i = 0; i < LEADS; i++) {
		lead = &reading->leads[i];
		if ((__s32)(READ_ONCE(reception->next_seq) - (lead->seq + lead->count)) >= 0)
			WRITE_ONCE(lead->count, 0);
	}
	return 0;
}

/* Keeps that the byte `seq` has to be `byte`. 0, or -1: no room. */
static __noinline int keep_lead(struct reading *reading, __u32 seq, __u8 byte)
{
	struct lead *lead;

	for (__u32 i = 0; i < LEADS; i++) {
		lead = &reading->leads[i];
		if (!lead->count || lead->count >= FRAME_HEADER_SIZE || lead->seq + lead->count != seq)
			continue;
		lead->bytes[at_most(lead->count, FRAME_HEADER_SIZE - 1)] = byte;
		WRITE_ONCE(lead->count, lead->count + 1);
		return 0;
	}
	for (__u32 i = 0; i < LEADS; i++) {
		lead = &reading->leads[i];
		if (lead->count)
			continue;
		WRITE_ONCE(lead->seq, seq);
		lead->bytes[0] = byte;
		WRITE_ONCE(lead->count, 1);
		return 0;
	}
	return -1;
}

/* Whether all bytes of this segment, whose first one is `seq`, are what was kept. */
static __always_inline int check_leads(struct __sk_buff *skb, const struct reading *reading, __u32 seq)
{
	const struct lead *lead;
	__u32 count, first, j;
	__u8 byte;

	for (__u32 i = 0; i < LEADS; i++) {
		lead = &reading->leads[i];
		count = READ_ONCE(lead->count);
		first = READ_ONCE(lead->seq) - seq;
		if (likely(!count) || (first >= skb->len && first + count - 1 >= skb->len))
			continue;
		loop_below (j, FRAME_HEADER_SIZE) {
			if (j >= count)
				break;
			if (first + j < skb->len && (bpf_skb_load_bytes(skb, first + j, &byte, 1) || byte != lead->bytes[j]))
				return 0;
		}
	}
	return 1;
}
