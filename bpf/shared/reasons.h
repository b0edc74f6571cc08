/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Why a connection is not short-cut or not read by the engine, and which helper failed: append-only. User space reads
 * names and numbers from the object's BTF; the lower-case name without its prefix is what people see.
 */
#pragma once

enum reason {
	REASON_NONE = 0,
	REASON_PEER_UNMANAGED = 1,	/* only one end belongs to a workload on this node */
	REASON_DISABLED = 2,		/* `shortcut: Disabled` at one end */
	REASON_EXCLUDED_PORT = 3,	/* `excludePorts` at one end */
	REASON_PORT_NOT_DECLARED = 4,	/* Auto, and no Service declares the port as grpc, http2 or http */
	REASON_CLIENT_BLOCKING = 5,	/* the connecting socket blocks */
	REASON_SERVER_BLOCKING = 6,	/* the listening socket blocks */
	REASON_READER_BLOCKING = 7,	/* left: an accepted socket turned out to block */
	REASON_BULK = 8,		/* left: one-way transfer, where TCP is faster */
	REASON_DRAINING = 9,		/* left: `clean` or a new build takes over */
	REASON_FAST_OPEN = 10,		/* data in the SYN: the ends cannot be told by sequence number */
	REASON_REPAIR = 11,		/* TCP_REPAIR: the socket chose its own sequence numbers */
	REASON_TABLE_FULL = 12,		/* more connections than bounds.h allows */
	REASON_HELPER_FAILED = 13,	/* the kernel refused to enrol a socket; see errors */
	REASON_KERNEL = 14,		/* this kernel failed its experiments (doctor): no short-cut here */
	REASON_ULP = 15,		/* an upper-layer protocol (TLS, MPTCP) owns the socket */
	REASON_OVERLAP = 16,		/* stopped for want of memory to cut off bytes that came twice; send: EACCES */

	/* Why the engine does not read a connection, or reads it no further. */
	REASON_HTTP1 = 17,		/* the client speaks HTTP/1.x */
	REASON_TLS = 18,		/* the client speaks TLS */
	REASON_NOT_HTTP = 19,		/* the client speaks something else, or the server speaks first and not HTTP/2 */
	REASON_LEFT = 20,		/* the socket left the hooks while its connection was read */
	REASON_FRAME_SIZE = 21,		/* a frame longer than its type or SETTINGS_MAX_FRAME_SIZE's maximum allows */
	REASON_FRAME_ORDER = 22,	/* CONTINUATION missing or out of place, or no SETTINGS first (RFC 9113 3.4, 6.10) */
	REASON_FRAME_PADDING = 23,	/* padding longer than the frame */
	REASON_FRAME_STREAM = 24,	/* a frame on a stream identifier that its type may not have, or that depends on itself */
	REASON_BLOCK_TOO_LARGE = 25,	/* a header block beyond HEADER_BLOCK_SIZE */
	REASON_HPACK_TRUNCATED = 26,	/* a header block ends within a field */
	REASON_HPACK_INTEGER = 27,	/* an integer beyond 32 bits */
	REASON_HPACK_INDEX = 28,	/* an index that neither table has */
	REASON_HPACK_HUFFMAN = 29,	/* a wrong code, EOS, or padding that is longer than 7 bits or not all ones */
	REASON_HPACK_TABLE_SIZE = 30,	/* a size update beyond what was announced, or not at the block's beginning */
	REASON_GRPC_FLAG = 31,		/* a message prefix whose first byte is neither 0 nor 1: only its call is affected */
	REASON_UNSEEN = 32,		/* bytes went out that the sender hook was not shown */
	REASON_NO_SCRATCH = 33,		/* more hooks at work on one CPU than there is scratch memory for */
	REASON_POLICY = 34,		/* an AuthorizationPolicy denies it */

	/* Why a call cannot be judged, or its denial not be said: its connection ends. */
	REASON_HEADER_REPEATED = 35,	/* a header that policies ask for came twice */
	REASON_HEADER_TOO_LONG = 36,	/* such a header, longer than TEXT_SIZE */
	REASON_PATH_NOT_NORMAL = 37,	/* escapes, dot segments or the like: servers may read it otherwise */
	REASON_CANNOT_REFUSE = 38,	/* the denied request has no part that could be changed, or no gRPC server may refuse it */
	REASON_EXISTING = 39,		/* the connection is older than the policies for its calls */
	REASON_HEADERS_FLAGS = 40,	/* a request's frames of headers are padded, or flagged as no frame of headers is */
	REASON_HOST_NOT_NORMAL = 41,	/* user information before the host: servers may leave it out */
	REASON_HEADERS_ORDER = 42,	/* a pseudo-header after others: servers take it, leave it out, or refuse the request */

	REASON_WRITERS_OVERLAP = 43,	/* a message was written while another thread's was still on its way past TCP */
	REASON_MAX
};

enum helper {
	HELPER_SOCK_HASH_UPDATE = 0,
	HELPER_SOCK_HASH_DELETE = 1,
	HELPER_SK_STORAGE_GET = 2,
	HELPER_MAP_UPDATE = 3,
	HELPER_SOCK_OPS_CB_FLAGS_SET = 4,
	HELPER_MSG_REDIRECT_HASH = 5, /* not counted any more: only a receiver that closes makes it fail */
	HELPER_SETSOCKOPT = 6,
	HELPER_SKB_ADJUST_ROOM = 7,
	HELPER_MSG_PULL_DATA = 8,
	HELPER_SKB_LOAD_BYTES = 9,
	HELPER_SKB_STORE_BYTES = 10,
	HELPER_MSG_APPLY_BYTES = 11,
	HELPER_RINGBUF_OUTPUT = 12,
	HELPER_MSG_PUSH_DATA = 13, /* or bpf_msg_pop_data */
	HELPER_SKB_CHANGE_TAIL = 14,
	HELPER_SKB_PULL_DATA = 15,
	HELPER_MAX
};
