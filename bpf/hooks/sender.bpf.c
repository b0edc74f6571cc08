/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Attached to the sockhash: every message that a member sends. */
#include "mesh/shortcut.h"

SEC("sk_msg")
int zerohop_sender(struct sk_msg_md *msg)
{
	return send_message(msg);
}
