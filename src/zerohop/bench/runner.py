"""Runs a plan: cell by cell, round by round, mode by mode."""

from __future__ import annotations

import os
import platform
import random
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from zerohop import __version__
from zerohop.bench.account import HookCost
from zerohop.bench.counters import TcpCounters
from zerohop.bench.figures import Figures
from zerohop.bench.modes import ALL_MODES
from zerohop.bench.modes.base import Carried, Judged, Mode, Setting
from zerohop.bench.placement import Placement, choose_placement
from zerohop.bench.plan import Cell, Plan
from zerohop.bench.stage import Stage
from zerohop.bench.topology import TOPOLOGIES, Topology
from zerohop.bench.workloads import WORKLOADS
from zerohop.bench.workloads.base import CallingWorkload, JudgedWorkload, Workload
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
    """All runs of a cell: for each mode one per round, in the order of rounds; and what was asked for beside them."""

    cell: Cell
    runs: dict[str, list[Run]] = field(default_factory=dict)
    hook_costs: dict[str, HookCost] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """The machine and the programs that the figures belong to."""

    kernel: str
    cpus: int
    cpu_model: str
    load_average: float
    versions: dict[str, str]


class Progress(Protocol):
    def preparing(self, what: str) -> None: ...
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
            progress.preparing(f"{name}: programs")
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
        # One port for all runs: the configuration of the modes with zerohop names it.
        setting = Setting(workload, free_port(), self.scratch)
        with ExitStack() as stack:
            modes = {}
            for name in self.plan.modes(workload.name):
                self.progress.preparing(f"{workload.name}: mode {name}")
                modes[name] = stack.enter_context(ALL_MODES[name](setting))
            return [self._run_cell(cell, setting, modes) for cell in self.plan.cells if cell.workload == workload.name]

    def _run_cell(self, cell: Cell, setting: Setting, modes: Mapping[str, Mode]) -> CellResult:
        result = CellResult(cell, {name: [] for name in modes})
        # Before the rounds: a mode that is not what it says should not take minutes to find out.
        for name, mode in modes.items():
            with _blame(cell, name):
                self.progress.preparing(f"{cell} {name}: configuration")
                seconds = mode.load(cell.case)
                if seconds is not None:
                    result.load_seconds[name] = seconds
                self._verify(cell, setting, mode, name)
        for number in range(self.plan.rounds):
            for name in self.plan.order(cell.workload, number):
                self.progress.run_started(cell, name, number)
                with _blame(cell, name):
                    result.runs[name].append(self._run_once(cell, setting, modes[name]))
        for name, mode in modes.items():
            with _blame(cell, name):
                if cost := self._hook_cost(cell, setting, mode, name):
                    result.hook_costs[name] = cost
        self.progress.cell_done(result)
        return result

    def _run_once(self, cell: Cell, setting: Setting, mode: Mode) -> Run:
        topology, workload = self.topologies[cell.topology], setting.workload
        before = topology.tcp_counters()
        figures = workload.run(cell.case, self._stage(cell, setting, mode))
        operations = int(figures["per_second"] * self.plan.timing.measured)
        return Run(figures, topology.tcp_counters() - before, mode.evidence(operations))

    def _verify(self, cell: Cell, setting: Setting, mode: Mode, name: str) -> None:
        workload = setting.workload
        if isinstance(workload, CallingWorkload):
            self.progress.preparing(f"{cell} {name}: comparing counts")
            stage = self._stage(cell, setting, mode)
            judged = None
            if isinstance(workload, JudgedWorkload):
                judged = Judged(*workload.decider(cell.case), partial(workload.make_forbidden_calls, stage))
            mode.verify(partial(workload.make_calls, cell.case, stage), judged)

    def _hook_cost(self, cell: Cell, setting: Setting, mode: Mode, name: str) -> HookCost | None:
        workload = setting.workload
        if not self.plan.bpf_stats or not isinstance(workload, CallingWorkload):
            return None
        self.progress.preparing(f"{cell} {name}: time in the hooks")
        return mode.hook_cost(partial(workload.make_calls, cell.case, self._stage(cell, setting, mode)))

    def _stage(self, cell: Cell, setting: Setting, mode: Mode) -> Stage:
        return Stage(
            self.topologies[cell.topology],
            self.placements[cell.placement],
            mode.enter,
            setting.port,
            self.plan.timing,
            setting.scratch,
        )


@contextmanager
def _blame(cell: Cell, mode: str) -> Iterator[None]:
    """An error of the block says which run it ended."""
    try:
        yield
    except ZerohopError as error:
        raise ZerohopError(
            f"{cell}, mode {mode}: {error.message}", hint=error.hint, exit_code=error.exit_code
        ) from error


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
