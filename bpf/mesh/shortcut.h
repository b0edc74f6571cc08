/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The short-cut: when bytes may go from `sendmsg` straight into the peer's receive queue, and how a connection
 * leaves the sockhash without losing any.
 *
 * Why the order holds. A redirect takes the receiver's lock (bpf_tcp_ingress), so it is ordered against everything
 * that the receiver's TCP does under that lock. What was sent by TCP before it has been acknowledged (1), thus the
 * receiver has it: in sk_receive_queue or the backlog, where its verdict program has not seen it (2), parked for the
 * work item (3), on its way into the queue under the lock that the redirect will wait for, or in the queue already.
 * Room (4) keeps back-pressure, and keeps the third case from growing out of the fourth: data is only parked when
 * the receiver is over its limit. Without memory for the receiver (5) the program would hear of that, and TCP's never do.
 */
#pragma once

#include "mesh/connection.h"
#include "mesh/sent.h"
#include "mesh/writers.h"

#define SOL_SOCKET 1
#define SO_RCVBUF 8

static __always_inline const struct sk_psock *psock_of(const struct sock *sk)
{
	/* The low bits are flags (SK_USER_DATA_PTRMASK). */
	return kernel_cast(struct sk_psock, (__u64)sk->sk_user_data & ~7ULL);
}

static __always_inline int is_member(const struct sock *sk)
{
	return ((__u64)sk->sk_user_data & ~7ULL) != 0;
}

/* The address of a list's own head, to which an empty list points. */
static __always_inline __u64 first_message(const struct sk_psock *psock)
{
	__u64 head = (__u64)psock + __builtin_preserve_field_info(psock->ingress_msg, 0);
	__u64 first = (__u64)psock->ingress_msg.next;

	return first == head ? 0 : first;
}

static __always_inline int keeps_order_and_room(const struct sock *sender, const struct sock *receiver, __u32 size)
{
	const struct tcp_sock *tcp = kernel_cast(struct tcp_sock, sender);
	const struct sk_psock *psock = psock_of(receiver);

	/* Test builds leave one condition out, and with it the use of what it reads. */
	(void)tcp;
	(void)psock;
	if (!is_member(receiver))
		return 0;
#ifndef ZH_BREAK_ROOM
	if ((__u32)receiver->sk_backlog.rmem_alloc.counter + size > (__u32)receiver->sk_rcvbuf / 2)
		return 0;
#endif
#ifndef ZH_BREAK_ACKED
	if (tcp->snd_una != tcp->write_seq)
		return 0;
#endif
#ifndef ZH_BREAK_MEMORY
	if ((__s32)size > receiver->sk_forward_alloc && !has_memory(receiver))
		return 0;
#endif
#ifndef ZH_BREAK_QUEUED
	if (receiver->sk_receive_queue.qlen || receiver->sk_backlog.len)
		return 0;
#endif
#ifndef ZH_BREAK_PARKED
	/* Last: data moves from the queues above to here, never back. */
	if (psock->ingress_skb.qlen)
		return 0;
#endif
	return 1;
}

/* Orders `leave_ns` against `announced`: who leaves sees every sender that did not see it leave. */
static __always_inline void stop(struct connection *conn, __u32 reason, __u64 since)
{
	if (__sync_val_compare_and_swap(&conn->leave_ns, 0, since) || conn->reason != REASON_NONE)
		return;
	conn->reason = reason;
	count_not_shortcut(reason);
}

/* Whether the accepted socket at the other end blocks. Between `accept` and `fcntl` every socket looks so. */
static __always_inline int looks_blocking(struct connection *conn, struct end *peer, const struct sock *receiver)
{
	__u64 now;

	if (likely(is_nonblocking(receiver->sk_socket))) {
		if (unlikely(peer->blocking_since))
			peer->blocking_since = 0;
		return 0;
	}
	if (!receiver->sk_socket) /* not accepted yet: its queue is not read, TCP carries */
		return 1;
	now = bpf_ktime_get_ns();
	if (!peer->blocking_since)
		peer->blocking_since = now;
	else if (now - peer->blocking_since > BLOCKING_PATIENCE_NS)
		stop(conn, REASON_READER_BLOCKING, now);
	return 1;
}

/*
 * A streak has ended. Longer than the limit by more than one: the writer has more to say at a time than was thought.
 * Always of the same length and within the limit: writer and reader take turns, each asleep while the other works, and
 * the last message of a turn is what TCP should carry.
 */
