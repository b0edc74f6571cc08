"""String patterns to an automaton that says which of them match, as one number: the string's class.

Exact strings are a trie of eight bytes a step. Everything else is one deterministic automaton of a byte a step, by
subset construction with a fallback in each state in place of the edges that are alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from zerohop.compiler.policies.rows import END, LAST, TERMINAL, Automaton, Rows

MAX_STATES: Final = 65536

# The class of what a call does not have.
ABSENT: Final = 0

PRESENT: Final = "*"

_TEMPLATE: Final = re.compile(r"(\{\*\*?\})")
_SLASH: Final = ord("/")

# Steps of a pattern beside single bytes.
_ANY: Final = -1  # any bytes, also none
_SOME: Final = -2  # one byte that is no slash
_MORE: Final = -3  # bytes that are no slashes, also none


class TooManyStatesError(Exception):
    """The patterns of one attribute do not fit into an automaton of `MAX_STATES`."""


def is_template(pattern: str) -> bool:
    return _TEMPLATE.search(pattern) is not None


def is_exact(pattern: str, *, templates: bool) -> bool:
    return not (pattern.startswith("*") or pattern.endswith("*") or (templates and is_template(pattern)))


def _steps(pattern: str) -> tuple[int, ...]:
    if is_template(pattern):
        steps: list[int] = []
        for part in _TEMPLATE.split(pattern):
            if part == "{*}":
                steps += (_SOME, _MORE)
            elif part == "{**}":
                steps.append(_ANY)
            else:
                steps += part.encode()
        return tuple(steps)
    if pattern.endswith("*"):
        return (*pattern[:-1].encode(), _ANY)
    return (_ANY, *pattern[1:].encode())


class Strings:
    """The patterns of one attribute. `by_pattern`: the classes whose strings match.

    Raises `TooManyStatesError`.
    """

    def __init__(self, patterns: Iterable[str], rows: Rows, *, templates: bool) -> None:
        wanted = sorted(set(patterns))
        self._matching: dict[str, list[int]] = {each: [] for each in wanted}
        self._numbers: dict[frozenset[str], int] = {}
        self._count = 0
        self._present = frozenset({PRESENT} & set(wanted))
        self._others = [each for each in wanted if each != PRESENT and not is_exact(each, templates=templates)]
        self._programs = [_steps(each) for each in self._others]
        empty, other = self._class(frozenset()), self._class(self._present)
        states = _Machine(self._programs)
        exact = [each for each in wanted if is_exact(each, templates=templates)]
        words = rows.new() if exact else 0
        for text in exact:
            encoded = text.encode()
            matched = [self._others[index] for index in states.accepted(encoded)]
            # No other string is of its class.
            number = self._new_class((*self._present, *matched, text))
            _insert(rows, words, encoded, number)
        root = self._write(rows, states) if self._others else 0
        self.automaton = Automaton(words, root, empty, other)
        self.by_pattern = {each: frozenset(numbers) for each, numbers in self._matching.items()}

    def _class(self, matching: frozenset[str]) -> int:
        number = self._numbers.get(matching)
        if number is None:
            number = self._numbers[matching] = self._new_class(matching)
        return number

    def _new_class(self, matching: Iterable[str]) -> int:
        self._count += 1
        for pattern in matching:
            self._matching[pattern].append(self._count)
        return self._count

    def _write(self, rows: Rows, states: _Machine) -> int:
        """Every state of the machine becomes a node; returns the first."""
        numbers = {states.start: rows.new()}
        pending = [states.start]

        def number_of(state: frozenset[int]) -> int:
            if not state:
                return 0
            number = numbers.get(state)
            if number is None:
                if len(numbers) >= MAX_STATES:
                    raise TooManyStatesError
                number = numbers[state] = rows.new()
                pending.append(state)
            return number

        while pending:
            state = pending.pop()
            node = numbers[state]
            fallback, moves = states.moves(state)
            following = number_of(fallback)
            rows.nodes[node] = (0, following)
            for byte, target in moves.items():
                if target != fallback:
                    rows.edges[node, 1, byte] = number_of(target)
            matched = frozenset(self._others[index] for index in states.accepts(state))
            if matched:
                rows.edges[node, END, 0] = TERMINAL | self._class(self._present | matched)
        return numbers[states.start]


def names_automaton(names: Iterable[str], rows: Rows) -> Automaton:
    """Exact names to 1, 2, … in their order; 0 for every other."""
    listed = list(names)
    words = rows.new() if listed else 0
    for number, name in enumerate(listed, 1):
        _insert(rows, words, name.encode(), number)
    return Automaton(words)


def _insert(rows: Rows, node: int, text: bytes, number: int) -> None:
    for start in range(0, len(text), 8):
        part = text[start : start + 8]
        word = int.from_bytes(part, "little")
        if start + 8 >= len(text):
            rows.edges[node, LAST + len(part), word] = TERMINAL | number
            return
        following = rows.edges.get((node, 8, word))
        if following is None:
            following = rows.edges[node, 8, word] = rows.new()
        node = following


class _Machine:
    """Positions in all patterns at once. Positions are the nodes of a trie of steps, so that patterns that begin alike
    share them; `ends` says whose ends they are."""

    def __init__(self, programs: list[tuple[int, ...]]) -> None:
        self._steps: list[dict[int, int]] = [{}]
        self._ends: dict[int, list[int]] = {}
        # Positions that a byte does not leave.
        self._staying: dict[int, int] = {}
        self._known: dict[frozenset[int], tuple[frozenset[int], dict[int, frozenset[int]]]] = {}
        for index, program in enumerate(programs):
            position = 0
            for step in program:
                following = self._steps[position].get(step)
                if following is None:
                    following = self._steps[position][step] = len(self._steps)
                    self._steps.append({})
                    if step in (_ANY, _MORE):
                        self._staying[following] = step
                position = following
            self._ends.setdefault(position, []).append(index)
        # Positions that lead on without a byte and do nothing else: states are alike with and without them.
        self._passing = {
            position
            for position, steps in enumerate(self._steps)
            if steps.keys() <= {_ANY, _MORE} and position not in self._ends and position not in self._staying
        }
        self.start = self._closed([0]) if programs else frozenset[int]()

    def _closed(self, positions: Iterable[int]) -> frozenset[int]:
        """With what is reached without a byte."""
        found = set(positions)
        pending = list(found)
        while pending:
            steps = self._steps[pending.pop()]
            for step in (_ANY, _MORE):
                following = steps.get(step)
                if following is not None and following not in found:
                    found.add(following)
                    pending.append(following)
        return frozenset(found - self._passing)

    def moves(self, state: frozenset[int]) -> tuple[frozenset[int], dict[int, frozenset[int]]]:
        """What any byte leads to that has no move of its own, and the moves."""
        known = self._known.get(state)
        if known is None:
            known = self._known[state] = self._moves(state)
        return known

    def _moves(self, state: frozenset[int]) -> tuple[frozenset[int], dict[int, frozenset[int]]]:
        always: list[int] = []
        unless_slash: list[int] = []
        by_byte: dict[int, list[int]] = {}
        for position in state:
            staying = self._staying.get(position)
            if staying is not None:
                (always if staying == _ANY else unless_slash).append(position)
            for step, following in self._steps[position].items():
                if step == _SOME:
                    unless_slash.append(following)
                elif step >= 0:
                    by_byte.setdefault(step, []).append(following)
        fallback = self._closed([*always, *unless_slash])
        if unless_slash:
            by_byte.setdefault(_SLASH, [])
        moves = {}
        for byte, positions in by_byte.items():
            kept = always if byte == _SLASH else [*always, *unless_slash]
            moves[byte] = self._closed([*positions, *kept])
        return fallback, moves

    def accepts(self, state: frozenset[int]) -> list[int]:
        """The patterns that end here."""
        return [index for position in state for index in self._ends.get(position, ())]

    def accepted(self, text: bytes) -> list[int]:
        """The patterns that match."""
        state = self.start
        for byte in text:
            if not state:
                return []
            fallback, moves = self.moves(state)
            state = moves.get(byte, fallback)
        return self.accepts(state)
