/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the hooks count and record about calls, shared with user space. */
#pragma once

#include "shared/types.h"

/* How a call ended. */
enum ending {
	ENDING_OPEN = 0,	 /* it has not */
	ENDING_COMPLETE = 1,	 /* the response ended */
	ENDING_CLIENT_RESET = 2, /* the client reset the stream before the response ended */
	ENDING_SERVER_RESET = 3, /* the server did */
	ENDING_CLOSED = 4,	 /* the connection closed with the call in flight */
	ENDING_UNREAD = 5,	 /* the engine stopped reading the connection with the call in flight */
	ENDING_MAX
};

#define GRPC_STATUS_NONE 255

/* A row of telemetry. Numbers are those of the tables `workloads`, `services`, `methods`; 0: unmanaged, none, overflow. */
struct series_key {
	__u32 source;
	__u32 destination;
	__u32 service;
	__u32 method;
	__u16 http_status; /* 0: none was sent */
	__u8 grpc_status;  /* as the caller sees it; GRPC_STATUS_NONE: plain HTTP/2 */
	__u8 ending;	   /* enum ending */
	__u8 protocol;	   /* PROTOCOL_GRPC, PROTOCOL_HTTP2 */
	__u8 deadline;	   /* 1: the deadline was exceeded */
	__u8 reentrant;	   /* 1: counted by hooks that interrupted another one, in a row of their own */
	__u8 reserved;
};

/* Per CPU: calls that have ended. */
struct series {
	__u64 calls;
	__u64 duration_ns; /* start of the request to end of the response */
	__u64 request_bytes; /* of DATA, without padding: messages and their prefixes */
	__u64 response_bytes;
	__u64 request_messages;
	__u64 response_messages;
	__u64 durations[DURATION_BUCKETS]; /* calls by duration, each in one bucket */
	__u64 request_sizes[SIZE_BUCKETS];
	__u64 response_sizes[SIZE_BUCKETS];
};

/* Upper bounds, ascending and inclusive, filled up with NO_BOUND. Written once, when the data path is made. */
struct buckets {
	__u64 duration_ns[DURATION_BOUNDS];
	__u64 bytes[SIZE_BOUNDS];
	__u8 duration_cells[DURATION_CELLS]; /* bucket of a cell's first value */
	__u8 size_cells[SIZE_CELLS];	     /* of a size */
};

/* Connections that the engine does not read. */
struct tcp_series_key {
	__u32 source;
	__u32 destination;
	__u32 service;
	__u32 protocol; /* as declared: enum protocol */
};

/* Bytes are counted at close. */
struct tcp_series {
	__u64 opened;
	__u64 closed;
	__u64 sent_bytes;     /* by the client */
	__u64 received_bytes; /* by the client */
};

struct method_key {
	__u32 destination; /* workload */
	__u32 reserved;
	__u64 hash;
};

struct method {
	__u32 number;
	__u32 length;
	char path[TEXT_SIZE]; /* not terminated */
};

struct service {
	char namespace_name[NAMESPACE_SIZE];
	char name[NAME_SIZE];
};

/* An address outside the mesh's own workloads that a Service has as endpoint. IPv4 is v4-mapped. */
struct endpoint_key {
	__u8 address[16];
	__u32 port;
};

struct endpoint {
	enum protocol protocol;
	__u32 service;
};

/* What connects to a Service's address and port: `list` numbers its endpoints, which stand in `backends`. */
struct virtual_service {
	__u32 list;
	__u32 count;
	__u32 weight; /* sum of the endpoints' */
	__u32 service;
};

struct backend_key {
	__u32 list;
	__u32 index;
};

struct backend {
	struct endpoint_key endpoint;
	__u32 weight_end; /* sum of the weights up to and with this one's */
	__u32 list;
};

enum verdict {
	VERDICT_ALLOW = 0,
	VERDICT_DENY = 1,
};

enum flow_kind {
	FLOW_CALL = 1,
	FLOW_CONNECTION = 2, /* a connection that the engine did not read, at its close */
};

struct flow {
	__u64 sequence; /* on this CPU, from 1; 0 while it is written: read it before and after the rest */
	__u64 end_ns;	/* CLOCK_MONOTONIC */
	__u64 connection;
	__u64 latency_ns;
	__u64 request_bytes; /* of a connection: sent by the client */
	__u64 response_bytes;
	__u32 request_messages;
	__u32 response_messages;
	__u32 source;
	__u32 destination;
	__u32 service;
	__u32 method;
	__u32 stream;
	__u32 reset_code; /* of RST_STREAM */
	__u16 http_status;
	__u8 grpc_status;
	__u8 ending;
	__u8 protocol;
	__u8 kind;	   /* enum flow_kind */
	__u8 deadline;
	__u8 family;	   /* AF_INET: the addresses are v4-mapped */
	__u16 source_port;
	__u16 destination_port;
	__u32 reason;	   /* enum reason: why a connection is not read, or what denied it */
	__u8 source_address[16];
	__u8 destination_address[16];
	__u32 policy;	   /* that decided; 0: none did */
	__u32 rule;	   /* of it, plus one; 0: none */
	enum verdict verdict;
	__u32 audit;	   /* who matched: as DECIDER_SET and following say */
	__u32 dry_run;	   /* who would decide, and how, if dry-run policies were in force */
	__u32 reserved;
};
