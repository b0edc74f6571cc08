"""A stage for real programs: a private network namespace, programs in their workloads or without, an account."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Direct, Mesh, end_program

LISTEN_SECONDS = 30
RUN_SECONDS = 60
STOP_SECONDS = 15
PROXY_PORT = 18080
PORT = 18081
GRPC_PORT = 18082

CLIENT = "interop/client"
PROXY = "interop/proxy"
SERVER = "interop/server"

# Retransmission time-outs per test; a machine that is busy for 200 ms makes one without any fault.
TIMEOUTS_TOLERATED = 2

# What zerohop says of a socket that it leaves out because the program reads it with blocking calls.
BLOCKING = frozenset({"client_blocking", "server_blocking", "reader_blocking"})


def need(*programs: str) -> None:
    """Skips the test unless all of these are installed."""
    missing = [name for name in programs if find(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def find(program: str) -> str | None:
    """Also in the environment that runs the tests, and where daemons are, often outside a user's PATH."""
    elsewhere = [str(Path(sys.executable).parent), "/usr/sbin", "/sbin", "/usr/local/go/bin"]
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(elsewhere))


def located(program: str) -> str:
    path = find(program)
    assert path is not None, f"{program} is not installed"
    return path


@dataclass(frozen=True)
class Account:
    """What the kernel counted between two looks (`zerohop status --json`, `totals`)."""

    opened: int
    shortcut: int
    shortcut_bytes: int
    tcp_bytes: int
    reasons: dict[str, int]
    errors: dict[str, int]


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Account:
    def counts(name: str) -> dict[str, int]:
        sums = {key: value - before[name].get(key, 0) for key, value in after[name].items()}
        return {key: value for key, value in sums.items() if value}

    return Account(
        opened=after["connections_opened"] - before["connections_opened"],
        shortcut=after["shortcut_connections_opened"] - before["shortcut_connections_opened"],
        shortcut_bytes=after["shortcut_bytes"] - before["shortcut_bytes"],
        tcp_bytes=after["tcp_bytes"] - before["tcp_bytes"],
        reasons=counts("not_shortcut"),
        errors=counts("errors"),
    )


