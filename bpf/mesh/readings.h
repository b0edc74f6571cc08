/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A reading's life: which connections are read, by which hooks, and what is left of them when they close. */
#pragma once

#include "mesh/observe.h"
#include "shared/kernel.h"

/* Stream identifiers that are tried at close for calls that found their slot taken. */
#define MAX_ENDED_STREAMS (1 << 20)

static __always_inline int is_layer7(__u32 protocol)
{
	return protocol == PROTOCOL_GRPC || protocol == PROTOCOL_HTTP2 || protocol == PROTOCOL_HTTP;
}

static __always_inline int is_read(const struct connection *conn)
{
	return (conn->observers[ROLE_CLIENT] | conn->observers[ROLE_SERVER]) != 0;
}

/* An address as 16 bytes: IPv4 becomes v4-mapped. */
#define fill_address(words, ctx, side)                                                                                \
	({                                                                                                            \
		if ((ctx)->family == AF_INET) {                                                                       \
			map_ip4(words, context_u32(ctx, side##_ip4));                                                 \
		} else {                                                                                              \
			(words)[0] = context_u32(ctx, side##_ip6[0]);                                                 \
			(words)[1] = context_u32(ctx, side##_ip6[1]);                                                 \
			(words)[2] = context_u32(ctx, side##_ip6[2]);                                                 \
			(words)[3] = context_u32(ctx, side##_ip6[3]);                                                 \
		}                                                                                                     \
	})

/* The context's addresses, of the client's (`role`) or the server's end. */
static __always_inline void fill_addresses(struct bpf_sock_ops *ctx, __u8 *source, __u8 *destination, __u32 role)
{
	__u32 *local = (__u32 *)(role == ROLE_CLIENT ? source : destination);
	__u32 *remote = (__u32 *)(role == ROLE_CLIENT ? destination : source);

	fill_address(local, ctx, local);
	fill_address(remote, ctx, remote);
}

/* What a Service says of the address that a managed client has dialled outside the mesh's own workloads. */
static __noinline struct endpoint *dialled_endpoint(struct bpf_sock_ops *ctx)
{
	struct endpoint_key key = {};
	__u32 *address = (__u32 *)key.address;

	key.port = __builtin_bswap16((__u16)(ctx->remote_port >> 16));
	fill_address(address, ctx, remote);
	return bpf_map_lookup_elem(&endpoints, &key);
}

static __always_inline __u32 service_of(struct bpf_sock_ops *ctx, const struct connection *conn)
{
	struct port_key key = { .workload = conn->ends[ROLE_SERVER].workload, .port = conn->server_port };
	struct port *declared;
	struct endpoint *endpoint;

	if (key.workload) {
		declared = bpf_map_lookup_elem(&ports, &key);
		return declared ? declared->service : 0;
	}
	endpoint = dialled_endpoint(ctx);
	return endpoint ? endpoint->service : 0;
}

/* Makes the reading of a connection whose `role` end the context is. 0, or -1. */
static __noinline int open_reading(struct bpf_sock_ops *ctx, struct connection *conn, __u64 id, __u32 role)
{
	__u32 zero = 0;
	struct reading *reading = bpf_map_lookup_elem(&blank_readings, &zero);
	struct counters *count = this_cpu_counters();

	if (!reading || !conn || !count)
		return -1;
	if (bpf_map_update_elem(&readings, &id, reading, BPF_NOEXIST))
		goto failed;
	reading = bpf_map_lookup_elem(&readings, &id);
	if (!reading)
		goto failed;
	reading->id = id;
	http2_start(&reading->halves[ROLE_CLIENT].direction, 1);
	http2_start(&reading->halves[ROLE_SERVER].direction, 0);
	reading->source = conn->ends[ROLE_CLIENT].workload;
	reading->destination = conn->ends[ROLE_SERVER].workload;
	reading->service = conn->service;
	reading->source_port = conn->client_port;
	reading->destination_port = conn->server_port;
	reading->family = conn->family;
	reading->protocol = conn->protocol;
	reading->arriving = role == ROLE_SERVER;
	reading->halves[masked(role, 2)].next_seq = ctx->snd_nxt;
	reading->shown_to = ctx->snd_nxt;
	fill_addresses(ctx, reading->source_address, reading->destination_address, role);
	if (!prepare_judging(reading))
		return 0;
	bpf_map_delete_elem(&readings, &id);
failed:
	count_error(HELPER_MAP_UPDATE);
	__sync_fetch_and_add(&count->unread[REASON_TABLE_FULL], 1);
	return -1;
}

/* The server's end has come too: what it sends is counted from here. */
static __always_inline void join_reading(struct bpf_sock_ops *ctx, __u64 id)
{
	struct reading *reading = bpf_map_lookup_elem(&readings, &id);

	if (reading)
		reading->halves[ROLE_SERVER].next_seq = ctx->snd_nxt;
}

/* What waits for the rest of its header block or frame. */
static __always_inline void drop_waiting(const struct reading *reading, __u32 role)
{
	const struct half *half = &reading->halves[role];

	if (unlikely(half->direction.block_length || half->held))
		drop_pieces(reading->id, role, half->direction.block_length + half->held + 1);
}

/* The connection has closed, `left`: after it left the hooks. Calls in flight end with it. Returns what it spoke while
 * it was read to its end, else SPEAKS_OTHER. */
__noinline int close_reading(__u64 id, int left)
{
	struct reading *reading = bpf_map_lookup_elem(&readings, &id);
	struct scratch *scratch;
	__u32 ending, i, speaks, stream;
	struct call *call;

	if (!reading)
		return SPEAKS_UNKNOWN;
	if (left)
		stop_reading(reading, REASON_LEFT);
	speaks = reading->off ? SPEAKS_OTHER : reading->speaks;
	ending = reading->off ? ENDING_UNREAD : ENDING_CLOSED;
	scratch = acquire_scratch();
	if (!scratch) {
		stop_reading(reading, REASON_NO_SCRATCH);
		goto gone;
	}
	scratch->now = 0;
	loop_below (i, CALL_SLOTS) {
		call = &reading->slots[i & (CALL_SLOTS - 1)];
		stream = READ_ONCE(call->state) >> 32;
		if (stream)
			end_call(reading, call, scratch, stream, ROLE_CLIENT, CALL_OVER, ending);
	}
	loop_below (i, MAX_ENDED_STREAMS) {
		stream = reading->halves[ROLE_CLIENT].last_stream - 2 * i;
		if (!spilled_calls(reading) || 2 * i > reading->halves[ROLE_CLIENT].last_stream)
			break;
		call = find_spilled(id, stream);
		if (call)
			end_call(reading, call, scratch, stream, ROLE_CLIENT, CALL_OVER, ending);
	}
	release_scratch(scratch);
gone:
	drop_waiting(reading, ROLE_CLIENT);
	drop_waiting(reading, ROLE_SERVER);
	if (reading->judges)
		bpf_map_delete_elem(&client_texts, &id);
	bpf_map_delete_elem(&readings, &id);
	return speaks;
}
