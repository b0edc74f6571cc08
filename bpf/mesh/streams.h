/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Telemetry of connections that the engine does not read: bytes, openings, closings. */
#pragma once

#include "mesh/policy.h"
#include "mesh/readings.h"

static __noinline struct tcp_series *tcp_row_of(const struct connection *conn)
{
	struct tcp_series_key key = {
		.source = conn->ends[ROLE_CLIENT].workload,
		.destination = conn->ends[ROLE_SERVER].workload,
		.service = conn->service,
		.protocol = conn->protocol,
	};
	struct tcp_series *row = bpf_map_lookup_elem(&tcp_series, &key), none = {};

	if (row)
		return row;
	bpf_map_update_elem(&tcp_series, &key, &none, BPF_NOEXIST);
	row = bpf_map_lookup_elem(&tcp_series, &key);
	if (!row)
		count_error(HELPER_MAP_UPDATE);
	return row;
}

static __noinline int count_opened(struct connection *conn)
{
	struct tcp_series *row = conn ? tcp_row_of(conn) : NULL;

	if (row)
		__sync_fetch_and_add(&row->opened, 1);
	return 0;
}

/* A record of the connection, as its last end sees it. */
static __always_inline void record_connection(struct bpf_sock_ops *ctx, const struct connection *conn, __u64 id)
{
	__u32 role = conn->ends[ROLE_CLIENT].cookie == bpf_get_socket_cookie(ctx) ? ROLE_CLIENT : ROLE_SERVER;
	struct reports reports;
	__u64 sequence = 0;
	struct dial dial;
	struct flow *flow;

	dial.client = conn->ends[ROLE_CLIENT].workload;
	dial.server = conn->ends[ROLE_SERVER].workload;
	dial.port = conn->server_port;
	dial.has_source = 1;
	fill_addresses(ctx, dial.source, dial.destination, role);
	report_connection(conn->policies, &dial, &reports);
	flow = next_flow(&sequence);
	if (!flow)
		return;
	__builtin_memset(&flow->end_ns, 0, sizeof(*flow) - __builtin_offsetof(struct flow, end_ns));
	flow->end_ns = bpf_ktime_get_ns();
	flow->connection = id;
	flow->request_bytes = conn->ends[ROLE_CLIENT].sent_bytes;
	flow->response_bytes = conn->ends[ROLE_SERVER].sent_bytes;
	flow->source = conn->ends[ROLE_CLIENT].workload;
	flow->destination = conn->ends[ROLE_SERVER].workload;
	flow->service = conn->service;
	flow->grpc_status = GRPC_STATUS_NONE;
	flow->ending = ENDING_COMPLETE;
	flow->protocol = conn->protocol;
	flow->kind = FLOW_CONNECTION;
	flow->family = conn->family;
	flow->source_port = conn->client_port;
	flow->destination_port = conn->server_port;
	flow->reason = conn->reason;
	flow->policy = conn->policy;
	flow->rule = conn->rule;
	flow->verdict = is_denied(conn->verdict) ? VERDICT_DENY : VERDICT_ALLOW;
	flow->audit = reports.audit;
	flow->dry_run = reports.dry_run;
	__builtin_memcpy(flow->source_address, dial.source, sizeof(flow->source_address));
	__builtin_memcpy(flow->destination_address, dial.destination, sizeof(flow->destination_address));
	mark_flow(flow, sequence);
}

/* The last end has closed. `was_read`: the engine began to read it, so that its opening is not counted yet. */
static __noinline int count_closed(struct bpf_sock_ops *ctx, struct connection *conn, __u64 id, int was_read)
{
	struct tcp_series *row;

	if (!conn)
		return 0;
	row = tcp_row_of(conn);
	if (row) {
		__sync_fetch_and_add(&row->opened, was_read);
		__sync_fetch_and_add(&row->closed, 1);
		__sync_fetch_and_add(&row->sent_bytes, conn->ends[ROLE_CLIENT].sent_bytes);
		__sync_fetch_and_add(&row->received_bytes, conn->ends[ROLE_SERVER].sent_bytes);
	}
	record_connection(ctx, conn, id);
	return 0;
}
