/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A receiver hook for one test: what reaches a client by TCP is redirected to the client itself, which parks it for
 * the kernel's work item. Passing it parks only when memory runs out, and that cannot be arranged.
 */
#include "shared/maps.h"

static long (*const bpf_sk_redirect_hash)(struct __sk_buff *skb, void *map, void *key, __u64 flags) = (void *)72;

SEC("sk_skb")
int zerohop_receiver(struct __sk_buff *skb)
{
	__u64 id = bpf_get_socket_cookie(skb);
	struct connection *conn = bpf_map_lookup_elem(&connections, &id);
	struct end_key key;

	if (!conn)
		return SK_PASS;
	key = conn->ends[ROLE_CLIENT].key;
	return bpf_sk_redirect_hash(skb, &sockets, &key, BPF_F_INGRESS);
}
