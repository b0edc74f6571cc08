"""`http2`: `h2load` (connections x streams) against `nghttpd`, answers of 100 bytes, no TLS."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from zerohop.bench.counters import cpu_us_per_operation, read_cpu_line
from zerohop.bench.figures import Figures, percentile
from zerohop.bench.programs import Program
from zerohop.bench.stage import Stage, Timing
from zerohop.bench.workloads.base import workload_documents
from zerohop.errors import UnsupportedError, ZerohopError

ANSWER_BYTES: Final = 100
_INSTALL: Final = "run apt-get install nghttp2-client nghttp2-server"

# The latency pass needs samples, not a rate: a part of the measured interval is enough.
LATENCY_SHARE: Final = 0.4

_SERVICE: Final = """\
---
apiVersion: v1
kind: Service
metadata: {{name: server, namespace: bench}}
spec:
  selector: {{app: server}}
  ports: [{{name: http2, port: {port}, targetPort: {port}, appProtocol: http2}}]
"""


class Http2:
    name = "http2"
    cases: tuple[str, ...] = ("1x1", "8x1", "8x10", "64x10")
    unit = "request"
    may_leave = False

    def prepare(self, scratch: Path) -> dict[str, str]:
        versions = {program: _version(program) for program in ("h2load", "nghttpd")}
        self._documents = scratch / "documents"
        self._documents.mkdir(exist_ok=True)
        (self._documents / "answer").write_bytes(b"x" * ANSWER_BYTES)
        return versions

    def configuration(self, port: int) -> str:
        return workload_documents(shortcut="Auto") + _SERVICE.format(port=port)

    def run(self, case: str, stage: Stage) -> Figures:
        log, port = stage.scratch / "requests.log", str(stage.port)
        server_command = ("nghttpd", "--no-tls", "-a", stage.address, "-d", str(self._documents), port)
        load = h2load_command(case, stage.timing)
        url = f"http://{stage.address}:{port}/answer"
        with stage.start("server", server_command) as server:
            _wait_listening(server, stage.port, stage.deadline())
            # Logging every request costs h2load a write each, 5 to 9 % of the rate on one CPU: so rate and
            # CPU time come from a first pass without a log, the percentiles from a second one with it.
            with stage.start("client", [*load, duration(stage.timing.measured), url]) as client:
                figures = _rate_pass(client, stage.deadline())
                client.finish(stage.deadline())
            latency_pass = [duration(stage.timing.measured * LATENCY_SHARE), f"--log-file={log}"]
            with stage.start("client", [*load, *latency_pass, url]) as client:
                parse_requests(client.finish(stage.deadline()))
            server.require_running()
        try:
            latencies = sorted(parse_request_log(log.read_text(encoding="ascii")))
        finally:
            log.unlink()
        if not latencies:
            raise ZerohopError("h2load logged no request in the latency pass", hint="use a longer --seconds")
        return {"p50_us": percentile(latencies, 50), "p99_us": percentile(latencies, 99), **figures}


def h2load_command(case: str, timing: Timing) -> list[str]:
    connections, streams = case.split("x")
    return ["h2load", "-c", connections, "-m", streams, f"--warm-up-time={timing.warmup_ms}ms"]


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
    raise ZerohopError("h2load ended without a result", hint=_INSTALL)


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


def _version(program: str) -> str:
    if shutil.which(program) is None:
        raise UnsupportedError(f"{program} is missing", hint=_INSTALL)
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return output.strip().split("/")[-1] or "unknown"


def _wait_listening(server: Program, port: int, deadline: float) -> None:
    """Waits for the listening socket; not by connecting, which would be counted as one of the run's."""
    while True:
        server.require_running()
        # A program that has ended has no such file any more.
        with suppress(OSError):
            if is_listening(Path(f"/proc/{server.pid}/net/tcp").read_text(encoding="ascii"), port):
                return
        if time.monotonic() > deadline:
            raise ZerohopError(f"{server.name} does not listen on port {port}")
        time.sleep(0.01)


def is_listening(table: str, port: int) -> bool:
    """Whether the text of /proc/net/tcp has a socket in LISTEN on `port`."""
    rows = (line.split() for line in table.splitlines()[1:])
    return any(row[3] == "0A" and int(row[1].split(":")[1], 16) == port for row in rows)
