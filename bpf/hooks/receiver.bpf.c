/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Attached to the sockhash: what reaches a member by TCP. */
#include "mesh/reception.h"

SEC("sk_skb")
int zerohop_receiver(struct __sk_buff *skb)
{
#ifdef ZH_BREAK_VERIFIER
	for (;;)
		;
#endif
	return receive_segment(skb);
}
