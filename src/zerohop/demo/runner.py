"""Runs the demo: short runs of the same two programs, without and with zerohop in turn, over both topologies."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from zerohop.bench.figures import Figures
from zerohop.bench.modes import MODES
from zerohop.bench.modes.base import Carried, Mode, Setting
from zerohop.bench.placement import choose_placement
from zerohop.bench.runner import free_port
from zerohop.bench.stage import Stage, Timing
from zerohop.bench.topology import TOPOLOGIES, Topology
from zerohop.bench.workloads.base import workload_documents
from zerohop.errors import UnsupportedError, ZerohopError

ROUNDS: Final = 3
NOTE: Final = "one short run, not a benchmark: zerohop bench measures"
_SERVICE: Final = """\
---
apiVersion: v1
kind: Service
metadata: {{name: greeter, namespace: bench}}
spec:
  selector: {{app: server}}
  ports: [{{name: grpc, port: 80, targetPort: {port}, appProtocol: grpc}}]
"""


@dataclass
class Row:
    """What one topology has shown in one mode so far. Latencies in microseconds, time in seconds."""

    topology: str
    mode: str
    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    seconds: float = 0.0
    carried: Carried = field(default_factory=Carried)

    @property
    def calls_per_second(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, percent: int) -> float | None:
        if len(self.latencies) < 2:
            return None
        return statistics.quantiles(self.latencies, n=100)[percent - 1]

    def to_json(self) -> dict[str, Any]:
        return {
            "topology": self.topology,
            "mode": self.mode,
            "calls": len(self.latencies),
            "failures": self.failures,
            "per_second": self.calls_per_second,
            "p50_us": self.percentile(50),
            "p99_us": self.percentile(99),
            "shortcut_bytes": self.carried.shortcut_bytes,
            "tcp_bytes": self.carried.tcp_bytes,
        }


Show = Callable[[list[Row], str, Row | None], None]
"""Is given all rows, what is going on, and the row to which a run has just been added."""


class Greeting:
    """The demo's workload, in the shape that the benchmark's modes take."""

    name = "demo"
    cases: tuple[str, ...] = ("unary",)
    unit = "call"
    may_leave = False

    def prepare(self, scratch: Path) -> dict[str, str]:
        if importlib.util.find_spec("grpc") is None:
            raise UnsupportedError("the demo needs grpcio", hint="pip install 'zerohop[demo]'")
        return {}

    def configuration(self, port: int) -> str:
        return workload_documents(shortcut="Auto") + _SERVICE.format(port=port)

    def run(self, case: str, stage: Stage) -> Figures:
        raise NotImplementedError("the demo watches its client instead")


def run_demo(seconds: float, show: Show) -> list[Row]:
    """Calls for about `seconds` in all, and tells `show` whenever there is news.

    Raises `ZerohopError` when a call failed or nothing was short-cut. Leaves nothing behind either way.
    """
    greeting = Greeting()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zerohop-demo-")))
        greeting.prepare(scratch)
        topologies = {name: stack.enter_context(make()) for name, make in TOPOLOGIES.items()}
        setting = Setting(greeting, free_port(), scratch)
        modes = {name: stack.enter_context(make(setting)) for name, make in MODES.items()}
        rows = [Row(topology, mode) for topology in topologies for mode in modes]
        each = seconds / (ROUNDS * len(rows))
        for number in range(ROUNDS):
            for row in rows:
                what = f"round {number + 1} of {ROUNDS}: {row.topology}, {row.mode}"
                news = partial(show, rows, what, None)
                _watch(row, topologies[row.topology], modes[row.mode], setting, each, news)
                show(rows, what, row)
    failed = sum(row.failures for row in rows)
    if failed:
        raise ZerohopError(f"{failed} calls failed or came back changed", hint="run zerohop doctor")
    return rows


def _watch(
    row: Row, topology: Topology, mode: Mode, setting: Setting, seconds: float, news: Callable[[], None]
) -> None:
    """One run of server and client; adds what the client reports to `row` as it comes."""
    stage = Stage(topology, choose_placement("free"), mode.enter, setting.port, Timing(0.0, seconds), setting.scratch)
    program = (sys.executable, "-P", "-m", "zerohop.demo.service")
    place = (stage.address, str(stage.port))
    news()
    with stage.start("server", (*program, "server", *place)) as server:
        server.expect_line("listening", stage.deadline())
        with stage.start("client", (*program, "client", *place, str(seconds))) as client:
            deadline = time.monotonic() + seconds + 20
            while (line := client.read_line(deadline)) is not None:
                report = json.loads(line)
                row.latencies += report["latencies_us"]
                row.failures += report["failures"]
                row.seconds += report["seconds"]
                news()
            client.finish(deadline)
    carried = mode.evidence()
    if carried is not None:
        row.carried += carried
