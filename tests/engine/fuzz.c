// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The engine under any bytes. An input is four bytes of how, and the bytes of one direction. It is read four times: as
 * one message, in pieces, in pieces of which what the engine calls opaque has been turned into something else, and in
 * pieces with frames of headers taken in as a whole. All of them must tell the same story.
 */
#include <stdio.h>
#include <stdlib.h>

#include "shim.h"

#define HOW_SERVER 1   /* the server's direction */
#define HOW_BLOCKS 2   /* header blocks without frames around them */
#define HOW_PREFACE 4  /* preface and SETTINGS come first */
#define HOW_BYTEWISE 8 /* pieces of one byte */

#define REQUIRE(condition)                                                                                            \
	do {                                                                                                          \
		if (!(condition)) {                                                                                   \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                               \
			abort();                                                                                      \
		}                                                                                                     \
	} while (0)

struct how {
	__u32 options;
	__u32 random;
	__u32 look;
};

struct run {
	struct shim_state *state;
	struct shim *shim;
	__u64 story; /* a hash of all that happened */
	__u64 bytes; /* of what the receiver gets */
	__u32 opaque;
	int result;
};

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size);

static void hash(__u64 *sum, const void *data, __u32 size)
{
	const __u8 *bytes = data;

	for (__u32 i = 0; i < size; i++)
		*sum = (*sum ^ bytes[i]) * 0x100000001b3ULL;
}

static void tell(struct run *run, const void *data, __u32 size)
{
	hash(&run->story, data, size);
}

static void tell_number(struct run *run, __u32 number)
{
	tell(run, &number, sizeof(number));
}

static void check_table(const struct hpack_table *table)
{
	__u32 size = 0;

	REQUIRE(table->count <= HPACK_ENTRIES);
	REQUIRE(table->max_size <= HPACK_TABLE_SIZE);
	for (__u32 age = 0; age < table->count; age++)
		size += table->entries[(table->inserted - 1 - age) % HPACK_ENTRIES].size;
	REQUIRE(size == table->size && size <= table->max_size);
}

/* The fields of the block that the engine stands in. */
static int read_fields(struct run *run)
{
	struct shim *shim = run->shim;
	__u32 end = run->state->pass.block.end, position;
	int result;

	for (;;) {
		position = run->state->pass.block.position;
		result = shim_field(run->state, shim);
		if (result <= 0)
			break;
		REQUIRE(run->state->pass.block.position > position && run->state->pass.block.position <= end);
		check_table(&run->state->direction.table);
		tell_number(run, shim->form);
		tell_number(run, shim->name);
		tell_number(run, shim->value);
		tell_number(run, shim->entry);
		tell_number(run, shim->static_index);
		tell_number(run, shim->name_length);
		tell_number(run, shim->value_length);
		tell_number(run, shim->path_length);
		tell(run, shim->path_text, at_most(shim->path_length, TEXT_SIZE));
		if (shim->form != FORM_INDEXED && shim->form != FORM_SIZE_UPDATE)
			tell(run, shim->value_text, at_most(shim->value_length, TEXT_SIZE));
	}
	REQUIRE(result != -REASON_MAX);
	return result;
}

/* Returns how much of it has been read: all, but for the beginning of a frame that is to be whole. */
static __u32 read_message(struct run *run, const __u8 *bytes, __u32 size)
{
	struct http2_direction *dir = &run->state->direction;
	struct shim *shim = run->shim;
	int event;

	memcpy(shim->bytes, bytes, size);
	for (__u32 i = 0; i < size && i < run->opaque; i++)
		shim->bytes[i] ^= 0x55;
	shim->size = size;
	shim_message(run->state, shim);
	run->opaque = 0;
	while ((event = shim_step(run->state, shim)) > EVENT_END && event != EVENT_CUT) {
		if (event != EVENT_DATA) {
			tell_number(run, event);
			tell_number(run, shim->stream);
			tell_number(run, event == EVENT_RESET ? shim->code : 0);
		}
		if (event == EVENT_HEADERS || event == EVENT_PROMISE) {
			tell_number(run, shim->flags);
			event = read_fields(run);
			if (event < 0)
				break;
		}
		if (event == EVENT_DATA) {
			shim->slot = shim->stream >> 1;
			if (!shim_data(run->state, shim)) {
				run->opaque = shim->opaque;
				break;
			}
			tell_number(run, shim->stream);
			tell_number(run, shim->grpc.bytes);
			tell_number(run, shim->grpc.messages);
			tell_number(run, shim->grpc.malformed);
		}
	}
	run->result = event < 0 ? event : 0;
	REQUIRE(run->state->pass.position <= size);
	REQUIRE(event < 0 || event == EVENT_CUT || run->state->pass.position == size);
	if (event == EVENT_CUT)
		size = shim->cut;
	hash(&run->bytes, shim->bytes, size);
	if (dir->state == HTTP2_SKIP)
		run->opaque = dir->remaining;
	return size;
}

