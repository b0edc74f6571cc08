/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Policies as the kernel walks them: decision diagrams and string automata, both made of rows (src/zerohop/compiler/policies). */
#pragma once

#include "shared/types.h"

/* A row's value with this bit is an end: the rest is a decision's or a class's number. */
#define POLICY_END 0x80000000

/* What a node of a diagram tests, in the order in which diagrams test them: what a connection has comes first. */
enum policy_attribute {
	ATTRIBUTE_NONE = 0, /* a state of an automaton */
	ATTRIBUTE_PORT = 1,
	ATTRIBUTE_IDENTITY = 2,
	ATTRIBUTE_SOURCE = 3,
	ATTRIBUTE_DESTINATION = 4,
	ATTRIBUTE_METHOD = 5, /* from here on strings, of a call */
	ATTRIBUTE_PATH = 6,
	ATTRIBUTE_HOST = 7,
	ATTRIBUTE_HEADER = 8, /* the first of MAX_HEADERS */
};

#define POLICY_STRINGS (ATTRIBUTE_HEADER - ATTRIBUTE_METHOD + MAX_HEADERS)

/* Kinds of rows, in place of the number of bytes that an automaton's edge takes in (0: its end, up to 16). */
enum policy_kind {
	POLICY_EDGE = 0,     /* of a diagram: `symbol` is the attribute's number or class */
	POLICY_NODE = 32,    /* `next` when no edge fits; `extra`: enum policy_attribute */
	POLICY_DECISION = 33, /* `next`: number of the policy; `extra`: rule, plus one */
	POLICY_IDENTITY = 34, /* of the workload `node`: `next` */
	POLICY_LINE = 35,     /* of the decision `node`: the line of its rule in the policy's file; for people */
};

struct policy_row_key {
	__u32 node;
	__u32 kind;
	__u64 symbol;
};

struct policy_row {
	__u32 next;
	__u32 extra;
};

/* From a string to its class: exact ones by eight bytes at a time, the others by one. */
struct automaton {
	__u32 words; /* nodes at which it begins; 0: there is no such part */
	__u32 bytes;
	__u32 empty; /* class of the empty string */
	__u32 other; /* of one that nothing matches */
};

/* What a destination's policies come to. */
struct policy {
	/* Where the diagrams begin: a node, or an end. Denied is where `deny` denies, else what `allow` says. */
	__u32 deny;
	__u32 allow;
	/* Of what is only reported, 0: there is none. The dry run's are those above with its own policies among them. */
	__u32 audit;
	__u32 dry_deny;
	__u32 dry_allow;
	__u8 layer7;	       /* calls are judged */
	__u8 deny_reset;       /* `zerohop.io/deny: reset` */
	__u8 allow_unreadable; /* `zerohop.io/unreadable: allow` */
	__u8 observe_existing; /* `zerohop.io/existing-connections: observe` */
	struct automaton names; /* header names to 1 + the number among the headers' attributes */
	struct automaton strings[POLICY_STRINGS];
};

struct policy_key {
	__u32 slot;
	__u32 workload;
};

/* For the longest prefix: both numbers are compared as bytes. */
struct block_key {
	__u32 prefix; /* bits of what follows */
	__u32 slot;
	__u8 address[16];
};

struct policy_name {
	char namespace_name[NAMESPACE_SIZE];
	char name[NAME_SIZE];
	char file[FILE_SIZE]; /* cut at its beginning where it is too long */
};

/* In a diagram's end: the call is denied. */
#define POLICY_DENY 0x40000000

/* In what a walk has come to, and in no row: the diagram asks for what nobody can tell of this call. */
#define POLICY_DOUBT 0x20000000

/* Who decided, in one number: 0: there was nothing to decide. */
#define DECIDER_SET 0x80000000
#define DECIDER_DENY 0x40000000
#define DECIDER_RULE_BITS 10 /* the rule plus one, 0: none; above them the policy's number, 0: none */

/* What the agent has to do, as soon as it can: no byte passes meanwhile. */
struct reset_request {
	__u64 cookie; /* of one of the connection's sockets, as it is found in `netns` */
	__u32 netns;  /* inode of /proc/PID/ns/net */
	__u32 reason; /* enum reason */
	__u8 local[16]; /* of AF_INET: in the first four bytes */
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u16 early; /* 1: it hides bytes that no hook has seen; a reset would let its program read them */
};
