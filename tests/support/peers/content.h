/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers, and the bytes of a stream: a function of (key, position), so that a receiver knows every byte. */
#pragma once

#include <stdint.h>
#include <string.h>

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static inline uint64_t draw(uint64_t *state)
{
	return mix(++*state);
}

/* Uniform in [low, high]. */
static inline uint64_t draw_between(uint64_t *state, uint64_t low, uint64_t high)
{
	return low + draw(state) % (high - low + 1);
}

/* In [1, high]: the smallest of three log-uniform draws, so that most are small and some are huge. */
static inline uint64_t draw_size(uint64_t *state, uint64_t high)
{
	unsigned bits = 64 - __builtin_clzll(high), least = bits;
	uint64_t size;

	for (int i = 0; i < 3; i++) {
		unsigned drawn = draw(state) % bits;

		least = drawn < least ? drawn : least;
	}
	size = (1ULL << least) + draw(state) % (1ULL << least);
	return size > high ? high : size;
}

static inline void fill(unsigned char *buffer, uint64_t size, uint64_t key, uint64_t position)
{
	uint64_t done = 0;

	while (done < size) {
		uint64_t word = mix(key + ((position + done) >> 3));
		unsigned skip = (position + done) & 7;
		uint64_t part = 8 - skip;

		if (part > size - done)
			part = size - done;
		word >>= skip * 8;
		memcpy(buffer + done, &word, part);
		done += part;
	}
}

/* The first byte that is not what stands at `position` in the stream, or `size`. */
static inline uint64_t compare(const unsigned char *buffer, uint64_t size, uint64_t key, uint64_t position)
{
	unsigned char expected[4096];

	for (uint64_t done = 0; done < size;) {
		uint64_t part = size - done < sizeof(expected) ? size - done : sizeof(expected);

		fill(expected, part, key, position + done);
		if (memcmp(expected, buffer + done, part))
			for (uint64_t i = 0;; i++)
				if (expected[i] != buffer[done + i])
					return done + i;
		done += part;
	}
	return size;
}

/* Where the eight bytes at `buffer` stand in the stream, for a report; -1: nowhere. */
static inline int64_t locate(const unsigned char *buffer, uint64_t size, uint64_t key, uint64_t total)
{
	unsigned char window[4096 + 8];

	if (size < 8)
		return -1;
	for (uint64_t at = 0; at < total; at += 4096) {
		fill(window, sizeof(window), key, at);
		for (unsigned i = 0; i < 4096; i++)
			if (!memcmp(window + i, buffer, 8))
				return at + i;
	}
	return -1;
}
