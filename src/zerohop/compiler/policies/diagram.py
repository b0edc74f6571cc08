"""Clauses to a decision diagram that finds one that holds.

Attributes of a connection are tested first, each once, so that a connection is judged as far as it can be once and for
all. Attributes of a call are tested in chains: where the clauses that ask for a value do not hold, the walk goes on
with those that do not ask, so that the diagram grows with the number of clauses and not with their combinations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from zerohop.compiler.policies.clauses import Clause
from zerohop.compiler.policies.rows import TERMINAL, Attribute, Rows

# Tests of calls on one way through a diagram, as bpf/shared/bounds.h has it.
MAX_STEPS: Final = 64


class TooDeepError(Exception):
    """Rules whose conditions overlap so much that a call would need more than `MAX_STEPS` tests."""


class _Group:
    """Clauses that go the same way. `attributes`: those that they test."""

    __slots__ = ("_splits", "attributes", "clauses", "held_from")

    def __init__(self, clauses: Iterable[Clause]) -> None:
        self.clauses = tuple(clauses)
        self.attributes = frozenset(key for each in self.clauses for key, _ in each.tests)
        # From this attribute on at least one of them has nothing left to test.
        self.held_from = min(_held_from(each) for each in self.clauses)
        self._splits: dict[int, _Split] = {}

    def split(self, attribute: int) -> _Split:
        found = self._splits.get(attribute)
        if found is None:
            found = self._splits[attribute] = _Split(self.clauses, attribute)
        return found

    def decision(self, attribute: int) -> int:
        """Of the first clause that has nothing left to test."""
        return min(each.decision for each in self.clauses if _held_from(each) <= attribute)


def _held_from(clause: Clause) -> int:
    return clause.tests[-1][0] + 1 if clause.tests else 0


class _Split:
    """Clauses by what they say of one attribute: nothing (`free`), one of some values, or none of some (`refusing`)."""

    __slots__ = ("_left", "asking", "attribute", "free", "refused", "refusing")

    def __init__(self, clauses: Iterable[Clause], attribute: int) -> None:
        free, refusing = [], []
        asking: dict[int, list[Clause]] = {}
        self.attribute = attribute
        self.refused: set[int] = set()
        for each in clauses:
            test = next((test for key, test in each.tests if key == attribute), None)
            if test is None:
                free.append(each)
            elif test.positive:
                for value in test.values:
                    asking.setdefault(value, []).append(each)
            else:
                refusing.append(each)
                self.refused |= test.values
        self.free = _group(free)
        self.refusing = _group(refusing)
        self.asking = {value: _Group(those) for value, those in asking.items()}
        self._left: dict[int, _Group | None] = {}

    def left(self, value: int) -> _Group | None:
        """Those that refuse some values, but not this one."""
        if value not in self.refused:
            return self.refusing
        if value not in self._left:
            assert self.refusing is not None
            kept = [
                each
                for each in self.refusing.clauses
                if any(key == self.attribute and test.holds(value) for key, test in each.tests)
            ]
            self._left[value] = _group(kept)
        return self._left[value]


def _group(clauses: list[Clause]) -> _Group | None:
    return _Group(clauses) if clauses else None


class Diagrams:
    """Makes diagrams of one generation; equal nodes are made once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._nodes: dict[tuple[int, int, frozenset[tuple[int, int]]], int] = {}
        self._depths: dict[int, int] = {}
        self._connections: dict[tuple[tuple[_Group, ...], int], int] = {}
        self._calls: dict[tuple[_Group, int, int], int] = {}

    def make(self, clauses: Iterable[Clause], otherwise: int) -> int:
        """Where the diagram begins: a node, or an end. Its ends are decisions of clauses that hold, or `otherwise`.

        Raises `TooDeepError`.
        """
        group = _group(list(clauses))
        self._connections.clear()
        self._calls.clear()
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
        for value in {value for each in splits for value in (*each.asking, *each.refused)}:
            asking = [each.asking[value] for each in splits if value in each.asking]
            left = [kept for each in splits if (kept := each.left(value)) is not None]
            edges[value] = self._connection((*asking, *left, *free), attribute + 1, otherwise)
        node = self._connections[key] = self._node(attribute, fallback, edges)
        return node

    def _call(self, group: _Group, attribute: int, otherwise: int) -> int:
        """Of what a call has: `otherwise` is where the walk goes on when no clause of the group holds."""
        if group.held_from <= attribute:
            return TERMINAL | group.decision(attribute)
        attribute = min(each for each in group.attributes if each >= attribute)
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
        for value in {*split.asking, *split.refused}:
            target = then(split.left(value), free) if value in split.refused else fallback
            edges[value] = then(split.asking.get(value), target)
        node = self._calls[key] = self._node(attribute, fallback, edges)
        return node

    def _node(self, attribute: int, fallback: int, edges: Mapping[int, int]) -> int:
        """The one node of this kind; where all ways are alike, what they lead to."""
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
