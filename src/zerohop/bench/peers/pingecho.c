// SPDX-License-Identifier: Apache-2.0
// pingecho: 24 bytes there and back, one connection, closed loop; as eZtunnel measured.
//
//   pingecho server ADDRESS PORT
//   pingecho client ADDRESS PORT WARMUP_MS DURATION_MS     prints one JSON object
#include "common.h"

#include <sys/mman.h>

#define MESSAGE_SIZE 24
// More round trips a second than one core can make; the array holds every sample, so percentiles are exact.
#define MAX_PER_MS 2000

static void send_all(int epoll, int fd, const char *bytes, size_t size)
{
	while (size) {
		ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);

		if (sent >= 0) {
			bytes += sent;
			size -= (size_t)sent;
		} else if (errno == EAGAIN) {
			change(epoll, fd, EPOLLOUT);
			wait_any(epoll);
			change(epoll, fd, EPOLLIN);
		} else if (errno != EINTR) {
			die("send");
		}
	}
}

// Waits first and reads then, as an event loop does. Returns 0 at the end of the stream.
static size_t receive(int epoll, int fd, char *bytes, size_t size)
{
	for (;;) {
		ssize_t got;

		wait_any(epoll);
		got = recv(fd, bytes, size, 0);
		if (got >= 0)
			return (size_t)got;
		if (errno != EAGAIN && errno != EINTR)
			die("recv");
	}
}

static void serve(const char *address, const char *port)
{
	char bytes[4096];
	int fd = accept_one(address, port);
	int epoll = watch(fd, EPOLLIN);
	size_t got;

	while ((got = receive(epoll, fd, bytes, sizeof(bytes))) > 0)
		send_all(epoll, fd, bytes, got);
}

static void round_trip(int epoll, int fd, uint64_t number)
{
	char request[MESSAGE_SIZE] = "zerohop bench: ";
	char answer[MESSAGE_SIZE];
	size_t have = 0;

	memcpy(request + MESSAGE_SIZE - sizeof(number), &number, sizeof(number));
	send_all(epoll, fd, request, sizeof(request));
	while (have < sizeof(answer)) {
		size_t got = receive(epoll, fd, answer + have, sizeof(answer) - have);

		if (!got)
			fail("the server closed the connection in the middle of the run");
		have += got;
	}
	if (memcmp(request, answer, sizeof(answer)))
		fail("the answer differs from the request");
}

static int compare(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

// Nearest rank: the smallest sample that at least `percent` of all samples do not exceed.
static uint32_t percentile(const uint32_t *sorted, uint64_t count, uint64_t percent)
{
	return sorted[(count * percent + 99) / 100 - 1];
}

static void measure(const char *address, const char *port, uint64_t warmup_ms, uint64_t duration_ms)
{
	uint64_t capacity = duration_ms * MAX_PER_MS, count = 0, number = 0;
	// Populated now, so that no page fault falls into the measurement.
	uint32_t *samples = mmap(NULL, capacity * sizeof(*samples), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	struct cpu_line before, after;
	uint64_t started, previous, end;
	int fd = connect_to(address, port);
	int epoll = watch(fd, EPOLLIN);

	if (samples == MAP_FAILED)
		die("mmap");
	end = now_ns() + warmup_ms * NS_PER_MS;
	while (now_ns() < end)
		round_trip(epoll, fd, number++);

	read_cpu(&before);
	started = previous = now_ns();
	end = started + duration_ms * NS_PER_MS;
	while (previous < end) {
		uint64_t now, took;

		if (count == capacity)
			fail("more samples than expected: raise MAX_PER_MS");
		round_trip(epoll, fd, number++);
		now = now_ns();
		took = now - previous;
		samples[count++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
		previous = now;
	}
	read_cpu(&after);
	close(fd);
	qsort(samples, count, sizeof(*samples), compare);
	printf("{\"operations\": %llu, \"elapsed_ns\": %llu, \"p50_ns\": %u, \"p99_ns\": %u, "
	       "\"cpu_before\": \"%s\", \"cpu_after\": \"%s\"}\n",
	       (unsigned long long)count, (unsigned long long)(previous - started), percentile(samples, count, 50),
	       percentile(samples, count, 99), before.text, after.text);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "server")) {
		serve(argv[2], argv[3]);
	} else if (argc == 6 && !strcmp(argv[1], "client")) {
		measure(argv[2], argv[3], parse_number(argv[4], "warm-up"), parse_number(argv[5], "duration"));
	} else {
		fprintf(stderr, "usage: pingecho server ADDRESS PORT\n"
				"       pingecho client ADDRESS PORT WARMUP_MS DURATION_MS\n");
		return 2;
	}
	return 0;
}
