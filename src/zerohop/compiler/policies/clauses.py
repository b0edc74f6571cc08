"""Policies to clauses: each an AND over attributes, as sets of the numbers that the kernel will see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from zerohop.compiler.policies.addresses import Blocks
from zerohop.compiler.policies.rows import Attribute
from zerohop.compiler.policies.strings import Strings
from zerohop.config.policies import Caller, Condition, Operation, Rule, Values

_HEADER: Final = re.compile(r"request\.headers\[(.+)\]")


@dataclass(frozen=True, slots=True)
class Test:
    """Whether a number is one of `values`, or, not `positive`, none of them."""

    positive: bool
    values: frozenset[int]

    def __and__(self, other: Test) -> Test:
        if self.positive and other.positive:
            return Test(True, self.values & other.values)
        if self.positive:
            return Test(True, self.values - other.values)
        if other.positive:
            return Test(True, other.values - self.values)
        return Test(False, self.values | other.values)

    def holds(self, value: int) -> bool:
        return (value in self.values) == self.positive

    @property
    def always(self) -> bool:
        return not self.positive and not self.values

    @property
    def never(self) -> bool:
        return self.positive and not self.values


@dataclass(frozen=True, slots=True)
class Clause:
    """`tests`: by attribute, ascending. `decision`: the number of the rule that it is a part of."""

    tests: tuple[tuple[int, Test], ...]
    decision: int


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller's, by number; nobody's is 0."""

    number: int
    namespace: str
    service_account: str
    trust_domain: str

    @property
    def principal(self) -> str:
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


@dataclass(frozen=True)
class Vocabulary:
    """What turns words into numbers. `strings`: by attribute."""

    identities: Sequence[Identity]
    blocks: Blocks
    strings: Mapping[int, Strings]
    headers: Mapping[str, int]

    def of_strings(self, attribute: int, values: Values) -> Test:
        classes = self.strings[attribute].by_pattern
        return _test(values, lambda pattern: classes[pattern])

    def of_blocks(self, values: Values) -> Test:
        return _test(values, lambda block: self.blocks.by_block[block])

    def of_identities(self, values: Values, attribute: str) -> Test:
        return _test(
            values,
            lambda pattern: [each.number for each in self.identities if _matches(pattern, getattr(each, attribute))],
        )

    def of_accounts(self, values: Values) -> Test:
        return _test(
            values,
            lambda account: [
                each.number for each in self.identities if f"{each.namespace}/{each.service_account}" == account
            ],
        )


def _test(values: Values, numbers_of: Callable[[str], Iterable[int]]) -> Test:
    refused = frozenset(number for pattern in values.none_of for number in numbers_of(pattern))
    if not values.any_of:
        return Test(False, refused)
    return Test(True, frozenset(number for pattern in values.any_of for number in numbers_of(pattern)) - refused)


def _matches(pattern: str, value: str) -> bool:
    if pattern == "*":
        return bool(value)
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    return pattern == value


def header_of(condition: Condition) -> str | None:
    """The header that a condition asks for."""
    found = _HEADER.fullmatch(condition.key)
    return found[1] if found else None


def patterns(rules: Iterable[Rule]) -> Iterator[tuple[str, Values]]:
    """The string values of calls in rules: `method`, `path`, `host`, or a header's name in brackets."""
    for rule in rules:
        for operation in rule.operations:
            yield "method", operation.methods
            yield "path", operation.paths
            yield "host", _folded(operation.hosts)
        for condition in rule.conditions:
            name = header_of(condition)
            if name is not None:
                yield f"[{name}]", condition.values


def asks_of_calls(rules: Iterable[Rule]) -> bool:
    """Whether rules ask for what only calls have."""
    return any(values for _, values in patterns(rules))


def blocks(rules: Iterable[Rule]) -> Iterator[str]:
    """Every address block in rules."""
    for rule in rules:
        for caller in rule.callers:
            for values in (caller.ip_blocks, caller.remote_ip_blocks):
                yield from (*values.any_of, *values.none_of)
        for condition in rule.conditions:
            if condition.key in ("source.ip", "remote.ip", "destination.ip"):
                yield from (*condition.values.any_of, *condition.values.none_of)


