/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Attached to cgroups: handshakes, establishment, what members send, close. */
#include "mesh/shortcut.h"

SEC("sockops")
int zerohop_sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_RWND_INIT:
		if (!ctx->is_fullsock)
			on_syn(ctx);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		on_connect(ctx);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		on_active_established(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		on_passive_established(ctx);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		on_transmit(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == TCP_CLOSE && ctx->args[0] == TCP_SYN_SENT)
			on_connect_failed(ctx);
		else if (ctx->args[1] == TCP_CLOSE)
			on_close(ctx);
		else if (ctx->args[1] == TCP_FIN_WAIT1 || ctx->args[1] == TCP_LAST_ACK)
			on_shutdown(ctx);
		break;
	}
	return 1;
}
