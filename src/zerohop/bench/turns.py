"""Turns: the programs of all modes are there at the same time, but only one mode's run, a twentieth of a second each.

A machine's speed changes from second to second (other guests, clock, caches), but hardly from one such turn to the
next: a second of each mode, one after the other, differs by more than what is to be measured.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from zerohop.bench.counters import BusyClock, TcpCounters
from zerohop.bench.figures import Figures
from zerohop.bench.stage import Stage
from zerohop.errors import ZerohopError

# Shorter than TCP's least retransmission time-out (200 ms), also with four modes that wait for each other.
TURN_SECONDS: Final = 0.05

# What halting and continuing may take of a turn.
_OVERHEAD: Final = 1.2


@dataclass(frozen=True)
class Turn:
    """One interval in which a mode's programs ran. `begin`, `end`: seconds since 1970; `busy`: CPU seconds in it."""

    begin: float
    end: float
    busy: float


@dataclass(frozen=True)
class Turns:
    """All turns of a mode in a run, in the order of time, none of which overlap."""

    turns: Sequence[Turn]
    _before: list[float] = field(init=False, repr=False, default_factory=list)
    _begins: list[float] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        total = 0.0
        for turn in self.turns:
            self._begins.append(turn.begin)
            self._before.append(total)
            total += turn.end - turn.begin

    @property
    def seconds(self) -> float:
        return sum(turn.end - turn.begin for turn in self.turns)

    @property
    def busy(self) -> float:
        return sum(turn.busy for turn in self.turns)

    def includes(self, instant: float) -> bool:
        index = bisect_right(self._begins, instant) - 1
        return index >= 0 and instant < self.turns[index].end

    def elapsed(self, instant: float) -> float:
        """The seconds of turns before `instant` (seconds since 1970)."""
        index = bisect_right(self._begins, instant) - 1
        if index < 0:
            return 0.0
        turn = self.turns[index]
        return self._before[index] + min(instant, turn.end) - turn.begin

    def latencies(self, operations: Sequence[tuple[float, float]]) -> list[float]:
        """Of operations that began and ended at these instants, how long each took while programs ran.

        In seconds, ascending; only of those that ended in a turn, and began in or after the first one.
        """
        first = self.turns[0].begin
        return sorted(
            self.elapsed(end) - self.elapsed(begin)
            for begin, end in operations
            if begin >= first and self.includes(end)
        )


class TooLateError(ZerohopError):
    """A client's time was up before all had a turn."""


class Work(Protocol):
    """A client that works until its time is up."""

    @property
    def ends(self) -> float:
        """When that is, as `time.time()`."""

    def figures(self, turns: Turns) -> Figures:
        """Waits for its end, which is near; what it measured, in these turns."""


class Lane:
    """The programs of one mode, which run only in their turns. Made while they run: the first turn is now."""

    def __init__(self, stage: Stage, work: Work, clock: BusyClock) -> None:
        self.work = work
        self._stage = stage
        self._clock = clock
        self._turns: list[Turn] = []
        self._tcp = TcpCounters()
        self._resumed()

    @property
    def turns(self) -> Turns:
        return Turns(self._turns)

    @property
    def tcp(self) -> TcpCounters:
        """What TCP counted in all turns."""
        return self._tcp

    def _resumed(self) -> None:
        self._counters = self._stage.topology.tcp_counters()
        self._busy = self._clock.seconds()
        self._begin = time.time()

    def resume(self) -> None:
        self._resumed()
        self._stage.resume()

    def halt(self) -> None:
        self._stage.halt()
        end = time.time()
        self._turns.append(Turn(self._begin, end, self._clock.seconds() - self._busy))
        self._tcp += self._stage.topology.tcp_counters() - self._counters

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The block is a turn."""
        self.resume()
        yield
        self.halt()


def take_turns(lanes: Sequence[Lane], seconds: float) -> None:
    """Gives each of the halted `lanes` `seconds` in turns; each comes first in turn.

    Ends early when a client's time is up; `TooLateError` when that is before all had a turn.
    """
    count = max(1, round(seconds / TURN_SECONDS))
    length = seconds / count
    for number in range(count):
        if time.time() + length * len(lanes) * _OVERHEAD > min(lane.work.ends for lane in lanes):
            if number == 0:
                raise TooLateError("starting the programs took too long to measure anything", hint="run nothing else")
            return
        shift = number % len(lanes)
        for lane in (*lanes[shift:], *lanes[:shift]):
            with lane.turn():
                time.sleep(length)


def time_for(lanes: int, seconds: float) -> float:
    """Seconds that turns of `seconds` for each of so many lanes take."""
    return lanes * seconds * _OVERHEAD + TURN_SECONDS
