"""`pingecho`: 24 bytes there and back, one connection, closed loop."""

from __future__ import annotations

import json
from pathlib import Path

from zerohop.bench.compile import compile_peer
from zerohop.bench.counters import cpu_us_per_operation
from zerohop.bench.figures import Figures
from zerohop.bench.stage import Stage
from zerohop.bench.workloads.base import workload_documents


class PingEcho:
    name = "pingecho"
    cases: tuple[str, ...] = ("24B",)
    unit = "round trip"
    may_leave = False

    def prepare(self, scratch: Path) -> dict[str, str]:
        self._program, compiler = compile_peer("pingecho", scratch)
        return {"compiler": compiler}

    def configuration(self, port: int) -> str:
        return workload_documents(shortcut="Always")

    def run(self, case: str, stage: Stage) -> Figures:
        program, place = str(self._program), (stage.address, str(stage.port))
        timing = (str(stage.timing.warmup_ms), str(stage.timing.measured_ms))
        with stage.start("server", (program, "server", *place)) as server:
            server.expect_line("listening", stage.deadline())
            with stage.start("client", (program, "client", *place, *timing)) as client:
                report = json.loads(client.finish(stage.deadline()))
            server.finish(stage.deadline())
        return {
            "p50_us": report["p50_ns"] / 1e3,
            "p99_us": report["p99_ns"] / 1e3,
            "per_second": report["operations"] / report["elapsed_ns"] * 1e9,
            "cpu_us_per_op": cpu_us_per_operation(report["cpu_before"], report["cpu_after"], report["operations"]),
        }
