/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the hooks keep of the connections that the engine reads: no contract with user space. */
#pragma once

#include "engine/denial.h"
#include "engine/grpc.h"
#include "mesh/policy.h"

/* What has become of a call, in the low half of `state`. */
enum call_state {
	CALL_REQUEST_ENDED = 1 << ROLE_CLIENT,
	CALL_RESPONSE_ENDED = 1 << ROLE_SERVER,
	CALL_COUNTED = 4,
	CALL_OVER = 7,
};

/* One request and its response. Each direction writes its own half, by the one hook that reads it. */
struct call {
	__u64 state; /* the stream << 32 | enum call_state; 0: the slot is free */
	__u64 start_ns;
	struct grpc_stream halves[2]; /* by the role of the sender: request, response; tags: who decided, who audited */
	__u32 method;
	__u32 timeout;		      /* grpc-timeout, as header_value packs it; 0: none */
	__u32 dry_run;		      /* who would decide, if dry-run policies were in force */
	__u16 http_status;
	__u8 grpc_status;	      /* as sent, plus one; 0: not yet */
	__u8 traits;		      /* enum trait, and enum place */
};

enum trait {
	TRAIT_GRPC = 4,	  /* content-type of the request */
	TRAIT_DENIED = 8, /* a policy denies it: the server refuses it, as what it does not know */
};

/* Where a call is kept. */
enum place {
	PLACE_OWN = 0,	  /* with its connection */
	PLACE_SHARED = 1, /* in `shared_calls` */
	PLACE_TABLE = 2,  /* in `calls` */
	PLACE_MASK = 3,
};

/* A slot that connections share. It is claimed by its connection, and found by that and the call's stream. */
struct shared_call {
	__u64 connection; /* 0: free */
	struct call call;
};

struct call_key {
	__u64 connection;
	__u32 stream;
	__u32 reserved;
};

/* What a header block said. */
struct heard {
	__u32 method;	   /* its path, numbered */
	__u32 timeout;	   /* grpc-timeout, as header_value packs it; 0: none */
	__u16 status;	   /* :status; 0: none */
	__u8 grpc_status;  /* plus one; 0: none */
	__u8 grpc;	   /* HEARD_GRPC and HEARD_NOT_POST */
};

#define HEARD_GRPC 1	 /* content-type is gRPC's */
#define HEARD_NOT_POST 2 /* :method is another one: no call of gRPC's, whatever its content-type */

static __always_inline int is_grpc(const struct heard *heard)
{
	return heard->grpc == HEARD_GRPC;
}

/* Longest header block that is remembered: calls without literals have some ten bytes. */
#define REPEATED_SIZE 48

/* The last block of its kind that left the HPACK table as it was. */
struct repeated {
	__u64 words[REPEATED_SIZE / 8];
	__u32 length; /* 0: none */
	__u32 inserted;
	__u32 mark;
	struct heard heard;
	__u32 policies; /* by which generation its call was let through, */
	__u32 decider;	/* and who did */
	struct reports reports;
};

/* One direction of a connection that is read; only one hook writes it, and on its own CPU as a rule. */
struct half {
	struct http2_direction direction;
	__u32 next_seq;		     /* where its own hook reads it: write_seq once all that was shown is sent */
	__u32 last_stream;	     /* highest that the client began */
	__u32 spilled;		     /* calls that were given a place elsewhere, by who reads requests */
	__u32 returned;		     /* of those, over by what this direction said */
	__u16 altered;		     /* the table has entries that are, or had: so much writing one out adds; 0: none */
	__u16 handed;		     /* 1: it is read where it arrives, for now (mesh/handing.h) */
	__u32 changed_seq;	     /* write_seq after the last message that was changed, 0: none was */
	__u32 held;		     /* bytes that wait for the rest of their frame (mesh/holding.h, mesh/whole.h) */
	__u32 resets;		     /* of streams that the other side has ended or reset (mesh/calls.h) */
	__u16 edit_distance;	     /* from next_seq back to bytes that were changed and may be written again, */
	__u8 edit_count;	     /* so many; 0: none */
	__u8 edit_values[2];	     /* and what they become */
	__u8 reserved[3];
	struct repeated repeated[2]; /* by END_STREAM: headers and trailers take turns */
};

/* The beginning of a frame's header, of which it is not known yet whether it is what has been sent (mesh/leads.h). */
struct lead {
	__u32 seq;
	__u8 count; /* of bytes; 0: none */
	__u8 bytes[FRAME_HEADER_SIZE];
	__u8 reserved[2];
};

