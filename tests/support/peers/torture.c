/* SPDX-License-Identifier: Apache-2.0 */
/* Entry point: options, the listener or the connections, the watchdog, the report. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "torture.h"

struct options options = {
	.host = "127.0.0.1", .streams = 10, .threads = 2, .seed = 1, .min_bytes = 1, .max_bytes = 262144,
	.max_write = BUFFER_SIZE, .max_read = BUFFER_SIZE, .slow_pause_us = 20000, .stall_seconds = 20,
};
struct worker workers[MAX_THREADS];
atomic_ullong progress, bytes_sent, bytes_received, max_unread;
atomic_int halves_finished, streams_started, stopping, mismatches, errors;

static char notes[2][NOTES][256];

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

void note_error(const char *format, ...)
{
	int slot = atomic_fetch_add(&errors, 1);
	va_list arguments;

	if (slot >= NOTES)
		return;
	va_start(arguments, format);
	vsnprintf(notes[1][slot], sizeof(notes[1][slot]), format, arguments);
	va_end(arguments);
}

void note_mismatch(const struct half *half, uint64_t position, int64_t found_at, const char *what)
{
	int slot = atomic_fetch_add(&mismatches, 1);

	if (slot < NOTES)
		snprintf(notes[0][slot], sizeof(notes[0][slot]),
			 "stream %u to the %s: %s at %llu of %llu; what came stands at %lld", half->stream,
			 options.server ? "server" : "client", what, (unsigned long long)position,
			 (unsigned long long)half->total, (long long)found_at);
}

static void print_notes(const char *name, char (*list)[256], int count)
{
	printf(", \"%s\": {\"count\": %d, \"first\": [", name, count);
	for (int i = 0; i < count && i < NOTES; i++)
		printf("%s\"%s\"", i ? ", " : "", list[i]);
	printf("]}");
}

void print_report(int stalled)
{
	if (stalled)
		for (int i = 0; i < options.threads; i++)
			for (struct half *half = workers[i].halves; half; half = half->next)
				if (!half->finished)
					note_error("stream %u stalled: %s at %llu of %llu%s", half->stream,
						   half->receives ? "receiver" : "sender",
						   (unsigned long long)half->position,
						   (unsigned long long)half->total, half->ready ? ", ready" : "");
	printf("{\"streams\": %d, \"finished_halves\": %d, \"bytes_sent\": %llu, \"bytes_received\": %llu, "
	       "\"max_unread\": %llu, \"stalled\": %s",
	       atomic_load(&streams_started), atomic_load(&halves_finished), atomic_load(&bytes_sent),
	       atomic_load(&bytes_received), atomic_load(&max_unread), stalled ? "true" : "false");
	print_notes("mismatches", notes[0], atomic_load(&mismatches));
	print_notes("errors", notes[1], atomic_load(&errors));
	printf("}\n");
	fflush(stdout);
}

static socklen_t address_of(const char *host, int port, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (void *)address;
	struct sockaddr_in6 *v6 = (void *)address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof(*v6);
	}
	fprintf(stderr, "torture: %s is not an address\n", host);
	exit(2);
}

static void set_option(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		note_error("setsockopt(%d, %d): %m", level, name);
}

static int new_socket(const struct sockaddr_storage *address)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		perror("torture: socket");
		exit(1);
	}
	if (options.receive_buffer)
		set_option(fd, SOL_SOCKET, SO_RCVBUF, options.receive_buffer);
	if (options.send_buffer)
		set_option(fd, SOL_SOCKET, SO_SNDBUF, options.send_buffer);
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	return fd;
}

static int listen_at(void)
{
	struct sockaddr_storage address;
	socklen_t size = address_of(options.host, options.port, &address);
	int fd = new_socket(&address);

	if (address.ss_family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (options.defer_accept)
		set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, options.defer_accept);
	if (bind(fd, (void *)&address, size) || listen(fd, 1024) ||
	    getsockname(fd, (void *)&address, &size)) {
		perror("torture: listen");
		exit(1);
	}
	printf("{\"port\": %d}\n", ntohs(((struct sockaddr_in *)&address)->sin_port));
	fflush(stdout);
	return fd;
}

/* Every third socket of either side has Nagle's algorithm switched off. */
static void begin(int fd, int receives, int connecting)
{
	uint32_t stream = atomic_fetch_add(&streams_started, 1);

	if (mix(options.seed + stream) % 3 == 0)
		set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	start_half(fd, receives, connecting, stream);
}

