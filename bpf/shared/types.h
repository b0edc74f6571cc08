/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the kernel and user space share. User space takes the layouts from the object's BTF, so nothing is typed twice. */
#pragma once

#include "shared/bounds.h"
#include "shared/helpers.h"
#include "shared/reasons.h"

enum protocol {
	PROTOCOL_UNDECLARED = 0,
	PROTOCOL_TCP = 1,
	PROTOCOL_HTTP = 2,
	PROTOCOL_HTTP2 = 3,
	PROTOCOL_GRPC = 4,
	PROTOCOL_TLS = 5,
};

enum shortcut_mode {
	SHORTCUT_DISABLED = 0,
	SHORTCUT_AUTO = 1,
	SHORTCUT_ALWAYS = 2,
};

/* What a connection turned out to speak. */
enum speaks {
	SPEAKS_UNKNOWN = 0, /* nothing has been sent yet */
	SPEAKS_HTTP2 = 1,
	SPEAKS_HTTP1 = 2,
	SPEAKS_TLS = 3,
	SPEAKS_OTHER = 4,
	SPEAKS_MAX
};

/* Which hook runs the engine for a direction: exactly one does, on a connection that is read. */
enum observer {
	OBSERVER_NONE = 0,
	OBSERVER_SENDER = 1,
	OBSERVER_RECEIVER = 2,
};

enum role {
	ROLE_CLIENT = 0,
	ROLE_SERVER = 1,
};

/* One socket's place in a connection: its next byte to send and to receive at establishment. The peer's is the same
 * with the two swapped, whatever the address family, network namespace or address translation between them. */
struct end_key {
	__u32 snd_nxt;
	__u32 rcv_nxt;
};

enum end_flag {
	END_OPEN = 1,	   /* established and not yet closed */
	END_ENROLLED = 2,  /* put into the sockhash */
	END_LEFT = 4,	   /* taken out of it again */
};

/* One end of a connection. Only its own socket's hooks write it, but for `blocking_since` (the peer's sender hook). */
struct end {
	__u64 sock;	       /* address of its struct sock while open, else 0; read-only, checked by cookie */
	__u64 cookie;	       /* SO_COOKIE */
	struct end_key key;
	__u32 workload;	       /* 0: not managed */
	enum end_flag flags;
	__u64 shortcut_bytes;  /* sent past TCP */
	__u64 sent_bytes;      /* sent while enrolled, either way; once closed: in all */
	__u64 run_bytes;       /* sent since the peer last sent */
	__u64 run_peer_bytes;  /* the peer's `sent_bytes` when the run began */
	__u64 switches;	       /* changes between short-cut and TCP */
	__u64 blocking_since;  /* when its socket first looked blocking to the peer, ns; 0: it does not */
	__u32 carrier;	       /* 1: the last write went past TCP */
	__u32 stopped;	       /* it has sent since the stop: no redirect of its is under way any more */
	__u32 cpu;	       /* on which it last sent, plus one; 0: it has not */
	__u32 announced;       /* it has redirected, or is about to: one may be under way */
	__u64 message;	       /* address of the message that it last sent past TCP; 0: none (mesh/writers.h) */
	__u64 message_page;    /* its first one */
	__u32 message_size;    /* as its hook left it */
	__u32 message_elements;
	__u64 unread_head;     /* inspection: first message in its queue, as an address; 0: empty */
	__u64 unread_since;    /* inspection: since when that message is the first, ns */
};

struct connection {
	struct end ends[2];    /* by enum role */
	__u64 leave_ns;	       /* when it stopped short-cutting, 0: it has not */
	__u32 generation;      /* of the configuration by which it was decided; its low half */
	__u16 broken;	       /* no byte may pass any more: `reason` says why */
	__u8 observers[2];     /* enum observer, by the role of the sender */
	__u64 seen_ns;	       /* the last inspection that found one of its sockets */
	__u32 open_ends;
	enum reason reason;    /* REASON_NONE: short-cut */
	__u16 server_port;     /* where the server listens */
	__u16 dialled_port;    /* what the client asked for */
	__u16 client_port;
	__u8 family;
	__u8 protocol;	       /* enum protocol */
	__u32 service;	       /* 0: none that is known */
	__u32 policies;	       /* by which generation of them it was judged; 0: not yet, or there are none */
	__u32 verdict;	       /* an end of their diagrams; 0: its calls are judged one by one */
	__u32 policy;	       /* that decided, 0: none did */
	__u32 rule;	       /* of it, plus one; 0: none */
	__u32 reserved;
};

/* From a socket to its connection (socket storage). */
struct membership {
	__u64 connection; /* cookie of the client's socket, or of the only managed one; 0: there is no room for it */
	__u32 role;
	__u32 shut;	  /* 1: denied, and in no hook: nothing that comes is let in (mesh/guard.h) */
};