static __always_inline void learn_limit(struct activity *here)
{
	__u32 limit = STREAK_FLOOR + here->limit;
	__u32 streak = here->streak;

	here->repeats = streak == here->last ? here->repeats + 1 : 0;
	here->last = streak;
	if (streak > limit + 1 && limit < STREAK_CEILING)
		here->limit++;
	else if (streak <= limit && streak > STREAK_FLOOR && here->repeats >= STREAK_REPEATS)
		here->limit = streak - 1 - STREAK_FLOOR;
}

/* Whether this CPU keeps writing to another one that does not answer: its reader is still waking up. */
static __always_inline int outruns_reader(struct end *me, const struct end *peer)
{
	__u32 cpu = bpf_get_smp_processor_id() & (MAX_CPUS - 1);
	__u32 peer_cpu = (peer->cpu - 1) & (MAX_CPUS - 1);
	struct activity *here = bpf_map_lookup_elem(&activities, &cpu);
	struct activity *there = bpf_map_lookup_elem(&activities, &peer_cpu);
	__u64 messages;

	if (!here || !there)
		return 0;
	me->cpu = cpu + 1;
	here->messages++;
	if (!peer->cpu || cpu == peer_cpu)
		return 0;
	messages = READ_ONCE(there->messages);
	if (here->peer_cpu != peer_cpu || here->peer_messages != messages) {
		learn_limit(here);
		here->peer_cpu = peer_cpu;
		here->peer_messages = messages;
		here->streak = 0;
	}
	return here->streak++ >= STREAK_FLOOR + here->limit;
}

/* Another configuration may have removed a workload, switched its short-cut off, excluded or redeclared the port. */
static __noinline int decide_again(struct connection *conn)
{
	const struct settings *conf = current_settings();
	__u32 reason;

	if (!conn || !conf)
		return 0;
	conn->generation = conf->generation;
	conn->protocol = declared_protocol(conn->ends[ROLE_SERVER].workload, conn->server_port);
	reason = decide(conn);
	if (reason == REASON_DISABLED && is_read(conn)) {
		/* It goes by TCP from now on, and is read all the same. */
		conn->reason = reason;
		count_not_shortcut(reason);
	} else if (reason != REASON_NONE) {
		stop(conn, reason, bpf_ktime_get_ns());
	}
	return reason == REASON_NONE;
}

/* Decides whether `size` bytes may go past TCP now. */
static __always_inline int may_redirect(struct connection *conn, struct end *me, struct end *peer,
					const struct sock *sender, __u32 size)
{
	const struct settings *conf = current_settings();
	const struct sock *receiver;
	__u64 peer_sent = READ_ONCE(peer->sent_bytes);
	__u64 address;

	if (!conf)
		return 0;
	if (unlikely(conf->draining)) {
		stop(conn, REASON_DRAINING, conf->draining);
		return 0;
	}
	if (unlikely(conn->generation != (__u32)conf->generation) && conn->reason == REASON_NONE && !decide_again(conn))
		return 0;
	if (!is_nonblocking(sender->sk_socket)) {
		stop(conn, REASON_READER_BLOCKING, bpf_ktime_get_ns());
		return 0;
	}
	if (conn->reason != REASON_NONE)
		return 0;
	if (peer_sent != me->run_peer_bytes) {
		me->run_peer_bytes = peer_sent;
		me->run_bytes = 0;
	}
	me->run_bytes += size;
	if (unlikely(me->run_bytes > BULK_RUN_BYTES)) {
		/* What is read stays: TCP carries until the peer answers. */
		if (!is_read(conn))
			stop(conn, REASON_BULK, bpf_ktime_get_ns());
		return 0;
	}
	if (outruns_reader(me, peer))
		return 0;
	address = READ_ONCE(peer->sock);
	if (!address)
		return 0;
	receiver = kernel_cast(struct sock, address);
	/* The address is dropped at close; the cookie tells a socket that took its place. */
	if ((__u64)receiver->__sk_common.skc_cookie.counter != peer->cookie)
		return 0;
	/* Writing after one's own shutdown, or to an end that reads no more, is TCP's to answer. */
	if ((sender->sk_shutdown & SEND_SHUTDOWN) || (receiver->sk_shutdown & RCV_SHUTDOWN))
		return 0;
	if (has_ulp(sender) || has_ulp(receiver)) { /* kTLS is switched on later: its peer expects records */
		stop(conn, REASON_ULP, bpf_ktime_get_ns());
		return 0;
	}
	if (looks_blocking(conn, peer, receiver))
		return 0;
	return keeps_order_and_room(sender, receiver, size);
}

