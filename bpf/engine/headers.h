/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The header fields that the mesh knows, and what it wants to know of their values: a number each. */
#pragma once

#include "engine/portable.h"
#include "shared/bounds.h"

enum hpack_name {
	NAME_OTHER = 0,
	NAME_AUTHORITY,
	NAME_METHOD,
	NAME_PATH,
	NAME_SCHEME,
	NAME_STATUS,
	NAME_PSEUDO, /* another that begins with ':' */
	NAME_CONTENT_TYPE,
	NAME_GRPC_STATUS,
	NAME_GRPC_TIMEOUT,
	NAME_GRPC_MESSAGE,
	NAME_MAX
};

/* The value of a :path that has no number yet: whoever resolves it says so with hpack_remember. */
#define VALUE_UNRESOLVED 0xffffffff

#define GRPC_STATUS_UNKNOWN 2
#define GRPC_STATUS_LAST 16

/* Whether `text` begins with the literal; as many bytes are read, whatever the text's length. */
#define begins_with(text, literal) bytes_equal(text, literal, sizeof(literal) - 1)
#define is_text(text, length, literal) ((length) == sizeof(literal) - 1 && begins_with(text, literal))

ENGINE_INLINE int bytes_equal(const __u8 *text, const char *literal, __u32 length)
{
	__u32 difference = 0;

	for (__u32 i = 0; i < length; i++)
		difference |= text[i] ^ (__u8)literal[i];
	return !difference;
}

/* A decimal number of `length` digits, at most 8; -1: it is none. */
ENGINE_INLINE int decimal(const __u8 *text, __u32 length)
{
	__u32 number = 0;

	if (!length || length > 8)
		return -1;
	for (__u32 i = 0; i < 8; i++) {
		if (i >= length)
			break;
		if (text[i] < '0' || text[i] > '9')
			return -1;
		number = number * 10 + text[i] - '0';
	}
	return number;
}

/* The kind of a name that came as a string of `length` bytes. */
ENGINE_INLINE __u32 header_name(const __u8 *text, __u32 length)
{
	switch (length) {
	case 5:
		if (begins_with(text, ":path"))
			return NAME_PATH;
		break;
	case 7:
		if (begins_with(text, ":method"))
			return NAME_METHOD;
		if (begins_with(text, ":scheme"))
			return NAME_SCHEME;
		if (begins_with(text, ":status"))
			return NAME_STATUS;
		break;
	case 10:
		if (begins_with(text, ":authority"))
			return NAME_AUTHORITY;
		break;
	case 11:
		if (begins_with(text, "grpc-status"))
			return NAME_GRPC_STATUS;
		break;
	case 12:
		if (begins_with(text, "content-type"))
			return NAME_CONTENT_TYPE;
		if (begins_with(text, "grpc-timeout"))
			return NAME_GRPC_TIMEOUT;
		if (begins_with(text, "grpc-message"))
			return NAME_GRPC_MESSAGE;
		break;
	}
	return length && text[0] == ':' ? NAME_PSEUDO : NAME_OTHER;
}

/* gRPC over HTTP/2: TimeoutValue, up to 8 digits, and TimeoutUnit. */
ENGINE_INLINE __u32 timeout_value(const __u8 *text, __u32 length)
{
	int number;
	__u32 unit;

	if (length < 2 || length > 9)
		return 0;
	number = decimal(text, length - 1);
	if (number < 0)
		return 0;
	switch (text[masked(length - 1, 16)]) {
	case 'H':
		unit = 1;
		break;
	case 'M':
		unit = 2;
		break;
	case 'S':
		unit = 3;
		break;
	case 'm':
		unit = 4;
		break;
	case 'u':
		unit = 5;
		break;
	case 'n':
		unit = 6;
		break;
	default:
		return 0;
	}
	return (__u32)number << 3 | unit;
}

/*
 * What is kept of a value, which has `length` bytes and begins with `text` (TEXT_SIZE bytes that may be read):
 * :method POST 1, GET 2; :path VALUE_UNRESOLVED; :status its number; content-type of gRPC 1; grpc-status its number,
 * 2 (UNKNOWN) when it is none of gRPC's; grpc-timeout number << 3 | unit (H, M, S, m, u, n: 1 to 6). Else 0.
 */
ENGINE_INLINE __u32 header_value(__u32 name, const __u8 *text, __u32 length)
{
	int number;

	switch (name) {
	case NAME_METHOD:
		return is_text(text, length, "POST") ? 1 : is_text(text, length, "GET") ? 2 : 0;
	case NAME_PATH:
		return VALUE_UNRESOLVED;
	case NAME_STATUS:
		number = length == 3 ? decimal(text, 3) : 0;
		return number < 0 ? 0 : number;
	case NAME_CONTENT_TYPE:
		if (length < sizeof("application/grpc") - 1 || !begins_with(text, "application/grpc"))
			return 0;
		return length == sizeof("application/grpc") - 1 || text[16] == '+' || text[16] == ';';
	case NAME_GRPC_STATUS:
		number = decimal(text, length);
		return number < 0 || number > GRPC_STATUS_LAST ? GRPC_STATUS_UNKNOWN : number;
	case NAME_GRPC_TIMEOUT:
		return timeout_value(text, length);
	}
	return 0;
}
