/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Attached to the sockhash: what reaches a member by TCP. Passing it puts it into the very queue that redirected
 * bytes take, which is what keeps the order when the two mix, and what makes FIONREAD right.
 */
#include "shared/helpers.h"

SEC("sk_skb")
int zerohop_receiver(struct __sk_buff *skb)
{
#ifdef ZH_BREAK_VERIFIER
	for (;;)
		;
#endif
	return SK_PASS;
}
