"""`h2load` as the client of a workload: how it is told what to do, and how its output is read."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from zerohop.bench.counters import cpu_us_per_operation, read_cpu_line
from zerohop.bench.figures import percentile
from zerohop.bench.programs import Program
from zerohop.bench.stage import Stage
from zerohop.errors import UnsupportedError, ZerohopError

INSTALL: Final = "run apt-get install nghttp2-client nghttp2-server"

# The latency pass needs samples, not a rate: a part of the measured interval is enough.
LATENCY_SHARE: Final = 0.4


@dataclass(frozen=True)
class H2Load:
    """One request, made again and again over `connections` with `streams` at once on each."""

    connections: int
    streams: int
    url: str
    options: tuple[str, ...] = ()

    @property
    def _command(self) -> list[str]:
        return ["h2load", "-c", str(self.connections), "-m", str(self.streams), *self.options]

    def measure(self, stage: Stage) -> dict[str, float]:
        """All four figures, from two passes against the server that runs on `stage`.

        Logging every request costs h2load a write each, 5 to 9 % of the rate on one CPU: so rate and CPU time
        come from a first pass without a log, the percentiles from a second one with it.
        """
        load = [*self._command, f"--warm-up-time={stage.timing.warmup_ms}ms"]
        with stage.start("client", [*load, duration(stage.timing.measured), self.url]) as client:
            figures = _rate_pass(client, stage.deadline())
            client.finish(stage.deadline())
        log = stage.scratch / "requests.log"
        latency_pass = [duration(stage.timing.measured * LATENCY_SHARE), f"--log-file={log}", self.url]
        try:
            with stage.start("client", [*load, *latency_pass]) as client:
                parse_requests(client.finish(stage.deadline()))
            latencies = sorted(parse_request_log(log.read_text(encoding="ascii")))
        finally:
            log.unlink(missing_ok=True)
        if not latencies:
            raise ZerohopError("h2load logged no request in the latency pass", hint="use a longer --seconds")
        return {"p50_us": percentile(latencies, 50), "p99_us": percentile(latencies, 99), **figures}

    def call(self, stage: Stage, count: int) -> None:
        """Makes exactly `count` requests; raises `ZerohopError` unless each is answered."""
        with stage.start("client", [*self._command, "-n", str(count), self.url]) as client:
            made = parse_requests(client.finish(stage.deadline()))
        if made != count:
            raise ZerohopError(f"h2load made {made} of {count} requests")

    def attempt(self, stage: Stage, count: int) -> None:
        """Asks `count` times; it does not matter what for an answer there is."""
        with stage.start("client", [*self._command, "-n", str(count), self.url]) as client:
            client.finish(stage.deadline())


def version(program: str) -> str:
    """The version of one of nghttp2's programs; `UnsupportedError` where it is missing."""
    if shutil.which(program) is None:
        raise UnsupportedError(f"{program} is missing", hint=INSTALL)
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return output.strip().split("/")[-1] or "unknown"


def duration(seconds: float) -> str:
    """h2load's option for a measured interval; it reads whole numbers with a unit."""
    return f"--duration={max(1, round(seconds * 1000))}ms"


def _rate_pass(client: Program, deadline: float) -> dict[str, float]:
    before = after = rate = None
    while (line := client.read_line(deadline)) is not None:
        # h2load says when its interval begins and ends, so the machine's busy time is read at those instants.
        if line.startswith("Main benchmark duration is started"):
            before = read_cpu_line()
        elif line.startswith("Main benchmark duration is over"):
            after = read_cpu_line()
        elif line.startswith("finished in"):
            rate = parse_rate(line)
        elif line.startswith("requests:") and before and after and rate is not None:
            return {
                "per_second": rate,
                "cpu_us_per_op": cpu_us_per_operation(before, after, parse_requests(line)),
            }
    client.finish(deadline)
    raise ZerohopError("h2load ended without a result", hint=INSTALL)


def parse_rate(line: str) -> float:
    """Requests per second from h2load's `finished in 1.30s, 558580.00 req/s, 68.19MB/s`."""
    match = re.search(r"([\d.]+) req/s", line)
    if not match:
        raise ZerohopError(f"h2load: not understood: {line}")
    return float(match[1])


def parse_requests(output: str) -> int:
    """How many requests succeeded, from h2load's `requests:` line; `ZerohopError` if any did not."""
    match = re.search(r"^requests: .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output, re.M)
    if not match:
        raise ZerohopError(f"h2load: no request counts in its output: {output[-500:]}")
    succeeded, *wrong = (int(number) for number in match.groups())
    if any(wrong) or not succeeded:
        raise ZerohopError(f"h2load: requests failed: {match[0]}")
    return succeeded


def parse_request_log(text: str) -> Iterator[int]:
    """Latencies in microseconds from h2load's log: start, HTTP status, microseconds, tab-separated."""
    for line in text.splitlines():
        _, status, latency = line.split("\t")[:3]
        if status != "200":
            raise ZerohopError(f"h2load: a request was answered with status {status}")
        yield int(latency)
