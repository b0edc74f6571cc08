"""Runs the stream torture between two ends and judges it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from support import peers
from support.mesh import Launcher, end_program

DEADLINE_SECONDS = 120


@dataclass(frozen=True)
class Side:
    """One end: its network namespace, the address it listens at or connects to, options of the peer."""

    netns: str
    host: str
    options: dict[str, int] = field(default_factory=dict)
    workload: str = ""


@dataclass(frozen=True)
class Outcome:
    """Both peers' reports (tests/support/peers/torture.c, `print_report`)."""

    server: dict[str, Any]
    client: dict[str, Any]

    def problems(self) -> list[str]:
        """Every wrong byte, error and stall, in words; empty when all is well."""
        found = []
        for name, report in (("server", self.server), ("client", self.client)):
            for kind in ("mismatches", "errors"):
                count, first = report[kind]["count"], report[kind]["first"]
                if count:
                    found.append(f"{name}: {count} {kind}: {'; '.join(first)}")
            if report["stalled"]:
                found.append(f"{name}: stalled")
        if not found:
            for sent, received in ((self.server, self.client), (self.client, self.server)):
                if sent["bytes_sent"] != received["bytes_received"]:
                    found.append(f"{sent['bytes_sent']} bytes sent, {received['bytes_received']} received")
        return found

    @property
    def max_unread(self) -> int:
        return max(self.server["max_unread"], self.client["max_unread"])


def arguments(options: dict[str, int]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


class Run:
    """A torture under way."""

    def __init__(self, launcher: Launcher, server: Side, client: Side, port: int, connect_port: int | None) -> None:
        program = str(peers.torture())
        self._processes: list[subprocess.Popen[str]] = []
        self.server = launcher.exec_popen(
            server.workload or "t/server",
            [program, "server=1", f"host={server.host}", f"port={port}", *arguments(server.options)],
            server.netns,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.server.stdout is not None
        ready = self.server.stdout.readline()
        if not ready:
            raise AssertionError(f"the torture's server ended with status {self.server.wait()}")
        self.port = json.loads(ready)["port"]
        self.client = launcher.exec_popen(
            client.workload or "t/client",
            [
                program,
                f"host={client.host}",
                f"port={connect_port or self.port}",
                *arguments(client.options),
            ],
            client.netns,
            stdin=subprocess.PIPE if client.options.get("until_stopped") else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        """Lets a load with `until_stopped` come to its end: each direction ends where it is, and is judged as ever."""
        assert self.client.stdin is not None
        self.client.stdin.close()
        self.client.stdin = None  # `communicate` would flush it

    def finish(self) -> Outcome:
        reports: dict[str, Any] = {}

        def collect(name: str, process: subprocess.Popen[str]) -> None:
            output, _ = process.communicate()
            reports[name] = json.loads(output) if output else None

        threads = [
            threading.Thread(target=collect, args=(name, process))
            for name, process in (("server", self.server), ("client", self.client))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
        self.kill()
        for thread in threads:
            thread.join()
        for name, process in (("server", self.server), ("client", self.client)):
            assert reports[name], f"the torture's {name} ended with status {process.returncode}, no report"
        return Outcome(**reports)

    def kill(self) -> None:
        for process in (self.client, self.server):
            if process.poll() is None:
                end_program(process)


@contextlib.contextmanager
def started(
    launcher: Launcher, server: Side, client: Side, *, port: int = 0, connect_port: int | None = None
) -> Iterator[Run]:
    run = Run(launcher, server, client, port, connect_port)
    try:
        yield run
    finally:
        run.kill()


def run_torture(
    launcher: Launcher, server: Side, client: Side, *, port: int = 0, connect_port: int | None = None
) -> Outcome:
    with started(launcher, server, client, port=port, connect_port=connect_port) as run:
        return run.finish()
