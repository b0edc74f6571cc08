"""What a bench will run: the cells that the options choose, in order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from zerohop.bench.modes import MODES
from zerohop.bench.placement import PLACEMENTS
from zerohop.bench.stage import Timing
from zerohop.bench.topology import TOPOLOGIES
from zerohop.bench.workloads import WORKLOADS
from zerohop.errors import EXIT_USAGE, ZerohopError

DEFAULT_TOPOLOGIES: Final = ("loopback", "veth")
DEFAULT_MODES: Final = ("direct", "zerohop")
DEFAULT_ROUNDS: Final = 5
DEFAULT_SECONDS: Final = 1.0
WARMUP_SHARE: Final = 0.25


@dataclass(frozen=True)
class Cell:
    """One line of the result."""

    workload: str
    case: str
    topology: str
    placement: str

    def __str__(self) -> str:
        return f"{self.workload} {self.case} {self.topology} {self.placement}"


@dataclass(frozen=True)
class Plan:
    cells: tuple[Cell, ...]
    modes: tuple[str, ...]
    rounds: int
    timing: Timing

    @property
    def workloads(self) -> tuple[str, ...]:
        return _unique(cell.workload for cell in self.cells)

    @property
    def runs(self) -> int:
        return len(self.cells) * self.rounds * len(self.modes)

    def order(self, number: int) -> tuple[str, ...]:
        """The modes of round `number`: each comes first in turn, so that none profits from its place."""
        shift = number % len(self.modes)
        return self.modes[shift:] + self.modes[:shift]


def make_plan(
    *,
    workloads: Sequence[str] = (),
    topologies: Sequence[str] = (),
    placements: Sequence[str] = (),
    cases: Sequence[str] = (),
    modes: Sequence[str] = (),
    rounds: int = DEFAULT_ROUNDS,
    seconds: float = DEFAULT_SECONDS,
) -> Plan:
    """Checks the choices and multiplies them out; empty means the default. Raises `ZerohopError` (usage)."""
    chosen = _check("workload", workloads, WORKLOADS) or tuple(WORKLOADS)
    known_cases = _unique(case for name in chosen for case in WORKLOADS[name].cases)
    wanted = _check("case", cases, known_cases, of=f" of {', '.join(chosen)}")
    topologies = _check("topology", topologies, TOPOLOGIES) or DEFAULT_TOPOLOGIES
    placements = _check("placement", placements, PLACEMENTS) or default_placements()
    cells = tuple(
        Cell(name, case, topology, placement)
        for name in chosen
        for case in WORKLOADS[name].cases
        if not wanted or case in wanted
        for topology in topologies
        for placement in placements
    )
    modes = _check("mode", modes, MODES) or DEFAULT_MODES
    return Plan(cells, tuple(modes), rounds, Timing(warmup=seconds * WARMUP_SHARE, measured=seconds))


def default_placements() -> tuple[str, ...]:
    """The placements of a default run: the steady ones that this machine has CPUs for."""
    return ("same", "split") if len(os.sched_getaffinity(0)) > 1 else ("same",)


def _check(kind: str, names: Sequence[str], known: Iterable[str], *, of: str = "") -> tuple[str, ...]:
    known = tuple(known)
    for name in names:
        if name not in known:
            raise ZerohopError(
                f"no such {kind}{of}: {name!r}", hint=f"choose from {', '.join(known)}", exit_code=EXIT_USAGE
            )
    return _unique(names)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
