"""Network namespaces of the bench's own, without names: they end with the bench, however it ends."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from zerohop.bench.counters import TcpCounterFiles
from zerohop.bench.signals import ending_signals_held
from zerohop.errors import UnsupportedError, ZerohopError

_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    # os.unshare and os.setns exist from Python 3.12 on.
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise ZerohopError(f"{name}: {os.strerror(error)}", hint="run as root, outside a restricted container")


class Namespace:
    """A network namespace, held by a file descriptor, with its TCP counters."""

    def __init__(self) -> None:
        """Takes the caller's current namespace."""
        self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.counters = TcpCounterFiles()

    @property
    def path(self) -> str:
        """A path that other processes can open, for as long as this object is open."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        self.counters.close()
        os.close(self._fd)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, and what it starts, is in this namespace for the block."""
        with ending_signals_held():
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _call("setns", self._fd, _CLONE_NEWNET)
                yield
            finally:
                _call("setns", home, _CLONE_NEWNET)
                os.close(home)


@contextmanager
def own_namespace() -> Iterator[Namespace]:
    """The namespace that the bench itself runs in."""
    namespace = Namespace()
    try:
        yield namespace
    finally:
        namespace.close()


@contextmanager
def new_namespace() -> Iterator[Namespace]:
    """A fresh namespace with its loopback up; it vanishes when nothing holds it any more."""
    with own_namespace() as home, ending_signals_held(), home.entered(), ExitStack() as failure:
        _call("unshare", _CLONE_NEWNET)
        namespace = Namespace()
        failure.callback(namespace.close)
        ip("link", "set", "lo", "up")
        failure.pop_all()
    try:
        yield namespace
    finally:
        namespace.close()


def ip(*arguments: str) -> None:
    """Runs `ip`(8) in the caller's network namespace."""
    _run_tool(("ip", *arguments), package="iproute2")


def _run_tool(command: Sequence[str], *, package: str) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        raise UnsupportedError(f"{command[0]} is missing", hint=f"run apt-get install {package}") from None
    if result.returncode != 0:
        raise ZerohopError(f"{' '.join(command)} failed: {result.stderr.strip()}")
