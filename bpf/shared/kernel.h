/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The kernel's own structures, cut down to the fields in use. `preserve_access_index` lets the loader move every
 * access to where the running kernel keeps the field, so order and padding here mean nothing.
 */
#pragma once

#include "shared/helpers.h"

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_FIN_WAIT1 4
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2
#define SOCK_DONE 1 /* bit of skc_flags: the peer has sent its FIN */
#define O_NONBLOCK 04000
#define AF_INET 2
#define IPPROTO_TCP 6

/* The words of an address of 16 bytes: IPv4 is v4-mapped (RFC 4291 2.5.5.2). */
static __always_inline void map_ip4(__u32 *words, __u32 address)
{
	words[0] = 0;
	words[1] = 0;
	words[2] = __builtin_bswap32(0xffff);
	words[3] = address;
}

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};

struct wait_queue_head {
	struct list_head head;
};

struct socket_wq {
	struct wait_queue_head wait;
};

struct sk_buff_head {
	struct sk_buff *prev;
	__u32 qlen;
};

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	atomic_t refs;
} refcount_t;

/* A counter of pages, and what may be charged to it: a cgroup's. */
struct page_counter {
	atomic64_t usage;
	unsigned long max;
	struct page_counter *parent;
};

struct mem_cgroup {
	struct page_counter memory;
	struct page_counter tcpmem; /* of cgroup v1 */
};

struct proto {
	void *memory_allocated; /* pages that all sockets have */
	void *sysctl_mem;	/* net.ipv4.tcp_mem */
};

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[];
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct file {
	unsigned int f_flags;
};

struct socket {
	struct file *file;
};

struct ns_common {
	unsigned int inum;
};

struct netns_ipv4 {
	unsigned int sysctl_tcp_notsent_lowat;
};

struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	possible_net_t skc_net;
	struct proto *skc_prot;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	__u16 skc_num;
	__u16 skc_dport;
	atomic64_t skc_cookie;
	struct sock *skc_listener; /* of a request */
	unsigned long skc_flags;   /* of a socket, in its place */
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	struct sk_buff_head sk_write_queue;
	struct {
		atomic_t rmem_alloc;
		int len;
	} sk_backlog;
	int sk_rcvbuf;
	int sk_sndbuf;
	int sk_wmem_queued;
	int sk_forward_alloc;
	void *sk_user_data;
	struct socket_wq *sk_wq;
	struct socket *sk_socket;
	__u8 sk_shutdown;
	int sk_err;
	struct sock_cgroup_data sk_cgrp_data;
	struct mem_cgroup *sk_memcg;
};

struct request_sock_queue {
	__u8 rskq_defer_accept;
};

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
	const void *icsk_ulp_ops;
};

struct tcp_sock {
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u64 bytes_received;
	__u32 mss_cache;
	__u32 notsent_lowat;
	__u16 gso_segs;
	__u8 repair : 1;
	__u8 syn_data : 1;
};

struct request_sock {
	struct sock_common __req_common;
};

struct tcp_request_sock {
	__u32 rcv_isn;
	__u32 snt_isn;
};

#define PSOCK_EVAL_PASS 1 /* include/linux/skmsg.h: __SK_PASS */

struct sk_psock {
	__u32 eval;
	struct sk_buff_head ingress_skb;
	struct list_head ingress_msg;
	refcount_t refcnt;
};

struct bpf_sock_ops_kern {
	struct sock *sk;
};

struct bpf_sock_addr_kern {
	struct sock *sk;
};

struct scatterlist {
	unsigned long page_link;
};

struct sk_msg_sg {
	__u32 start;
	__u32 end;
	__u32 size;
	struct scatterlist data[1];
};

struct sk_msg {
	struct sk_msg_sg sg;
	void *data;
	__u32 apply_bytes;
	struct sock *sk;
};

struct sk_buff {
	struct sock *sk;
	char cb[48];
	unsigned int len;
	unsigned int data_len; /* of it, not in the linear part */
	unsigned int end; /* offset of the skb_shared_info */
	unsigned char *head;
};

struct skb_shared_info {
	__u8 flags;
	__u8 nr_frags;
};

#define SKBFL_SHARED_FRAG 2 /* include/linux/skbuff.h */

struct tcp_skb_cb {
	__u32 seq;
};

#pragma clang attribute pop
#pragma clang diagnostic pop

/* Whether the running kernel has the field (BPF_FIELD_EXISTS). */
#define kernel_has(field) __builtin_preserve_field_info(field, 2)

/*
 * A bit-field has no address, so the loader tells where its bytes and its bit are (CO-RE field relocations):
 * the eight bytes around it are read and shifted.
 */
#define kernel_bit(object, field)                                                                                     \
	({                                                                                                            \
		__u64 __word = 0;                                                                                     \
		const void *__at = (const void *)(object) + __builtin_preserve_field_info((object)->field, 0);        \
		switch (__builtin_preserve_field_info((object)->field, 1)) {                                          \
		case 1: __word = *(const __u8 *)__at; break;                                                          \
		case 2: __word = *(const __u16 *)__at; break;                                                         \
		case 4: __word = *(const __u32 *)__at; break;                                                         \
		case 8: __word = *(const __u64 *)__at; break;                                                         \
		}                                                                                                     \
		__word <<= __builtin_preserve_field_info((object)->field, 4);                                         \
		__word >>= __builtin_preserve_field_info((object)->field, 5);                                         \
		__word;                                                                                               \
	})
