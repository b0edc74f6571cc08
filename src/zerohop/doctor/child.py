"""Runs an experiment in a child process: what hangs or crashes there is an answer, not the end of doctor."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from zerohop.doctor.checks import Broken, Check, Subject, Unknown

_PR_SET_PDEATHSIG: Final = 1
_ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_libc: Final = ctypes.CDLL(None, use_errno=True)

Step = Callable[[str], None]


def run(subject: Subject, experiment: Callable[[Step], str], *, seconds: float) -> Check:
    """Does `experiment` in a child and returns its answer.

    The experiment names its steps as it goes, returns a detail, or raises `Broken` or `Unknown`; anything else that it
    raises is its own failure, hence `unknown`. One that takes longer than `seconds` hangs, hence `broken`.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    started = time.monotonic()
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _child(experiment, write_end, parent)
    try:
        os.close(write_end)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        lines, ended = _read(read_end, started + seconds)
    finally:
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    kind, text = ("step", "start")
    for line in lines:
        kind, text = json.loads(line)
    if kind == "ok":
        return subject.ok(text)
    if kind == "broken":
        return subject.broken(text)
    if kind == "unknown":
        return subject.unknown(text)
    if not ended:
        return subject.broken(f"hangs: no end after {seconds:.0f} s, at the step: {text}")
    return subject.unknown(f"its process ended with wait status {status}, at the step: {text}")


def _read(fd: int, deadline: float) -> tuple[list[str], bool]:
    """Whole lines until end of file (True) or the deadline (False)."""
    content = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            break
        chunk = os.read(fd, 65536)
        if not chunk:
            return content.decode().splitlines(), True
        content += chunk
    return content.decode().split("\n")[:-1], False


def _child(experiment: Callable[[Step], str], fd: int, parent: int) -> NoReturn:
    def say(kind: str, text: str) -> None:
        os.write(fd, (json.dumps([kind, text]) + "\n").encode())

    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        try:
            say("ok", experiment(lambda text: say("step", text)))
        except Broken as answer:
            say("broken", str(answer))
        except Unknown as answer:
            say("unknown", str(answer))
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            say("unknown", f"the experiment failed: {error!r} ({os.path.basename(where.filename)}:{where.lineno})")
    finally:
        os._exit(0)
