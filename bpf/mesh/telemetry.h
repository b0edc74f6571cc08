/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Counting: decisions, closed connections, and every helper that failed, by name. */
#pragma once

#include "shared/maps.h"

static __always_inline struct counters *this_cpu_counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct settings *current_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __noinline int count_error(enum helper helper)
{
	struct counters *count = this_cpu_counters();

	if (count)
		count_at(count->errors, helper, HELPER_MAX);
	return 0;
}

static __always_inline void count_not_shortcut(__u32 reason)
{
	struct counters *count = this_cpu_counters();

	if (count)
		count_at(count->not_shortcut, reason, REASON_MAX);
}
