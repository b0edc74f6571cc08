"""`ghz` as the client of a workload: how it is told what to do, and how its report is read."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from zerohop.bench.counters import cpu_us_per_operation, read_cpu_line
from zerohop.bench.figures import percentile
from zerohop.bench.programs import Program
from zerohop.bench.sockets import wait_connected
from zerohop.bench.stage import Stage
from zerohop.errors import ZerohopError

# From its connections to its first calls it takes a while; and calls go on after the measured interval, whose end
# must not be theirs.
_SETTLE_SECONDS: Final = 0.2
_TAIL_SECONDS: Final = 0.3

# grpc-go would ask a proxy for addresses that are not the machine's own.
_ENVIRONMENT: Final = {"NO_PROXY": "*", "no_proxy": "*"}


@dataclass(frozen=True)
class Ghz:
    """One unary call to `server`, made again and again over `connections` with `streams` at once on each.

    `proto` is the file that describes `method`; the file `message` holds the serialised request.
    """

    server: Program
    connections: int
    streams: int
    proto: Path
    method: str
    message: Path

    def _command(self, stage: Stage, report: Path, *limit: str) -> list[str]:
        return [
            *("ghz", "--insecure", "--proto", str(self.proto), "--call", self.method),
            *("--binary-file", str(self.message), "--format", "json", "--output", str(report)),
            *("--connections", str(self.connections), "--concurrency", str(self.connections * self.streams)),
            *limit,
            f"{stage.address}:{stage.port}",
        ]

    def measure(self, stage: Stage) -> dict[str, float]:
        """All four figures of one pass: ghz keeps every call's end and latency in memory."""
        report = stage.scratch / "calls.json"
        warmup = _SETTLE_SECONDS + stage.timing.warmup
        seconds = warmup + stage.timing.measured + _TAIL_SECONDS
        command = self._command(stage, report, f"--duration={round(seconds * 1000)}ms", "--duration-stop=wait")
        try:
            with stage.start("client", command, _ENVIRONMENT) as client:
                # It reads its options first, then connects, then calls.
                wait_connected(self.server, stage.port, self.connections, stage.deadline())
                time.sleep(warmup)
                client.require_running()
                first, before = time.time(), read_cpu_line()
                time.sleep(stage.timing.measured)
                last, after = time.time(), read_cpu_line()
                client.finish(stage.deadline())
            ended = parse_calls(json.loads(report.read_text(encoding="utf-8")))
        finally:
            report.unlink(missing_ok=True)
        latencies = latencies_between(ended, first, last)
        return {
            "p50_us": percentile(latencies, 50),
            "p99_us": percentile(latencies, 99),
            "per_second": len(latencies) / (last - first),
            "cpu_us_per_op": cpu_us_per_operation(before, after, len(latencies)),
        }

    def call(self, stage: Stage, count: int, status: str = "OK") -> None:
        """Makes exactly `count` calls; raises `ZerohopError` unless each ends with `status`."""
        report = stage.scratch / "calls.json"
        try:
            with stage.start("client", self._command(stage, report, f"--total={count}"), _ENVIRONMENT) as client:
                client.finish(stage.deadline())
            made = parse_statuses(json.loads(report.read_text(encoding="utf-8")), status)
        finally:
            report.unlink(missing_ok=True)
        if made != count:
            raise ZerohopError(f"ghz made {made} of {count} calls")


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
    """Each call's end (seconds since 1970) and latency (microseconds), from ghz's JSON report."""
    made, details = parse_statuses(report), report["details"]
    if len(details) != made:
        raise ZerohopError(f"ghz kept {len(details)} of {made} calls", hint="use a shorter --seconds")
    return [(datetime.fromisoformat(each["timestamp"]).timestamp(), each["latency"] / 1e3) for each in details]


def latencies_between(calls: list[tuple[float, float]], first: float, last: float) -> list[float]:
    """The latencies of the calls that ended between two instants, ascending; `ZerohopError` unless it was busy then."""
    begin, end = min(calls)[0], max(calls)[0]
    if begin > first or end < last:
        raise ZerohopError(
            f"calls of ghz ended from {begin - first:+.3f} s on and until {end - last:+.3f} s, "
            "seen from the beginning and the end of the measured interval, which they do not fill",
            hint="use a longer --seconds",
        )
    latencies = sorted(latency for end, latency in calls if first <= end < last)
    if not latencies:
        raise ZerohopError("no call of ghz ended in the measured interval", hint="use a longer --seconds")
    return latencies
