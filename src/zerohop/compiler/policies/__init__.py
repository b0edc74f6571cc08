"""AuthorizationPolicies to the rows by which the kernel judges. Pure: no files, no kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from zerohop.collection import collection_paused
from zerohop.compiler import Tables
from zerohop.compiler.policies import clauses as reading
from zerohop.compiler.policies.addresses import Blocks
from zerohop.compiler.policies.clauses import Clause, Identity, Vocabulary
from zerohop.compiler.policies.diagram import MAX_STEPS, Diagrams, TooDeepError
from zerohop.compiler.policies.rows import TERMINAL, Attribute, Automaton, Rows
from zerohop.compiler.policies.strings import MAX_STATES, Strings, TooManyStatesError, names_automaton
from zerohop.config import ConfigError, Configuration, Source
from zerohop.config.policies import Action, AuthorizationPolicy, Existing, Unreadable
from zerohop.config.protocol import Protocol
from zerohop.config.selection import declarations
from zerohop.errors import ZerohopError

__all__ = [
    "TERMINAL",
    "Attribute",
    "Automaton",
    "Decision",
    "Destination",
    "PolicyTables",
    "TooComplexError",
    "compile_policies",
]

# Names of headers that one destination's policies may ask for (bpf/shared/bounds.h).
MAX_HEADERS: Final = 16

# Policies, and address blocks in all of them, of which two generations are in one table (bpf/shared/bounds.h).
MAX_POLICIES: Final = 65536
MAX_BLOCKS: Final = 262144 // 2

# Decisions that no rule makes.
ALLOWED, NOT_ALLOWED = range(2)

T = TypeVar("T")

_HTTP: Final = frozenset({Protocol.GRPC, Protocol.HTTP2, Protocol.HTTP})
_FIXED: Final = {"method": Attribute.METHOD, "path": Attribute.PATH, "host": Attribute.HOST}


class TooComplexError(ZerohopError):
    """Policies that the kernel's tables cannot hold. `source`: the place of one of them."""

    def __init__(self, source: Source, message: str, hint: str) -> None:
        super().__init__(f"{source}: {message}", hint=hint)
        self._error = ConfigError(source.file, source.line, source.column, message, hint)

    def as_config_error(self) -> ConfigError:
        return self._error


@dataclass(frozen=True, slots=True)
class Decision:
    """`policy`: index into the names; `rule`: into its rules; None where no rule decides. `line`: the rule's."""

    allowed: bool
    policy: int | None = None
    rule: int | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the diagrams of a workload begin: a node, or TERMINAL and a decision.

    A call is denied where `deny` ends in a denial, else as `allow` ends. What is only reported, None where there is
    none: who audits it, and the two diagrams as they would be if dry-run policies were in force. `strings`: by
    attribute from METHOD on.
    """

    deny: int
    allow: int
    audit: int | None
    dry_run: tuple[int, int] | None
    names: Automaton
    strings: tuple[Automaton, ...]
    layer7: bool
    deny_reset: bool
    unreadable: Unreadable
    existing: Existing


@dataclass(frozen=True)
class PolicyTables:
    """`names`: namespace, name and file of every policy. `destinations`, `identities`: by `NS/NAME` of the workload.

    `blocks`: (prefix length, 16 bytes) to class. Nodes and edges: see `rows`.
    """

    names: tuple[tuple[str, str, str], ...] = ()
    decisions: tuple[Decision, ...] = ()
    nodes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    edges: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    identities: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[tuple[int, bytes], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Applied:
    """A policy at a workload, on all of its ports or (`ports`) on some."""

    policy: AuthorizationPolicy
    ports: frozenset[int] | None


def compile_policies(configuration: Configuration, tables: Tables) -> PolicyTables:
    """The tables for a configuration's policies; `tables` are its own, for its ports. Raises `TooComplexError`."""
    if not configuration.policies:
        return PolicyTables()
    with collection_paused():
        return _Compiler(configuration, tables).tables()


