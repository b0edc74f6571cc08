"""Runs a plan: cell by cell, round by round, mode by mode."""

from __future__ import annotations

import os
import platform
import random
import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from zerohop import __version__
from zerohop.bench.counters import TcpCounters
from zerohop.bench.figures import Figures
from zerohop.bench.modes import MODES
from zerohop.bench.modes.base import Carried, Mode, Setting
from zerohop.bench.placement import Placement, choose_placement
from zerohop.bench.plan import Cell, Plan
from zerohop.bench.stage import Stage
from zerohop.bench.topology import TOPOLOGIES, Topology
from zerohop.bench.workloads import WORKLOADS
from zerohop.bench.workloads.base import Workload
from zerohop.errors import ZerohopError

# Below the usual ephemeral ports, so that no connection of someone else's can be in the way between two runs.
_PORTS: Final = range(20000, 32000)


@dataclass(frozen=True)
class Run:
    """What one run of one mode measured."""

    figures: Figures
    tcp: TcpCounters
    carried: Carried | None


@dataclass
class CellResult:
    """All runs of a cell: for each mode one per round, in the order of rounds."""

    cell: Cell
    runs: dict[str, list[Run]] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """The machine and the programs that the figures belong to."""

    kernel: str
    cpus: int
    cpu_model: str
    load_average: float
    versions: dict[str, str]


class Progress(Protocol):
    def run_started(self, cell: Cell, mode: str, number: int) -> None: ...
    def cell_done(self, result: CellResult) -> None: ...


@dataclass(frozen=True)
class Result:
    plan: Plan
    environment: Environment
    cells: tuple[CellResult, ...]


def run_plan(plan: Plan, progress: Progress) -> Result:
    """Runs everything; `ZerohopError` at the first run that fails. Leaves nothing behind either way."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zerohop-bench-")))
        placements = {cell.placement: choose_placement(cell.placement) for cell in plan.cells}
        versions = {"zerohop": __version__, "python": platform.python_version()}
        for name in plan.workloads:
            versions |= WORKLOADS[name].prepare(scratch)
        environment = describe_machine(versions)
        topologies = {
            name: stack.enter_context(TOPOLOGIES[name]())
            for name in dict.fromkeys(cell.topology for cell in plan.cells)
        }
        runner = _Runner(plan, topologies, placements, scratch, progress)
        results = [result for name in plan.workloads for result in runner.run_workload(WORKLOADS[name])]
    return Result(plan, environment, tuple(results))


@dataclass(frozen=True)
class _Runner:
    plan: Plan
    topologies: Mapping[str, Topology]
    placements: Mapping[str, Placement]
    scratch: Path
    progress: Progress

    def run_workload(self, workload: Workload) -> list[CellResult]:
        # One port for all runs: the zerohop mode's configuration names it.
        setting = Setting(workload, free_port(), self.scratch)
        with ExitStack() as stack:
            modes = {name: stack.enter_context(MODES[name](setting)) for name in self.plan.modes}
            return [self._run_cell(cell, setting, modes) for cell in self.plan.cells if cell.workload == workload.name]

    def _run_cell(self, cell: Cell, setting: Setting, modes: Mapping[str, Mode]) -> CellResult:
        result = CellResult(cell, {name: [] for name in self.plan.modes})
        for number in range(self.plan.rounds):
            for name in self.plan.order(number):
                self.progress.run_started(cell, name, number)
                try:
                    result.runs[name].append(self._run_once(cell, setting, modes[name]))
                except ZerohopError as error:
                    raise ZerohopError(
                        f"{cell}, mode {name}: {error.message}", hint=error.hint, exit_code=error.exit_code
                    ) from error
        self.progress.cell_done(result)
        return result

    def _run_once(self, cell: Cell, setting: Setting, mode: Mode) -> Run:
        topology = self.topologies[cell.topology]
        stage = Stage(
            topology,
            self.placements[cell.placement],
            mode.enter,
            setting.port,
            self.plan.timing,
            setting.scratch,
        )
        before = topology.tcp_counters()
        figures = setting.workload.run(cell.case, stage)
        return Run(figures, topology.tcp_counters() - before, mode.evidence())


def free_port() -> int:
    """A TCP port that nobody listens on in this namespace."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ZerohopError(f"no free TCP port between {_PORTS.start} and {_PORTS.stop}")


def describe_machine(versions: dict[str, str]) -> Environment:
    models = (line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name"))
    return Environment(
        kernel=platform.release(),
        cpus=os.cpu_count() or 1,
        cpu_model=next(models, "").partition(":")[2].strip() or platform.machine(),
        load_average=os.getloadavg()[0],
        versions=versions,
    )


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
