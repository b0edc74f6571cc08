/* SPDX-License-Identifier: Apache-2.0 */
/* The threads: each has an epoll and moves its halves along. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "torture.h"

#define MAGIC 0x5a485431
#define TURNS 4 /* operations of a half until it is the next one's turn */

/* The content and length of a direction are known from the stream's number and the seed alone. */
void set_direction(struct half *half, uint32_t stream, uint64_t seed)
{
	int direction = half->receives == options.server ? CLIENT_TO_SERVER : SERVER_TO_CLIENT;

	half->stream = stream;
	half->key = mix(mix(seed) + stream * 2ULL + direction);
	half->rng = half->key ^ (half->receives ? 0x5555 : 0xaaaa);
	half->edge = draw(&half->rng) & 1;
	half->slow = (int)(mix(half->key + 1) % 100) < options.slow_percent;
	half->least = options.min_bytes + mix(half->key + 2) % (options.max_bytes - options.min_bytes + 1);
	half->total = options.until_stopped ? ENDLESS : half->least;
	if (options.one_way && direction == SERVER_TO_CLIENT)
		half->total = 1;
}

void hand_over(struct half *half)
{
	struct worker *worker = &workers[(half->stream + (half->receives && half->stream % 3)) % options.threads];
	struct half *head = atomic_load(&worker->inbox);
	uint64_t one = 1;

	do
		half->born = head;
	while (!atomic_compare_exchange_weak(&worker->inbox, &head, half));
	if (write(worker->wakeup, &one, sizeof(one)) < 0)
		note_error("eventfd: %m");
}

struct half *start_half(int fd, int receives, int connecting, uint32_t stream)
{
	struct half *half = calloc(1, sizeof(*half));

	half->fd = fd;
	half->receives = receives;
	half->connecting = connecting;
	half->ready = !connecting;
	set_direction(half, stream, options.seed);
	if (receives && options.first_read_us)
		half->resume_ns = now_ns() + draw(&half->rng) % (options.first_read_us * 1000ULL);
	if (!receives && !options.server)
		half->header = (struct header){ .magic = MAGIC, .stream = stream, .seed = options.seed };
	hand_over(half);
	return half;
}

static void finish(struct half *half)
{
	half->finished = 1;
	close(half->fd);
	atomic_fetch_add(&halves_finished, 1);
	atomic_fetch_add(&progress, 1);
}

static void fail(struct half *half, const char *what)
{
	note_error("stream %u, %s at %llu of %llu: %s: %m", half->stream, half->receives ? "receiver" : "sender",
		   (unsigned long long)half->position, (unsigned long long)half->total, what);
	finish(half);
}

static void maybe_pause(struct half *half)
{
	int percent = half->receives ? options.read_pause_percent : options.write_pause_percent;
	uint64_t us = half->receives ? options.read_pause_us : options.write_pause_us;

	if (half->receives && half->slow && draw(&half->rng) % 100 < 10)
		half->resume_ns = now_ns() + draw(&half->rng) % (options.slow_pause_us * 1000ULL);
	else if (us && draw(&half->rng) % 100 < (unsigned)percent)
		half->resume_ns = now_ns() + draw(&half->rng) % (us * 1000);
}

/* One buffer as up to 16 pieces. */
static int cut(struct iovec *pieces, unsigned char *buffer, uint64_t size, uint64_t *rng)
{
	int count = 0;

	while (size) {
		uint64_t part = count == 15 ? size : draw_between(rng, 1, size);

		pieces[count++] = (struct iovec){ .iov_base = buffer, .iov_len = part };
		buffer += part;
		size -= part;
	}
	return count;
}

static ssize_t transmit(struct half *half, unsigned char *buffer, uint64_t size)
{
	struct iovec pieces[16];
	struct msghdr message = { .msg_iov = pieces };

	half->more = 0;
	switch (draw(&half->rng) % 8) {
	case 0:
		message.msg_iovlen = cut(pieces, buffer, size, &half->rng);
		return sendmsg(half->fd, &message, MSG_NOSIGNAL);
	case 1:
		half->more = half->position + size < half->total;
		return send(half->fd, buffer, size, MSG_NOSIGNAL | (half->more ? MSG_MORE : 0));
	case 2:
		return write(half->fd, buffer, size);
	default:
		return send(half->fd, buffer, size, MSG_NOSIGNAL);
	}
}

