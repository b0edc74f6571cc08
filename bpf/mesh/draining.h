/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A call that may be made refers to a path that the server's table has altered, and is read where it arrives: nothing can
 * be written out there. So the client is told to take this call and the following ones to another connection, by a GOAWAY
 * before the next header block of the server's (RFC 9113 section 6.8). Earlier calls go on; of later ones the server is
 * given none, for the client makes them again.
 */
#pragma once

#include "mesh/calls.h"
#include "mesh/judging.h"

#define FRAME_GOAWAY 7
#define GOAWAY_SIZE (FRAME_HEADER_SIZE + 8)

static __always_inline int is_draining(const struct reading *reading)
{
	return reading->last_good != 0;
}

/* Whether frames of headers that `role` sends may have to be written anew. */
static __always_inline int may_rewrite(const struct reading *reading, __u32 role)
{
	if (likely(!reading->judges))
		return 0;
	return role == ROLE_CLIENT ? reading->halves[ROLE_CLIENT].altered != 0 : reading->denials || is_draining(reading);
}

/* Whether frames of headers that `role` sends are taken in as a whole: each may have to be changed or replaced. */
static __always_inline int keeps_whole(const struct reading *reading, __u32 role)
{
	return reading->judges && (role == ROLE_CLIENT || may_rewrite(reading, role));
}

/* The call of the block that was read is made elsewhere: what its server gets of it is refused. EVENT_EDIT, EVENT_NONE, or
 * a negated reason. */
static __noinline int turn_away(struct reading *reading, struct scratch *scratch)
{
	struct half *half = &reading->halves[ROLE_CLIENT];

	if (!reading->last_good)
		reading->last_good = half->last_stream;
	half->last_stream = scratch->pass.stream;
	if (!is_grpc(&scratch->heard) || !reading->last_good || scratch->pass.block.paths != 1)
		return -REASON_CANNOT_REFUSE;
	/* A reference to what is altered already is refused as it is. */
	if (scratch->rewrite.changed)
		return EVENT_NONE;
	return edit_path(half, scratch);
}

/* Before the server's block that was read, the client is told. 0, or a negated reason: it cannot be, and has to be. */
static __always_inline int tell_client(struct reading *reading, struct scratch *scratch)
{
	struct counters *count;

	if (likely(!is_draining(reading)) || reading->drained)
		return 0;
	if (scratch->pass.frame == NO_FRAME || !scratch->firm)
		return scratch->pass.stream > reading->last_good ? -REASON_CANNOT_REFUSE : 0;
	count = this_cpu_counters();
	if (count)
		__sync_fetch_and_add(&count->goaways, 1);
	reading->drained = 1;
	scratch->goaway = 1;
	return 0;
}