class Stage:
    """Programs of one test. `mesh` is None on the side without zerohop."""

    def __init__(self, space: network.Namespace, folder: Path, mesh: Mesh | None) -> None:
        self.space = space
        self.folder = folder
        self.mesh = mesh
        self._launcher = mesh or Direct()
        self._programs: list[subprocess.Popen[Any]] = []
        self._logs: dict[int, Path] = {}
        self._before = mesh.totals() if mesh else {}

    @property
    def managed(self) -> bool:
        return self.mesh is not None

    # Programs

    def start(
        self, workload: str, argv: Sequence[str], *, allow_splice: bool = False, **options: Any
    ) -> subprocess.Popen[Any]:
        """A program in the background; its output goes to a log that a failure shows."""
        log = self.folder / f"{len(self._logs)}-{Path(argv[0]).name}.log"
        with log.open("wb") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, **options}
            program = self._launcher.exec_popen(
                workload, list(argv), self.space.name, allow_splice, cwd=self.folder, **options
            )
        self._programs.append(program)
        self._logs[program.pid] = log
        return program

    def serve(
        self, workload: str, argv: Sequence[str], *ports: int, allow_splice: bool = False
    ) -> subprocess.Popen[Any]:
        """A program in the background that listens on these ports when this returns."""
        program = self.start(workload, argv, allow_splice=allow_splice)
        deadline = time.monotonic() + LISTEN_SECONDS
        # Looked up, not tried: a connection from here would be in the account.
        while not set(ports) <= self._listening():
            if program.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{argv[0]} does not listen on {ports} (exit status {program.poll()})\n{self._report()}")
            time.sleep(0.05)
        return program

    def run(self, workload: str, argv: Sequence[str], *, seconds: float = RUN_SECONDS, text: str | None = None) -> str:
        """A program to its end: its output. Fails on another exit status than 0, and when it hangs."""
        program = self._launcher.exec_popen(
            workload,
            list(argv),
            self.space.name,
            cwd=self.folder,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._programs.append(program)
        try:
            output, errors = program.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            report = self._report()
            end_program(program)
            pytest.fail(f"{' '.join(argv)} hangs (after {seconds:.0f} s)\n{report}")
        if program.returncode != 0:
            said = output[-4000:] + errors[-4000:]
            pytest.fail(f"{' '.join(argv)}: exit status {program.returncode}\n{said}\n{self._report()}")
        return str(output)

    def stop(self, program: subprocess.Popen[Any], number: signal.Signals = signal.SIGTERM) -> int:
        """Ends a program in its own way; fails when it does not end."""
        program.send_signal(number)
        try:
            return program.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{program.args} does not stop\n{self._report()}")

    def end(self, program: subprocess.Popen[Any]) -> None:
        """Kills a program and its process group."""
        end_program(program)

    def log_of(self, program: subprocess.Popen[Any]) -> Path:
        """What a program in the background has printed."""
        return self._logs[program.pid]

    def close(self) -> None:
        """Kills what still runs, the programs' own children included."""
        for program in self._programs:
            end_program(program)
        for _ in range(50):
            pids = network.sh("ip", "netns", "pids", self.space.name).split()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)
        raise AssertionError(f"processes {pids} do not end")

    def _listening(self) -> set[int]:
        sockets = self.space.run("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
        fields = (line.split() for line in sockets)
        return {int(each[1].rpartition(":")[2], 16) for each in fields if each[3] == "0A"}

    def _report(self) -> str:
        """What a person needs to see why something went wrong."""
        parts = []
        if shutil.which("ss"):
            parts.append(self.space.run("ss", "-tnpm"))
        if self.mesh is not None:
            status = self.mesh.status()
            parts.append(f"unread: {status['unread']}\n{self.account()}")
        for log in self._logs.values():
            parts.append(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)

    # The account

    def account(self) -> Account:
        """Since the stage was set up; only with zerohop."""
        assert self.mesh is not None
        return difference(self._before, self.mesh.totals())

    def expect_shortcut(self, *, allowed: Iterable[str] = ()) -> None:
        """Bytes went past TCP, no connection was left out but for the reasons `allowed`. Nothing without zerohop."""
        if self.mesh is None:
            return
        found = self._sound_account(allowed)
        assert found.shortcut > 0, found
        assert found.shortcut_bytes > 0, found

    def expect_sound(self, *, allowed: Iterable[str]) -> None:
        """Whether bytes went past TCP or not, all is well. Nothing without zerohop."""
        if self.mesh is not None:
            self._sound_account(allowed)

    def expect_left_out(self, *reasons: str) -> None:
        """Every connection is plain TCP, for one of these reasons. Nothing without zerohop."""
        if self.mesh is None:
            return
        found = self._sound_account(reasons)
        assert found.opened > 0, found
        assert found.shortcut == 0, found
        assert found.shortcut_bytes == 0, found
        assert sum(found.reasons.values()) == found.opened, found

    def _sound_account(self, allowed: Iterable[str]) -> Account:
        assert self.mesh is not None
        found = self.account()
        assert not found.errors, found
        assert set(found.reasons) <= set(allowed), found
        assert self.mesh.status()["unread"] == [], found
        # Redirected and TCP's bytes share the receiver's buffer: where TCP found no room, it would wait for a time-out.
        counters = self.space.tcp_counters()
        assert counters["TcpExtTCPTimeouts"] <= TIMEOUTS_TOLERATED, counters
        return found


@contextlib.contextmanager
def stage(folder: Path, mesh: Mesh | None) -> Iterator[Stage]:
    with network.namespace("i") as space:
        play = Stage(space, folder, mesh)
        try:
            yield play
        finally:
            play.close()
