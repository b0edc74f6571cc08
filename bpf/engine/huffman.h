/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The Huffman code of RFC 7541, appendix B. It is canonical: sorted by length, the codes of one length are consecutive
 * numbers, and as left-aligned numbers longer codes are larger.
 */
#pragma once

#include "engine/portable.h"
#include "shared/bounds.h"

#define HUFFMAN_MAX_WIDTH 30
#define HUFFMAN_EOS 256

/* By the length of a code in bits. */
static const struct {
	__u32 limit; /* left-aligned codes of this length or a shorter one are below it */
	__u32 base;  /* code + base is the position among the symbols, modulo 2^32 */
} huffman_codes[32] = {
	[5] = { 0x50000000, 0U - 0x0 },
	[6] = { 0xb8000000, 10U - 0x14 },
	[7] = { 0xf8000000, 36U - 0x5c },
	[8] = { 0xfe000000, 68U - 0xf8 },
	[10] = { 0xff400000, 74U - 0x3f8 },
	[11] = { 0xffa00000, 79U - 0x7fa },
	[12] = { 0xffc00000, 82U - 0xffa },
	[13] = { 0xfff00000, 84U - 0x1ff8 },
	[14] = { 0xfff80000, 90U - 0x3ffc },
	[15] = { 0xfffe0000, 92U - 0x7ffc },
	[19] = { 0xfffe6000, 95U - 0x7fff0 },
	[20] = { 0xfffee000, 98U - 0xfffe6 },
	[21] = { 0xffff4800, 106U - 0x1fffdc },
	[22] = { 0xffffb000, 119U - 0x3fffd2 },
	[23] = { 0xffffea00, 145U - 0x7fffd8 },
	[24] = { 0xfffff600, 174U - 0xffffea },
	[25] = { 0xfffff800, 186U - 0x1ffffec },
	[26] = { 0xfffffbc0, 190U - 0x3ffffe0 },
	[27] = { 0xfffffe20, 205U - 0x7ffffde },
	[28] = { 0xfffffff0, 224U - 0xfffffe2 },
	[30] = { 0xffffffff, 253U - 0x3ffffffc }, /* EOS is its last */
};

/* In the order of their codes; EOS would be the 257th. */
static const __u8 huffman_symbols[256] = {
	48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95, 98,
	100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79,
	80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40,
	41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162,
	184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136,
	146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1,
	135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182,
	183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235,
	192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222,
	223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18,
	19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22,
};

/* The length of a code that begins with seven ones and is longer than 8 bits: 10 to 30. */
ENGINE_GLOBAL int huffman_long_width(__u32 head)
{
	__u32 width;

	for (width = 10; width < HUFFMAN_MAX_WIDTH; width++)
		if (head < huffman_codes[width].limit)
			break;
	return width;
}

/* 1 when `symbol` is above `bound`, without a branch that would be mispredicted every other time. */
ENGINE_INLINE __u32 huffman_above(__u32 symbol, __u32 bound)
{
	__u32 difference = bound - symbol;

	engine_opaque(difference);
	return difference >> 31;
}

/*
 * Decodes `bytes`, a buffer of `size` (a power of two) that may be read 8 bytes beyond its end, from bit `*bit` to bit
 * `end`. Returns 0, or -1. `*decoded`, 0 before, becomes the length; what is beyond TEXT_SIZE is not kept.
 */
ENGINE_INLINE int huffman_decode(const __u8 *bytes, __u32 size, __u32 *bit, __u32 end, __u8 *text, __u32 *decoded)
{
	__u32 head, byte, width, symbol, rest, i;
	__u64 window = 0;

	loop_below (i, 2 * size) { /* a symbol has 5 bits at least */
		/* Of the 57 bits that are loaded at least, four symbols of 8 use 32; a longer one loads its own. */
		if (i % 4 == 0)
			window = load_be64(&bytes[masked(*bit >> 3, size)]) << (*bit & 7);
		byte = window >> 56;
		width = 5 + huffman_above(byte, 0x4f) + huffman_above(byte, 0xb7) + huffman_above(byte, 0xf7);
		if (unlikely(byte >= 0xfe)) {
			window = load_be64(&bytes[masked(*bit >> 3, size)]) << (*bit & 7);
			width = huffman_long_width(window >> 32);
		}
		rest = end - *bit;
		if (width > rest) /* then it must be less than a byte of the beginning of EOS, which is ones */
			return rest < 8 && (byte | 0xff >> rest) == 0xff ? 0 : -1;
		head = window >> 32;
		symbol = (head >> (32 - width)) + huffman_codes[masked(width, 32)].base;
		if (unlikely(symbol >= HUFFMAN_EOS))
			return -1;
		if (*decoded < TEXT_SIZE)
			text[masked(*decoded, TEXT_SIZE)] = huffman_symbols[masked(symbol, 256)];
		*decoded += 1;
		*bit += width;
		window <<= width;
	}
	return -1;
}