def ports(rules: Iterable[Rule]) -> Iterator[int]:
    """Every port in rules."""
    for rule in rules:
        for operation in rule.operations:
            yield from map(int, (*operation.ports.any_of, *operation.ports.none_of))
        for condition in rule.conditions:
            if condition.key == "destination.port":
                yield from map(int, (*condition.values.any_of, *condition.values.none_of))


def _folded(values: Values) -> Values:
    return Values(tuple(map(str.lower, values.any_of)), tuple(map(str.lower, values.none_of)))


Part = tuple[dict[int, Test], bool]


def clauses_of(
    rule: Rule, decision: int, port: int | None, http: bool, denies: bool, words: Vocabulary
) -> Iterator[Clause]:
    """The clauses of a rule on one port; `port` None: any that no rule names. `http`: calls are read there.

    Elsewhere what a denying rule asks of calls is left out, so that it matches on the rest, and what another rule asks
    of them never holds.
    """
    callers = [_of_caller(each, words) for each in rule.callers] or [({}, True)]
    operations = [_of_operation(each, port, http, denies, words) for each in rule.operations] or [({}, True)]
    conditions = [_of_condition(each, port, http, denies, words) for each in rule.conditions]
    for caller, operation in product(callers, operations):
        merged = _merge([caller, operation, *conditions])
        if merged is not None:
            yield Clause(tuple(sorted((key, test) for key, test in merged.items() if not test.always)), decision)


def _merge(parts: Iterable[Part]) -> dict[int, Test] | None:
    """All of them; None where they never hold together."""
    merged: dict[int, Test] = {}
    for tests, possible in parts:
        if not possible:
            return None
        for attribute, test in tests.items():
            merged[attribute] = merged[attribute] & test if attribute in merged else test
    return None if any(test.never for test in merged.values()) else merged


def _of_caller(caller: Caller, words: Vocabulary) -> Part:
    identity = (
        words.of_identities(caller.principals, "principal")
        & words.of_identities(caller.namespaces, "namespace")
        & words.of_identities(caller.trust_domains, "trust_domain")
        & words.of_accounts(caller.service_accounts)
    )
    # Nothing forwards here: who is connected is who calls.
    source = words.of_blocks(caller.ip_blocks) & words.of_blocks(caller.remote_ip_blocks)
    return {Attribute.IDENTITY: identity, Attribute.SOURCE: source}, True


def _of_operation(operation: Operation, port: int | None, http: bool, denies: bool, words: Vocabulary) -> Part:
    if not _port_holds(operation.ports, port):
        return {}, False
    asked = {
        Attribute.METHOD: operation.methods,
        Attribute.PATH: operation.paths,
        Attribute.HOST: _folded(operation.hosts),
    }
    if not http:
        return {}, denies or not any(asked.values())
    return {attribute: words.of_strings(attribute, values) for attribute, values in asked.items() if values}, True


def _of_condition(condition: Condition, port: int | None, http: bool, denies: bool, words: Vocabulary) -> Part:
    values = condition.values
    name = header_of(condition)
    if name is not None:
        if not http:
            return {}, denies
        attribute = words.headers[name]
        return {attribute: words.of_strings(attribute, values)}, True
    match condition.key:
        case "source.ip" | "remote.ip":
            return {Attribute.SOURCE: words.of_blocks(values)}, True
        case "destination.ip":
            return {Attribute.DESTINATION: words.of_blocks(values)}, True
        case "destination.port":
            return {}, _port_holds(values, port)
        case "source.namespace":
            return {Attribute.IDENTITY: words.of_identities(values, "namespace")}, True
        case "source.principal":
            return {Attribute.IDENTITY: words.of_identities(values, "principal")}, True
    raise ValueError(condition.key)


def _port_holds(values: Values, port: int | None) -> bool:
    number = "" if port is None else str(port)
    return (not values.any_of or number in values.any_of) and number not in values.none_of
