/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Virtual addresses: a TCP socket of a workload that connects to a Service's address and port is connected to one of its
 * endpoints instead, and getpeername goes on to say what was asked for. An endpoint that has not answered is left out
 * for a while, as long as there are others.
 */
#pragma once

#include "mesh/identity.h"

/* Endpoints that are looked at: so many are drawn, that those left share by weight what others leave; then one after the
 * other. */
#define MAX_DRAWN 16
#define MAX_PASSED_OVER 64

/* How often a list is read again that is replaced in the meantime. */
#define RESOLVE_TRIES 4

/* What a socket was connected to by a virtual address. A newer build reads what an older one has kept. */
struct dialled {
	struct endpoint_key address;
	struct endpoint_key endpoint;
	__u32 service; /* 0: it has connected elsewhere since */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct dialled);
} dials SEC(".maps");

static __always_inline int is_dead(const struct endpoint_key *endpoint)
{
	__u64 *until = bpf_map_lookup_elem(&dead_endpoints, endpoint);

	return until && bpf_ktime_get_ns() < *until;
}

/* The index at which a number below the sum of all weights falls; -1: the list is being replaced. */
static __noinline int draw(const struct virtual_service *service)
{
	struct backend_key key = { .list = service->list };
	__u32 number = bpf_get_prandom_u32() % service->weight, low = 0, high = service->count - 1, i;
	struct backend *backend;

	loop_below (i, 32) {
		if (low >= high)
			break;
		key.index = low + (high - low) / 2;
		backend = bpf_map_lookup_elem(&backends, &key);
		if (!backend)
			return -1;
		if (number < backend->weight_end)
			high = key.index;
		else
			low = key.index + 1;
	}
	return low;
}

/* An endpoint of the service that answers; where none does, one of them all the same. 0, or -1: the list is being
 * replaced. */
__noinline int choose_endpoint(const struct virtual_service *service, struct endpoint_key *chosen)
{
	struct backend_key key = {};
	struct backend *backend;
	__u32 i;
	int drawn;

	if (!service || !chosen)
		return -1;
	key.list = service->list;
	loop_below (i, MAX_PASSED_OVER) {
		if (i < MAX_DRAWN) {
			drawn = draw(service);
			if (drawn < 0)
				return -1;
			key.index = drawn;
		} else {
			key.index = key.index + 1 < service->count ? key.index + 1 : 0;
		}
		backend = bpf_map_lookup_elem(&backends, &key);
		if (!backend)
			return -1;
		*chosen = backend->endpoint;
		/* The kernel uses an element again as soon as it is deleted. */
		if (READ_ONCE(backend->list) != service->list)
			return -1;
		if (!is_dead(chosen))
			break;
	}
	return 0;
}

static __always_inline int is_managed(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_addr_kern *kern = bpf_cast_to_kern_ctx(ctx);

	return workload_of(kern->sk) != 0;
}

/* Replaces a virtual address. 1: done; 0: it is none; -1: its endpoints were not to be had. */
static __always_inline int resolve(struct bpf_sock_addr *ctx, struct endpoint_key *address)
{
	struct virtual_service *found, service;
	struct dialled asked = {}, *kept;
	struct endpoint_key chosen;

	for (int tries = 0; tries < RESOLVE_TRIES; tries++) {
		found = bpf_map_lookup_elem(&virtuals, address);
		/* Hooks are attached above workloads: others pass here, too. */
		if (!found || (!tries && !is_managed(ctx)))
			return 0;
		service = *found;
		if (choose_endpoint(&service, &chosen))
			continue;
		asked.address = *address;
		asked.endpoint = chosen;
		asked.service = service.service;
		kept = bpf_sk_storage_get(&dials, ctx->sk, &asked, BPF_SK_STORAGE_GET_F_CREATE);
		if (!kept) {
			count_error(HELPER_SK_STORAGE_GET);
			return -1;
		}
		*kept = asked; /* of an earlier attempt with this socket */
		*address = chosen;
		return 1;
	}
	return -1;
}

/* What the socket was connected to, if by a virtual address. */
static __always_inline struct dialled *dialled_by(struct bpf_sock *sk)
{
	struct dialled *asked = bpf_sk_storage_get(&dials, sk, NULL, 0);

	return asked && asked->service ? asked : NULL;
}

/* A socket that connects anew, elsewhere. */
static __always_inline void forget_dial(struct bpf_sock *sk)
{
	struct dialled *asked = bpf_sk_storage_get(&dials, sk, NULL, 0);

	if (asked)
		asked->service = 0;
}

/* What a socket that connects now is to connect to. Returns as `resolve`. */
static __always_inline int translate(struct bpf_sock_addr *ctx, struct endpoint_key *address)
{
	int result = resolve(ctx, address);

	if (!result)
		forget_dial(ctx->sk);
	return result;
}

static __always_inline void set_user_ip4(struct bpf_sock_addr *ctx, const struct endpoint_key *to)
{
	ctx->user_ip4 = ((const __u32 *)to->address)[3];
	ctx->user_port = __builtin_bswap16((__u16)to->port);
}

static __always_inline void set_user_ip6(struct bpf_sock_addr *ctx, const struct endpoint_key *to)
{
	const __u32 *words = (const __u32 *)to->address;

	set_context_u32(ctx, user_ip6[0], words[0]);
	set_context_u32(ctx, user_ip6[1], words[1]);
	set_context_u32(ctx, user_ip6[2], words[2]);
	set_context_u32(ctx, user_ip6[3], words[3]);
	ctx->user_port = __builtin_bswap16((__u16)to->port);
}

static __always_inline int peername_ip4(struct bpf_sock_addr *ctx)
{
	struct dialled *asked = ctx->sk ? dialled_by(ctx->sk) : NULL;

	if (asked)
		set_user_ip4(ctx, &asked->address);
	return 1;
}

static __always_inline int peername_ip6(struct bpf_sock_addr *ctx)
{
	struct dialled *asked = ctx->sk ? dialled_by(ctx->sk) : NULL;

	if (asked)
		set_user_ip6(ctx, &asked->address);
	return 1;
}
