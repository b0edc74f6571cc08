"""The access log: a line for each flow record, in JSON or in Envoy's default text format."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from zerohop.errors import ZerohopError
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import FlowReader, Names
from zerohop.telemetry.flags import RESPONSE_FLAGS
from zerohop.telemetry.flows import Flow, flow_of, is_known

log = logging.getLogger("zerohop")

POLL_SECONDS: Final = 0.05
END_SECONDS: Final = 2.0

# So many records at once: the rings fill quickly, and the next look comes without a pause.
MANY: Final = 500


def as_json(flow: Flow) -> str:
    return json.dumps(flow.as_json(), separators=(",", ":"))


def as_envoy(flow: Flow) -> str:
    """Envoy's default format string; what nobody keeps (headers but the path, the upstream's time) is `-`.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
    """
    request, duration = "- - -", "-"
    start = flow.time
    if flow.kind == "call":
        request = f"{'POST' if flow.protocol == 'grpc' else '-'} {flow.method or '-'} HTTP/2"
    if flow.latency_us is not None:
        duration = str(flow.latency_us // 1000)
        start -= timedelta(microseconds=flow.latency_us)
    address, port = flow.destination.address, flow.destination.port
    upstream = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return (
        f'[{start.isoformat(timespec="milliseconds").replace("+00:00", "Z")}] "{request}" {flow.http_status or 0} '
        f"{RESPONSE_FLAGS[flow.ending]} {flow.request_bytes} {flow.response_bytes} {duration} - "
        f'"-" "-" "-" "-" "{upstream}"'
    )


class LogFile:
    """A file that is appended to, or stdout: whole lines, and none that waits in a buffer after a failure."""

    def __init__(self, name: str) -> None:
        """`name`: a path, or `-` for stdout. Raises `ZerohopError`."""
        self._name = name
        self._torn = False
        self._failing = False
        self._fd = self._open()

    def _open(self) -> int:
        try:
            if self._name == "-":
                return os.dup(1)
            # A named pipe that nobody reads would keep us waiting.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self._name, flags, 0o640)
        except OSError as error:
            raise ZerohopError(
                f"cannot write the access log {self._name}: {error.strerror}", hint="name another with --access-log"
            ) from error
        os.set_blocking(descriptor, True)
        return descriptor

    def reopen(self) -> None:
        """Raises `ZerohopError`, and goes on with what is open."""
        previous, self._fd = self._fd, self._open()
        os.close(previous)
        self._torn = False

    def write(self, lines: list[str]) -> int:
        """Returns how many lines were not written: the target takes no more, which is logged when it begins."""
        content = memoryview("".join(f"{line}\n" for line in lines).encode())
        written = 0
        try:
            if self._torn:
                os.write(self._fd, b"\n")
                self._torn = False
            while written < len(content):
                written += os.write(self._fd, content[written:])
        except OSError as error:
            if not self._failing:
                log.error("access log %s: %s; records are lost until it is writable", self._name, error.strerror)
            self._failing = True
            if written:
                self._torn = content[written - 1] != ord("\n")
            return bytes(content[written:]).count(b"\n")
        self._failing = False
        return 0

    def close(self) -> None:
        os.close(self._fd)


class AccessLog:
    """Follows the flow records into a file, in a thread of its own: a target that does not take them stops nobody."""

    def __init__(self, path: DataPath, target: LogFile, style: str) -> None:
        """`target` is closed with it. `style`: json or envoy. Records from now on."""
        self._path = path
        self._line: Callable[[Flow], str] = as_json if style == "json" else as_envoy
        self._target = target
        self._reader = FlowReader(path)
        self._names, self._generation = Names(path), path.settings().generation
        self._unwritten = 0
        self._ending, self._reopening = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="access-log", daemon=True)

    @property
    def lost(self) -> int:
        """Records that are not in the log: overwritten before they were read, or refused by the target."""
        return self._reader.lost + self._unwritten

    def start(self) -> None:
        self._thread.start()

    def reopen(self) -> None:
        """Soon, after the file was moved away, goes on in a new one of its name."""
        self._reopening.set()

    def close(self) -> None:
        """Writes what is there, if the target takes it; ends."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            log.warning("the access log's target takes nothing: the last records are lost")
            return
        self._reader.close()
        self._target.close()

    def _follow(self) -> None:
        count = 0
        while not self._ending.wait(0 if count >= MANY else POLL_SECONDS):
            count = self._round()
        self._round()

    def _round(self) -> int:
        """Writes what has come; returns how many records that was."""
        try:
            if self._reopening.is_set():
                self._reopening.clear()
                self._target.reopen()
            records: list[Any] = self._reader.read()
            # A workload keeps its number when its service account changes.
            generation = self._path.settings().generation
            if generation != self._generation or not all(is_known(each, self._names) for each in records):
                self._names.refresh()
                self._generation = generation
        except (ZerohopError, OSError) as error:
            log.error("%s", error)
            return 0
        if records:
            self._unwritten += self._target.write([self._line(flow_of(each, self._names)) for each in records])
        return len(records)
