/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The Huffman code of RFC 7541, appendix B. It is canonical: sorted by length, the codes of one length are consecutive
 * numbers, and as left-aligned numbers longer codes are larger. Codes of up to 8 bits, those of nearly all text, are
 * looked up by the next byte.
 */
#pragma once

#include "engine/portable.h"
#include "shared/bounds.h"

#define HUFFMAN_MAX_WIDTH 30
#define HUFFMAN_LONGS 182

/* The length of the code that a byte begins with; 0: more than 8 bits. */
static const __u8 huffman_short_widths[256] = {
	[0x00 ... 0x4f] = 5,
	[0x50 ... 0xb7] = 6,
	[0xb8 ... 0xf7] = 7,
	[0xf8 ... 0xfd] = 8,
};

/* The symbol of the code that a byte begins with, for all bytes that begin with it. */
#define FIRST(code, bits) ((code) << (8 - (bits)))
#define CODE(code, bits, symbol) [FIRST(code, bits) ... FIRST((code) + 1, bits) - 1] = symbol

static const __u8 huffman_shorts[256] = {
	CODE(0x00, 5, '0'), CODE(0x01, 5, '1'), CODE(0x02, 5, '2'), CODE(0x03, 5, 'a'), CODE(0x04, 5, 'c'),
	CODE(0x05, 5, 'e'), CODE(0x06, 5, 'i'), CODE(0x07, 5, 'o'), CODE(0x08, 5, 's'), CODE(0x09, 5, 't'),
	CODE(0x14, 6, ' '), CODE(0x15, 6, '%'), CODE(0x16, 6, '-'), CODE(0x17, 6, '.'), CODE(0x18, 6, '/'),
	CODE(0x19, 6, '3'), CODE(0x1a, 6, '4'), CODE(0x1b, 6, '5'), CODE(0x1c, 6, '6'), CODE(0x1d, 6, '7'),
	CODE(0x1e, 6, '8'), CODE(0x1f, 6, '9'), CODE(0x20, 6, '='), CODE(0x21, 6, 'A'), CODE(0x22, 6, '_'),
	CODE(0x23, 6, 'b'), CODE(0x24, 6, 'd'), CODE(0x25, 6, 'f'), CODE(0x26, 6, 'g'), CODE(0x27, 6, 'h'),
	CODE(0x28, 6, 'l'), CODE(0x29, 6, 'm'), CODE(0x2a, 6, 'n'), CODE(0x2b, 6, 'p'), CODE(0x2c, 6, 'r'),
	CODE(0x2d, 6, 'u'), CODE(0x5c, 7, ':'), CODE(0x5d, 7, 'B'), CODE(0x5e, 7, 'C'), CODE(0x5f, 7, 'D'),
	CODE(0x60, 7, 'E'), CODE(0x61, 7, 'F'), CODE(0x62, 7, 'G'), CODE(0x63, 7, 'H'), CODE(0x64, 7, 'I'),
	CODE(0x65, 7, 'J'), CODE(0x66, 7, 'K'), CODE(0x67, 7, 'L'), CODE(0x68, 7, 'M'), CODE(0x69, 7, 'N'),
	CODE(0x6a, 7, 'O'), CODE(0x6b, 7, 'P'), CODE(0x6c, 7, 'Q'), CODE(0x6d, 7, 'R'), CODE(0x6e, 7, 'S'),
	CODE(0x6f, 7, 'T'), CODE(0x70, 7, 'U'), CODE(0x71, 7, 'V'), CODE(0x72, 7, 'W'), CODE(0x73, 7, 'Y'),
	CODE(0x74, 7, 'j'), CODE(0x75, 7, 'k'), CODE(0x76, 7, 'q'), CODE(0x77, 7, 'v'), CODE(0x78, 7, 'w'),
	CODE(0x79, 7, 'x'), CODE(0x7a, 7, 'y'), CODE(0x7b, 7, 'z'), CODE(0xf8, 8, '&'), CODE(0xf9, 8, '*'),
	CODE(0xfa, 8, ','), CODE(0xfb, 8, ';'), CODE(0xfc, 8, 'X'), CODE(0xfd, 8, 'Z'),
};

