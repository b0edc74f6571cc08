"""Policies to clauses: each an AND over attributes, as sets of the numbers that the kernel will see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

from zerohop.compiler.policies.addresses import Blocks
from zerohop.compiler.policies.rows import Attribute
from zerohop.compiler.policies.strings import Strings
from zerohop.config.policies import Caller, Condition, Operation, Rule, Values

_HEADER: Final = re.compile(r"request\.headers\[(.+)\]")


class Test(NamedTuple):
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


class Clause(NamedTuple):
    """`tests`: by attribute, ascending. `decision`: the number of the rule that it is a part of."""

    tests: tuple[tuple[int, Test], ...]
    decision: int


ALWAYS: Final = Test(False, frozenset())


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller's, by number; nobody's is 0."""

    number: int
    namespace: str
    service_account: str
    trust_domain: str

    @property
    def account(self) -> str:
        return f"{self.namespace}/{self.service_account}"

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
    _identified: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    def of_strings(self, attribute: int, values: Values) -> Test:
        return _test(values, self.strings[attribute].by_pattern.__getitem__)

    def of_blocks(self, values: Values) -> Test:
        return _test(values, self.blocks.by_block.__getitem__)

    def of_identities(self, values: Values, attribute: str) -> Test:
        """`attribute`: one of `Identity`; `account` is compared as it is, without patterns."""
        return _test(values, lambda pattern: self._identities_of(attribute, pattern))

    def _identities_of(self, attribute: str, pattern: str) -> frozenset[int]:
        """Looked up once: many rules name the same."""
        found = self._identified.get((attribute, pattern))
        if found is None:
            found = self._identified[attribute, pattern] = frozenset(
                each.number for each in self.identities if _matches(pattern, getattr(each, attribute))
            )
        return found


def _test(values: Values, numbers_of: Callable[[str], frozenset[int]]) -> Test:
    if not values.none_of and len(values.any_of) == 1:
        return Test(True, numbers_of(values.any_of[0]))
    refused = frozenset[int]().union(*map(numbers_of, values.none_of))
    if not values.any_of:
        return Test(False, refused)
    return Test(True, frozenset[int]().union(*map(numbers_of, values.any_of)) - refused)


def _matches(pattern: str, value: str) -> bool:
    if pattern == "*":
        return bool(value)
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    return pattern == value


@lru_cache(1024)
def _header_in(key: str) -> str | None:
    found = _HEADER.fullmatch(key)
    return found[1] if found else None


def header_of(condition: Condition) -> str | None:
    """The header that a condition asks for. `host` is the attribute of hosts: it stands for :authority, too."""
    return _header_in(condition.key)


def patterns(rules: Iterable[Rule]) -> Iterator[tuple[str, Values]]:
    """The string values of calls in rules: `method`, `path`, `host`, or a header's name in brackets."""
    for rule in rules:
        for operation in rule.operations:
            if operation.methods:
                yield "method", operation.methods
            if operation.paths:
                yield "path", operation.paths
            if operation.hosts:
                yield "host", _folded(operation.hosts)
        for condition in rule.conditions:
            name = header_of(condition)
            if name == "host":
                yield "host", _folded(condition.values)
            elif name is not None:
                yield f"[{name}]", condition.values


def asks_of_calls(rules: Iterable[Rule]) -> bool:
    """Whether rules ask for what only calls have."""
    return any(values for _, values in patterns(rules))


def blocks(rules: Iterable[Rule]) -> Iterator[str]:
    """Every address block in rules."""
    for rule in rules:
        for caller in rule.callers:
            for values in (caller.ip_blocks, caller.remote_ip_blocks):
                if values:
                    yield from (*values.any_of, *values.none_of)
        for condition in rule.conditions:
            if condition.key in ("source.ip", "remote.ip", "destination.ip"):
                yield from (*condition.values.any_of, *condition.values.none_of)


