/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The engine with the handles that tests need, one call at a time: the same source makes the native library and the
 * harness in the kernel. Tests write and read `struct shim`; the engine's own state stays closed to them.
 */
#pragma once

#include "engine/denial.h"
#include "engine/grpc.h"

#define SHIM_BYTES (2 * HEADER_BLOCK_SIZE)
#define SHIM_STREAMS 64

struct shim_state {
	struct grpc_stream streams[SHIM_STREAMS];
	struct http2_direction direction;
	struct http2_pass pass;
	struct hpack_texts texts;
	struct hpack_edits edits;
	struct hpack_rewrite rewrite;
};

struct shim {
	/* To the engine. */
	__u8 bytes[SHIM_BYTES]; /* a header block, or a message; of a message also what it became */
	__u32 size;		/* of it */
	__u32 offset;		/* where in hpack_block.bytes a header block is to stand */
	__u32 look;		/* bytes that a window shows at least */
	__u32 slot;		/* stream that DATA belongs to */
	__u32 remember_entry;
	__u32 remember_value;
	__u32 with_texts;	/* the table's strings are kept */
	enum rewriting kind;
	__u32 status;		/* of the denial */
	__u32 whole;		/* frames of headers are taken in as a whole */
	/* From the engine. */
	enum http2_event event;
	enum reason reason;	/* after a negative result */
	__u32 stream;
	__u32 flags;
	__u32 code;
	__u32 opaque;		/* grpc_opaque of the slot */
	__u32 cut;		/* where the frame of EVENT_CUT begins */
	__u32 frame;		/* where that of a header block does; NO_FRAME: it has not been whole in the window */
	enum hpack_form form;
	enum hpack_name name;
	__u32 value;
	__u32 name_length;
	__u32 value_length;
	__u32 entry;
	__u32 name_entry;
	__u32 static_index;
	__u32 fields;
	__u32 path_length;
	__u32 path_entry;
	__u32 literal_name;	/* the name came as a string */
	__u32 table_inserted;
	__u32 table_count;
	__u32 table_size;
	__u32 table_max_size;
	__u8 name_text[TEXT_SIZE];  /* of a literal name */
	__u8 value_text[TEXT_SIZE]; /* of a literal value */
	__u8 path_text[TEXT_SIZE];
	__u8 full_name_text[TEXT_SIZE]; /* with texts */
	__u32 changed;		    /* the block was written anew, to `bytes` */
	struct hpack_edits edits;   /* of the block, by its own positions */
	struct grpc_stream grpc;    /* of the slot */
};

/* Notes why, so that tests need not know where reasons begin. */
ENGINE_INLINE int shim_result(struct shim *shim, int result)
{
	shim->reason = result < 0 ? -result : REASON_NONE;
	return result;
}

/* `state` is zeros before. */
ENGINE_INLINE int shim_start(struct shim_state *state, struct shim *shim, int client)
{
	(void)shim;
	http2_start(&state->direction, client);
	return 0;
}

/* A header block of its own, past the framing. */
ENGINE_INLINE int shim_block(struct shim_state *state, struct shim *shim)
{
	struct hpack_block *block = &state->pass.block;
	__u32 size = at_most(shim->size, HEADER_BLOCK_SIZE), offset = at_most(shim->offset, HEADER_BLOCK_SIZE);

	copy_bytes(&block->bytes[offset], size, shim->bytes);
	block->position = offset;
	block->end = offset + size;
	block->fields = 0;
	block->paths = 0;
	block->path_length = 0;
	block->path_entry = 0;
	return 0;
}

/* The text of a literal's name: the engine itself forgets it for the value's. */
ENGINE_INLINE void shim_name(struct hpack_block *block, struct shim *shim)
{
	__u32 position = block->position, first = block->bytes[masked(position, HPACK_BUFFER_SIZE)];

	shim->literal_name = 0;
	if (first != 0x40 && first != 0 && first != 0x10)
		return;
	shim->literal_name = 1;
	block->position = position + 1;
	hpack_string(block);
	block->position = position;
	copy_bytes(shim->name_text, TEXT_SIZE, block->text);
}

/* The short form must say the same of a field, or nothing at all. */
ENGINE_INLINE int shim_short(struct hpack_table *table, struct hpack_block *block, struct hpack_texts *texts)
{
	__u32 position = block->position, fields = block->fields, after, name = 0, value = 0;
	int result, read = hpack_next_short(table, block, &name, &value);

	after = block->position;
	block->position = position;
	block->fields = fields;
	result = hpack_next(table, block, texts);
	if (read && (result != 1 || block->position != after || block->name != name || block->value != value ||
		     block->fields != fields + 1))
		return -REASON_MAX;
	return result;
}

/* The next field: 1, 0 at the end, or a negated reason; -REASON_MAX: the engine contradicts itself. */
ENGINE_INLINE int shim_field(struct shim_state *state, struct shim *shim)
{
	struct hpack_table *table = &state->direction.table;
	struct hpack_block *block = &state->pass.block;
	int result;

	if (block->position < block->end)
		shim_name(block, shim);
	result = shim_short(table, block, shim->with_texts ? &state->texts : 0);
	shim->form = block->form;
	shim->name = block->name;
	shim->value = block->value;
	shim->name_length = block->name_length;
	shim->value_length = block->value_length;
	shim->entry = block->entry;
	shim->name_entry = block->name_entry;
	shim->static_index = block->static_index;
	shim->fields = block->fields;
	shim->path_length = block->path_length;
	shim->path_entry = block->path_entry;
	shim->table_inserted = table->inserted;
	shim->table_count = table->count;
	shim->table_size = table->size;
	shim->table_max_size = table->max_size;
	copy_bytes(shim->value_text, TEXT_SIZE, block->text);
	copy_bytes(shim->path_text, TEXT_SIZE, &block->text[TEXT_SIZE]);
	copy_bytes(shim->full_name_text, TEXT_SIZE, block->name_text);
	return shim_result(shim, result);
}

