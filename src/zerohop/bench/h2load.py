"""`h2load` as the client of a workload: how it is told what to do, and how its output is read."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from zerohop.bench.figures import percentile
from zerohop.bench.programs import Program
from zerohop.bench.stage import Stage
from zerohop.bench.turns import Turns, Work
from zerohop.errors import UnsupportedError, ZerohopError

INSTALL: Final = "run apt-get install nghttp2-client nghttp2-server"

# Logging every request costs h2load a write each, 5 to 9 % of the rate on one CPU: so rate and CPU time come from a
# first pass without a log, the percentiles from a second one. That needs samples: a part of the interval is enough.
PASSES: Final = {"rate": 1.0, "latency": 0.4}


@dataclass(frozen=True)
class H2Load:
    """One request, made again and again over `connections` with `streams` at once on each."""

    passes: ClassVar[Mapping[str, float]] = PASSES

    connections: int
    streams: int
    url: str
    options: tuple[str, ...] = ()

    @property
    def _command(self) -> list[str]:
        return ["h2load", "-c", str(self.connections), "-m", str(self.streams), *self.options]

    @contextmanager
    def working(self, stage: Stage, which: str, seconds: float) -> Iterator[Work]:
        log = stage.scratch / f"requests-{stage.port}.log" if which == "latency" else None
        timing = (f"--warm-up-time={stage.timing.warmup_ms}ms", _duration(seconds))
        logging = () if log is None else (f"--log-file={log}",)
        try:
            with stage.start("client", [*self._command, *timing, *logging, self.url]) as client:
                client.expect_line("Main benchmark duration is started", stage.deadline())
                yield _H2LoadWork(client, stage, time.time() + seconds, log)
        finally:
            if log is not None:
                log.unlink(missing_ok=True)

    def call(self, stage: Stage, count: int) -> None:
        """Makes exactly `count` requests; raises `ZerohopError` unless each is answered."""
        with stage.start("client", [*self._command, "-n", str(count), self.url]) as client:
            made = parse_requests(client.finish(stage.deadline()))
        if made != count:
            raise ZerohopError(f"h2load made {made} of {count} requests")

    def statuses(self, stage: Stage, count: int) -> Counter[str]:
        """Asks `count` times; returns how often each HTTP status was the answer, -1 where none came."""
        log = stage.scratch / f"answers-{stage.port}.log"
        try:
            with stage.start("client", [*self._command, "-n", str(count), f"--log-file={log}", self.url]) as client:
                client.finish(stage.deadline())
            return parse_statuses(log.read_text(encoding="ascii"))
        finally:
            log.unlink(missing_ok=True)


def version(program: str) -> str:
    """The version of one of nghttp2's programs; `UnsupportedError` where it is missing."""
    if shutil.which(program) is None:
        raise UnsupportedError(f"{program} is missing", hint=INSTALL)
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return output.strip().split("/")[-1] or "unknown"


def _duration(seconds: float) -> str:
    # h2load reads whole numbers with a unit.
    return f"--duration={max(1, round(seconds * 1000))}ms"


@dataclass(frozen=True)
class _H2LoadWork:
    client: Program
    stage: Stage
    ends: float
    log: Path | None

    def figures(self, turns: Turns) -> dict[str, float]:
        requests = parse_requests(self.client.finish(self.stage.deadline()))
        if self.log is None:
            return {"per_second": requests / turns.seconds, "cpu_us_per_op": turns.busy * 1e6 / requests}
        latencies = turns.latencies(parse_request_log(self.log.read_text(encoding="ascii")))
        if not latencies:
            raise ZerohopError("h2load logged no request in the latency pass", hint="use a longer --seconds")
        return {"p50_us": percentile(latencies, 50) * 1e6, "p99_us": percentile(latencies, 99) * 1e6}


def parse_requests(output: str) -> int:
    """How many requests succeeded, from h2load's `requests:` line; `ZerohopError` if any did not."""
    match = re.search(r"^requests: .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output, re.M)
    if not match:
        raise ZerohopError(f"h2load: no request counts in its output: {output[-500:]}")
    succeeded, *wrong = (int(number) for number in match.groups())
    if any(wrong) or not succeeded:
        raise ZerohopError(f"h2load: requests failed: {match[0]}")
    return succeeded


def _logged(text: str) -> Iterator[tuple[int, str, int]]:
    """Requests in h2load's log: start in microseconds since 1970, HTTP status, microseconds, tab-separated."""
    for line in text.splitlines():
        begin, status, latency = line.split("\t")[:3]
        yield int(begin), status, int(latency)


def parse_statuses(text: str) -> Counter[str]:
    """How many requests in h2load's log were answered with each HTTP status; -1: not."""
    return Counter(status for _, status, _ in _logged(text))


def parse_request_log(text: str) -> list[tuple[float, float]]:
    """Begin and end of each request (seconds since 1970), from h2load's log."""
    requests = []
    for begin, status, latency in _logged(text):
        if status != "200":
            raise ZerohopError(f"h2load: a request was answered with status {status}")
        requests.append((begin / 1e6, (begin + latency) / 1e6))
    return requests