/* By the length of a longer code in bits. */
static const struct {
	__u32 limit; /* left-aligned codes of this length or a shorter one are below it */
	__u32 base;  /* code + base is the position among the symbols, modulo 2^32 */
} huffman_widths[32] = {
	[10] = { 0xff400000, 0U - 0x3f8 },
	[11] = { 0xffa00000, 5U - 0x7fa },
	[12] = { 0xffc00000, 8U - 0xffa },
	[13] = { 0xfff00000, 10U - 0x1ff8 },
	[14] = { 0xfff80000, 16U - 0x3ffc },
	[15] = { 0xfffe0000, 18U - 0x7ffc },
	[19] = { 0xfffe6000, 21U - 0x7fff0 },
	[20] = { 0xfffee000, 24U - 0xfffe6 },
	[21] = { 0xffff4800, 32U - 0x1fffdc },
	[22] = { 0xffffb000, 45U - 0x3fffd2 },
	[23] = { 0xffffea00, 71U - 0x7fffd8 },
	[24] = { 0xfffff600, 100U - 0xffffea },
	[25] = { 0xfffff800, 112U - 0x1ffffec },
	[26] = { 0xfffffbc0, 116U - 0x3ffffe0 },
	[27] = { 0xfffffe20, 131U - 0x7ffffde },
	[28] = { 0xfffffff0, 150U - 0xfffffe2 },
	[30] = { 0xffffffff, 179U - 0x3ffffffc }, /* EOS is its last */
};

/* Symbols in the order of their longer codes; EOS would be the next. */
static const __u8 huffman_longs[256] = {
	33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130,
	131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133,
	134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232,
	233, 1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175,
	180, 182, 183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207,
	234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214,
	221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16,
	17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22,
};

/* The length of the code of more than 8 bits that these 32 begin with. */
ENGINE_GLOBAL int huffman_long_width(__u32 head)
{
	__u32 width;

	for (width = 10; width < HUFFMAN_MAX_WIDTH; width++)
		if (head < huffman_widths[width].limit)
			break;
	return width;
}

/*
 * Decodes `bytes`, a buffer of `size` (a power of two) that may be read 8 bytes beyond its end, from bit `*bit` to bit
 * `end`. Returns 0, or -1. `*decoded`, 0 before, becomes the length; what is beyond TEXT_SIZE is not kept.
 */
ENGINE_INLINE int huffman_decode(const __u8 *bytes, __u32 size, __u32 *bit, __u32 end, __u8 *text, __u32 *decoded)
{
	__u32 byte, width, symbol, rest, count, i;
	__u64 window;

	loop_below (i, 2 * size) { /* a symbol has 5 bits at least */
		rest = end - *bit;
		count = *decoded;
		/* 57 bits at least: four symbols of up to 8, or else a longer one. */
		window = load_be64(&bytes[masked(*bit >> 3, size)]) << (*bit & 7);
		byte = window >> 56;
		for (int turn = 0; turn < 4; turn++) {
			width = huffman_short_widths[byte];
			if (!width || width > rest)
				break;
			if (count < TEXT_SIZE)
				text[masked(count, TEXT_SIZE)] = huffman_shorts[byte];
			count++;
			rest -= width;
			window <<= width;
			byte = window >> 56;
		}
		if (count == *decoded) {
			width = huffman_long_width(window >> 32);
			/* Not even a short code is whole: what is left must be less than a byte of EOS, which is ones. */
			if (width > rest)
				return rest < 8 && (byte | 0xff >> rest) == 0xff ? 0 : -1;
			symbol = (__u32)(window >> (64 - width)) + huffman_widths[masked(width, 32)].base;
			if (symbol >= HUFFMAN_LONGS) /* EOS as a whole */
				return -1;
			if (count < TEXT_SIZE)
				text[masked(count, TEXT_SIZE)] = huffman_longs[masked(symbol, 256)];
			count++;
			rest -= width;
		}
		*decoded = count;
		*bit = end - rest;
	}
	return -1;
}
