// SPDX-License-Identifier: Apache-2.0
// What both benchmark programs share: one non-blocking TCP connection, a clock, and the machine's busy time.
#pragma once

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000ull

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t parse_number(const char *text, const char *name)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (*text == '\0' || *end != '\0') {
		fprintf(stderr, "%s: not a number: %s\n", name, text);
		exit(2);
	}
	return value;
}

// The first line of /proc/stat: the whole machine's ticks by kind. Read here, at the very instants between
// which operations are counted, so that neither set-up nor another process's wake-up is charged.
struct cpu_line {
	char text[256];
};

static void read_cpu(struct cpu_line *line)
{
	int file = open("/proc/stat", O_RDONLY | O_CLOEXEC);
	ssize_t length;
	char *end;

	if (file < 0)
		die("open /proc/stat");
	length = read(file, line->text, sizeof(line->text) - 1);
	if (length <= 0)
		die("read /proc/stat");
	close(file);
	line->text[length] = '\0';
	end = strchr(line->text, '\n');
	if (!end)
		fail("/proc/stat: first line too long");
	*end = '\0';
}

static struct sockaddr_in parse_address(const char *address, const char *port)
{
	struct sockaddr_in result = {.sin_family = AF_INET};

	result.sin_port = htons((uint16_t)parse_number(port, "port"));
	if (inet_pton(AF_INET, address, &result.sin_addr) != 1) {
		fprintf(stderr, "not an IPv4 address: %s\n", address);
		exit(2);
	}
	return result;
}

// Waits for what the set watches; returns the events.
static uint32_t wait_any(int epoll)
{
	struct epoll_event event = {0};

	while (epoll_wait(epoll, &event, 1, -1) < 0)
		if (errno != EINTR)
			die("epoll_wait");
	return event.events;
}

static void change(int epoll, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) < 0)
		die("epoll_ctl");
}

static int watch(int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0)
		die("epoll_create1");
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
	return epoll;
}

// Non-blocking before connect and before listen: event-driven programs are what the short-cut serves, and it
// decides at establishment.
static int connect_to(const char *address, const char *port)
{
	struct sockaddr_in server = parse_address(address, port);
	int on = 1, error = 0;
	socklen_t size = sizeof(error);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int epoll;

	if (fd < 0)
		die("socket");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		die("TCP_NODELAY");
	if (connect(fd, (struct sockaddr *)&server, sizeof(server)) < 0 && errno != EINPROGRESS)
		die("connect");
	epoll = watch(fd, EPOLLOUT);
	wait_any(epoll);
	close(epoll);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		die("SO_ERROR");
	errno = error;
	if (error)
		die("connect");
	return fd;
}

static int accept_one(const char *address, const char *port)
{
	struct sockaddr_in server = parse_address(address, port);
	int on = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int epoll, fd;

	if (listener < 0)
		die("socket");
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		die("SO_REUSEADDR");
	if (bind(listener, (struct sockaddr *)&server, sizeof(server)) < 0)
		die("bind");
	if (listen(listener, 16) < 0)
		die("listen");
	puts("listening");
	fflush(stdout);
	epoll = watch(listener, EPOLLIN);
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			die("accept4");
		wait_any(epoll);
	}
	close(epoll);
	close(listener);
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		die("TCP_NODELAY");
	return fd;
}