/* All of the block, written anew where it has to be: 1, or a negated reason. */
ENGINE_INLINE int shim_rewrite(struct shim_state *state, struct shim *shim)
{
	struct hpack_table *table = &state->direction.table;
	struct hpack_block *block = &state->pass.block;
	struct hpack_rewrite *rewrite = &state->rewrite;
	int result = 0;
	__u32 start, i;

	rewrite_begin(rewrite, shim->kind, shim->status);
	loop_below (i, HEADER_BLOCK_SIZE + 1) {
		start = block->position;
		result = hpack_next(table, block, shim->with_texts ? &state->texts : 0);
		if (result <= 0)
			break;
		rewrite_field(table, rewrite, block, start);
	}
	if (result >= 0)
		result = rewrite_end(rewrite) ? -REASON_CANNOT_REFUSE : 1;
	shim->changed = rewrite->changed;
	if (result > 0 && rewrite->changed) {
		copy_bytes(shim->bytes, REWRITE_SIZE, rewrite->bytes);
		shim->size = rewrite->length;
	}
	return shim_result(shim, result);
}

/* How the block that was read is refused by its server: 1, or a negated reason. */
ENGINE_INLINE int shim_neutralise(struct shim_state *state, struct shim *shim)
{
	struct hpack_block *block = &state->pass.block;
	__u32 offset = at_most(shim->offset, HEADER_BLOCK_SIZE);
	int result = denial_neutralise(&state->direction.table, block, &state->edits);

	shim->edits = state->edits;
	shim->edits.at[0] -= offset;
	shim->edits.at[1] -= offset;
	return shim_result(shim, result ? -REASON_CANNOT_REFUSE : 1);
}

ENGINE_INLINE int shim_remember(struct shim_state *state, struct shim *shim)
{
	hpack_remember(&state->direction.table, shim->remember_entry, shim->remember_value);
	return 0;
}

/* A message: its bytes come in whatever pieces the test chooses. */
ENGINE_INLINE int shim_message(struct shim_state *state, struct shim *shim)
{
	struct http2_pass *pass = &state->pass;

	pass->size = at_most(shim->size, SHIM_BYTES);
	pass->position = 0;
	pass->start = 0;
	pass->filled = 0;
	pass->whole = shim->whole;
	return 0;
}

/* After a cut at the message's beginning: the frame's first byte, a zero, has gone. 1, or 0: it had before. */
ENGINE_INLINE int shim_lead(struct shim_state *state, struct shim *shim)
{
	struct http2_direction *dir = &state->direction;

	(void)shim;
	if (dir->held_count)
		return 0;
	dir->held[0] = 0;
	dir->held_count = 1;
	return 1;
}

/* The window, from the position on. */
ENGINE_INLINE void shim_fetch(struct http2_pass *pass, const struct shim *shim)
{
	__u32 count = shim->look > pass->want ? shim->look : pass->want;

	count = at_most(at_most(count, pass->size - pass->position), WINDOW_SIZE);
	copy_bytes(pass->block.bytes, count, &shim->bytes[masked(pass->position, SHIM_BYTES)]);
	pass->start = pass->position;
	pass->filled = count;
}

/* Goes on to the next event that a test has to see to; negative: a reason. */
ENGINE_INLINE int shim_step(struct shim_state *state, struct shim *shim)
{
	struct http2_direction *dir = &state->direction;
	struct http2_pass *pass = &state->pass;
	int event = 0;
	__u32 i;

	loop_below (i, 4 * SHIM_BYTES) {
		event = http2_step(dir, pass);
		if (event == EVENT_MORE)
			shim_fetch(pass, shim);
		else if (event == EVENT_EDIT)
			shim->bytes[masked(pass->edit_position, SHIM_BYTES)] = pass->edit_value;
		else if (event != EVENT_NONE)
			break;
	}
	shim->event = event < 0 ? EVENT_END : event;
	shim->stream = pass->stream;
	shim->flags = event == EVENT_DATA ? dir->flags : pass->flags;
	shim->code = pass->code;
	shim->cut = pass->position;
	shim->frame = pass->frame;
	if (event == EVENT_HEADERS || event == EVENT_PROMISE) {
		pass->block.fields = 0;
		pass->block.paths = 0;
		pass->block.path_length = 0;
		pass->block.path_entry = 0;
	}
	return shim_result(shim, event);
}

/* Takes in the DATA of EVENT_DATA. 1: all of the frame, 0: the message ended before. */
ENGINE_INLINE int shim_data(struct shim_state *state, struct shim *shim)
{
	struct http2_direction *dir = &state->direction;
	struct http2_pass *pass = &state->pass;
	struct grpc_stream *stream = &state->streams[masked(shim->slot, SHIM_STREAMS)];
	int event = EVENT_NONE;
	__u32 i;

	loop_below (i, 4 * SHIM_BYTES) {
		if (!dir->remaining)
			break;
		event = grpc_data(dir, pass, stream);
		if (event == EVENT_MORE)
			shim_fetch(pass, shim);
		else if (event == EVENT_END)
			break;
	}
	shim->opaque = grpc_opaque(dir, stream);
	shim->grpc = *stream;
	if (event == EVENT_END)
		return 0;
	http2_finish_payload(dir);
	return 1;
}

/* Makes the slot a new stream's. */
ENGINE_INLINE int shim_stream(struct shim_state *state, struct shim *shim)
{
	state->streams[masked(shim->slot, SHIM_STREAMS)] = (struct grpc_stream){};
	return 0;
}
