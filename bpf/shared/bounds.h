/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Every limit, each with its reason and with what happens beyond it. */
#pragma once

/* Connections with a managed end, on the node. Beyond: a new connection is plain TCP, counted as `table_full`. */
#define MAX_CONNECTIONS 131072

/* Sockets in the short-cut: two a connection. Beyond: the kernel refuses, counted under errors `sock_hash_update`. */
#define MAX_SOCKETS (2 * MAX_CONNECTIONS)

/* Handshakes between SYN and ESTABLISHED. Beyond: the oldest is forgotten and its connection is plain TCP. */
#define MAX_HANDSHAKES 16384

/* Workloads that the tables can name at one time, removed ones with open connections included. Beyond: refused. */
#define MAX_WORKLOADS 8192

/* Declared or excluded (workload, port) pairs. Beyond: the configuration is refused. */
#define MAX_PORTS 65536

/* Nodes of the tree of cgroup names. Beyond: the configuration is refused. */
#define MAX_CGROUP_NODES 65536

/* Levels of cgroups below the cgroup v2 mount that are walked for an identity. Deeper sockets belong to the
 * deepest workload above; a deeper configured path is refused. */
#define MAX_CGROUP_DEPTH 16

/* One cgroup's name with its end mark, in bytes. A longer name never matches; in configuration it is refused. */
#define CGROUP_NAME_SIZE 128

/* Names as Kubernetes bounds them (RFC 1123 label and subdomain), with their end mark and rounded up. */
#define NAMESPACE_SIZE 64
#define NAME_SIZE 256

/* The path of a configuration file, for messages. */
#define FILE_SIZE 256

/* Bytes one way without an answer after which a connection counts as bulk and leaves the short-cut: there the
 * wake-up per write costs more than TCP's path does (docs/benchmarks.md). */
#define BULK_RUN_BYTES (1 << 20)

/* After a connection stops short-cutting, how long its ends wait until they leave the map. A redirect that was
 * decided before the stop runs without the sender's lock and must find the receiver still there. An end to which
 * nothing was redirected yet leaves at once: a program that blocks from its first request on never waits as a member. */
#define LEAVE_GRACE_NS 50000000ULL

/* How long a reader may look blocking to its peer (between `accept` and `fcntl`) until it counts as blocking. */
#define BLOCKING_PATIENCE_NS 100000000ULL

/* Members whose queue nobody reads that one inspection lists; more are only counted. */
#define MAX_UNREAD 64

/* CPUs whose activity is told apart. Beyond: two share a record, and may take each other's activity for their own. */
#define MAX_CPUS 1024

/* Bytes that bpf_skb_adjust_room takes off at a time (the kernel's limit), and how often at most for one segment: 2 MiB,
 * four times what a segment may hold (GRO_MAX_SIZE). Beyond: the connection is stopped rather than corrupted. */
#define MAX_CUT_PIECE 4095
#define MAX_CUT_PIECES 512

/* Messages that one CPU redirects to another without any answer from there, until TCP carries. The reader over there
 * is waking up: a redirect costs so little that the writer would be done and asleep before the reader runs, and both
 * would pay for a wake-up per batch; TCP's own work fills that time. How many is learned for each CPU, between these
 * bounds; a streak that repeats so often without TCP's help shows a writer and a reader that take turns. */
#define STREAK_FLOOR 3
#define STREAK_CEILING 63
#define STREAK_REPEATS 3

/* Room for one header block, HEADERS or PUSH_PROMISE with its CONTINUATIONs. A power of two: positions are masked. */
#define HEADER_BLOCK_SIZE 32768

/* Bytes of a message that the engine looks at in one go; a frame header, and as a rule a header block, fit. */
#define WINDOW_SIZE 4096

/* A header block as it is on the wire: a window may be added wherever it ends. Beyond: the engine reads the connection
 * no further, `block_too_large`. */
#define MAX_BLOCK_SIZE (HEADER_BLOCK_SIZE - WINDOW_SIZE)