static void begin(struct run *run, const struct how *how)
{
	static const __u8 preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
	__u32 skip = how->options & HOW_SERVER ? PREFACE_SIZE : 0;

	*run = (struct run){
		.state = calloc(1, sizeof(struct shim_state)),
		.shim = calloc(1, sizeof(struct shim)),
		.story = 0xcbf29ce484222325ULL,
	};
	REQUIRE(run->state && run->shim);
	run->shim->look = how->look;
	shim_start(run->state, run->shim, !(how->options & HOW_SERVER));
	if ((how->options & (HOW_PREFACE | HOW_BLOCKS)) == HOW_PREFACE)
		read_message(run, preface + skip, sizeof(preface) - skip);
}

static __u32 next_piece(struct how *how, __u32 left)
{
	how->random ^= how->random << 13;
	how->random ^= how->random >> 17;
	how->random ^= how->random << 5;
	if (how->options & HOW_BYTEWISE)
		return 1;
	return at_most(1 + (how->random >> 8) % (1U << (how->random & 15)), left);
}

/* Header blocks: the pieces are blocks, so they are the same in each run; where they stand differs. */
static void read_blocks(struct run *run, struct how how, const __u8 *bytes, __u32 size, __u32 offset)
{
	__u32 piece;

	begin(run, &how);
	for (__u32 done = 0; done < size && !run->result; done += piece) {
		piece = next_piece(&how, size - done);
		memcpy(run->shim->bytes, bytes + done, piece);
		run->shim->size = piece;
		run->shim->offset = offset;
		shim_block(run->state, run->shim);
		run->result = read_fields(run);
	}
}

static void read_pieces(struct run *run, struct how how, const __u8 *bytes, __u32 size, int turned)
{
	__u32 piece;

	begin(run, &how);
	for (__u32 done = 0; done < size && !run->result; done += piece) {
		piece = next_piece(&how, size - done);
		if (!turned)
			run->opaque = 0;
		else if (run->opaque > size - done)
			run->opaque = size - done;
		read_message(run, bytes + done, piece);
	}
}

/* As the sender hook does: of a frame's beginning a zero goes out, and the rest waits for what comes next. */
static void read_whole(struct run *run, struct how how, const __u8 *bytes, __u32 size)
{
	static __u8 message[2 * HEADER_BLOCK_SIZE];
	__u32 piece, start, left, read, waiting = 0;

	begin(run, &how);
	run->shim->whole = 1;
	for (__u32 done = 0; done < size && !run->result; done += piece) {
		piece = next_piece(&how, size - done);
		memcpy(message + waiting, bytes + done, piece);
		left = waiting + piece;
		start = waiting = 0;
		while (left && !run->result) {
			run->opaque = 0;
			read = read_message(run, message + start, left);
			if (!read && !run->result) {
				REQUIRE(left <= WINDOW_SIZE);
				read = shim_lead(run->state, run->shim);
				hash(&run->bytes, message + start, read);
				REQUIRE(!read || !message[start]);
				waiting = left - read;
			}
			start += read;
			left = waiting ? 0 : left - read;
		}
		memmove(message, message + start, waiting);
	}
	hash(&run->bytes, message, waiting);
}

static void end(struct run *run)
{
	free(run->state);
	free(run->shim);
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size)
{
	struct how how;
	struct run runs[4];

	if (size < 4 || size > HEADER_BLOCK_SIZE)
		return 0;
	how.options = data[0];
	how.random = 1 + data[1] + ((__u32)data[2] << 8);
	how.look = 1U << (data[3] & 15);
	data += 4;
	size -= 4;
	if (how.options & HOW_BLOCKS) {
		read_blocks(&runs[0], how, data, size, 0);
		read_blocks(&runs[1], how, data, size, HEADER_BLOCK_SIZE);
		read_blocks(&runs[2], how, data, size, 1);
		read_blocks(&runs[3], how, data, size, 2);
	} else {
		begin(&runs[0], &how);
		if (!runs[0].result)
			read_message(&runs[0], data, size);
		read_pieces(&runs[1], how, data, size, 0);
		read_pieces(&runs[2], how, data, size, 1);
		read_whole(&runs[3], how, data, size);
	}
	REQUIRE(runs[0].result || runs[0].bytes == runs[1].bytes);
	REQUIRE(runs[0].result || runs[0].bytes == runs[3].bytes);
	for (int i = 1; i < 4; i++) {
		REQUIRE(runs[i].result == runs[0].result);
		REQUIRE(runs[i].story == runs[0].story);
	}
	for (int i = 0; i < 4; i++)
		end(&runs[i]);
	return 0;
}

#ifdef REPLAY
int main(int count, char **names)
{
	static __u8 bytes[HEADER_BLOCK_SIZE + 1];
	size_t size;
	FILE *file;

	for (int i = 1; i < count; i++) {
		file = fopen(names[i], "rb");
		REQUIRE(file);
		size = fread(bytes, 1, sizeof(bytes), file);
		fclose(file);
		LLVMFuzzerTestOneInput(bytes, size);
	}
	printf("replayed %d\n", count - 1);
	return 0;
}
#endif
