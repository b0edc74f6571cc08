/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A connection's life: the SYN at a managed listener, each end's establishment, close.
 *
 * The SYN comes first, so the listener's side is known before the client's end is established, and the client's
 * decision is known before the server's end is: both ends agree, and a socket whose connection takes no part in the
 * short-cut never enters the sockhash.
 */
#pragma once

#include "mesh/enforcing.h"
#include "mesh/identity.h"
#include "mesh/streams.h"
#include "mesh/virtual.h"

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

static __always_inline void stop_reception_reading(const struct end *end)
{
	__u64 cookie = end->cookie;
	struct reception *reception = bpf_map_lookup_elem(&receptions, &cookie);

	if (reception)
		reception->reads = READS_NONE;
}

/* Who reads what comes to the end of `role`. */
static __noinline __u32 reads_of(const struct connection *conn, __u64 id, __u32 role)
{
	struct reading *reading;

	if (!conn)
		return READS_NONE;
	if (conn->observers[(role ^ 1) & 1] == OBSERVER_RECEIVER)
		return READS_ALL;
	reading = role == ROLE_SERVER ? bpf_map_lookup_elem(&readings, &id) : NULL;
	return reading && reading->judges ? READS_SHOWN : READS_NONE;
}

/* Puts the socket into the sockhash; only the two ESTABLISHED callbacks may. */
static __always_inline int enrol(struct bpf_sock_ops *ctx, __u64 id, struct connection *conn, __u32 role)
{
	struct end *end = &conn->ends[role];
	struct reception reception = { .connection = id, .next_seq = end->key.rcv_nxt, .role = role };
	struct end_key key = end->key;
	__u64 cookie = end->cookie;

	reception.reads = reads_of(conn, id, role);
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

/* A connection of zeros under `id`: nobody knows of it, and without an open end an inspection leaves it alone. */
static __noinline struct connection *insert_connection(__u64 id)
{
	__u32 zero = 0;
	void *blank = bpf_map_lookup_elem(&blank_readings, &zero);

	if (!blank)
		return NULL;
	if (bpf_map_update_elem(&connections, &id, blank, BPF_NOEXIST)) {
		count_error(HELPER_MAP_UPDATE);
		return NULL;
	}
	return bpf_map_lookup_elem(&connections, &id);
}

/* All of an end but `sock`, which makes it visible to the peer's sender hook. */
static __always_inline void fill_end(struct bpf_sock_ops *ctx, struct end *end, __u32 workload)
{
	end->cookie = bpf_get_socket_cookie(ctx);
	end->key.snd_nxt = ctx->snd_nxt;
	end->key.rcv_nxt = ctx->rcv_nxt;
	end->workload = workload;
	end->flags = END_OPEN;
}

/* Why this kernel or the client's socket keeps a connection out of the hooks; REASON_NONE: nothing does. */
static __always_inline __u32 why_client_stays_out(const struct settings *conf, const struct sock *sk)
{
	const struct tcp_sock *tcp = kernel_cast(struct tcp_sock, sk);

	if (!conf->shortcut)
		return REASON_KERNEL;
	if (conf->draining)
		return REASON_DRAINING;
	if (has_ulp(sk))
		return REASON_ULP;
	if (kernel_bit(tcp, repair))
		return REASON_REPAIR;
	if (kernel_bit(tcp, syn_data))
		return REASON_FAST_OPEN;
	if (!is_nonblocking(sk->sk_socket))
		return REASON_CLIENT_BLOCKING;
	return REASON_NONE;
}

static __always_inline int may_be_read(const struct settings *conf, const struct connection *conn)
{
	return conf->engine && is_layer7(conn->protocol) && conn->reason != REASON_EXCLUDED_PORT;
}

/* The same for an accepted socket; a listener that nobody has seen may block. */
static __always_inline __u32 why_server_stays_out(const struct settings *conf, const struct sock *sk, int blocking)
{
	if (!conf->shortcut)
		return REASON_KERNEL;
	if (conf->draining)
		return REASON_DRAINING;
	if (has_ulp(sk))
		return REASON_ULP;
	return blocking ? REASON_SERVER_BLOCKING : REASON_NONE;
}

static __always_inline void read_no_further(struct connection *conn)
{
	conn->observers[ROLE_CLIENT] = OBSERVER_NONE;
	conn->observers[ROLE_SERVER] = OBSERVER_NONE;
}

/* A connection that the hooks do not read although its port is declared for layer 7. */
static __always_inline void count_unread(__u32 reason)
{
	struct counters *count = this_cpu_counters();

	if (count)
		count_at(count->unread, reason, REASON_MAX);
}

/* All that can be decided at the client's end. Returns whether it becomes a member. */
static __noinline int decide_client(struct bpf_sock_ops *ctx, struct connection *conn, struct handshake *shake)
{
	const struct settings *conf = current_settings();
	const struct sock *sk = kernel_cast(struct sock, socket_of(ctx));
	const struct tcp_sock *tcp = kernel_cast(struct tcp_sock, sk);
	struct endpoint *endpoint;
	__u32 obstacle;

	if (!conf || !conn)
		return 0;
	obstacle = why_client_stays_out(conf, sk);
	if (shake) {
		conn->ends[ROLE_SERVER].workload = shake->workload;
		conn->server_port = shake->port;
		conn->protocol = declared_protocol(shake->workload, shake->port);
		conn->reason = decide(conn);
		if (conn->reason == REASON_NONE)
			conn->reason = obstacle;
		if (conn->reason == REASON_NONE && shake->blocking)
			conn->reason = REASON_SERVER_BLOCKING;
	} else {
		conn->reason = kernel_bit(tcp, syn_data) ? REASON_FAST_OPEN : REASON_PEER_UNMANAGED;
		if (is_excluded(conn->ends[ROLE_CLIENT].workload, conn->dialled_port) ||
		    is_excluded(conn->ends[ROLE_CLIENT].workload, conn->server_port))
			return 0;
		endpoint = dialled_endpoint(ctx);
		if (endpoint)
			conn->protocol = endpoint->protocol;
	}
	if (conn->reason == REASON_NONE) {
		if (may_be_read(conf, conn))
			conn->observers[ROLE_CLIENT] = conn->observers[ROLE_SERVER] = OBSERVER_SENDER;
		return 1;
	}
	if (!may_be_read(conf, conn))
		return 0;
	if (obstacle != REASON_NONE) {
		/* A managed server's end may still be read there. */
		if (!shake)
			count_unread(obstacle);
		return 0;
	}
	conn->observers[ROLE_CLIENT] = OBSERVER_SENDER;
	conn->observers[ROLE_SERVER] = OBSERVER_RECEIVER;
	return 1;
}

/*
 * Tells the server's end which connection is its own. Of a handshake that is not known, or not any more, only that: nobody
 * becomes a stranger by how many others there are.
 */
static __noinline int announce(const struct end *client, const struct handshake *known, __u64 id)
{
	struct handshake shake = { .blocking = 1 };
	struct end_key key;

	if (!client)
		return 0;
	if (known)
		shake = *known;
	shake.connection = id;
	key = client->key;
	if (bpf_map_update_elem(&handshakes, &key, &shake, BPF_ANY))
		count_error(HELPER_MAP_UPDATE);
	return 0;
}

static __noinline int on_active_established(struct bpf_sock_ops *ctx)
{
	const struct settings *conf = current_settings();
	struct counters *count = this_cpu_counters();
	struct sock *sk = kernel_cast(struct sock, socket_of(ctx));
	__u32 workload = workload_of(sk);
	struct handshake *shake;
	struct connection *conn;
	struct dialled *asked;
	struct end *client;
	int member;
	__u64 id;

	if (!workload || !conf || !count)
		return 0;
	__sync_fetch_and_add(&count->connections_opened, 1);
	id = bpf_get_socket_cookie(ctx);
	conn = insert_connection(id);
	if (!conn) {
		count_not_shortcut(REASON_TABLE_FULL);
		return 0;
	}
	client = &conn->ends[ROLE_CLIENT];
	fill_end(ctx, client, workload);
	client->sock = (__u64)sk;
	conn->generation = conf->generation;
	conn->family = ctx->family;
	conn->client_port = ctx->local_port;
	conn->server_port = __builtin_bswap16((__u16)(ctx->remote_port >> 16));
	conn->dialled_port = conn->server_port;
	asked = ctx->sk ? dialled_by(ctx->sk) : NULL;
	if (asked) {
		conn->dialled_port = asked->address.port;
		bpf_map_delete_elem(&dead_endpoints, &asked->endpoint);
	}

	shake = bpf_map_lookup_elem(&handshakes, &client->key);
	member = decide_client(ctx, conn, shake);
	if (join(ctx, id, ROLE_CLIENT, member)) {
		bpf_map_delete_elem(&connections, &id);
		count_not_shortcut(REASON_HELPER_FAILED);
		return 0;
	}
	conn->service = asked ? asked->service : service_of(ctx, conn);
	WRITE_ONCE(conn->open_ends, 1);
	if (is_read(conn) && open_reading(ctx, conn, id, ROLE_CLIENT))
		read_no_further(conn);
	if (member && enrol(ctx, id, conn, ROLE_CLIENT)) {
		read_no_further(conn);
		if (conn->reason == REASON_NONE)
			conn->reason = REASON_HELPER_FAILED;
	}
	if (conn->reason != REASON_NONE)
		count_not_shortcut(conn->reason);
	if (!is_read(conn))
		count_opened(conn);
	return announce(client, shake, id);
}

/* BPF_SOCK_OPS_TCP_CONNECT_CB: a SYN is about to be sent. Whether it is answered is to be known where there is a choice. */
static __always_inline int on_connect(struct bpf_sock_ops *ctx)
{
	if (ctx->sk && dialled_by(ctx->sk) &&
	    bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		count_error(HELPER_SOCK_OPS_CB_FLAGS_SET);
	return 0;
}

/* BPF_SOCK_OPS_STATE_CB from TCP_SYN_SENT to TCP_CLOSE: an error, or the program has lost patience. */
static __noinline int on_connect_failed(struct bpf_sock_ops *ctx)
{
	struct dialled *asked = ctx->sk ? dialled_by(ctx->sk) : NULL;
	const struct sock *sk = kernel_cast(struct sock, socket_of(ctx));
	__u64 until = bpf_ktime_get_ns() + DEAD_NS;

	if (asked && sk->sk_err && bpf_map_update_elem(&dead_endpoints, &asked->endpoint, &until, BPF_ANY))
		count_error(HELPER_MAP_UPDATE);
	return 0;
}

/* Judges the connection of the server's socket that has just been made. */
static __noinline int judge_connection(struct bpf_sock_ops *ctx, struct connection *conn)
{
	struct dial dial = {};

	if (!conn)
		return 0;
	fill_addresses(ctx, dial.source, dial.destination, ROLE_SERVER);
	judge_as(conn, &dial);
	return 0;
}

/* A denied socket that the hooks cannot have: nothing that comes is let in until it is reset. */
static __noinline int shut_out(struct bpf_sock_ops *ctx)
{
	struct membership initial = { .role = ROLE_SERVER }, *place;

	place = ctx->sk ? bpf_sk_storage_get(&memberships, ctx->sk, &initial, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (place)
		place->shut = 1;
	else
		count_error(HELPER_SK_STORAGE_GET);
	return 0;
}

/* The server's end is complete but for `sock`. Breaks a connection that policies do not let be. Returns whether it has. */
static __noinline int enforce(struct bpf_sock_ops *ctx, struct connection *conn, __u64 id, const struct sock *sk)
{
	__u32 reason = conn ? why_forbidden(conn, id) : REASON_NONE;

	if (reason == REASON_NONE)
		return 0;
	/* What comes is dropped by the receiver hook, so the socket has to be a member. */
	if (!(conn->ends[ROLE_SERVER].flags & END_ENROLLED) && enrol(ctx, id, conn, ROLE_SERVER))
		shut_out(ctx);
	forbid(conn, sk, reason);
	return 1;
}

/* There is no room for the connection of the server's socket that has just been made: it may be if nobody has to judge. */
static __noinline int judge_unknown(struct bpf_sock_ops *ctx, const struct sock *sk, __u32 workload)
{
	struct dial dial = { .server = workload, .port = ctx->local_port, .has_source = 1 };
	struct judgement judged;
	struct counters *count;

	fill_addresses(ctx, dial.source, dial.destination, ROLE_SERVER);
	judge(&dial, &judged);
	if (!judged.generation || (judged.verdict && !is_denied(judged.verdict)))
		return 0;
	count = this_cpu_counters();
	if (count)
		__sync_fetch_and_add(&count->denied_connections, 1);
	shut_out(ctx);
	return ask_for_reset(sk, REASON_TABLE_FULL, 0);
}

/* What the server's end knows of a connection whose client's does not. Returns whether it becomes a member. */
static __noinline int decide_server(struct bpf_sock_ops *ctx, struct connection *conn, struct sock *sk, int blocking)
{
	const struct settings *conf = current_settings();
	__u32 workload, obstacle;

	if (!conf || !conn)
		return 0;
	conn->family = ctx->family;
	conn->server_port = ctx->local_port;
	conn->dialled_port = conn->server_port;
	conn->client_port = __builtin_bswap16((__u16)(ctx->remote_port >> 16));
	workload = conn->ends[ROLE_SERVER].workload;
	conn->protocol = declared_protocol(workload, conn->server_port);
	conn->reason = REASON_PEER_UNMANAGED;
	if (!may_be_read(conf, conn) || is_excluded(workload, conn->server_port))
		return 0;
	obstacle = why_server_stays_out(conf, sk, blocking);
	if (obstacle != REASON_NONE) {
		count_unread(obstacle);
		return 0;
	}
	conn->observers[ROLE_CLIENT] = OBSERVER_RECEIVER;
	conn->observers[ROLE_SERVER] = OBSERVER_SENDER;
	return 1;
}

/* The server's end when the client's is not managed, or was not recorded. */
static __noinline int join_alone(struct bpf_sock_ops *ctx, struct sock *sk, __u32 workload, int blocking)
{
	struct counters *count = this_cpu_counters();
	struct connection *conn;
	struct end *server;
	int member;
	__u64 id;

	if (!count || !sk)
		return 0;
	__sync_fetch_and_add(&count->connections_opened, 1);
	count_not_shortcut(REASON_PEER_UNMANAGED);
	id = bpf_get_socket_cookie(ctx);
	conn = insert_connection(id);
	if (!conn)
		return judge_unknown(ctx, sk, workload);
	server = &conn->ends[ROLE_SERVER];
	fill_end(ctx, server, workload);
	server->sock = (__u64)sk;
	member = decide_server(ctx, conn, sk, blocking);
	judge_connection(ctx, conn);
	if (join(ctx, id, ROLE_SERVER, member)) {
		bpf_map_delete_elem(&connections, &id);
		return judge_unknown(ctx, sk, workload);
	}
	conn->service = service_of(ctx, conn);
	WRITE_ONCE(conn->open_ends, 1);
	if (member && (open_reading(ctx, conn, id, ROLE_SERVER) || enrol(ctx, id, conn, ROLE_SERVER)))
		read_no_further(conn);
	enforce(ctx, conn, id, sk);
	if (!is_read(conn))
		count_opened(conn);
	return 0;
}

static __always_inline void forget_connection(struct bpf_sock_ops *ctx, struct connection *conn, __u64 id)
{
	int was_read = is_read(conn), speaks = SPEAKS_OTHER;

	if (was_read)
		speaks = close_reading(id, conn->leave_ns != 0);
	if (speaks == SPEAKS_OTHER || speaks == SPEAKS_HTTP1 || speaks == SPEAKS_TLS)
		count_closed(ctx, conn, id, was_read);
	bpf_map_delete_elem(&connections, &id);
}

/* Both ends may close at once, on two CPUs: the one that counts down last removes the connection. */
static __always_inline void close_end(struct connection *conn, struct end *end, __u64 id, struct bpf_sock_ops *ctx)
{
	WRITE_ONCE(end->sock, 0);
	end->flags &= ~END_OPEN;
	forget_reception(end);
	if (__sync_fetch_and_sub(&conn->open_ends, 1) == 1)
		forget_connection(ctx, conn, id);
}

/*
 * Both ends are managed and the connection is not short-cut: which of them read it. The client has decided; here the
 * server joins, so that each direction is read by its sender where there is a choice. Returns whether it is a member.
 */
static __noinline int choose_observers(struct bpf_sock_ops *ctx, struct connection *conn, __u64 id, __u32 obstacle)
{
	const struct settings *conf = current_settings();

	if (!conf || !conn || !may_be_read(conf, conn))
		return 0;
	if (conn->leave_ns || obstacle != REASON_NONE) {
		if (!is_read(conn))
			count_unread(obstacle != REASON_NONE ? obstacle : conn->reason);
		return 0;
	}
	if (is_read(conn)) {
		/* The client's end reads responses until here, and none has been sent. */
		stop_reception_reading(&conn->ends[ROLE_CLIENT]);
		conn->observers[ROLE_SERVER] = OBSERVER_SENDER;
		return 1;
	}
	if (open_reading(ctx, conn, id, ROLE_SERVER))
		return 0;
	conn->observers[ROLE_CLIENT] = OBSERVER_RECEIVER;
	conn->observers[ROLE_SERVER] = OBSERVER_SENDER;
	return 1;
}

static __noinline int on_passive_established(struct bpf_sock_ops *ctx)
{
	struct end_key client = { .snd_nxt = ctx->rcv_nxt, .rcv_nxt = ctx->snd_nxt };
	struct counters *count = this_cpu_counters();
	struct sock *sk = kernel_cast(struct sock, socket_of(ctx));
	const struct settings *conf = current_settings();
	struct handshake *shake;
	struct connection *conn;
	struct end *server;
	__u32 workload, obstacle;
	int blocking = 1, known = 0, member;
	__u64 id = 0;

	shake = bpf_map_lookup_elem(&handshakes, &client);
	if (shake) {
		id = shake->connection;
		known = shake->workload != 0;
		blocking = shake->blocking;
	}
	bpf_map_delete_elem(&handshakes, &client);
	workload = workload_of(sk);
	if (!workload || !count || !conf)
		return 0;
	conn = id ? bpf_map_lookup_elem(&connections, &id) : NULL;
	/* The table of handshakes forgets the oldest: what stands in its place is told by its key. */
	if (!conn || conn->ends[ROLE_CLIENT].key.snd_nxt != client.snd_nxt ||
	    conn->ends[ROLE_CLIENT].key.rcv_nxt != client.rcv_nxt || conn->ends[ROLE_SERVER].cookie)
		return join_alone(ctx, sk, workload, blocking);

	server = &conn->ends[ROLE_SERVER];
	fill_end(ctx, server, workload);
	__sync_fetch_and_add(&conn->open_ends, 1);
	if (unlikely(!known)) {
		conn->server_port = ctx->local_port;
		conn->protocol = declared_protocol(workload, conn->server_port);
	}
	obstacle = why_server_stays_out(conf, sk, blocking);
	/* An MPTCP listener, Go's default, makes plain TCP sockets for plain TCP clients: only the child can tell. */
	if (conn->reason == REASON_NONE && obstacle == REASON_ULP) {
		conn->leave_ns = bpf_ktime_get_ns();
		conn->reason = REASON_ULP;
		count_not_shortcut(REASON_ULP);
	}
	member = conn->reason == REASON_NONE || choose_observers(ctx, conn, id, obstacle);
	if (join(ctx, id, ROLE_SERVER, member) || (member && enrol(ctx, id, conn, ROLE_SERVER))) {
		conn->leave_ns = bpf_ktime_get_ns();
		if (conn->reason == REASON_NONE) {
			conn->reason = REASON_HELPER_FAILED;
			count_not_shortcut(REASON_HELPER_FAILED);
		}
		if (!(server->flags & END_ENROLLED))
			close_end(conn, server, id, ctx);
		return judge_unknown(ctx, sk, workload);
	}
	judge_connection(ctx, conn);
	if (!enforce(ctx, conn, id, sk) && conn->reason == REASON_NONE)
		__sync_fetch_and_add(&count->shortcut_connections_opened, 1);
	if (member)
		join_reading(ctx, id);
	WRITE_ONCE(server->sock, (__u64)sk);
	return 0;
}

/* Payload bytes that TCP brought. The kernel's count has the FIN, too (tcp_rcv_nxt_update, tcp_fin). */
static __always_inline __u64 received_bytes(const struct tcp_sock *tcp)
{
	const struct sock *sk = kernel_cast(struct sock, tcp);

	return tcp->bytes_received - (sk->__sk_common.skc_flags >> SOCK_DONE & 1);
}

/* Payload bytes that TCP carried out of this socket, and, for a peer that nobody else counts, into it. */
static __always_inline __u64 tcp_bytes_of(struct connection *conn, __u32 role, const struct tcp_sock *tcp)
{
	__u64 bytes = tcp->bytes_sent - tcp->bytes_retrans;

	if (!conn->ends[role ^ 1].workload)
		bytes += received_bytes(tcp);
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
	__sync_fetch_and_add(&count->shortcut_bytes, end->shortcut_bytes);
	__sync_fetch_and_add(&count->carrier_switches, end->switches);
	__sync_fetch_and_add(&count->tcp_bytes, tcp_bytes_of(conn, role, tcp));
	end->sent_bytes = end->shortcut_bytes + tcp->bytes_sent - tcp->bytes_retrans;
	if (!conn->ends[role ^ 1].workload)
		conn->ends[role ^ 1].sent_bytes = received_bytes(tcp);
	close_end(conn, end, id, ctx);
	return 0;
}