/* Once it may end, a direction ends where it is, but not before its least length nor amid what MSG_MORE announced. */
static void settle_total(struct half *half)
{
	if (half->total != ENDLESS || half->more || !atomic_load(options.server ? &half->stop : &stopping))
		return;
	half->total = half->position > half->least ? half->position : half->least;
}

/* 0: cannot go on now. */
static int send_some(struct half *half, unsigned char *buffer)
{
	uint64_t size = draw_size(&half->rng, options.max_write);
	ssize_t sent;

	settle_total(half);
	if (half->header_size < sizeof(half->header) && half->header.magic) {
		sent = send(half->fd, (char *)&half->header + half->header_size,
			    sizeof(half->header) - half->header_size, MSG_NOSIGNAL);
		if (sent > 0)
			half->header_size += sent;
	} else if (half->position == half->total && options.end_us && !half->ending) {
		half->ending = 1;
		half->resume_ns = now_ns() + options.end_us * 1000ULL;
		return 1;
	} else if (half->position == half->total) {
		if (shutdown(half->fd, SHUT_WR))
			fail(half, "shutdown");
		else
			finish(half);
		return 0;
	} else {
		if (size > half->total - half->position)
			size = half->total - half->position;
		fill(buffer, size, half->key, half->position);
		sent = transmit(half, buffer, size);
		if (sent > 0) {
			half->position += sent;
			atomic_fetch_add(&bytes_sent, sent);
		}
	}
	if (sent < 0) {
		half->ready = 0;
		if (errno != EAGAIN)
			fail(half, "send");
		return 0;
	}
	atomic_fetch_add(&progress, 1);
	if (!half->more)
		maybe_pause(half);
	return 1;
}

static ssize_t receive(struct half *half, unsigned char *buffer, uint64_t size)
{
	struct iovec pieces[16];
	struct msghdr message = { .msg_iov = pieces };
	ssize_t got, peeked;

	switch (draw(&half->rng) % 8) {
	case 0:
		message.msg_iovlen = cut(pieces, buffer, size, &half->rng);
		return recvmsg(half->fd, &message, 0);
	case 1:
		if (size > BUFFER_SIZE / 2)
			size = BUFFER_SIZE / 2;
		peeked = recv(half->fd, buffer + BUFFER_SIZE / 2, size, MSG_PEEK);
		if (peeked <= 0)
			return peeked;
		got = recv(half->fd, buffer, peeked, 0);
		if (got != peeked || memcmp(buffer, buffer + BUFFER_SIZE / 2, got))
			note_error("stream %u: peeked %zd bytes, then read %zd, or others", half->stream, peeked, got);
		return got;
	case 2:
		return read(half->fd, buffer, size);
	default:
		return recv(half->fd, buffer, size, 0);
	}
}

static void check(struct half *half, const unsigned char *buffer, uint64_t size)
{
	uint64_t good, search_end = half->total != ENDLESS ? half->total : half->position + 16 * BUFFER_SIZE;

	atomic_fetch_add(&bytes_received, size);
	if (!half->bad) {
		good = compare(buffer, size, half->key, half->position);
		if (good < size) {
			half->bad = 1;
			note_mismatch(half, half->position + good,
				      locate(buffer + good, size - good, half->key, search_end), "wrong byte");
		}
	}
	half->position += size;
}

static void check_end(struct half *half)
{
	int good = half->total == ENDLESS ? half->position >= half->least : half->position == half->total;

	if (!good && !half->bad)
		note_mismatch(half, half->position, -1, "wrong length");
	if (half->answer)
		atomic_store(&half->answer->stop, 1);
	finish(half);
}

/* At the server: who this is; then its other direction may start. Bytes of the stream may follow in the buffer. */
static uint64_t take_header(struct half *half, const unsigned char *buffer, uint64_t size)
{
	uint64_t part = sizeof(half->header) - half->header_size, rng = half->rng;
	int edge = half->edge, fd;

	if (part > size)
		part = size;
	memcpy((char *)&half->header + half->header_size, buffer, part);
	half->header_size += part;
	if (half->header_size < sizeof(half->header))
		return part;
	if (half->header.magic != MAGIC || half->header.seed != options.seed) {
		half->bad = 1;
		note_mismatch(half, 0, -1, half->header.magic == MAGIC ? "another network's stream" : "wrong header");
		half->header.stream = half->stream;
	}
	set_direction(half, half->header.stream, options.seed);
	half->edge = edge; /* as it is registered */
	half->rng = rng;
	fd = dup(half->fd);
	if (fd < 0)
		note_error("dup: %m");
	else
		half->answer = start_half(fd, 0, 0, half->stream);
	return part;
}

