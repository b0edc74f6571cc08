// SPDX-License-Identifier: Apache-2.0
// bulk: one stream, as fast as it goes, in writes of one size; counted at the receiver.
//
//   bulk server ADDRESS PORT WARMUP_MS DURATION_MS     receives; prints one JSON object
//   bulk client ADDRESS PORT WRITE_SIZE                sends until told to stop; prints one JSON object
//
// The server alone keeps the clock: after the measured interval it sends one byte, at which the client ends
// its stream; both then print how many bytes they saw in all, which must be equal.
#include "common.h"

#include <poll.h>

#define READ_SIZE (256 * 1024)
// How often the sender looks for the stop byte: once in so many bytes, one system call.
#define LOOK_EVERY (1024 * 1024)

static void serve(const char *address, const char *port, uint64_t warmup_ms, uint64_t duration_ms)
{
	char *bytes = malloc(READ_SIZE);
	struct cpu_line before, after;
	uint64_t total = 0, at_start = 0, measured = 0;
	uint64_t first = 0, started = 0, elapsed = 0;
	int fd = accept_one(address, port);
	int epoll = watch(fd, EPOLLIN);

	if (!bytes)
		die("malloc");
	for (;;) {
		ssize_t got = recv(fd, bytes, READ_SIZE, 0);
		uint64_t now;

		if (got == 0)
			break;
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			die("recv");
		if (got > 0) {
			total += (uint64_t)got;
			now = now_ns();
			if (!first)
				first = now;
			if (!started && now >= first + warmup_ms * NS_PER_MS) {
				read_cpu(&before);
				at_start = total;
				started = now_ns();
			} else if (started && !elapsed && now >= started + duration_ms * NS_PER_MS) {
				elapsed = now - started;
				measured = total - at_start;
				read_cpu(&after);
				if (send(fd, "s", 1, MSG_NOSIGNAL) != 1)
					die("send");
			}
		}
		// A full buffer means more is probably there; otherwise wait, as an event loop does.
		if (got < READ_SIZE)
			wait_any(epoll);
	}
	if (!elapsed)
		fail("the sender ended before the measured interval did");
	printf("{\"total_bytes\": %llu, \"measured_bytes\": %llu, \"elapsed_ns\": %llu, "
	       "\"cpu_before\": \"%s\", \"cpu_after\": \"%s\"}\n",
	       (unsigned long long)total, (unsigned long long)measured, (unsigned long long)elapsed, before.text,
	       after.text);
}

static int told_to_stop(int fd)
{
	struct pollfd look = {.fd = fd, .events = POLLIN};

	if (poll(&look, 1, 0) < 0 && errno != EINTR)
		die("poll");
	return look.revents & (POLLIN | POLLERR | POLLHUP);
}

static void push(const char *address, const char *port, uint64_t write_size)
{
	char *bytes = malloc(write_size);
	uint64_t total = 0, looked = 0, offset = 0;
	int fd = connect_to(address, port);
	int epoll = watch(fd, EPOLLIN | EPOLLOUT);
	char answer;

	if (!bytes)
		die("malloc");
	for (uint64_t i = 0; i < write_size; i++)
		bytes[i] = (char)(i * 31 + 7);
	for (;;) {
		ssize_t sent = send(fd, bytes + offset, write_size - offset, MSG_NOSIGNAL);

		if (sent >= 0) {
			total += (uint64_t)sent;
			offset = (offset + (uint64_t)sent) % write_size;
		} else if (errno == EAGAIN) {
			if (wait_any(epoll) & (EPOLLIN | EPOLLERR | EPOLLHUP))
				break;
		} else if (errno != EINTR) {
			die("send");
		}
		if (total - looked >= LOOK_EVERY) {
			looked = total;
			if (told_to_stop(fd))
				break;
		}
	}
	if (recv(fd, &answer, 1, 0) != 1 || answer != 's')
		fail("the receiver ended the connection before the measured interval did");
	if (shutdown(fd, SHUT_WR) < 0)
		die("shutdown");
	// Not closed before the receiver has read everything: its close is the end of this stream.
	change(epoll, fd, EPOLLIN);
	for (;;) {
		ssize_t got = recv(fd, &answer, 1, 0);

		if (got == 0)
			break;
		if (got > 0)
			fail("the receiver sent more than the stop byte");
		if (errno != EAGAIN && errno != EINTR)
			die("recv");
		wait_any(epoll);
	}
	printf("{\"total_bytes\": %llu}\n", (unsigned long long)total);
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "server")) {
		serve(argv[2], argv[3], parse_number(argv[4], "warm-up"), parse_number(argv[5], "duration"));
	} else if (argc == 5 && !strcmp(argv[1], "client")) {
		uint64_t write_size = parse_number(argv[4], "write size");

		if (!write_size) {
			fprintf(stderr, "write size must be at least 1\n");
			return 2;
		}
		push(argv[2], argv[3], write_size);
	} else {
		fprintf(stderr, "usage: bulk server ADDRESS PORT WARMUP_MS DURATION_MS\n"
				"       bulk client ADDRESS PORT WRITE_SIZE\n");
		return 2;
	}
	return 0;
}