/* At a time on their way. */
#define LEADS 2

/* A connection that is read. What both hooks read and hardly write stands apart from what each of them writes. */
struct reading {
	__u64 id;		/* of the connection */
	enum reason off;	/* why it is read no further; REASON_NONE: it is */
	enum speaks speaks;
	__u32 source;		/* workload of the client */
	__u32 destination;	/* of the server */
	__u32 service;
	__u16 source_port;
	__u16 destination_port;
	__u8 source_address[16];
	__u8 destination_address[16];
	__u8 family;
	__u8 protocol;
	__u8 judges;		/* its calls are judged, or may come to be: it has texts */
	__u8 drained;		/* the client has been told to go elsewhere with its next calls */
	__u8 arriving;		/* requests are read where they arrive, and the server's SETTINGS are still to come */
	__u8 resets_refused;	/* the server resets what it refuses, if the client goes on sending */
	__u8 reserved[6];
	__u32 last_good;	/* the last stream that is answered, if it is to be told so (mesh/draining.h); 0: it is not */
	__u32 policies;		/* by which generation the connection was judged for its calls; 0: by none */
	__u32 deny;		/* of that, where the diagrams go on for calls */
	__u32 allow;
	__u32 denials;		/* calls that were denied */
	__u32 shown_to;		/* where calls are judged: no byte of the client's may be sent from here on, for now */
	struct lead leads[LEADS];
	__u32 padding;
	struct half halves[2];	/* by the role of the sender */
	struct call slots[CALL_SLOTS]; /* stream identifiers take turns */
};

/* The kernel's allocator rounds up to a page what is one almost: with its overhead (an htab_elem, the key, and an llist_node)
 * it must stay within it. */
_Static_assert(sizeof(struct reading) <= 4032, "a connection's reading has to fit a page");

struct piece_key {
	__u64 connection;
	__u32 role;
	__u32 index;
};

struct piece {
	__u8 bytes[PIECE_SIZE];
};

/* What policies take from a field that is in a table, so that its string is looked at once. */
struct known_field {
	__u32 class;
	__u16 number;	/* low half of the entry's, which comes round again; of a static one its index */
	__u8 attribute; /* FIELD_UNKNOWN, FIELD_UNASKED, or the string's and FIELD_ASKED */
	__u8 doubt;	/* enum reason: why nobody can tell; 0: one can */
};

#define FIELD_UNKNOWN 0 /* as in zeros: nothing is known */
#define FIELD_UNASKED 1 /* no policy asks for it */
#define FIELD_ASKED 2

/* Static fields that every call refers to, by the low bits of their indices: :method GET and POST, :scheme. */
#define KNOWN_STATICS 8
#define IS_KNOWN_STATIC(index) (((index) & ~5U) == 2)

/* Of the strings of a call; compared by words. */
struct classes {
	__u32 of[(POLICY_STRINGS + 1) & ~1];
} __attribute__((aligned(8)));

/* A call that was let through, by what policies take from it. */
struct known_call {
	__u32 policies; /* by which generation; 0: none */
	__u32 decider;
	struct reports reports;
	struct classes classes;
};

#define KNOWN_CALLS 4

/* Of a connection whose calls are judged: the texts of the client's table, and what has come of them. */
struct client_texts {
	struct hpack_texts texts;
	__u32 generation; /* by whose policies fields are known */
	struct known_field fields[HPACK_ENTRIES + KNOWN_STATICS]; /* by the entry's number, from 1 on */
	struct known_call calls[KNOWN_CALLS]; /* by the class of the path */
};

/* The kernel's allocator has sizes of powers of two from a page on. */
_Static_assert(sizeof(struct client_texts) <= 8000, "what is kept for judging has to fit two pages");

#define ORDER_REGULAR 1 /* a field that is no pseudo-header was there */
#define ORDER_LATE 2	/* and a pseudo-header after it */

/* A call that is judged. */
struct judging {
	__u32 generation;
	__u32 doubt;  /* enum reason: why nobody can tell what it asks for; 0: one can */
	__u32 doubts; /* in which attributes, a bit each */
	__u32 seen;   /* attributes, a bit each */
	__u32 order;  /* ORDER_REGULAR, ORDER_LATE */
	__u32 reserved;
	__u32 denied;
	__u32 decider;
	struct reports reports;
	struct classes classes;
	struct known_field spare; /* of one that is in no table */
};

/* Room for a GOAWAY and the header of another frame. A power of two. */
#define PREFIX_SIZE 32

