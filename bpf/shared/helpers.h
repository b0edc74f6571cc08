/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the kernel's BPF ABI gives a program: helper numbers, section and map macros, context layouts and the few
 * constants in use (include/uapi/linux/bpf.h). Declared here so that a build needs no kernel or libbpf headers.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define fallthrough __attribute__((fallthrough))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#define __array(name, value) typeof(value) *name[]
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

/* enum bpf_map_type; the loader sees numbers, so these are the ABI's. */
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_HASH 5
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_ARRAY_OF_MAPS 12
#define BPF_MAP_TYPE_SOCKHASH 18
#define BPF_MAP_TYPE_SK_STORAGE 24
#define BPF_MAP_TYPE_RINGBUF 27

#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE (1 << 10)
#define BPF_F_INGRESS 1
#define BPF_F_CURRENT_NETNS (-1L)
#define BPF_SK_STORAGE_GET_F_CREATE 1
#define SK_DROP 0
#define SK_PASS 1

#define BPF_SOCK_OPS_RWND_INIT 2
#define BPF_SOCK_OPS_TCP_CONNECT_CB 3
#define BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB 4
#define BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB 5
#define BPF_SOCK_OPS_STATE_CB 10
#define BPF_SOCK_OPS_HDR_OPT_LEN_CB 14
#define BPF_SOCK_OPS_STATE_CB_FLAG (1 << 2)
#define BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG (1 << 6)

struct bpf_sock;

struct bpf_sock_ops {
	__u32 op;
	__u32 args[4];
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port; /* network byte order, in the upper half on little-endian machines */
	__u32 local_port;  /* host byte order */
	__u32 is_fullsock;
	__u32 snd_cwnd;
	__u32 srtt_us;
	__u32 bpf_sock_ops_cb_flags;
	__u32 state;
	__u32 rtt_min;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 mss_cache;
	__u32 ecn_flags;
	__u32 rate_delivered;
	__u32 rate_interval_us;
	__u32 packets_out;
	__u32 retrans_out;
	__u32 total_retrans;
	__u32 segs_in;
	__u32 data_segs_in;
	__u32 segs_out;
	__u32 data_segs_out;
	__u32 lost_out;
	__u32 sacked_out;
	__u32 sk_txhash;
	__u64 bytes_received;
	__u64 bytes_acked;
	struct bpf_sock *sk;
};
_Static_assert(__builtin_offsetof(struct bpf_sock_ops, sk) == 184, "struct bpf_sock_ops is kernel ABI");

struct sk_msg_md {
	void *data;
	void *data_end;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 size;
	struct bpf_sock *sk;
};
_Static_assert(__builtin_offsetof(struct sk_msg_md, sk) == 72, "struct sk_msg_md is kernel ABI");

struct bpf_sockopt {
	struct bpf_sock *sk;
	void *optval;
	void *optval_end;
	__s32 level;
	__s32 optname;
	__s32 optlen;
	__s32 retval;
};
_Static_assert(__builtin_offsetof(struct bpf_sockopt, retval) == 36, "struct bpf_sockopt is kernel ABI");

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port; /* network byte order */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	__u32 reserved;
	struct bpf_sock *sk;
};
_Static_assert(__builtin_offsetof(struct bpf_sock_addr, sk) == 64, "struct bpf_sock_addr is kernel ABI");

struct __sk_buff {
	__u32 len;
	__u32 beyond[41];
	struct bpf_sock *sk;
};
_Static_assert(__builtin_offsetof(struct __sk_buff, sk) == 168, "struct __sk_buff is kernel ABI");

struct bpf_sock_tuple {
	union {
		struct {
			__u32 saddr;
			__u32 daddr;
			__u16 sport;
			__u16 dport;
		} ipv4;
		struct {
			__u32 saddr[4];
			__u32 daddr[4];
			__u16 sport;
			__u16 dport;
		} ipv6;
	};
};
_Static_assert(sizeof(struct bpf_sock_tuple) == 36, "struct bpf_sock_tuple is kernel ABI");

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 size,
					 __u64 flags) = (void *)9;
