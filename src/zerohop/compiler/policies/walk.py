"""Judges as the kernel does (bpf/mesh/policy.h, judging.h), by whatever holds the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from zerohop.compiler.policies.rows import END, LAST, TERMINAL, Attribute, Automaton
from zerohop.compiler.policies.strings import ABSENT

# From (node, size, symbol) to what follows, and from a node to its attribute and what follows else; None: no such row.
Edge = Callable[[int, int, int], int | None]
Node = Callable[[int], tuple[int, int] | None]


class Diagram(Protocol):
    """What of a destination a walk needs."""

    @property
    def names(self) -> Automaton: ...
    @property
    def strings(self) -> tuple[Automaton, ...]: ...


@dataclass(frozen=True)
class Call:
    """What policies know of a call. `identity`: the client's number, `source`, `destination`: classes of addresses.

    `strings`: by attribute below HEADER; `headers`: name to value. Without both it is a connection.
    """

    identity: int = 0
    source: int = 0
    destination: int = 0
    port: int = 0
    strings: Mapping[int, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def class_of(automaton: Automaton, text: str, edge: Edge, node: Node) -> int:
    """The class of a string."""
    encoded = text.encode()
    if not encoded:
        return automaton.empty
    found = _exact(automaton.words, encoded, edge) if automaton.words else None
    if found is None and automaton.bytes:
        found = _pattern(automaton.bytes, encoded, edge, node)
    return automaton.other if found is None else found & ~TERMINAL


def _exact(state: int, text: bytes, edge: Edge) -> int | None:
    while True:
        part, text = text[:8], text[8:]
        following = edge(state, 8 if text else LAST + len(part), int.from_bytes(part, "little"))
        if following is None or not text:
            return following
        state = following


def _pattern(state: int, text: bytes, edge: Edge, node: Node) -> int | None:
    for byte in text:
        following = edge(state, 1, byte)
        if following is None:
            found = node(state)
            following = found[1] if found else 0
        if not following:
            return None
        state = following
    return edge(state, END, 0)


def walk(root: int, destination: Diagram, call: Call, edge: Edge, node: Node) -> int:
    """Where a walk from `root` ends: TERMINAL and a decision, or the node that asks for what a connection lacks."""
    numbers = {
        Attribute.PORT: call.port,
        Attribute.IDENTITY: call.identity,
        Attribute.SOURCE: call.source,
        Attribute.DESTINATION: call.destination,
    }
    asked = {class_of(destination.names, name, edge, node): value for name, value in call.headers.items()}
    at = root
    while not at & TERMINAL:
        found = node(at)
        if found is None:
            raise KeyError(at)
        attribute, following = found
        if attribute < Attribute.METHOD:
            symbol = numbers[Attribute(attribute)]
        elif not call.strings and not call.headers:
            return at
        else:
            text = (
                call.strings.get(attribute)
                if attribute < Attribute.HEADER
                else asked.get(attribute - Attribute.HEADER + 1)
            )
            automaton = destination.strings[attribute - Attribute.METHOD]
            if text is not None and attribute == Attribute.HOST:
                text = text.lower()
            symbol = ABSENT if text is None else class_of(automaton, text, edge, node)
        target = edge(at, 0, symbol)
        at = following if target is None else target
    return at
