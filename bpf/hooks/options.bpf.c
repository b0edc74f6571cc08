/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Attached to cgroups: socket options that a member must not set. */
#include "mesh/options.h"

SEC("cgroup/setsockopt")
int zerohop_options(struct bpf_sockopt *ctx)
{
	/* The kernel would otherwise take the option from its copy for us, which ends after a page. */
	ctx->optlen = 0;
	return allow_option(ctx);
}
