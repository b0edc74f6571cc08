/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Policies: a walk down the destination's decision diagram, a look-up a step, however many rules there are. What a
 * connection has is tested first, so that a connection is judged once and each of its calls from there.
 */
#pragma once

#include "engine/portable.h"
#include "mesh/telemetry.h"
#include "shared/kernel.h"

/* Tests of a connection: each attribute once, then an end. */
#define CONNECTION_STEPS (ATTRIBUTE_METHOD - ATTRIBUTE_PORT + 1)

/* A generation that is replaced while somebody judges by it is not whole: then by the one that replaced it. */
#define JUDGE_TRIES 4

/* What policies know of a connection. */
struct dial {
	__u32 client; /* workload, 0: none */
	__u32 server;
	__u32 port;
	__u32 has_source;
	__u8 source[16];
	__u8 destination[16];
};

struct judgement {
	__u32 generation; /* 0: there are no policies */
	__u32 verdict;	  /* an end; 0: its calls are judged, from here: */
	__u32 deny;
	__u32 allow;
	__u32 policy;	  /* that decided; 0: none did */
	__u32 rule;	  /* of it, plus one; 0: none */
};

static __always_inline int is_denied(__u32 verdict)
{
	return (verdict & POLICY_DENY) != 0;
}

/* Of where the two diagrams have come to: an end, or 0 while it is open. */
static __always_inline __u32 verdict_of(__u32 deny, __u32 allow)
{
	if ((deny & POLICY_END) && (deny & POLICY_DENY))
		return deny;
	if ((allow & POLICY_END) && ((allow & POLICY_DENY) || (deny & POLICY_END)))
		return allow;
	return 0;
}

static __always_inline struct policy *policy_of(__u32 generation, __u32 workload)
{
	struct policy_key key = { .slot = generation & (POLICY_SLOTS - 1), .workload = workload };

	return bpf_map_lookup_elem(&policies, &key);
}

static __always_inline struct policy_row *policy_row(__u32 generation, __u32 node, __u32 kind, __u64 symbol)
{
	struct policy_row_key key = { .node = node, .kind = kind, .symbol = symbol };
	__u32 slot = generation & (POLICY_SLOTS - 1);
	void *rows = bpf_map_lookup_elem(&policy_rows, &slot);

	return rows ? bpf_map_lookup_elem(rows, &key) : NULL;
}

static __noinline __u32 address_class(__u32 generation, const __u8 *address)
{
	struct block_key key = { .prefix = 8 * (sizeof(key) - sizeof(key.prefix)) };
	__u32 *class;

	key.slot = generation & (POLICY_SLOTS - 1);
	__builtin_memcpy(key.address, address, sizeof(key.address));
	class = bpf_map_lookup_elem(&policy_blocks, &key);
	return class ? *class : 0;
}

/* By what a node of the diagram goes on; -1: not known yet, or nothing that a connection has. */
static __always_inline __s64 dial_symbol(__u32 generation, __u32 attribute, const struct dial *dial)
{
	struct policy_row *row;

	switch (attribute) {
	case ATTRIBUTE_PORT:
		return dial->port;
	case ATTRIBUTE_IDENTITY:
		row = dial->client ? policy_row(generation, dial->client, POLICY_IDENTITY, 0) : NULL;
		return row ? row->next : 0;
	case ATTRIBUTE_SOURCE:
		if (!dial->has_source)
			return -1;
		return address_class(generation, dial->source);
	case ATTRIBUTE_DESTINATION:
		return address_class(generation, dial->destination);
	}
	return -1;
}

/* Down the diagram from `next`, as far as a connection can go. 0: the diagram is not whole. */
__noinline __u32 walk_dial(__u32 generation, __u32 next, const struct dial *dial)
{
	struct policy_row *row;
	__u32 node, fallback, i;
	__s64 symbol;

	if (!dial)
		return 0;
	loop_below (i, CONNECTION_STEPS) {
		if (next & POLICY_END)
			return next;
		node = next;
		row = policy_row(generation, node, POLICY_NODE, 0);
		if (!row)
			return 0;
		fallback = row->next;
		symbol = dial_symbol(generation, row->extra, dial);
		if (symbol < 0)
			return node;
		row = policy_row(generation, node, POLICY_EDGE, symbol);
		next = row ? row->next : fallback;
	}
	return next & POLICY_END ? next : 0;
}

