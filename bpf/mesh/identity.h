/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Identity: the workload of the cgroup in which a socket was made. The kernel pins that cgroup to the socket at
 * socket(2) (cgroup_sk_alloc) and an accepted socket takes its listener's, so neither moving the process nor passing
 * the descriptor changes it. Names are walked from the root, so a cgroup that vanishes and comes back needs no agent.
 */
#pragma once

#include "mesh/telemetry.h"
#include "shared/kernel.h"

/* The workload of the deepest configured cgroup above (or at) the socket's; 0: none. */
static __noinline __u32 workload_of(struct sock *sk)
{
	struct cgroup_key key = {};
	struct settings *conf = current_settings();
	const struct cgroup *group;
	__u64 ancestors;
	__u32 workload = 0, i;
	int level, started = 0;

	if (!conf || !sk)
		return 0;
	sk = kernel_cast(struct sock, sk);
	group = sk->sk_cgrp_data.cgroup;
	if (!group)
		return 0;
	group = kernel_cast(struct cgroup, group);
	level = group->level;
	ancestors = (__u64)group + __builtin_preserve_field_info(group->ancestors, 0);

	loop_below (i, MAX_CGROUP_DEPTH + 1) {
		const struct cgroup *ancestor;
		const struct kernfs_node *node;
		struct cgroup_node *found;
		__u64 address = 0;
		char last = 0;
		long length;

		if ((int)i > level)
			break;
		if (bpf_probe_read_kernel(&address, sizeof(address), (const void *)(ancestors + i * sizeof(void *))))
			break;
		ancestor = kernel_cast(struct cgroup, address);
		node = ancestor->kn;
		if (!node)
			break;
		node = kernel_cast(struct kernfs_node, node);
		if (!started) {
			started = node->id == conf->root_cgroup;
			continue;
		}
		__builtin_memset(key.name, 0, sizeof(key.name));
		length = bpf_probe_read_kernel_str(key.name, sizeof(key.name), node->name);
		if (length <= 0)
			break;
		/* A name that was cut must not pass for the one it begins with. */
		if (length == sizeof(key.name) &&
		    (bpf_probe_read_kernel(&last, 1, node->name + sizeof(key.name) - 1) || last))
			break;
		found = bpf_map_lookup_elem(&cgroups, &key);
		if (!found)
			break;
		if (found->workload)
			workload = found->workload;
		key.parent = found->node;
	}
	return workload;
}