static void accept_some(int listener, uint64_t *rng)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno != EAGAIN && errno != ECONNABORTED)
				note_error("accept: %m");
			return;
		}
		begin(fd, 1, 0);
		atomic_fetch_add(&progress, 1);
		if (options.accept_us)
			usleep(draw(rng) % options.accept_us);
	}
}

static void connect_all(void)
{
	struct sockaddr_storage address, source;
	socklen_t size = address_of(options.host, options.port, &address);

	for (int i = 0; i < options.streams; i++) {
		int fd = new_socket(&address);

		if (options.source_port) {
			socklen_t length = address_of(address.ss_family == AF_INET ? "127.0.0.1" : "::1",
						      options.source_port + i, &source);
			if (bind(fd, (void *)&source, length))
				note_error("bind: %m");
		}
		if (connect(fd, (void *)&address, size) && errno != EINPROGRESS)
			note_error("connect: %m");
		begin(fd, 0, 1);
	}
}

/* Whether the stdin of a client that goes on until then has been closed. */
static void look_for_stop(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char ignored[64];

	if (!options.until_stopped || options.server || atomic_load(&stopping) || poll(&input, 1, 0) <= 0)
		return;
	if (read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0)
		atomic_store(&stopping, 1);
}

/* Until every half is finished; returns whether nothing moved for too long. */
static int supervise(int listener)
{
	unsigned long long seen = 0;
	uint64_t since = now_ns(), rng = options.seed;

	while (atomic_load(&halves_finished) < options.streams * 2) {
		struct pollfd poll_listener = { .fd = listener, .events = POLLIN };

		if (poll(&poll_listener, 1, 20) > 0)
			accept_some(listener, &rng);
		look_for_stop();
		if (atomic_load(&progress) != seen) {
			seen = atomic_load(&progress);
			since = now_ns();
		} else if (now_ns() - since > options.stall_seconds * 1000000000ULL) {
			return 1;
		}
	}
	return 0;
}

struct numeric {
	const char *name;
	size_t offset;
	int wide;
};
#define INT(field) { #field, offsetof(struct options, field), 0 }
#define WIDE(field) { #field, offsetof(struct options, field), 1 }
static const struct numeric numerics[] = {
	INT(server), INT(port), INT(source_port), INT(streams), INT(threads), INT(defer_accept), INT(receive_buffer),
	INT(send_buffer), WIDE(seed), WIDE(min_bytes), WIDE(max_bytes), WIDE(max_write), WIDE(max_read),
	INT(write_pause_percent), INT(write_pause_us), INT(read_pause_percent), INT(read_pause_us), INT(slow_percent),
	INT(slow_pause_us), INT(first_read_us), INT(accept_us), INT(end_us), INT(stall_seconds), INT(one_way), INT(until_stopped),
};

/* NAME=VALUE, by the names of `struct options`. */
static void parse(const char *argument)
{
	const char *value = strchr(argument, '=');

	for (size_t i = 0; value && i < sizeof(numerics) / sizeof(numerics[0]); i++) {
		size_t length = value - argument;

		if (strlen(numerics[i].name) != length || memcmp(numerics[i].name, argument, length))
			continue;
		if (numerics[i].wide)
			*(uint64_t *)((char *)&options + numerics[i].offset) = strtoull(value + 1, NULL, 0);
		else
			*(int *)((char *)&options + numerics[i].offset) = atoi(value + 1);
		return;
	}
	if (value && !strncmp(argument, "host=", 5)) {
		options.host = value + 1;
		return;
	}
	fprintf(stderr, "torture: unknown argument %s\n", argument);
	exit(2);
}

int main(int argc, char **argv)
{
	struct rlimit files = { 65536, 65536 };
	int listener = -1, stalled;

	for (int i = 1; i < argc; i++)
		parse(argv[i]);
	if (options.threads < 1 || options.threads > MAX_THREADS || options.max_write > BUFFER_SIZE ||
	    options.max_read > BUFFER_SIZE) {
		fprintf(stderr, "torture: at most %d threads, %d bytes\n", MAX_THREADS, BUFFER_SIZE);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 0; i < options.threads; i++) {
		struct epoll_event event = { .events = EPOLLIN };

		workers[i].epoll = epoll_create1(EPOLL_CLOEXEC);
		workers[i].wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		workers[i].buffer = malloc(BUFFER_SIZE);
		epoll_ctl(workers[i].epoll, EPOLL_CTL_ADD, workers[i].wakeup, &event);
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	if (options.server)
		listener = listen_at();
	else
		connect_all();
	stalled = supervise(listener);
	print_report(stalled);
	return stalled || mismatches || errors ? 1 : 0;
}
