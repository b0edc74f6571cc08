/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What differs between the engine in the kernel and the engine in a native test build. The engine is made of functions
 * of (state, bytes): it calls nothing else.
 */
#pragma once

#ifdef __bpf__

#include "shared/helpers.h"

/* A function of its own to the verifier, which walks it once, whatever calls it. */
#define ENGINE_GLOBAL __attribute__((noinline))

struct bpf_iter_num {
	__u64 state;
} __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;

/*
 * for (index = 0; index < limit; index++) as an open-coded iterator (kernel 6.6): the verifier walks the body until its
 * state repeats, not `limit` times. What the body carries from one round to the next and uses as an offset must be
 * unknown to the verifier in the first round already, so it is loaded from memory.
 */
#define loop_below(index, limit)                                                                                      \
	for (struct bpf_iter_num __it __attribute__((cleanup(bpf_iter_num_destroy))),                                 \
	     *__made __attribute__((unused)) = (bpf_iter_num_new(&__it, 0, (limit)), (void)bpf_iter_num_destroy,      \
						(struct bpf_iter_num *)0);                                            \
	     ({                                                                                                       \
		     int *__next = bpf_iter_num_next(&__it);                                                          \
		     (__next && ((index) = *__next, (index) < (limit)));                                              \
	     });)

/* Keeps the compiler from dropping a check that it can prove and the verifier cannot. */
#define engine_opaque(value) opaque(value)

/* A big-endian load from any address, in one instruction. */
#define load_be64(address) __builtin_bswap64(*(const __u64 *)(address))

#define copy_bytes(to, size, from) ((void)bpf_probe_read_kernel(to, size, from))

#else

#include <stdint.h>
#include <string.h>

typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef int32_t __s32;
typedef int64_t __s64;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ENGINE_GLOBAL static __attribute__((unused))
#define loop_below(index, limit) for ((index) = 0; (index) < (limit); (index)++)
#define engine_opaque(value) ((void)(value))
#define copy_bytes(to, size, from) ((void)memcpy(to, from, size))

static inline __u64 load_be64(const __u8 *address)
{
	__u64 word;

	memcpy(&word, address, sizeof(word));
	return __builtin_bswap64(word);
}

#endif

#define ENGINE_INLINE static inline __attribute__((always_inline, unused))

/* An index below a power of two, in a form that the verifier follows. */
ENGINE_INLINE __u32 masked(__u32 value, __u32 limit)
{
	engine_opaque(value);
	return value & (limit - 1);
}

/* The smaller one, in a form that the verifier follows. */
ENGINE_INLINE __u32 at_most(__u32 value, __u32 limit)
{
	engine_opaque(value);
	return value < limit ? value : limit;
}
