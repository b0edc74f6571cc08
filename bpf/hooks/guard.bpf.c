/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Attached to cgroups while there are policies: packets that reach their sockets. */
#include "mesh/guard.h"

SEC("cgroup_skb/ingress")
int zerohop_guard(struct __sk_buff *skb)
{
	return admit_packet(skb);
}