/* What a pass needs beside the connection's own state. */
struct scratch {
	__u64 now;	      /* when the message was seen; 0: not asked for yet */
	struct http2_pass pass;
	struct heard heard;   /* in the header block just read */
	__u8 firm;	      /* all of the message goes out as it is after the pass, which may change its length */
	__u8 whole;	      /* frames of headers are taken in as a whole */
	__u8 lead;	      /* 1: the first byte of the frame that the message goes on with, a zero, has gone before */
	__u8 goaway;	      /* a GOAWAY goes before the frame that is written anew */
	__u32 more;	      /* bytes that were put before the message */
	__u32 shortcut;	      /* the message may go past TCP */
	__u32 role;	      /* of its sender */
	__u32 rest;	      /* the length of a frame that goes out in single bytes; 0: it does not */
	__u32 shown;	      /* bytes of the message that are read */
	struct call ended;    /* a copy of the call that has just ended */
	__u32 index;	      /* among its CPU's */
	__u32 busy;
	__u32 changed;	      /* what was shown is not what goes out */
	__u32 from;	      /* the message is read from here on */
	__u32 cut;	      /* and from here on it is to be read again, with what follows; NO_FRAME: it is read */
	__u32 base;	      /* first byte of the message in the linear part that the kernel shows */
	struct method method; /* to be inserted */
	struct dial dial;
	struct judgement judged;
	struct judging judging;
	struct hpack_edits edits;
	__u8 prefix[PREFIX_SIZE]; /* of a frame that is written anew: what stands before the block */
	struct hpack_rewrite rewrite;
};

/* Paths are hashed and compared by words. */
_Static_assert(__builtin_offsetof(struct scratch, pass.block.text) % 8 == 0, "text has to be aligned");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct reading);
} readings SEC(".maps");

/* Zeros, to be inserted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reading);
} blank_readings SEC(".maps");

/* Where calls are judged by what they refer to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct client_texts);
} client_texts SEC(".maps");

/* Zeros, to be inserted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct client_texts);
} blank_texts SEC(".maps");

/* Zeros, to be inserted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct series);
} blank_series SEC(".maps");

/* Calls that found their slot taken; consecutive streams are neighbours. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SHARED_SLOTS);
	__type(key, __u32);
	__type(value, struct shared_call);
} shared_calls SEC(".maps");

/* Calls that found those taken as well. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CALLS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct call_key);
	__type(value, struct call);
} calls SEC(".maps");

/* The beginning of a header block whose rest has not been sent yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PIECES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct piece_key);
	__type(value, struct piece);
} pieces SEC(".maps");

/* SCRATCHES for each CPU: hooks of process context are interrupted by those of softirq, and may be preempted. */
#define SCRATCHES 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* A scratch of this CPU's own until `release`; NULL: all are in use. */
static __always_inline struct scratch *acquire_scratch(void)
{
	__u32 first = bpf_get_smp_processor_id() * SCRATCHES;

	for (__u32 i = 0; i < SCRATCHES; i++) {
		__u32 index = first + i;
		struct scratch *scratch = bpf_map_lookup_elem(&scratches, &index);

		if (!scratch)
			return NULL;
		if (!__sync_val_compare_and_swap(&scratch->busy, 0, 1)) {
			scratch->index = i;
			return scratch;
		}
	}
	return NULL;
}

static __always_inline void release_scratch(struct scratch *scratch)
{
	WRITE_ONCE(scratch->busy, 0);
}

/* One reading of the clock does for a message. */
static __always_inline __u64 now_of(struct scratch *scratch)
{
	if (!scratch->now)
		scratch->now = bpf_ktime_get_ns();
	return scratch->now;
}

/* The connection is read no further: neither direction, and its open calls end when it closes. */
static __always_inline void stop_reading(struct reading *reading, __u32 reason)
{
	struct counters *count = this_cpu_counters();

	if (__sync_val_compare_and_swap((__u32 *)&reading->off, REASON_NONE, reason) != REASON_NONE)
		return;
	if (count)
		count_at(count->unread, reason, REASON_MAX);
}

static __always_inline void recognise(struct reading *reading, __u32 speaks)
{
	struct counters *count = this_cpu_counters();

	if (__sync_val_compare_and_swap((__u32 *)&reading->speaks, SPEAKS_UNKNOWN, speaks) != SPEAKS_UNKNOWN)
		return;
	if (count)
		count_at(count->recognised, speaks, SPEAKS_MAX);
}
