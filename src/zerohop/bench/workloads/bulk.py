"""`bulk`: one stream, as fast as it goes, in writes of one size; an operation is a MiB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from zerohop.bench.compile import compile_peer
from zerohop.bench.counters import cpu_us_per_operation
from zerohop.bench.figures import Figures
from zerohop.bench.stage import Stage
from zerohop.bench.workloads.base import workload_documents
from zerohop.errors import ZerohopError

MIB: Final = 1024 * 1024
WRITE_SIZES: Final = {"4K": 4 * 1024, "16K": 16 * 1024, "128K": 128 * 1024, "1M": MIB}


class Bulk:
    name = "bulk"
    cases: tuple[str, ...] = tuple(WRITE_SIZES)
    unit = "MiB"
    may_leave = True

    def prepare(self, scratch: Path) -> dict[str, str]:
        self._program, compiler = compile_peer("bulk", scratch)
        return {"compiler": compiler}

    def configuration(self, port: int) -> str:
        return workload_documents(shortcut="Always")

    def run(self, case: str, stage: Stage) -> Figures:
        program, place = str(self._program), (stage.address, str(stage.port))
        timing = (str(stage.timing.warmup_ms), str(stage.timing.measured_ms))
        with stage.start("server", (program, "server", *place, *timing)) as server:
            server.expect_line("listening", stage.deadline())
            with stage.start("client", (program, "client", *place, str(WRITE_SIZES[case]))) as client:
                sent = json.loads(client.finish(stage.deadline()))["total_bytes"]
            report = json.loads(server.finish(stage.deadline()))
        if report["total_bytes"] != sent:
            raise ZerohopError(f"bytes were lost: {sent} sent, {report['total_bytes']} received")
        if not report["measured_bytes"]:
            raise ZerohopError("nothing arrived in the measured interval")
        mib = report["measured_bytes"] / MIB
        return {
            "per_second": mib / report["elapsed_ns"] * 1e9,
            "cpu_us_per_op": cpu_us_per_operation(report["cpu_before"], report["cpu_after"], mib),
        }