/* The sender hook: one message of `sendmsg`, in the sender's context and under its lock. */
static __always_inline int send_message(struct sk_msg_md *msg)
{
	struct membership *member;
	struct connection *conn;
	struct end *me, *peer;
	struct sk_msg *kern;
	__u32 size = msg->size, role, shortcut;
	int early;
	__s64 shown;

	member = bpf_sk_storage_get(&memberships, msg->sk, NULL, 0);
	if (!member)
		return SK_PASS;
	conn = bpf_map_lookup_elem(&connections, &member->connection);
	if (!conn)
		return SK_PASS;
	role = member->role & 1;
	me = &conn->ends[role];
	peer = &conn->ends[role ^ 1];
	kern = bpf_cast_to_kern_ctx(msg);
	if (READ_ONCE(conn->leave_ns)) {
		if (likely(!may_overtake(me, kern)))
			WRITE_ONCE(me->stopped, 1);
		if (unlikely(is_open(conn)))
			may_pass_unread(conn, member->connection, kern->sk);
		return unlikely(READ_ONCE(conn->broken)) ? SK_DROP : SK_PASS;
	}
	early = conn->observers[role] == OBSERVER_SENDER && may_overtake(me, kern);
	shortcut = may_redirect(conn, me, peer, kern->sk, size);
	if (unlikely(shortcut && !me->announced))
		__sync_fetch_and_add(&me->announced, 1);
	if (unlikely(READ_ONCE(conn->leave_ns))) {
		/* Since just now: nobody has read this message, and nobody will; the peer need not have waited for it. */
		shortcut = 0;
		if (unlikely(is_open(conn)) && !may_pass_unread(conn, member->connection, kern->sk))
			return SK_DROP;
	} else if (conn->observers[role] == OBSERVER_SENDER) {
		shown = read_sent(msg, kern, conn, member->connection, role, early, &shortcut);
		if (unlikely(shown < 0)) {
			if (!may_pass_unread(conn, member->connection, kern->sk))
				return SK_DROP;
			shown = 0;
		}
		if (likely(shown))
			size = shown;
		else if (conn->reason != REASON_NONE) /* nothing to do here any more */
			stop(conn, REASON_LEFT, bpf_ktime_get_ns());
	}
	if (shortcut && bpf_msg_redirect_hash(msg, &sockets, &peer->key, BPF_F_INGRESS) != SK_PASS) {
		/*
		 * No fault: the receiver is between sock_map_close, which takes it out of the map, and the callback that drops
		 * its address. TCP carries what it is never going to read, and answers it.
		 */
		WRITE_ONCE(peer->sock, 0);
		shortcut = 0;
	}
	me->sent_bytes += size;
	if (shortcut) {
		me->shortcut_bytes += size;
		note_redirect(me, kern);
	}
	if (me->carrier != shortcut) {
		me->carrier = shortcut;
		me->switches++;
	}
	/* SK_PASS carries out a redirect that was asked for, else it means TCP. */
	return SK_PASS;
}

/*
 * Whether a redirect that was decided before the stop may still be on its way. It holds neither lock while it looks for
 * its receiver, but its `sendmsg` has a reference to the sender's psock until it is done; a program that has sent again
 * since is done with it.
 */
static __always_inline int may_be_sent_to(struct connection *conn, struct end *peer)
{
	const struct sock *sk;
	__u64 address;

	if (!READ_ONCE(peer->announced))
		return 0;
	if (bpf_ktime_get_ns() - conn->leave_ns < LEAVE_GRACE_NS)
		return 1;
	address = READ_ONCE(peer->sock);
	if (!address || READ_ONCE(peer->stopped) || (peer->flags & END_LEFT))
		return 0;
	sk = kernel_cast(struct sock, address);
	return is_member(sk) && psock_of(sk)->refcnt.refs.counter > 1;
}

static __always_inline int nobody_sleeps(const struct sock *sk)
{
	const struct socket_wq *queue = kernel_cast(struct socket_wq, sk->sk_wq);
	__u64 head = (__u64)queue + __builtin_preserve_field_info(queue->wait.head, 0);

	return (__u64)queue->wait.head.next == head;
}

/*
 * Whether the one call that is going on is the `sendmsg` that sends this segment (tcp_bpf_send_verdict: the message that it
 * has let pass is being pushed). Without a sleeper, since a push that a signal ended looks like one that goes on.
 */
