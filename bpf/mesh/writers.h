/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Threads that write to one socket at once. While a redirect waits for the receiver's lock nobody holds the sender's
 * (tcp_bpf_send_verdict), so another thread's message may be read and queued meanwhile: in another order than the hook
 * read them, and what was payload to the hook would be a request to the server.
 *
 * A message's `sk_msg` lies on its writer's kernel stack (tcp_bpf_sendmsg), and bpf_tcp_ingress counts off what it takes
 * under the receiver's lock, just before it queues it. So a message that still looks as its hook left it is on its way, and
 * whatever is redirected after it has changed comes later. When the writer is done, it says 0 bytes until the stack is used
 * for something else; of a stack that is gone, zeroes are read.
 */
#pragma once

#include "shared/kernel.h"
#include "shared/types.h"

/* How often a hook looks whether it still is: 0.1 to 0.2 ms. Another CPU needs 1 or 2 us, unless it is taken away. */
#define PATIENCE 4096

#define elements_of(message) ((message)->sg.start | (message)->sg.end << 16)

/* The message is about to go past TCP. */
static __always_inline void note_redirect(struct end *me, const struct sk_msg *kern)
{
	me->message = (__u64)kern;
	me->message_page = kern->sg.data[0].page_link;
	me->message_size = kern->sg.size;
	me->message_elements = elements_of(kern);
}

/* Whether an end's last redirect is still on its way, after waiting for it. */
static __noinline int last_on_its_way(const struct end *me)
{
	const volatile struct sk_msg *last;
	__u32 i;

	if (!me)
		return 0;
	last = kernel_cast(struct sk_msg, me->message);
	loop_below (i, PATIENCE) {
		if (last->sg.size != me->message_size || elements_of(last) != me->message_elements ||
		    last->sg.data[0].page_link != me->message_page)
			return 0;
	}
	return 1;
}

/* Whether this message may be queued before one that was read before it. */
static __always_inline int may_overtake(const struct end *me, const struct sk_msg *kern)
{
#ifdef ZH_BREAK_WRITERS
	return 0;
#endif
	/* The same address: the same thread, which is done with its last. */
	return unlikely(me->message != (__u64)kern) && me->message && last_on_its_way(me);
}