def ports(rules: Iterable[Rule]) -> Iterator[int]:
    """Every port in rules."""
    for rule in rules:
        for operation in rule.operations:
            if operation.ports:
                yield from map(int, (*operation.ports.any_of, *operation.ports.none_of))
        for condition in rule.conditions:
            if condition.key == "destination.port":
                yield from map(int, (*condition.values.any_of, *condition.values.none_of))


def _folded(values: Values) -> Values:
    return Values(tuple(map(_fold_case, values.any_of)), tuple(map(_fold_case, values.none_of)))


def _fold_case(text: str) -> str:
    """ASCII letters become small ones, as in the kernel."""
    return text.encode().lower().decode()


Part = tuple[dict[int, Test], bool]
_NOTHING_ASKED: Final[Part] = ({}, True)


def clauses_of(
    rule: Rule, decision: int, port: int | None, http: bool, denies: bool, words: Vocabulary
) -> Iterator[Clause]:
    """The clauses of a rule on one port; `port` None: any that no rule names. `http`: calls are read there.

    Elsewhere what a denying rule asks of calls is left out, so that it matches on the rest, and what another rule asks
    of them never holds.
    """
    operations = [_of_operation(each, port, http, denies, words) for each in rule.operations] or [_NOTHING_ASKED]
    conditions = [_of_condition(each, port, http, denies, words) for each in rule.conditions]
    possible = [tests for tests, possible in operations if possible]
    if not possible or not all(possible for _, possible in conditions):
        return
    asked = [tests for tests, _ in conditions]
    callers = [_of_caller(each, words) for each in rule.callers] or [{}]
    for caller, operation in product(callers, possible):
        merged = _merge((caller, operation, *asked))
        if merged is not None:
            yield Clause(tuple(sorted((key, test) for key, test in merged.items() if test != ALWAYS)), decision)


def _merge(parts: Iterable[dict[int, Test]]) -> dict[int, Test] | None:
    """All of them; None where they never hold together."""
    merged: dict[int, Test] = {}
    for tests in parts:
        for attribute, test in tests.items():
            merged[attribute] = merged[attribute] & test if attribute in merged else test
    return None if any(test.positive and not test.values for test in merged.values()) else merged


def _of_caller(caller: Caller, words: Vocabulary) -> dict[int, Test]:
    tests: dict[int, Test] = {}
    for values, what in (
        (caller.principals, "principal"),
        (caller.namespaces, "namespace"),
        (caller.trust_domains, "trust_domain"),
        (caller.service_accounts, "account"),
    ):
        if values:
            tests[Attribute.IDENTITY] = tests.get(Attribute.IDENTITY, ALWAYS) & words.of_identities(values, what)
    # Nothing forwards here: who is connected is who calls.
    for values in (caller.ip_blocks, caller.remote_ip_blocks):
        if values:
            tests[Attribute.SOURCE] = tests.get(Attribute.SOURCE, ALWAYS) & words.of_blocks(values)
    return tests


def _of_operation(operation: Operation, port: int | None, http: bool, denies: bool, words: Vocabulary) -> Part:
    if not _port_holds(operation.ports, port):
        return {}, False
    if not http:
        return {}, denies or not (operation.methods or operation.paths or operation.hosts)
    tests: dict[int, Test] = {}
    if operation.methods:
        tests[Attribute.METHOD] = words.of_strings(Attribute.METHOD, operation.methods)
    if operation.paths:
        tests[Attribute.PATH] = words.of_strings(Attribute.PATH, operation.paths)
    if operation.hosts:
        tests[Attribute.HOST] = words.of_strings(Attribute.HOST, _folded(operation.hosts))
    return tests, True


def _of_condition(condition: Condition, port: int | None, http: bool, denies: bool, words: Vocabulary) -> Part:
    values = condition.values
    name = header_of(condition)
    if name is not None:
        if not http:
            return {}, denies
        if name == "host":
            return {Attribute.HOST: words.of_strings(Attribute.HOST, _folded(values))}, True
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
