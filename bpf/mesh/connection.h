/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A connection's life: the SYN at a managed listener, each end's establishment, close.
 *
 * The SYN comes first, so the listener's side is known before the client's end is established, and the client's
 * decision is known before the server's end is: both ends agree, and a socket whose connection takes no part in the
 * short-cut never enters the sockhash.
 */
#pragma once

#include "mesh/identity.h"

static __always_inline int is_nonblocking(const struct socket *socket)
{
	const struct file *file;

	if (!socket)
		return 0;
	socket = kernel_cast(struct socket, socket);
	file = socket->file;
	if (!file)
		return 0;
	file = kernel_cast(struct file, file);
	return (file->f_flags & O_NONBLOCK) != 0;
}

static __always_inline int has_ulp(const struct sock *sk)
{
	return kernel_cast(struct inet_connection_sock, sk)->icsk_ulp_ops != NULL;
}

static __always_inline __u32 shortcut_mode_of(__u32 id)
{
	struct workload *found = bpf_map_lookup_elem(&workloads, &id);

	return found && !found->removed ? found->shortcut : SHORTCUT_DISABLED;
}

static __always_inline int is_excluded(__u32 workload, __u16 number)
{
	struct port_key key = { .workload = workload, .port = number };
	struct port *found = bpf_map_lookup_elem(&ports, &key);

	return found && found->excluded;
}

static __always_inline __u32 declared_protocol(__u32 workload, __u16 number)
{
	struct port_key key = { .workload = workload, .port = number };
	struct port *found = bpf_map_lookup_elem(&ports, &key);

	return found ? found->protocol : PROTOCOL_UNDECLARED;
}

/* Ports and modes: whether the two workloads want this connection short-cut. */
static __noinline __u32 decide(struct connection *conn)
{
	struct end *client, *server;
	__u32 client_mode, server_mode;

	if (!conn)
		return REASON_HELPER_FAILED;
	client = &conn->ends[ROLE_CLIENT];
	server = &conn->ends[ROLE_SERVER];
	client_mode = shortcut_mode_of(client->workload);
	server_mode = shortcut_mode_of(server->workload);
	if (client_mode == SHORTCUT_DISABLED || server_mode == SHORTCUT_DISABLED)
		return REASON_DISABLED;
	if (is_excluded(server->workload, conn->server_port) || is_excluded(server->workload, conn->client_port) ||
	    is_excluded(client->workload, conn->dialled_port) || is_excluded(client->workload, conn->server_port) ||
	    is_excluded(client->workload, conn->client_port))
		return REASON_EXCLUDED_PORT;
	if (client_mode == SHORTCUT_ALWAYS || server_mode == SHORTCUT_ALWAYS)
		return REASON_NONE;
	if (conn->protocol == PROTOCOL_GRPC || conn->protocol == PROTOCOL_HTTP2 || conn->protocol == PROTOCOL_HTTP)
		return REASON_NONE;
	return REASON_PORT_NOT_DECLARED;
}

static __always_inline void forget_reception(const struct end *end)
{
	__u64 cookie = end->cookie;

	if (end->flags & END_ENROLLED)
		bpf_map_delete_elem(&receptions, &cookie);
}

/* Puts the socket into the sockhash; only the two ESTABLISHED callbacks may. */
static __always_inline int enrol(struct bpf_sock_ops *ctx, __u64 id, struct end *end)
{
	struct reception reception = { .connection = id, .next_seq = end->key.rcv_nxt };
	struct end_key key = end->key;
	__u64 cookie = end->cookie;

	if (bpf_map_update_elem(&receptions, &cookie, &reception, BPF_ANY)) {
		count_error(HELPER_MAP_UPDATE);
		return -1;
	}
	if (bpf_sock_hash_update(ctx, &sockets, &key, BPF_NOEXIST)) {
		count_error(HELPER_SOCK_HASH_UPDATE);
		bpf_map_delete_elem(&receptions, &cookie);
		return -1;
	}
	end->flags |= END_ENROLLED;
	return 0;
}

