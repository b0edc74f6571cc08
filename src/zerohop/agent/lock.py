"""One agent an instance: a lock that dies with its process, and what others may know of the holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zerohop import __version__
from zerohop.errors import ZerohopError
from zerohop.kernel import highest

RUN: Final = highest.RUN


@dataclass(frozen=True)
class AgentInfo:
    """A running agent: process id, version, resident memory in bytes."""

    pid: int
    version: str
    resident_bytes: int


class AgentLock:
    """Held for as long as the object lives. Raises `ZerohopError` when another agent holds it."""

    def __init__(self, instance: str) -> None:
        folder = RUN / instance
        self.file = folder / "agent.lock"
        while True:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._take(instance)
                # `clean` may have removed the file that was opened: a lock on it keeps nobody out.
                if self.holds():
                    break
            except ZerohopError:
                os.close(self._fd)
                raise
            os.close(self._fd)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "version": __version__}).encode(), 0)

    def _take(self, instance: str) -> None:
        deadline = time.monotonic() + 0.5  # `find` holds it for a moment
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                running = find(instance)
                who = f" (process {running.pid})" if running else ""
                raise ZerohopError(
                    f"an agent of instance {instance!r} runs already{who}",
                    hint="stop it, or name another with --instance",
                ) from None
            return

    def holds(self) -> bool:
        """Whether the file is still the one that is locked."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self.file))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        os.close(self._fd)


def find(instance: str) -> AgentInfo | None:
    """The running agent of an instance, or None."""
    try:
        fd = os.open(RUN / instance / "agent.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(fd)
        return None
    finally:
        os.close(fd)


def _read(fd: int) -> AgentInfo | None:
    with contextlib.suppress(ValueError, KeyError, OSError):
        content: dict[str, Any] = json.loads(os.pread(fd, 4096, 0))
        pages = int(Path(f"/proc/{content['pid']}/statm").read_text().split()[1])
        return AgentInfo(content["pid"], content["version"], pages * os.sysconf("SC_PAGE_SIZE"))
    return None


def forget(instance: str) -> None:
    """Removes an instance's folder under /run."""
    highest.forget(instance)
    with contextlib.suppress(OSError):
        os.unlink(RUN / instance / "agent.lock")
    with contextlib.suppress(OSError):
        os.rmdir(RUN / instance)
    with contextlib.suppress(OSError):
        os.rmdir(RUN)