static __always_inline int is_being_sent(const struct sock *sk, const struct sk_psock *psock)
{
	return psock->refcnt.refs.counter == 2 && psock->eval == PSOCK_EVAL_PASS && nobody_sleeps(sk);
}

/*
 * Whether somebody may sleep in `recv`, who would wait at queues that nobody fills any more. A program that blocks should
 * have left by then: whatever else wakes it there, such as room to send again, ends its `recv` with EAGAIN
 * (tcp_bpf_recvmsg_parser). So it leaves while it sends.
 */
static __always_inline int may_be_waited_for(const struct sock *sk, const struct sk_psock *psock)
{
	return !is_nonblocking(sk->sk_socket) && psock->refcnt.refs.counter > 1 && !is_being_sent(sk, psock);
}

/*
 * BPF_SOCK_OPS_HDR_OPT_LEN_CB: a member is about to send a segment (data, an acknowledgement, a keep-alive probe),
 * under its lock: the place where a socket may leave the sockhash. Every other callback is skipped by TCP's fast path.
 * What is queued would be freed with the membership, so it leaves when its queues are empty, and when all that TCP
 * received has been read: that also tells a segment on its way through the verdict, and kernels before the FIONREAD
 * repair, which count redirected bytes there too and whose sockets have to stay.
 */
static __noinline int on_transmit(struct bpf_sock_ops *ctx)
{
	const struct settings *conf = current_settings();
	const struct tcp_sock *tcp;
	const struct sk_psock *psock;
	const struct sock *sk;
	struct membership *member;
	struct connection *conn;
	struct end *end, *peer;
	struct end_key key;
	__u32 unread;

	if (!ctx->sk || !conf)
		return 0;
	member = bpf_sk_storage_get(&memberships, ctx->sk, NULL, 0);
	if (!member)
		return 0;
	conn = bpf_map_lookup_elem(&connections, &member->connection);
	if (!conn)
		return 0;
	if (!conn->leave_ns) {
		if (likely(!conf->draining))
			return 0;
		stop(conn, REASON_DRAINING, conf->draining);
	}
	/* Outside the sockhash its stream would go on, with a gap. */
	if (unlikely(READ_ONCE(conn->broken)))
		return 0;
	end = &conn->ends[member->role & 1];
	peer = &conn->ends[(member->role & 1) ^ 1];
	if ((end->flags & (END_ENROLLED | END_LEFT)) != END_ENROLLED)
		return 0;
	if (may_be_sent_to(conn, peer))
		return 0;
	sk = kernel_cast(struct sock, socket_of(ctx));
	if (!is_member(sk)) { /* close() took it out before this last segment */
		end->flags |= END_LEFT;
		return 0;
	}
	if (has_ulp(sk))
		return 0;
	tcp = kernel_cast(struct tcp_sock, sk);
	psock = psock_of(sk);
	/* A FIN takes a sequence number that nobody reads. */
	unread = tcp->rcv_nxt - tcp->copied_seq;
	if (may_be_waited_for(sk, psock) || first_message(psock) || psock->ingress_skb.qlen || sk->sk_receive_queue.qlen ||
	    unread > ((sk->sk_shutdown & RCV_SHUTDOWN) != 0))
		return 0;
	key = end->key;
	if (bpf_map_delete_elem(&sockets, &key)) {
		count_error(HELPER_SOCK_HASH_DELETE);
		return 0;
	}
	forget_reception(end);
	end->flags |= END_LEFT;
	if (bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG))
		count_error(HELPER_SOCK_OPS_CB_FLAGS_SET);
	return 0;
}

/*
 * BPF_SOCK_OPS_STATE_CB: a member is closed with data unread. TCP would answer with a reset; here the data was in the
 * short-cut's queue, which is gone, so the kernel says FIN, with a window still closed by what nobody read: a writer
 * that waits for room would learn only from its next window probe. An open window in the FIN makes it send at once,
 * and what it sends is answered with the reset.
 */
static __noinline int on_shutdown(struct bpf_sock_ops *ctx)
{
	const struct sock *sk = kernel_cast(struct sock, socket_of(ctx));
	int unread = sk->sk_backlog.rmem_alloc.counter;
	int room = 2 * sk->sk_rcvbuf;

	if ((sk->sk_shutdown & (RCV_SHUTDOWN | SEND_SHUTDOWN)) != (RCV_SHUTDOWN | SEND_SHUTDOWN) || unread <= 0)
		return 0;
	if (bpf_setsockopt(ctx, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)))
		count_error(HELPER_SETSOCKOPT);
	return 0;
}