/* Of a verdict, who decided where it was a rule. */
static __always_inline struct policy_row *decision_of(__u32 generation, __u32 verdict)
{
	if (!verdict)
		return NULL;
	return policy_row(generation, verdict & ~(POLICY_END | POLICY_DENY | POLICY_DOUBT), POLICY_DECISION, 0);
}

static __always_inline void name_decision(struct judgement *judged)
{
	struct policy_row *row = decision_of(judged->generation, judged->verdict);

	judged->policy = row ? row->next : 0;
	judged->rule = row ? row->extra : 0;
}

static __always_inline __u32 pack_decider(__u32 policy, __u32 rule)
{
	return policy << DECIDER_RULE_BITS | rule;
}

static __always_inline __u32 decider_policy(__u32 decider)
{
	return (decider & ~(DECIDER_SET | DECIDER_DENY)) >> DECIDER_RULE_BITS;
}

static __always_inline __u32 decider_rule(__u32 decider)
{
	return decider & ((1U << DECIDER_RULE_BITS) - 1);
}

static __noinline __u32 decider_of(__u32 generation, __u32 verdict)
{
	struct policy_row *row = decision_of(generation, verdict);
	__u32 decider = row ? pack_decider(row->next, row->extra) : 0;

	return decider | DECIDER_SET | (is_denied(verdict) ? DECIDER_DENY : 0);
}

/* Of an AUDIT diagram's end: who matched; 0: nobody. */
static __always_inline __u32 auditor_of(__u32 generation, __u32 end)
{
	__u32 auditor = decider_of(generation, end);

	return auditor & ~(DECIDER_SET | DECIDER_DENY) || end & POLICY_DOUBT ? auditor & ~DECIDER_DENY : 0;
}

/* What policies say of a connection or a call that is only reported; both as the flow record has them. */
struct reports {
	__u32 audit;
	__u32 dry_run;
};

/* Whether there is anything to report at a destination. */
static __always_inline int reports_any(const struct policy *policy)
{
	return (policy->audit | policy->dry_deny) != 0;
}

/* Of a connection whose calls nobody judges, once it has ended or was refused. */
__noinline int report_connection(__u32 generation, const struct dial *dial, struct reports *reports)
{
	struct counters *count = this_cpu_counters();
	struct policy *policy;
	__u32 end;

	if (!dial || !reports)
		return 0;
	reports->audit = 0;
	reports->dry_run = 0;
	if (!generation || !count)
		return 0;
	policy = policy_of(generation, dial->server);
	if (!policy || likely(!reports_any(policy)))
		return 0;
	if (policy->audit) {
		end = walk_dial(generation, policy->audit, dial);
		reports->audit = end & POLICY_END ? auditor_of(generation, end) : 0;
		__sync_fetch_and_add(&count->audited_connections, reports->audit != 0);
	}
	if (!policy->dry_deny)
		return 0;
	end = verdict_of(walk_dial(generation, policy->dry_deny, dial), walk_dial(generation, policy->dry_allow, dial));
	if (end)
		reports->dry_run = decider_of(generation, end);
	__sync_fetch_and_add(&count->dry_run_denied_connections, is_denied(end));
	return 0;
}

/* Judges a connection by the policies of its server. What cannot be judged is denied. */
__noinline int judge(const struct dial *dial, struct judgement *judged)
{
	const struct settings *conf = current_settings();
	struct policy *policy;
	int tries;

	if (!dial || !judged)
		return 0;
	__builtin_memset(judged, 0, sizeof(*judged));
	judged->verdict = POLICY_END;
	if (!conf || !dial->server)
		return 0;
	for (tries = 0; tries < JUDGE_TRIES; tries++) {
		judged->generation = READ_ONCE(conf->policies);
		if (!judged->generation)
			return 0;
		policy = policy_of(judged->generation, dial->server);
		if (policy) {
			judged->deny = walk_dial(judged->generation, policy->deny, dial);
			judged->allow = walk_dial(judged->generation, policy->allow, dial);
			if (judged->deny && judged->allow) {
				judged->verdict = verdict_of(judged->deny, judged->allow);
				name_decision(judged);
				return 0;
			}
		} else if (READ_ONCE(conf->policies) == judged->generation) {
			return 0;
		}
	}
	judged->verdict = POLICY_END | POLICY_DENY;
	return 0;
}
