"""Clauses to a decision diagram that finds one that holds.

Attributes of a connection are tested first, each once, so that a connection is judged as far as it can be once and for
all. Attributes of a call are tested in chains: where the clauses that ask for a value do not hold, the walk goes on
with those that do not ask, so that the diagram grows with the number of clauses and not with their combinations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from zerohop.compiler.policies.clauses import Clause, Test
from zerohop.compiler.policies.rows import TERMINAL, Attribute, Rows

# Of a test, clauses that have it and values that it holds for: beyond, they are a group of their own.
WIDE: Final = 16

# Tests of calls on one way through a diagram, as bpf/shared/bounds.h has it.
MAX_STEPS: Final = 64


# Ways that are looked at for one diagram, a hundred times what realistic rules take: it ends within half a minute.
MAX_WORK: Final = 20_000_000


class TooDeepError(Exception):
    """Rules whose conditions overlap so much that a call would need more than `MAX_STEPS` tests, or `MAX_WORK`."""


class _Group:
    """Clauses that go the same way."""

    __slots__ = ("_attributes", "_splits", "clauses", "held_from", "limit")

    def __init__(self, clauses: Sequence[Clause], limit: int) -> None:
        self.clauses = clauses
        self.limit = limit
        # From this attribute on at least one of them has nothing left to test.
        self.held_from = min(map(_held_from, clauses)) if len(clauses) > 1 else _held_from(clauses[0])
        self._attributes: list[int] | None = None
        self._splits: dict[int, _Split] = {}

    def attribute(self, first: int) -> int:
        """The first that they test, from `first` on."""
        if self._attributes is None:
            self._attributes = sorted({key for each in self.clauses for key, _ in each.tests})
        return next(each for each in self._attributes if each >= first)

    def split(self, attribute: int) -> _Split:
        found = self._splits.get(attribute)
        if found is None:
            found = self._splits[attribute] = _Split(self.clauses, attribute, self.limit)
        return found

    def decision(self, attribute: int) -> int:
        """Of the first clause that has nothing left to test."""
        return min(each.decision for each in self.clauses if _held_from(each) <= attribute)


def _held_from(clause: Clause) -> int:
    return clause.tests[-1][0] + 1 if clause.tests else 0


class _Split:
    """Clauses by what they say of one attribute: nothing (`free`), one of some values, or none of some (`refusing`).

    Clauses with one and the same test stay together, and values for which the same tests hold have the same groups:
    where many clauses ask for many values, as by `*`, there are not as many groups as there are pairs of them. A test
    is wide when more than `limit` clauses have it, and it holds for more than `limit` values.
    """

    __slots__ = ("_groups", "_left", "_limit", "_refusing", "_tests", "_wide", "free", "refused", "refusing", "values")

    def __init__(self, clauses: Iterable[Clause], attribute: int, limit: int) -> None:
        self._limit = limit
        free: list[Clause] = []
        asking: dict[Test, list[Clause]] = {}
        self._refusing: dict[Test, list[Clause]] = {}
        for each in clauses:
            for key, test in each.tests:
                if key == attribute:
                    (asking if test.positive else self._refusing).setdefault(test, []).append(each)
                    break
            else:
                free.append(each)
        self.free = _group(free, limit)
        self.refusing = _group([each for those in self._refusing.values() for each in those], limit)
        self.refused = frozenset[int]().union(*(test.values for test in self._refusing))
        # By number: the clauses of a test.
        self._tests = list(asking.values())
        self._wide = {
            number for number, (test, those) in enumerate(asking.items())
            if len(test.values) > limit and len(those) > limit
        }  # fmt: skip
        self.values: dict[int, list[int]] = {}
        for number, test in enumerate(asking):
            for value in test.values:
                self.values.setdefault(value, []).append(number)
        self._groups: dict[tuple[int, ...], _Group] = {}
        self._left: dict[int, _Group | None] = {}

    def asking(self, value: int) -> list[_Group]:
        """Those that ask for a value: what few ask for first, each wide test by itself."""
        tests = self.values.get(value)
        if tests is None:
            return []
        if not self._wide:
            return [self._group_of(tuple(tests))]
        narrow = tuple(each for each in tests if each not in self._wide)
        wide = [self._group_of((each,)) for each in tests if each in self._wide]
        return [self._group_of(narrow), *wide] if narrow else wide

    def _group_of(self, tests: tuple[int, ...]) -> _Group:
        found = self._groups.get(tests)
        if found is None:
            those = self._tests[tests[0]] if len(tests) == 1 else [each for test in tests for each in self._tests[test]]
            found = self._groups[tests] = _Group(those, self._limit)
        return found

    def left(self, value: int) -> _Group | None:
        """Those that refuse some values, but not this one."""
        if value not in self.refused:
            return self.refusing
        if value not in self._left:
            kept = [each for test, those in self._refusing.items() if test.holds(value) for each in those]
            self._left[value] = _group(kept, self._limit)
        return self._left[value]


def _group(clauses: list[Clause], limit: int) -> _Group | None:
    return _Group(clauses, limit) if clauses else None


class Diagrams:
    """Makes diagrams of one generation; equal nodes are made once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._nodes: dict[tuple[int, int, frozenset[tuple[int, int]]], int] = {}
        self._depths: dict[int, int] = {}
        self._connections: dict[tuple[tuple[_Group, ...], int], int] = {}
        self._calls: dict[tuple[_Group, int, int], int] = {}
        self._work = 0

    def make(self, clauses: Iterable[Clause], otherwise: int) -> int:
        """Where the diagram begins: a node, or an end. Its ends are decisions of clauses that hold, or `otherwise`.

        Raises `TooDeepError`.
        """
        given = list(clauses)
        try:
            return self._make(_group(given, WIDE), otherwise)
        except TooDeepError:
            # Each wide test by itself takes more steps, and fewer nodes.
            return self._make(_group(given, sys.maxsize), otherwise)

    def _make(self, group: _Group | None, otherwise: int) -> int:
        self._connections.clear()
        self._calls.clear()
        self._work = 0
        return self._connection((group,) if group else (), Attribute.IDENTITY, TERMINAL | otherwise)

    def by_port(self, roots: Mapping[int, int], otherwise: int) -> int:
        """Where the diagram begins that goes on by the port, `otherwise` for those without a root of their own."""
        return self._node(Attribute.PORT, otherwise, roots)

    def _connection(self, groups: tuple[_Group, ...], attribute: int, otherwise: int) -> int:
        held = [each for each in groups if each.held_from <= attribute]
        if held:
            return TERMINAL | min(each.decision(attribute) for each in held)
        if attribute >= Attribute.METHOD:
            target = otherwise
            for group in reversed(groups):
                target = self._call(group, attribute, target)
            return target
        key = (groups, attribute)
        known = self._connections.get(key)
        if known is not None:
            return known
        splits = [each.split(attribute) for each in groups]
        free = [each.free for each in splits if each.free]
        refusing = [each.refusing for each in splits if each.refusing]
        fallback = self._connection((*refusing, *free), attribute + 1, otherwise)
        edges = {}
        for value in {value for each in splits for value in (*each.values, *each.refused)}:
            asking = [group for each in splits for group in each.asking(value)]
            left = [kept for each in splits if (kept := each.left(value)) is not None]
            edges[value] = self._connection((*asking, *left, *free), attribute + 1, otherwise)
        node = self._connections[key] = self._node(attribute, fallback, edges)
        return node

    def _call(self, group: _Group, attribute: int, otherwise: int) -> int:
        """Of what a call has: `otherwise` is where the walk goes on when no clause of the group holds."""
        if group.held_from <= attribute:
            return TERMINAL | group.decision(attribute)
        attribute = group.attribute(attribute)
        key = (group, attribute, otherwise)
        known = self._calls.get(key)
        if known is not None:
            return known
        split = group.split(attribute)

        def then(part: _Group | None, target: int) -> int:
            return self._call(part, attribute + 1, target) if part else target

        free = then(split.free, otherwise)
        fallback = then(split.refusing, free)
        edges = {}
        for value in split.values.keys() | split.refused:
            target = then(split.left(value), free) if value in split.refused else fallback
            asking = split.asking(value)
            held = [each.decision(attribute + 1) for each in asking if each.held_from <= attribute + 1]
            if held:
                target = TERMINAL | min(held)
            else:
                for each in reversed(asking):
                    target = self._call(each, attribute + 1, target)
            edges[value] = target
        node = self._calls[key] = self._node(attribute, fallback, edges)
        return node

    def _node(self, attribute: int, fallback: int, edges: Mapping[int, int]) -> int:
        """The one node of this kind; where all ways are alike, what they lead to."""
        self._work += 1 + len(edges)
        if self._work > MAX_WORK:
            raise TooDeepError
        differing = {value: target for value, target in edges.items() if target != fallback}
        if not differing:
            return fallback
        key = (attribute, fallback, frozenset(differing.items()))
        known = self._nodes.get(key)
        if known is not None:
            return known
        node = self._nodes[key] = self._rows.new()
        self._rows.nodes[node] = (attribute, fallback)
        for value, target in differing.items():
            self._rows.edges[node, 0, value] = target
        deepest = max(self._depths.get(each, 0) for each in (fallback, *differing.values()))
        self._depths[node] = deepest + (attribute >= Attribute.METHOD)
        if self._depths[node] > MAX_STEPS:
            raise TooDeepError
        return node
