"""Runs a plan: cell by cell, round by round, the modes in turns."""

from __future__ import annotations

import os
import platform
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from zerohop import __version__
from zerohop.bench.account import HookCost
from zerohop.bench.cgroups import require_cgroup2
from zerohop.bench.counters import BusyClock, TcpCounters
from zerohop.bench.figures import Figures
from zerohop.bench.modes import ALL_MODES
from zerohop.bench.modes.base import Carried, Judged, Mode, Setting, TooMuchError
from zerohop.bench.placement import Placement, choose_placement
from zerohop.bench.plan import Cell, Plan
from zerohop.bench.stage import Stage
from zerohop.bench.topology import TOPOLOGIES, Topology
from zerohop.bench.turns import Lane, TooLateError, take_turns, time_for
from zerohop.bench.workloads import WORKLOADS
from zerohop.bench.workloads.base import CallingWorkload, Client, JudgedWorkload, StreamWorkload, Workload
from zerohop.errors import ZerohopError

# Below the usual ephemeral ports, so that no connection of someone else's can be in the way between two runs.
_PORTS: Final = range(20000, 32000)

_ATTEMPTS: Final = 4


@dataclass(frozen=True)
class Run:
    """What one run of one mode measured."""

    figures: Figures
    tcp: TcpCounters
    carried: Carried | None


@dataclass
class CellResult:
    """All runs of a cell: for each mode one per round, in the order of rounds; and what was asked for beside them.

    `too_much`: modes that could not take the case, and why.
    """

    cell: Cell
    runs: dict[str, list[Run]] = field(default_factory=dict)
    hook_costs: dict[str, HookCost] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)
    too_much: dict[str, str] = field(default_factory=dict)


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


