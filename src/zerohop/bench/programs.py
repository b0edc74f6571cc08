"""The programs under test: started in their place, read with a deadline, never left running."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from zerohop.bench.network import Namespace
from zerohop.bench.signals import ending_signals_held, release_ending_signals
from zerohop.errors import ZerohopError

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)

# How much of a program's stderr an error carries.
STDERR_TAIL: Final = 2000
STOP_SECONDS: Final = 3.0


def child_setup(parent_death: signal.Signals) -> Callable[[], None]:
    """What a new process does before it becomes a program: it must not outlive the bench."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(parent_death), 0, 0, 0)
        release_ending_signals()

    return prepare


class Program:
    """A running program in a session of its own, so that a terminal's Ctrl-C reaches only the bench."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        namespace: Namespace,
        cpus: frozenset[int] | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts `command` in `namespace`, on `cpus`, with `environment` beside the bench's own.

        Raises `ZerohopError` if it cannot be started.
        """
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._pending = b""
        self._stopped = False
        self._last_words = ""
        home = os.sched_getaffinity(0)
        with namespace.entered():
            try:
                # Inherited by the child: nothing in the command needs to know about it.
                os.sched_setaffinity(0, cpus or home)
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                    # Safe here: the bench has one thread.
                    preexec_fn=child_setup(signal.SIGKILL),
                )
            except OSError as error:
                raise ZerohopError(f"{name}: cannot start {command[0]}: {error.strerror}") from error
            finally:
                os.sched_setaffinity(0, home)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def failed(self) -> bool:
        """Whether it has ended by itself, with another status than 0."""
        return not self._stopped and self._process.poll() not in (None, 0)

    def read_line(self, deadline: float) -> str | None:
        """The next line of stdout, None at its end; `ZerohopError` at `deadline` (monotonic seconds)."""
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ZerohopError(f"{self.name} did not answer in time{self._stderr_tail()}")
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                rest, self._pending = self._pending, b""
                return rest.decode(errors="replace") if rest else None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    def expect_line(self, wanted: str, deadline: float) -> None:
        """Reads up to a line that contains `wanted`."""
        while (line := self.read_line(deadline)) is not None:
            if wanted in line:
                return
        self.finish(deadline)
        raise ZerohopError(f"{self.name} ended without saying {wanted!r}{self._stderr_tail()}")

    def finish(self, deadline: float) -> str:
        """Waits for a successful end; returns the rest of stdout. Raises `ZerohopError` with its stderr."""
        lines = []
        while (line := self.read_line(deadline)) is not None:
            lines.append(line)
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ZerohopError(f"{self.name} did not end in time{self._stderr_tail()}") from None
        if self.failed:
            raise ZerohopError(self.describe_failure())
        return "\n".join(lines)

    def halt(self) -> None:
        """Stops all its threads until `resume`; `ZerohopError` if it has ended."""
        self.require_running()
        os.killpg(self._process.pid, signal.SIGSTOP)
        # Without taking the state away from Popen, which has to see a program's end.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.require_running()

    def resume(self) -> None:
        self.require_running()
        os.killpg(self._process.pid, signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether it has neither ended nor been ended; a halted program runs, too."""
        return not self._stopped and self._process.poll() is None

    def require_running(self) -> None:
        """Raises `ZerohopError` with its stderr if it has ended."""
        if self._process.poll() is not None:
            raise ZerohopError(self.describe_failure())

    def describe_failure(self) -> str:
        status = self._process.poll()
        how = f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        return f"{self.name} {how}{self._stderr_tail()}"

    def stop(self) -> None:
        """Ends it, and whatever it started."""
        with ending_signals_held():
            self._stopped = self._process.poll() is None
            end_group(self._process)
            assert self._process.stdout is not None
            self._process.stdout.close()
            # Another program's failure may still have to be explained by this one's last words.
            self._last_words = self._stderr_tail()
            self._stderr.close()

    def _stderr_tail(self) -> str:
        if self._stderr.closed:
            return self._last_words
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace").strip()
        return f": {text[-STDERR_TAIL:]}" if text else ""


def end_group(process: subprocess.Popen[bytes], patience: float = STOP_SECONDS) -> None:
    """SIGTERM to the process group that `process` leads, SIGKILL when `patience` seconds were not enough."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Only while the leader is not reaped is its group's number certainly still its own.
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            # A halted program cannot end.
            os.killpg(process.pid, signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