/* Gives the socket its place in connection `id` and asks for the callbacks that its life needs. */
static __always_inline int join(struct bpf_sock_ops *ctx, __u64 id, __u32 role, int member)
{
	struct membership initial = { .connection = id, .role = role }, *place;
	int flags = ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;

	place = ctx->sk ? bpf_sk_storage_get(&memberships, ctx->sk, &initial, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (!place) {
		count_error(HELPER_SK_STORAGE_GET);
		return -1;
	}
	/* A socket that was disconnected and connects again still has its last place. */
	*place = initial;
	if (member)
		flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	if (bpf_sock_ops_cb_flags_set(ctx, flags)) {
		count_error(HELPER_SOCK_OPS_CB_FLAGS_SET);
		return -1;
	}
	return 0;
}

static __always_inline struct sock *socket_of(struct bpf_sock_ops *ctx)
{
	struct bpf_sock_ops_kern *kern = bpf_cast_to_kern_ctx(ctx);

	return kern->sk;
}

/* BPF_SOCK_OPS_RWND_INIT: a SYN reached a listener (tcp_openreq_init_rwin); the context's socket is the request. */
static __noinline int on_syn(struct bpf_sock_ops *ctx)
{
	struct handshake shake = {};
	const struct tcp_request_sock *request;
	struct sock *listener, *req;
	struct end_key client;

	req = socket_of(ctx);
	request = kernel_cast(struct tcp_request_sock, req);
	listener = kernel_cast(struct request_sock, req)->__req_common.skc_listener;
	if (!listener)
		return 0;
	shake.workload = workload_of(listener);
	if (!shake.workload)
		return 0;
	listener = kernel_cast(struct sock, listener);
	shake.port = listener->__sk_common.skc_num;
	shake.blocking = !is_nonblocking(listener->sk_socket);
	client.snd_nxt = request->rcv_isn + 1;
	client.rcv_nxt = request->snt_isn + 1;
	if (bpf_map_update_elem(&handshakes, &client, &shake, BPF_ANY))
		count_error(HELPER_MAP_UPDATE);
	return 0;
}

/* All of an end but `sock`, which makes it visible to the peer's sender hook. */
static __always_inline void fill_end(struct bpf_sock_ops *ctx, struct connection *conn, struct end *end, __u32 workload)
{
	__sync_fetch_and_add(&conn->open_ends, 1);
	end->cookie = bpf_get_socket_cookie(ctx);
	end->key.snd_nxt = ctx->snd_nxt;
	end->key.rcv_nxt = ctx->rcv_nxt;
	end->workload = workload;
	end->flags = END_OPEN;
}

static __noinline int on_active_established(struct bpf_sock_ops *ctx)
{
	struct connection fresh = {}, *conn;
	struct end *client = &fresh.ends[ROLE_CLIENT];
	struct settings *conf = current_settings();
	struct counters *count = this_cpu_counters();
	struct sock *sk = kernel_cast(struct sock, socket_of(ctx));
	const struct tcp_sock *tcp = kernel_cast(struct tcp_sock, sk);
	struct handshake *shake;
	__u32 workload = workload_of(sk);
	__u64 id;

	if (!workload || !conf || !count)
		return 0;
	fill_end(ctx, &fresh, client, workload);
	client->sock = (__u64)sk;
	id = client->cookie;
	fresh.generation = conf->generation;
	fresh.family = ctx->family;
	fresh.client_port = ctx->local_port;
	fresh.dialled_port = __builtin_bswap16((__u16)(ctx->remote_port >> 16));
	fresh.server_port = fresh.dialled_port;

	shake = bpf_map_lookup_elem(&handshakes, &client->key);
	if (!shake) {
		fresh.reason = kernel_bit(tcp, syn_data) ? REASON_FAST_OPEN : REASON_PEER_UNMANAGED;
	} else {
		fresh.ends[ROLE_SERVER].workload = shake->workload;
		fresh.server_port = shake->port;
		fresh.protocol = declared_protocol(shake->workload, shake->port);
		fresh.reason = decide(&fresh);
		if (fresh.reason == REASON_NONE) {
			if (!conf->shortcut)
				fresh.reason = REASON_KERNEL;
			else if (conf->draining)
				fresh.reason = REASON_DRAINING;
			else if (has_ulp(sk))
				fresh.reason = REASON_ULP;
			else if (kernel_bit(tcp, repair))
				fresh.reason = REASON_REPAIR;
			else if (!is_nonblocking(sk->sk_socket))
				fresh.reason = REASON_CLIENT_BLOCKING;
			else if (shake->blocking)
				fresh.reason = REASON_SERVER_BLOCKING;
		}
	}
	count->connections_opened++;
	if (bpf_map_update_elem(&connections, &id, &fresh, BPF_NOEXIST)) {
		count_error(HELPER_MAP_UPDATE);
		count_not_shortcut(REASON_TABLE_FULL);
		return 0;
	}
	conn = bpf_map_lookup_elem(&connections, &id);
	if (!conn)
		return 0;
	if (join(ctx, id, ROLE_CLIENT, conn->reason == REASON_NONE)) {
		bpf_map_delete_elem(&connections, &id);
		count_not_shortcut(REASON_HELPER_FAILED);
		return 0;
	}
	if (conn->reason == REASON_NONE && enrol(ctx, id, &conn->ends[ROLE_CLIENT]))
		conn->reason = REASON_HELPER_FAILED;
	if (conn->reason != REASON_NONE)
		count_not_shortcut(conn->reason);
	if (shake)
		shake->connection = id;
	return 0;
}

/* The server's end when the client's is not managed, or was not recorded. */
static __noinline int join_alone(struct bpf_sock_ops *ctx, struct sock *sk, __u32 workload)
{
	struct connection fresh = {};
	struct end *server = &fresh.ends[ROLE_SERVER];
	struct counters *count = this_cpu_counters();
	__u64 id;

	if (!count || !sk)
		return 0;
	fill_end(ctx, &fresh, server, workload);
	server->sock = (__u64)sk;
	id = server->cookie;
	fresh.family = ctx->family;
	fresh.server_port = ctx->local_port;
	fresh.dialled_port = fresh.server_port;
	fresh.client_port = __builtin_bswap16((__u16)(ctx->remote_port >> 16));
	fresh.protocol = declared_protocol(workload, fresh.server_port);
	fresh.reason = REASON_PEER_UNMANAGED;
	count->connections_opened++;
	count_not_shortcut(REASON_PEER_UNMANAGED);
	if (bpf_map_update_elem(&connections, &id, &fresh, BPF_NOEXIST)) {
		count_error(HELPER_MAP_UPDATE);
		return 0;
	}
	if (join(ctx, id, ROLE_SERVER, 0))
		bpf_map_delete_elem(&connections, &id);
	return 0;
}

/* Both ends may close at once, on two CPUs: the one that counts down last removes the connection. */
static __always_inline void close_end(struct connection *conn, struct end *end, __u64 id)
{
	WRITE_ONCE(end->sock, 0);
	end->flags &= ~END_OPEN;
	forget_reception(end);
	if (__sync_fetch_and_sub(&conn->open_ends, 1) == 1)
		bpf_map_delete_elem(&connections, &id);
}

static __noinline int on_passive_established(struct bpf_sock_ops *ctx)
{
	struct end_key client = { .snd_nxt = ctx->rcv_nxt, .rcv_nxt = ctx->snd_nxt };
	struct counters *count = this_cpu_counters();
	struct sock *sk = kernel_cast(struct sock, socket_of(ctx));
	struct handshake *shake;
	struct connection *conn;
	struct end *server;
	__u32 workload;
	__u64 id = 0;

	shake = bpf_map_lookup_elem(&handshakes, &client);
	if (shake)
		id = shake->connection;
	bpf_map_delete_elem(&handshakes, &client);
	workload = workload_of(sk);
	if (!workload || !count)
		return 0;
	conn = id ? bpf_map_lookup_elem(&connections, &id) : NULL;
	/* The table of handshakes forgets the oldest: what stands in its place is told by its key. */
	if (!conn || conn->ends[ROLE_CLIENT].key.snd_nxt != client.snd_nxt ||
	    conn->ends[ROLE_CLIENT].key.rcv_nxt != client.rcv_nxt || conn->ends[ROLE_SERVER].cookie)
		return join_alone(ctx, sk, workload);

	server = &conn->ends[ROLE_SERVER];
	fill_end(ctx, conn, server, workload);
	/* An MPTCP listener, Go's default, makes plain TCP sockets for plain TCP clients: only the child can tell. */
	if (conn->reason == REASON_NONE && has_ulp(sk)) {
		conn->leave_ns = bpf_ktime_get_ns();
		conn->reason = REASON_ULP;
		count_not_shortcut(REASON_ULP);
	}
	if (join(ctx, id, ROLE_SERVER, conn->reason == REASON_NONE) ||
	    (conn->reason == REASON_NONE && enrol(ctx, id, server))) {
		conn->leave_ns = bpf_ktime_get_ns();
		conn->reason = REASON_HELPER_FAILED;
		count_not_shortcut(REASON_HELPER_FAILED);
		if (!(server->flags & END_ENROLLED))
			close_end(conn, server, id);
		return 0;
	}
	if (conn->reason == REASON_NONE)
		count->shortcut_connections_opened++;
	WRITE_ONCE(server->sock, (__u64)sk);
	return 0;
}

/* Payload bytes that TCP carried out of this socket, and, for a peer that nobody else counts, into it. */
static __always_inline __u64 tcp_bytes_of(struct connection *conn, __u32 role, const struct tcp_sock *tcp)
{
	__u64 bytes = tcp->bytes_sent - tcp->bytes_retrans;

	if (!conn->ends[role ^ 1].workload)
		bytes += tcp->bytes_received;
	return bytes;
}

/* BPF_SOCK_OPS_STATE_CB with TCP_CLOSE: the socket is gone for good. */
static __noinline int on_close(struct bpf_sock_ops *ctx)
{
	struct counters *count = this_cpu_counters();
	const struct tcp_sock *tcp = kernel_cast(struct tcp_sock, socket_of(ctx));
	struct membership *member;
	struct connection *conn;
	struct end *end;
	__u64 id;
	__u32 role;

	if (!ctx->sk || !count)
		return 0;
	member = bpf_sk_storage_get(&memberships, ctx->sk, NULL, 0);
	if (!member)
		return 0;
	id = member->connection;
	role = member->role & 1;
	conn = bpf_map_lookup_elem(&connections, &id);
	if (!conn)
		return 0;
	end = &conn->ends[role];
	if (!(end->flags & END_OPEN))
		return 0;
	count->shortcut_bytes += end->shortcut_bytes;
	count->carrier_switches += end->switches;
	count->tcp_bytes += tcp_bytes_of(conn, role, tcp);
	close_end(conn, end, id);
	return 0;
}