static long (*const bpf_skb_change_tail)(struct __sk_buff *skb, __u32 length, __u64 flags) = (void *)38;
static long (*const bpf_skb_pull_data)(struct __sk_buff *skb, __u32 length) = (void *)39;
static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 size) = (void *)26;
static __u64 (*const bpf_get_socket_cookie)(void *context) = (void *)46;
static long (*const bpf_setsockopt)(void *context, int level, int name, void *value, int length) = (void *)49;
static long (*const bpf_sock_ops_cb_flags_set)(struct bpf_sock_ops *context, int flags) = (void *)59;
static long (*const bpf_sock_hash_update)(struct bpf_sock_ops *context, void *map, void *key, __u64 flags) = (void *)70;
static long (*const bpf_msg_redirect_hash)(struct sk_msg_md *message, void *map, void *key, __u64 flags) = (void *)71;
static long (*const bpf_msg_apply_bytes)(struct sk_msg_md *message, __u32 bytes) = (void *)61;
static long (*const bpf_msg_pull_data)(struct sk_msg_md *message, __u32 start, __u32 end, __u64 flags) = (void *)63;
static long (*const bpf_msg_push_data)(struct sk_msg_md *message, __u32 start, __u32 count, __u64 flags) = (void *)90;
static long (*const bpf_msg_pop_data)(struct sk_msg_md *message, __u32 start, __u32 count, __u64 flags) = (void *)91;
static long (*const bpf_skb_adjust_room)(struct __sk_buff *skb, int difference, __u32 mode, __u64 flags) = (void *)50;
static struct bpf_sock *(*const bpf_sk_lookup_tcp)(void *context, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns,
						    __u64 flags) = (void *)84;
static long (*const bpf_sk_release)(struct bpf_sock *sk) = (void *)86;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static long (*const bpf_probe_read_kernel)(void *destination, __u32 size, const void *address) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *destination, __u32 size, const void *address) = (void *)115;
static long (*const bpf_loop)(__u32 count, void *callback, void *context, __u64 flags) = (void *)181;
static long (*const bpf_for_each_map_elem)(void *map, void *callback, void *context, __u64 flags) = (void *)164;
static long (*const bpf_set_retval)(int value) = (void *)187;

extern void *bpf_cast_to_kern_ctx(void *context) __ksym;
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym;

/* The type's identifier in the running kernel's BTF, filled in by the loader (CO-RE, BPF_TYPE_ID_TARGET). */
#define kernel_cast(type, object) ((type *)bpf_rdonly_cast((const void *)(object), __builtin_btf_type_id(*(type *)0, 1)))

/* Keeps the compiler from seeing through a value, so that it cannot merge or reorder what the verifier must see. */
#define opaque(value) __asm__ volatile("" : "+r"(value))

/* Counts one in array[index] where the index is below the limit, in a form that verifiers since 6.12 follow: compared in
 * 64 bits. Hooks may interrupt each other on one CPU, too. */
#define count_at(array, index, limit)                                                                                 \
	({                                                                                                            \
		__u64 __index = (__u32)(index);                                                                       \
		opaque(__index);                                                                                      \
		if (__index < (limit))                                                                                \
			__sync_fetch_and_add(&(array)[__index], 1);                                                   \
	})

/* A load that the compiler can neither merge with another nor compute the address of: the verifier refuses both. */
#define context_u32(context, member)                                                                                  \
	({                                                                                                            \
		__u32 __value;                                                                                        \
		__asm__ volatile("%[value] = *(u32 *)(%[base] + %[offset])"                                           \
				 : [value] "=r"(__value)                                                              \
				 : [base] "r"(context), [offset] "i"(__builtin_offsetof(typeof(*(context)), member)));     \
		__value;                                                                                              \
	})

/* A store of the same kind. */
#define set_context_u32(context, member, word)                                                                        \
	__asm__ volatile("*(u32 *)(%[base] + %[offset]) = %[value]"                                                   \
			 :                                                                                            \
			 : [base] "r"(context), [offset] "i"(__builtin_offsetof(typeof(*(context)), member)),         \
			   [value] "r"((__u32)(word))                                                                 \
			 : "memory")