static int receive_some(struct half *half, unsigned char *buffer)
{
	uint64_t size = draw_size(&half->rng, options.max_read), skip = 0;
	int unread = 0;
	ssize_t got;

	if (!ioctl(half->fd, FIONREAD, &unread) && (unsigned)unread > atomic_load(&max_unread))
		atomic_store(&max_unread, unread);
	got = receive(half, buffer, size);
	if (got < 0) {
		half->ready = 0;
		if (errno != EAGAIN)
			fail(half, "recv");
		return 0;
	}
	atomic_fetch_add(&progress, 1);
	if (!got) {
		check_end(half);
		return 0;
	}
	if (options.server && half->header_size < sizeof(half->header))
		skip = take_header(half, buffer, got);
	check(half, buffer + skip, got - skip);
	maybe_pause(half);
	return 1;
}

/* What epoll should watch: with level triggering, only what the half is waiting for. */
static void watch(struct worker *worker, struct half *half)
{
	struct epoll_event event = { .data.ptr = half };
	int direction = half->receives ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
	int wanted = half->ready ? 0 : direction;

	if (half->edge && !half->connecting)
		wanted = direction | (int)EPOLLET;
	if (half->finished || wanted == half->interest)
		return;
	event.events = wanted;
	if (epoll_ctl(worker->epoll, half->interest < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, half->fd, &event))
		note_error("epoll_ctl: %m");
	half->interest = wanted;
}

static void finish_connect(struct half *half)
{
	int error = 0, fd;
	socklen_t size = sizeof(error);

	getsockopt(half->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	half->connecting = 0;
	if (error) {
		errno = error;
		fail(half, "connect");
		atomic_fetch_add(&halves_finished, 1); /* its other half never comes */
		return;
	}
	fd = dup(half->fd);
	if (fd < 0)
		note_error("dup: %m");
	else
		start_half(fd, 1, 0, half->stream);
}

/* Returns whether the half could go on at once; `wait_ns` becomes the nearest time at which a pause ends. */
static int advance(struct worker *worker, struct half *half, uint64_t now, uint64_t *wait_ns)
{
	if (half->connecting && half->ready)
		finish_connect(half);
	if (half->finished || half->connecting || !half->ready)
		return 0;
	for (int turn = 0; turn < TURNS; turn++) {
		if (half->resume_ns > now) {
			if (half->resume_ns - now < *wait_ns)
				*wait_ns = half->resume_ns - now;
			return 0;
		}
		if (!(half->receives ? receive_some : send_some)(half, worker->buffer))
			return 0;
	}
	return half->resume_ns <= now;
}

static void adopt(struct worker *worker)
{
	struct half *half = atomic_exchange(&worker->inbox, NULL), *next;

	for (; half; half = next) {
		next = half->born;
		half->interest = -1;
		half->next = worker->halves;
		worker->halves = half;
	}
}

void *work(void *argument)
{
	struct worker *worker = argument;
	struct epoll_event events[64];

	for (;;) {
		uint64_t wait_ns = 50000000, now = now_ns(), drained;
		int busy = 0, count;

		adopt(worker);
		for (struct half **link = &worker->halves; *link;) {
			struct half *half = *link;

			busy |= advance(worker, half, now, &wait_ns);
			watch(worker, half);
			if (half->finished) {
				*link = half->next; /* not freed: an event of this round may name it */
				continue;
			}
			link = &half->next;
		}
		count = epoll_wait(worker->epoll, events, 64, busy ? 0 : (int)((wait_ns + 999999) / 1000000));
		for (int i = 0; i < count; i++) {
			struct half *half = events[i].data.ptr;

			if (half)
				half->ready = 1;
			else if (read(worker->wakeup, &drained, sizeof(drained)) < 0)
				continue;
		}
	}
	return NULL;
}