class _Compiler:
    def __init__(self, configuration: Configuration, tables: Tables) -> None:
        self._configuration = configuration
        self._rows = Rows()
        self._diagrams = Diagrams(self._rows)
        self._policies = sorted(configuration.policies, key=lambda each: each.key)
        self._names = {each.key: index for index, each in enumerate(self._policies)}
        self._decisions = [Decision(True), Decision(False)]
        self._first_decision: dict[str, int] = {}
        for each in self._policies:
            self._first_decision[each.key] = len(self._decisions)
            allowed = each.action is not Action.DENY
            self._decisions += [
                Decision(allowed, self._names[each.key], number, rule.source.line)
                for number, rule in enumerate(each.rules)
            ]
        self._blocks = Blocks(block for each in self._policies for block in reading.blocks(each.rules))
        self._check_bounds()
        accounts = {(each.namespace, each.service_account) for each in configuration.workloads}
        self._identities = [
            Identity(number, namespace, account, configuration.trust_domain)
            for number, (namespace, account) in enumerate(sorted(accounts), 1)
        ]
        self._http: dict[str, set[int]] = {}
        for (workload, port), protocol in tables.ports.items():
            if protocol in _HTTP and (workload, port) not in tables.excluded:
                self._http.setdefault(workload, set()).add(port)
        self._made: dict[tuple[object, ...], Destination] = {}

    def _check_bounds(self) -> None:
        """Of tables that all policies share. Refused here, before anything in the kernel has changed."""
        if len(self._policies) > MAX_POLICIES:
            beyond = self._policies[MAX_POLICIES].source
            raise TooComplexError(beyond, f"more than {MAX_POLICIES} policies", "put more rules into each of them")
        count = len(self._blocks.prefixes)
        if count > MAX_BLOCKS:
            why = f"the policies name {count} different address blocks, {MAX_BLOCKS} at most"
            raise TooComplexError(self._policies[0].source, why, "name larger blocks, or workloads by their accounts")

    def tables(self) -> PolicyTables:
        applied = self._applied()
        destinations = {}
        for workload, policies in applied.items():
            http = frozenset(self._http.get(workload, ()))
            key = (tuple((each.policy.key, each.ports) for each in policies), http)
            if key not in self._made:
                self._made[key] = self._destination(policies, http)
            destinations[workload] = self._made[key]
        numbers = {(each.namespace, each.service_account): each.number for each in self._identities}
        return PolicyTables(
            names=tuple((each.namespace, each.name, each.source.file) for each in self._policies),
            decisions=tuple(self._decisions),
            nodes=self._rows.nodes,
            edges=self._rows.edges,
            destinations=destinations,
            identities={
                each.key: numbers[each.namespace, each.service_account] for each in self._configuration.workloads
            },
            blocks=self._blocks.prefixes,
        )

    def _applied(self) -> dict[str, list[_Applied]]:
        """Which policies every workload has, without workloads that have none."""
        configuration = self._configuration
        targets: dict[tuple[str, str], set[int]] = {}
        for each in declarations(configuration.workloads, configuration.services, configuration.endpoint_slices):
            targets.setdefault((each.service.key, each.workload), set()).add(each.number)
        found: dict[str, list[_Applied]] = {}
        for policy in self._policies:
            everywhere = policy.namespace == configuration.root_namespace
            for workload in configuration.workloads:
                ports: frozenset[int] | None = None
                if policy.services:
                    numbers: set[int] = set()
                    for name in policy.services:
                        numbers |= targets.get((f"{policy.namespace}/{name}", workload.key), set())
                    if not numbers:
                        continue
                    ports = frozenset(numbers)
                elif (
                    not everywhere and workload.namespace != policy.namespace
                ) or not policy.selector.items() <= workload.labels.items():
                    continue
                found.setdefault(workload.key, []).append(_Applied(policy, ports))
        return found

    def _destination(self, applied: list[_Applied], http: frozenset[int]) -> Destination:
        words, names, strings = self._vocabulary(applied)
        audited = [each for each in applied if each.policy.action is Action.AUDIT and not each.policy.dry_run]
        tried = [each for each in applied if each.policy.action is not Action.AUDIT and each.policy.dry_run]
        enforced = [each for each in applied if each.policy.action is not Action.AUDIT and not each.policy.dry_run]
        try:
            deny, allow = self._verdict(enforced, http, words)
            audit = self._by_port(audited, http, words, Action.AUDIT) if audited else None
            dry_run = self._verdict([*enforced, *tried], http, words) if tried else None
        except TooDeepError:
            why = f"their rules overlap too much, a call would need more than {MAX_STEPS} tests"
            raise _too_complex(applied, why) from None
        return Destination(
            deny, allow, audit, dry_run, names, strings,
            layer7=bool(http) and any(reading.asks_of_calls(each.policy.rules) for each in applied),
            deny_reset=any(each.policy.deny_reset for each in enforced),
            unreadable=_strictest(Unreadable.DENY, Unreadable.ALLOW, (each.policy.unreadable for each in enforced)),
            existing=_strictest(Existing.RESET, Existing.OBSERVE, (each.policy.existing for each in enforced)),
        )  # fmt: skip

    def _verdict(self, applied: list[_Applied], http: frozenset[int], words: Vocabulary) -> tuple[int, int]:
        """The diagrams of what denies, and of what allows."""
        return (
            self._by_port(applied, http, words, Action.DENY),
            self._by_port(applied, http, words, Action.ALLOW),
        )

    def _vocabulary(self, applied: list[_Applied]) -> tuple[Vocabulary, Automaton, tuple[Automaton, ...]]:
        patterns: dict[str, set[str]] = {}
        for each in applied:
            for name, values in reading.patterns(each.policy.rules):
                patterns.setdefault(name, set()).update((*values.any_of, *values.none_of))
        headers = sorted(name[1:-1] for name in patterns if name.startswith("["))
        if len(headers) > MAX_HEADERS:
            raise _too_complex(applied, f"they ask for {len(headers)} different headers, {MAX_HEADERS} at most")
        numbers = {name: Attribute.HEADER + index for index, name in enumerate(headers)}
        strings: dict[int, Strings] = {}
        try:
            for name, attribute in (*_FIXED.items(), *((f"[{name}]", number) for name, number in numbers.items())):
                strings[attribute] = Strings(patterns.get(name, ()), self._rows, templates=attribute == Attribute.PATH)
        except TooManyStatesError:
            raise _too_complex(applied, f"the patterns for {name} need more than {MAX_STATES} states") from None
        return (
            Vocabulary(self._identities, self._blocks, strings, numbers),
            names_automaton(headers, self._rows),
            tuple(strings[attribute].automaton for attribute in sorted(strings)),
        )

    def _by_port(self, applied: list[_Applied], http: frozenset[int], words: Vocabulary, action: Action) -> int:
        """The diagram of the policies with one action, ports first."""
        wanted = [each for each in applied if each.policy.action is action]
        if not wanted:
            return TERMINAL | ALLOWED
        named = set(http)
        for each in wanted:
            named |= each.ports or set()
            named.update(reading.ports(each.policy.rules))
        roots = {port: self._at_port(wanted, port, port in http, words, action) for port in sorted(named)}
        return self._diagrams.by_port(roots, self._at_port(wanted, None, False, words, action))

    def _at_port(self, wanted: list[_Applied], port: int | None, http: bool, words: Vocabulary, action: Action) -> int:
        here = [each.policy for each in wanted if each.ports is None or port in each.ports]
        otherwise = NOT_ALLOWED if action is Action.ALLOW and here else ALLOWED
        clauses: list[Clause] = []
        for policy in here:
            for number, rule in enumerate(policy.rules):
                decision = self._first_decision[policy.key] + number
                clauses += reading.clauses_of(rule, decision, port, http, action is Action.DENY, words)
        return self._diagrams.make(clauses, otherwise)


def _strictest(strict: T, lax: T, chosen: Iterable[T]) -> T:
    """`lax` where all policies choose it."""
    return lax if set(chosen) == {lax} else strict


def _too_complex(applied: list[_Applied], why: str) -> TooComplexError:
    first = applied[0].policy
    listed = ", ".join(each.policy.key for each in applied[:5]) + (", …" if len(applied) > 5 else "")
    return TooComplexError(
        first.source,
        f"the policies {listed} do not fit into the kernel's tables: {why}",
        "give workloads policies of their own with a selector, or ask for less in one policy",
    )
