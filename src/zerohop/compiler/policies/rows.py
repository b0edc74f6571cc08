"""Rows: what diagrams and automata are made of, as the kernel's table has them (bpf/shared/policy.h)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

# In what a row leads to: an end. The other bits are a decision's number, in an automaton a class.
TERMINAL: Final = 0x80000000

# Of an automaton's edge: its end, and what is added to the number of bytes when they are a string's last.
END: Final = 0
LAST: Final = 8


class Attribute(IntEnum):
    """What a node tests (`enum policy_attribute`): of a connection first, then of a call."""

    STATE = 0
    PORT = 1
    IDENTITY = 2
    SOURCE = 3
    DESTINATION = 4
    METHOD = 5
    PATH = 6
    HOST = 7
    HEADER = 8


@dataclass(frozen=True, slots=True)
class Automaton:
    """Where a string's walk begins (0: there is no such part), and its class where no pattern but `*` can match."""

    words: int = 0
    bytes: int = 0
    empty: int = 0
    other: int = 0


@dataclass
class Rows:
    """`nodes`: number to attribute and what follows when no edge fits. `edges`: (node, size, symbol) to what follows.

    In a diagram size is 0 and the symbol the attribute's number or class. In an automaton an edge takes in a byte
    (1), eight bytes (8), a string's last one to eight (9 to 16), or its end (0).
    """

    nodes: dict[int, tuple[int, int]] = field(default_factory=dict)
    edges: dict[tuple[int, int, int], int] = field(default_factory=dict)
    _last: int = 0

    def new(self) -> int:
        """A number that no node has yet."""
        self._last += 1
        return self._last
