"""Interruption without leftovers: a signal may end the bench between two steps, never inside one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_signals_held() -> Iterator[None]:
    """Delays Ctrl-C, SIGTERM and SIGHUP to the end of the block: what it makes or removes is whole."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def release_ending_signals() -> None:
    """For a new process before it becomes a program: it must not inherit a parent's delay."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextmanager
def ending_signals_raise() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into `SystemExit(128 + signal)`, as Ctrl-C is an exception already."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