class UnfinishedError(Exception):
    """What a plan had measured when `cause` ended it: an interruption, or a `ZerohopError`."""

    def __init__(self, result: Result, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.result = result
        self.cause = cause


def run_plan(plan: Plan, progress: Progress) -> Result:
    """Runs everything, and leaves nothing behind.

    Raises `ZerohopError` at the first run that fails; once a cell is done `UnfinishedError`, for interruptions, too.
    """
    done: list[CellResult] = []
    environment = describe_machine({"zerohop": __version__, "python": platform.python_version()})
    try:
        _run_cells(plan, progress, environment.versions, done)
    except (KeyboardInterrupt, SystemExit, ZerohopError) as error:
        if done:
            raise UnfinishedError(Result(plan, environment, tuple(done)), error) from error
        raise
    return Result(plan, environment, tuple(done))


def _run_cells(plan: Plan, progress: Progress, versions: dict[str, str], done: list[CellResult]) -> None:
    """Adds to `versions` those of the programs, and to `done` each cell when it is."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zerohop-bench-")))
        placements = {cell.placement: choose_placement(cell.placement) for cell in plan.cells}
        for name in plan.workloads:
            progress.preparing(f"{name}: programs")
            versions |= WORKLOADS[name].prepare(scratch)
        topologies = {
            name: stack.enter_context(TOPOLOGIES[name]())
            for name in dict.fromkeys(cell.topology for cell in plan.cells)
        }
        runner = _Runner(plan, topologies, placements, scratch, progress, BusyClock(require_cgroup2()))
        for name in plan.workloads:
            runner.run_workload(WORKLOADS[name], done)


@dataclass(frozen=True)
class _Side:
    """A mode, and what it was opened for."""

    setting: Setting
    mode: Mode


@dataclass
class _StartTime:
    """How long a client takes to start: the longest time seen, once one was."""

    seconds: float = 2.0
    _seen: bool = False

    def prolong(self) -> None:
        self.seconds *= 2

    def took(self, seconds: float) -> None:
        # Half as much again, because the next may take longer.
        self.seconds = max(self.seconds if self._seen else 0.0, seconds * 1.5)
        self._seen = True


@dataclass(frozen=True)
class _Runner:
    plan: Plan
    topologies: Mapping[str, Topology]
    placements: Mapping[str, Placement]
    scratch: Path
    progress: Progress
    clock: BusyClock
    start: _StartTime = field(default_factory=_StartTime)

    def run_workload(self, workload: Workload, done: list[CellResult]) -> None:
        with ExitStack() as stack:
            modes = {}
            names = self.plan.modes(workload.name)
            # One port for all runs of a mode: the configuration of those with zerohop names it.
            ports = iter(free_ports(2 * len(names)))
            for name in names:
                self.progress.preparing(f"{workload.name}: mode {name}")
                setting = Setting(workload, next(ports), self.scratch, front_port=next(ports))
                modes[name] = _Side(setting, stack.enter_context(ALL_MODES[name](setting)))
            for cell in self.plan.cells:
                if cell.workload == workload.name:
                    done.append(self._run_cell(cell, workload, modes))
                    self.progress.cell_done(done[-1])

    def _run_cell(self, cell: Cell, workload: Workload, modes: Mapping[str, _Side]) -> CellResult:
        result = CellResult(cell)
        # Before the rounds: a mode that is not what it says should not take minutes to find out.
        for name, side in modes.items():
            with _blame(cell, name):
                try:
                    self._prepare(cell, side, name, result)
                    result.runs[name] = []
                except TooMuchError as error:
                    result.too_much[name] = error.message
        for number in range(self.plan.rounds if result.runs else 0):
            order = {name: modes[name] for name in self.plan.order(cell.workload, number) if name in result.runs}
            for name, run in self._run_round(cell, workload, order, number):
                result.runs[name].append(run)
        for name in result.runs:
            with _blame(cell, name):
                if cost := self._hook_cost(cell, modes[name], name):
                    result.hook_costs[name] = cost
        return result

    def _prepare(self, cell: Cell, side: _Side, name: str, result: CellResult) -> None:
        self.progress.preparing(f"{cell} {name}: configuration")
        seconds = side.mode.load(cell.case)
        if seconds is not None:
            result.load_seconds[name] = seconds
        self._verify(cell, side, name)

    def _run_round(
        self, cell: Cell, workload: Workload, modes: Mapping[str, _Side], number: int
    ) -> Iterable[tuple[str, Run]]:
        if isinstance(workload, CallingWorkload):
            return self._run_in_turns(cell, workload, modes, number)
        assert isinstance(workload, StreamWorkload)
        return self._run_one_by_one(cell, workload, modes, number)

    def _run_one_by_one(
        self, cell: Cell, workload: StreamWorkload, modes: Mapping[str, _Side], number: int
    ) -> Iterator[tuple[str, Run]]:
        topology = self.topologies[cell.topology]
        for name, side in modes.items():
            self.progress.run_started(cell, name, number)
            with _blame(cell, name):
                before = topology.tcp_counters()
                figures = workload.run(cell.case, self._stage(cell, side))
                yield name, Run(figures, topology.tcp_counters() - before, side.mode.evidence())

    def _run_in_turns(
        self, cell: Cell, workload: CallingWorkload, modes: Mapping[str, _Side], number: int
    ) -> Iterator[tuple[str, Run]]:
        figures: dict[str, dict[str, float]] = {name: {} for name in modes}
        tcp = dict.fromkeys(modes, TcpCounters())
        with ExitStack() as servers:
            running = {}
            for name, side in modes.items():
                self.progress.run_started(cell, name, number)
                with _blame(cell, name):
                    stage = self._stage(cell, side)
                    running[name] = stage, servers.enter_context(workload.serving(cell.case, stage))
            for which, share in next(iter(running.values()))[1].passes.items():
                lanes = self._measure(cell, running, which, self.plan.timing.measured * share)
                for name, (lane, measured) in lanes.items():
                    figures[name] |= measured
                    tcp[name] += lane.tcp
        for name, side in modes.items():
            with _blame(cell, name):
                operations = int(figures[name]["per_second"] * self.plan.timing.measured)
                yield name, Run(figures[name], tcp[name], side.mode.evidence(operations))

    def _measure(
        self, cell: Cell, running: Mapping[str, tuple[Stage, Client]], which: str, seconds: float
    ) -> dict[str, tuple[Lane, Figures]]:
        for _ in range(_ATTEMPTS - 1):
            with suppress(TooLateError):
                return self._take_turns(cell, running, which, seconds)
            # Clients have to work for longer than it takes to start them all, which is an estimate.
            self.start.prolong()
        return self._take_turns(cell, running, which, seconds)

    def _take_turns(
        self, cell: Cell, running: Mapping[str, tuple[Stage, Client]], which: str, seconds: float
    ) -> dict[str, tuple[Lane, Figures]]:
        lanes: dict[str, Lane] = {}
        with ExitStack() as clients:
            for number, (name, (stage, client)) in enumerate(running.items()):
                with _blame(cell, name):
                    begun = time.monotonic()
                    others = (len(running) - number - 1) * (self.start.seconds + self.plan.timing.warmup)
                    span = others + time_for(len(running), seconds)
                    work = clients.enter_context(client.working(stage, which, span))
                    lanes[name] = Lane(stage, work, self.clock)
                    lanes[name].halt()
                    self.start.took(time.monotonic() - begun - self.plan.timing.warmup)
            take_turns(list(lanes.values()), seconds)
            time.sleep(max(0.0, max(lane.work.ends for lane in lanes.values()) - time.time()))
            measured = {}
            for name, lane in lanes.items():
                with _blame(cell, name):
                    stage = running[name][0]
                    stage.resume()
                    measured[name] = lane, lane.work.figures(lane.turns)
            return measured

    def _verify(self, cell: Cell, side: _Side, name: str) -> None:
        workload = side.setting.workload
        if isinstance(workload, CallingWorkload):
            self.progress.preparing(f"{cell} {name}: comparing counts")
            judged = None
            if isinstance(workload, JudgedWorkload):
                make_forbidden = partial(workload.make_forbidden_calls, self._stage(cell, side))
                judged = Judged(*workload.decider(cell.case), make_forbidden)
            side.mode.verify(self._caller(cell, side, workload), judged)

    def _hook_cost(self, cell: Cell, side: _Side, name: str) -> HookCost | None:
        workload = side.setting.workload
        if not self.plan.bpf_stats or not isinstance(workload, CallingWorkload):
            return None
        self.progress.preparing(f"{cell} {name}: time in the hooks")
        return side.mode.hook_cost(self._caller(cell, side, workload))

    def _caller(self, cell: Cell, side: _Side, workload: CallingWorkload) -> Callable[[int], None]:
        def make_calls(count: int) -> None:
            stage = self._stage(cell, side)
            with workload.serving(cell.case, stage) as client:
                client.call(stage, count)

        return make_calls

    def _stage(self, cell: Cell, side: _Side) -> Stage:
        return Stage(
            self.topologies[cell.topology],
            self.placements[cell.placement],
            side.mode.enter,
            side.setting.port,
            self.plan.timing,
            side.setting.scratch,
            side.mode.before,
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
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many TCP ports that nobody listens on in this namespace."""
    found: list[int] = []
    for port in random.sample(_PORTS, 100 + count):
        if len(found) == count:
            break
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    if len(found) < count:
        raise ZerohopError(f"no {count} free TCP ports between {_PORTS.start} and {_PORTS.stop}")
    return found


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
