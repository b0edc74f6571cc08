"""Judges as the kernel does (bpf/mesh/policy.h, judging.h), by whatever holds the rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from zerohop.compiler.policies.rows import END, LAST, TERMINAL, Attribute, Automaton
from zerohop.compiler.policies.strings import ABSENT

# From (node, size, symbol) to what follows, and from a node to its attribute and what follows else; None: no such row.
Edge = Callable[[int, int, int], int | None]
Node = Callable[[int], tuple[int, int] | None]

# What a walk comes to where the diagram asks for what nobody can tell of a call: it is denied (POLICY_DOUBT).
IN_DOUBT: Final = TERMINAL | 0x60000000

# Why nobody can tell, as `enum reason` has it.
HEADER_REPEATED: Final = "header_repeated"
HEADER_TOO_LONG: Final = "header_too_long"
PATH_NOT_NORMAL: Final = "path_not_normal"
HOST_NOT_NORMAL: Final = "host_not_normal"

# Bytes of a name or value that the kernel looks at (bpf/shared/bounds.h).
TEXT_SIZE: Final = 1024

_PSEUDO: Final = {":method": Attribute.METHOD, ":path": Attribute.PATH, ":authority": Attribute.HOST}
_QUERY: Final = re.compile(rb"[?#]")
_NOT_PLAIN: Final = re.compile(rb"[^!-~]|[%;\\]|//|/\.\.?(?:/|\Z)")


class Diagram(Protocol):
    """What of a destination a walk needs."""

    @property
    def names(self) -> Automaton: ...
    @property
    def strings(self) -> tuple[Automaton, ...]: ...


@dataclass(frozen=True)
class Call:
    """What policies know of a call. `identity`: the client's number, `source`, `destination`: classes of addresses.

    `fields`: names in small letters, and values, in the order in which they are sent. Without any it is a connection.
    """

    identity: int = 0
    source: int = 0
    destination: int = 0
    port: int = 0
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Taken:
    """What policies take from a call's fields, by attribute: classes, and why it is in doubt; the first doubt first."""

    classes: Mapping[int, int]
    doubts: Mapping[int, str]

    @property
    def doubt(self) -> str | None:
        """What the kernel says where any doubt decides."""
        return next(iter(self.doubts.values()), None)


def plain_path(text: bytes) -> bytes | None:
    """A path without its query. None: servers may read it otherwise than it is written."""
    path = _QUERY.split(text, maxsplit=1)[0]
    return path if path.startswith(b"/") and not _NOT_PLAIN.search(path) else None


def take_fields(destination: Diagram, call: Call, edge: Edge, node: Node) -> Taken:
    """What the destination's policies take from the call's fields."""
    classes: dict[int, int] = {}
    doubts: dict[int, str] = {}
    for name, value in call.fields:
        attribute = _attribute_of(destination.names, name, edge, node)
        if attribute is None:
            continue
        automaton = destination.strings[attribute - Attribute.METHOD]
        if not automaton.words and not automaton.bytes and automaton.empty == automaton.other:
            continue  # no policy asks for it
        if attribute in classes:
            doubts.setdefault(attribute, HEADER_REPEATED)
            continue
        classes[attribute] = ABSENT
        # Arguments of programs may be any bytes.
        text = value.encode(errors="surrogateescape")
        compared = plain_path(text) if attribute == Attribute.PATH else text
        if len(text) > TEXT_SIZE:
            doubts[attribute] = HEADER_TOO_LONG
        elif compared is None:
            doubts[attribute] = PATH_NOT_NORMAL
        elif attribute == Attribute.HOST and b"@" in text:
            doubts[attribute] = HOST_NOT_NORMAL
        else:
            compared = compared.lower() if attribute == Attribute.HOST else compared
            classes[attribute] = class_of(automaton, compared, edge, node)
    return Taken(classes, doubts)


def _attribute_of(names: Automaton, name: str, edge: Edge, node: Node) -> int | None:
    """None: no policy asks for such a field."""
    if name == "host":
        return Attribute.HOST
    if name.startswith(":"):
        return _PSEUDO.get(name)
    encoded = name.encode(errors="surrogateescape")
    number = class_of(names, encoded, edge, node) if len(encoded) <= TEXT_SIZE else 0
    return Attribute.HEADER + number - 1 if number else None


def class_of(automaton: Automaton, text: bytes, edge: Edge, node: Node) -> int:
    """The class of a string."""
    if not text:
        return automaton.empty
    found = _exact(automaton.words, text, edge) if automaton.words else None
    if found is None and automaton.bytes:
        found = _pattern(automaton.bytes, text, edge, node)
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
    """Where a walk from `root` ends: TERMINAL and a decision, or IN_DOUBT; or the node that asks for what a connection
    lacks."""
    numbers = {
        Attribute.PORT: call.port,
        Attribute.IDENTITY: call.identity,
        Attribute.SOURCE: call.source,
        Attribute.DESTINATION: call.destination,
    }
    taken = take_fields(destination, call, edge, node)
    at = root
    while not at & TERMINAL:
        found = node(at)
        if found is None:
            raise KeyError(at)
        attribute, following = found
        if attribute < Attribute.METHOD:
            symbol = numbers[Attribute(attribute)]
        elif not call.fields:
            return at
        elif attribute in taken.doubts:
            return IN_DOUBT
        else:
            symbol = taken.classes.get(attribute, ABSENT)
        target = edge(at, 0, symbol)
        at = following if target is None else target
    return at