/* Of a partial header block that waits for the next write, kept in pieces. */
#define PIECE_SIZE 512
#define MAX_PIECES 262144

/* The longest segment that the kernel makes (GRO_MAX_SIZE), twice over; and the longest that bpf_skb_change_tail makes, a
 * bit less than BPF_SKB_MAX_LEN. */
#define MAX_SEGMENT (1 << 20)
#define MAX_TAIL_CHANGE 16000

/* A decoded header name or value of which the content matters: methods (paths) above all. Beyond: the length counts, the
 * content does not: the call goes into the overflow method. A power of two. */
#define TEXT_SIZE 1024

/* SETTINGS_HEADER_TABLE_SIZE that the mirror holds, RFC 7541's default; a larger announcement is rewritten to it. */
#define HPACK_TABLE_SIZE 4096

/* An entry is 32 bytes at least (RFC 7541 4.1). */
#define HPACK_ENTRIES (HPACK_TABLE_SIZE / 32)

/* Calls of one connection that are kept with it; more take slots that the node's connections share, SHARED_RUN of them
 * in turn so that they stay in its cache, and where that is taken too, a table of their own, up to MAX_CALLS. Beyond:
 * the call is forwarded uncounted, under errors `map_update`. */
#define CALL_SLOTS 16
#define SHARED_SLOTS 32768
#define SHARED_RUN 256
#define MAX_CALLS 1048576

/* Learned methods on the node; how many a destination may have is configured. Beyond: method 0, the overflow. */
#define MAX_METHODS 65536

/*
 * Rows of telemetry. Memory for each CPU cannot always be had at once: then a row stands among the spare ones, which all
 * CPUs share and whose memory is there. Beyond both: calls are counted in the overflow's row.
 */
#define MAX_SERIES 65536
#define SPARE_SERIES 4096
#define MAX_TCP_SERIES 16384

/* Services that the tables can name. Beyond: the configuration is refused. */
#define MAX_SERVICES 16384

/* Plain addresses of Services, by address and port. Beyond: the configuration is refused. */
#define MAX_ENDPOINTS 65536

/* Virtual addresses of Services, by address and port, and the endpoints behind all of them. Beyond: the configuration is
 * refused; there is room for every list in two versions. */
#define MAX_VIRTUALS 65536
#define MAX_BACKENDS 524288

/* Endpoints that have not answered. Beyond: the one that was not asked for longest is tried again. */
#define MAX_DEAD_ENDPOINTS 4096

/* For how long they are left out. */
#define DEAD_NS 5000000000ULL

/* Buckets of the histograms, the last without a bound; their bounds are in the table `buckets`. */
#define DURATION_BUCKETS 36
#define SIZE_BUCKETS 20

/* Room for the bounds, a power of two each; what is left is beyond every value. */
#define DURATION_BOUNDS 64
#define SIZE_BOUNDS 32
#define NO_BOUND 0x7fffffffffffffffULL

/* Of values below these, the bucket is looked up: of durations in cells of 4 us, which have one bound at most. */
#define DURATION_CELLS 1024
#define DURATION_CELL_BITS 12
#define SIZE_CELLS 256

/* Flow records that are kept for each CPU, few enough to stay in its cache; a reader that is slower than that loses the
 * oldest and is told how many. */
#define FLOWS_PER_CPU 2048

/* Generations of policies that the kernel can tell apart. Before a slot is used again, so many changes have come, or the
 * agent has waited: a hook that began to judge by it is done. A power of two. */
#define POLICY_SLOTS 32

/* Names of headers that the policies of one destination may ask for. Beyond: the configuration is refused. */
#define MAX_HEADERS 16

/* Address blocks in policies, of two generations. Beyond: the configuration is refused. */
#define MAX_BLOCKS 262144

/* Policies with a name, removed ones included until there is need for room. Beyond: the configuration is refused. Their
 * numbers are not above it: calls carry them in few bits. */
#define MAX_POLICIES 65536

/* Of waiting requests to reset a connection, in bytes. Beyond: the agent finds the connection with its next look. */
#define RESETS_SIZE 65536