/* Whether the engine reads what comes. */
enum reads {
	READS_NONE = 0,	  /* a sender hook has */
	READS_ALL = 1,	  /* no sender hook does */
	READS_HANDED = 2, /* one does, but for the time being not (mesh/handing.h) */
	READS_SHOWN = 3,  /* one does, for calls are judged: what it was not shown does not pass */
};

/* What came to a member by TCP. */
struct reception {
	__u64 connection;
	__u32 next_seq; /* sequence number of the byte after the last that the receiver hook has passed on */
	__u16 broken;	/* enum reason: nothing more is passed on */
	__u8 role;	/* of this end */
	__u8 reserved;
	__u32 reads;	/* enum reads */
	__u32 read_from; /* READS_HANDED: the first byte that no sender hook has read, */
	__u32 read_to;	/* and the one after the last that was read here */
	__u32 padding;
};

/* A SYN that reached a managed listener; keyed by the client's end. */
struct handshake {
	__u64 connection; /* set when the client's end is managed and established */
	__u32 workload;
	__u16 port;
	__u16 blocking;	  /* the listener's descriptor lacks O_NONBLOCK */
};

struct cgroup_key {
	__u32 parent; /* node, 0: the root */
	char name[CGROUP_NAME_SIZE];
};

struct cgroup_node {
	__u32 node;
	__u32 workload; /* 0: none ends here */
};

struct workload {
	char namespace_name[NAMESPACE_SIZE];
	char name[NAME_SIZE];
	char service_account[NAME_SIZE];
	enum shortcut_mode shortcut;
	__u32 removed;	/* no longer configured; kept for its open connections */
};

struct port_key {
	__u32 workload;
	__u32 port;
};

struct port {
	enum protocol protocol;
	__u32 excluded;
	__u32 service; /* the first that declares it; 0: none */
};

/* Append-only: `clean` and a newer build read and write what an older one pinned. */
struct settings {
	__u64 root_cgroup; /* id of the cgroup at which the tree of names begins */
	__u64 generation;  /* of the configuration */
	__u64 draining;	   /* since when nothing is enrolled and members leave, ns; 0: not */
	__u8 build[32];	   /* SHA-256 of the object */
	__u32 shortcut;	   /* 0: no short-cut on this kernel (its experiments failed) */
	__u32 engine;	   /* 0: layer 7 is not read */
	__u64 method_seed; /* secret: nobody can make two methods collide */
	__u32 max_methods; /* of one destination; further ones are the overflow method */
	__u32 flow_sampling; /* one of so many calls and connections gets a flow record; 0: none */
	__u32 ordered_stores; /* 1: other CPUs see stores in their order (x86), without barriers */
	__u32 policies;	   /* generation of the policies, its slot in the low bits; 0: there are none */
};

/* Closed connections and decisions, per CPU; open connections are added by an inspection. */
struct counters {
	__u64 connections_opened;
	__u64 shortcut_connections_opened;
	__u64 shortcut_bytes;
	__u64 tcp_bytes;
	__u64 carrier_switches;
	__u64 not_shortcut[REASON_MAX];
	__u64 errors[HELPER_MAX];
	__u64 recognised[SPEAKS_MAX];	/* connections on layer-7 ports, by what their client speaks */
	__u64 unread[REASON_MAX];	/* connections on layer-7 ports that the engine does not read (any further) */
	__u64 resets;			/* RST_STREAM frames */
	__u64 goaways;
	__u64 overflows;		/* calls that went into the overflow method or row */
	__u64 refused_connections;	/* by policy, at connect */
	__u64 denied_connections;	/* by policy, once established */
	__u64 denied_calls;		/* by policy */
	__u64 audited_connections;	/* what AUDIT policies match */
	__u64 audited_calls;
	__u64 dry_run_denied_connections; /* what would be denied if dry-run policies were in force */
	__u64 dry_run_denied_calls;
	__u64 openings_dropped;		/* packets that policed listeners were not given (mesh/guard.h) */
};

struct workload_connections {
	__u32 connections;
	__u32 shortcut_connections;
};

struct unread {
	__u64 connection;
	__u64 since; /* ns, CLOCK_MONOTONIC */
	__u32 workload;
	__u32 port; /* the server's */
};

/* What one CPU sent, and its streak of messages to another one that has sent nothing meanwhile. */
struct activity {
	__u64 messages;
	__u64 peer_messages;
	__u32 peer_cpu;
	__u32 streak;
	__u32 limit;	   /* of a streak, beyond STREAK_FLOOR */
	__u32 last;	   /* length of the last streak */
	__u32 repeats;	   /* how often it was just as long */
	__u32 padding;
	__u64 reserved[3]; /* a cache line each */
};

/* One walk over the open connections. */
struct inspection {
	__u64 now; /* ns, CLOCK_MONOTONIC */
	__u64 shortcut_bytes;
	__u64 tcp_bytes;
	__u64 carrier_switches;
	__u32 connections;
	__u32 members; /* sockets still in the sockhash */
	__u32 unread_count;
	__u32 reserved;
	struct unread unread[MAX_UNREAD];
};
