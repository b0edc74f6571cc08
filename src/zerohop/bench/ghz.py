"""`ghz` as the client of a workload: how it is told what to do, and how its report is read."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final

from zerohop.bench.figures import percentile
from zerohop.bench.programs import Program
from zerohop.bench.sockets import wait_connected
from zerohop.bench.stage import Front, Stage
from zerohop.bench.turns import Turns, Work
from zerohop.errors import ZerohopError

# From its connections to its first calls it takes a while; and calls go on after the measured interval, whose end
# must not be theirs.
_SETTLE_SECONDS: Final = 0.2
_TAIL_SECONDS: Final = 0.3

# grpc-go would ask a proxy for addresses that are not the machine's own.
_ENVIRONMENT: Final = {"NO_PROXY": "*", "no_proxy": "*"}


@dataclass(frozen=True)
class Ghz:
    """One unary call to `front`, made again and again over `connections` with `streams` at once on each.

    `proto` is the file that describes `method`; the file `message` holds the serialised request.
    """

    passes: ClassVar[Mapping[str, float]] = {"all": 1.0}

    front: Front
    connections: int
    streams: int
    proto: Path
    method: str
    message: Path

    @staticmethod
    def _report(stage: Stage) -> Path:
        return stage.scratch / f"calls-{stage.port}.json"

    def _command(self, stage: Stage, report: Path, *limit: str) -> list[str]:
        return [
            *("ghz", "--insecure", "--proto", str(self.proto), "--call", self.method),
            *("--binary-file", str(self.message), "--format", "json", "--output", str(report)),
            *("--connections", str(self.connections), "--concurrency", str(self.connections * self.streams)),
            *limit,
            f"{stage.address}:{self.front.port}",
        ]

    @contextmanager
    def working(self, stage: Stage, which: str, seconds: float) -> Iterator[Work]:
        report = self._report(stage)
        whole = _SETTLE_SECONDS + stage.timing.warmup + seconds + _TAIL_SECONDS
        command = self._command(stage, report, f"--duration={round(whole * 1000)}ms", "--duration-stop=wait")
        try:
            with stage.start("client", command, _ENVIRONMENT) as client:
                # It reads its options first, then connects, then calls.
                wait_connected(self.front.program, self.front.port, self.connections, stage.deadline())
                time.sleep(_SETTLE_SECONDS + stage.timing.warmup)
                client.require_running()
                yield _GhzWork(client, stage, time.time() + seconds, report)
        finally:
            report.unlink(missing_ok=True)

    def call(self, stage: Stage, count: int, status: str = "OK") -> None:
        """Makes exactly `count` calls; raises `ZerohopError` unless each ends with `status`."""
        report = self._report(stage)
        try:
            with stage.start("client", self._command(stage, report, f"--total={count}"), _ENVIRONMENT) as client:
                client.finish(stage.deadline())
            made = parse_statuses(json.loads(report.read_text(encoding="utf-8")), status)
        finally:
            report.unlink(missing_ok=True)
        if made != count:
            raise ZerohopError(f"ghz made {made} of {count} calls")


@dataclass(frozen=True)
class _GhzWork:
    client: Program
    stage: Stage
    ends: float
    report: Path

    def figures(self, turns: Turns) -> dict[str, float]:
        """All four of one pass: ghz keeps every call's end and latency in memory."""
        self.client.finish(self.stage.deadline())
        calls = parse_calls(json.loads(self.report.read_text(encoding="utf-8")))
        require_busy(calls, turns)
        latencies = turns.latencies(calls)
        ended = sum(turns.includes(end) for _, end in calls)
        return {
            "p50_us": percentile(latencies, 50) * 1e6,
            "p99_us": percentile(latencies, 99) * 1e6,
            "per_second": ended / turns.seconds,
            "cpu_us_per_op": turns.busy * 1e6 / ended,
        }


def version() -> str:
    """The version of the ghz in PATH."""
    # Its option parser prints the version on stderr.
    result = subprocess.run(["ghz", "--version"], capture_output=True, text=True, check=False)
    return (result.stdout + result.stderr).strip() or "unknown"


def parse_statuses(report: Mapping[str, Any], wanted: str = "OK") -> int:
    """How many calls ended as wanted, from ghz's JSON report; `ZerohopError` if any did not."""
    statuses = report.get("statusCodeDistribution") or {}
    if set(statuses) != {wanted}:
        how = "failed" if wanted == "OK" else f"did not end with {wanted}"
        raise ZerohopError(f"ghz: calls {how}: {statuses or 'none was made'} {report.get('errorDistribution') or ''}")
    return int(statuses[wanted])


def parse_calls(report: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Begin and end of each call, in seconds since 1970, from ghz's JSON report, which has the end and the latency."""
    made, details = parse_statuses(report), report["details"]
    if len(details) != made:
        raise ZerohopError(f"ghz kept {len(details)} of {made} calls", hint="use a shorter --seconds")
    calls = []
    for each in details:
        end = datetime.fromisoformat(each["timestamp"]).timestamp()
        calls.append((end - each["latency"] / 1e9, end))
    return calls


def require_busy(calls: Sequence[tuple[float, float]], turns: Turns) -> None:
    """Raises `ZerohopError` unless calls ended before the first of the turns, in them, and after the last."""
    ends = [end for _, end in calls]
    first, last = turns.turns[0].begin, turns.turns[-1].end
    if min(ends) > first or max(ends) < last or not any(map(turns.includes, ends)):
        raise ZerohopError(
            f"calls of ghz ended from {min(ends) - first:+.3f} s on and until {max(ends) - last:+.3f} s, "
            "seen from the beginning and the end of the measured turns, which they do not fill",
            hint="use a longer --seconds",
        )
