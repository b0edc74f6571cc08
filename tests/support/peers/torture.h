/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream torture: many connections, both directions of each at once, every byte compared.
 *
 * A connection has two halves, one that sends and one that receives. Each has its own descriptor (the sending one a
 * duplicate) and its own place in a thread, so that one socket is written and read by different threads.
 */
#pragma once

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "content.h"

#define MAX_THREADS 16
#define BUFFER_SIZE (1 << 20)
#define NOTES 16
#define ENDLESS (1ULL << 62) /* the length of a direction that goes on until the request to stop */

struct options {
	const char *host;
	int server, port, source_port, streams, threads, defer_accept, receive_buffer, send_buffer, v6only;
	uint64_t seed, min_bytes, max_bytes, max_write, max_read;
	int write_pause_percent, write_pause_us, read_pause_percent, read_pause_us; /* after an operation */
	int slow_percent, slow_pause_us;  /* connections whose reader sleeps that long at times */
	int first_read_us, accept_us;	  /* at most that long before the first read, between two accepts */
	int end_us; /* between the last byte and the half-close */
	int stall_seconds, one_way;
	/* A direction does not end at its length but goes on: the client's until its stdin is closed, the server's until
	 * the client's has ended. What it carries more is compared as well. */
	int until_stopped;
};

/* What starts every connection, from the client. */
struct header {
	uint32_t magic, stream;
	uint64_t seed;
};

enum { CLIENT_TO_SERVER, SERVER_TO_CLIENT };

struct half {
	struct half *next; /* of its thread */
	struct half *born; /* next in the inbox of its thread */
	struct half *answer; /* of a server's receiver: the sender that ends after it */
	atomic_int stop;
	int fd, receives, connecting, ready, edge, slow, bad, interest, more, ending, finished;
	uint32_t stream;
	uint64_t key, position, least, total, resume_ns, rng;
	struct header header;
	unsigned header_size;
};

struct worker {
	pthread_t thread;
	int epoll, wakeup;
	struct half *halves;
	_Atomic(struct half *) inbox;
	unsigned char *buffer;
};

extern struct options options;
extern struct worker workers[MAX_THREADS];
extern atomic_ullong progress, bytes_sent, bytes_received, max_unread;
extern atomic_int halves_finished, streams_started, stopping;
extern atomic_int mismatches, errors;

uint64_t now_ns(void);
void note_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void note_mismatch(const struct half *half, uint64_t position, int64_t found_at, const char *what);
void print_report(int stalled);

void *work(void *worker);
struct half *start_half(int fd, int receives, int connecting, uint32_t stream);
void hand_over(struct half *half);
void set_direction(struct half *half, uint32_t stream, uint64_t seed);
