"""What a bench will run: the cells that the options choose, in order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from zerohop.bench.envoy import find_envoy
from zerohop.bench.modes import ALL_MODES, RIVALS, UNMANAGED
from zerohop.bench.placement import PLACEMENTS
from zerohop.bench.stage import Timing
from zerohop.bench.topology import TOPOLOGIES
from zerohop.bench.workloads import WORKLOADS
from zerohop.bench.workloads.base import CallingWorkload
from zerohop.errors import EXIT_USAGE, ZerohopError

DEFAULT_TOPOLOGIES: Final = ("loopback", "veth")
DEFAULT_MODES: Final = ("direct", "zerohop")
# Of workloads that tell zerohop's layers apart.
LAYERED: Final = {"grpc": ("direct", "shortcut", "engine"), "policy": ("direct", "policy", "envoy")}
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
    """`chosen_modes`: empty for the default ones of each workload. `bpf_stats`: also measure the time in the hooks."""

    cells: tuple[Cell, ...]
    chosen_modes: tuple[str, ...]
    rounds: int
    timing: Timing
    bpf_stats: bool = False

    @property
    def workloads(self) -> tuple[str, ...]:
        return _unique(cell.workload for cell in self.cells)

    @property
    def runs(self) -> int:
        return self.rounds * sum(len(self.modes(cell.workload)) for cell in self.cells)

    def modes(self, workload: str) -> tuple[str, ...]:
        """The modes to compare for a workload."""
        if self.chosen_modes:
            return self.chosen_modes
        modes = LAYERED.get(workload, DEFAULT_MODES)
        return modes if find_envoy() else tuple(mode for mode in modes if mode not in RIVALS)

    def order(self, workload: str, number: int) -> tuple[str, ...]:
        """The modes of round `number`: each comes first in turn, so that none profits from its place."""
        modes = self.modes(workload)
        shift = number % len(modes)
        return modes[shift:] + modes[:shift]


def make_plan(
    *,
    workloads: Sequence[str] = (),
    topologies: Sequence[str] = (),
    placements: Sequence[str] = (),
    cases: Sequence[str] = (),
    modes: Sequence[str] = (),
    rounds: int = DEFAULT_ROUNDS,
    seconds: float = DEFAULT_SECONDS,
    bpf_stats: bool = False,
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
    plan = Plan(
        cells,
        _check("mode", modes, ALL_MODES),
        rounds,
        Timing(warmup=seconds * WARMUP_SHARE, measured=seconds),
        bpf_stats,
    )
    if bpf_stats and not any(_has_hook_cost(plan, name) for name in chosen):
        raise ZerohopError(
            "--bpf-stats has nothing to measure",
            hint="it needs a mode with zerohop, and one of " + ", ".join(filter(_makes_calls, WORKLOADS)),
            exit_code=EXIT_USAGE,
        )
    return plan


def default_placements() -> tuple[str, ...]:
    """The placements of a default run: the steady ones that this machine has CPUs for."""
    return ("same", "split") if len(os.sched_getaffinity(0)) > 1 else ("same",)


def _makes_calls(workload: str) -> bool:
    return isinstance(WORKLOADS[workload], CallingWorkload)


def _has_hook_cost(plan: Plan, workload: str) -> bool:
    return _makes_calls(workload) and not set(plan.modes(workload)) <= set(UNMANAGED)


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
