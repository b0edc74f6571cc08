"""Duplicates of other processes' sockets (pidfd_getfd(2)), as many at a time as this process may open."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from zerohop.errors import ZerohopError

_PIDFD_GETFD: Final = 438
_SO_COOKIE: Final = 57
_SPARE: Final = 16  # what looking for sockets takes itself
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)
_syscall = ctypes.CDLL(None, use_errno=True).syscall


@contextlib.contextmanager
def hard_limit() -> Iterator[None]:
    """As many descriptors as this process may allow itself, for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def batches(pids: Iterable[int], cookies: set[int]) -> Iterator[dict[int, socket.socket]]:
    """Looks in the processes for the sockets with these cookies; yields them by cookie, each once.

    The caller closes a batch before it asks for the next. Raises `ZerohopError` when not one descriptor is to be had.
    """
    found: dict[int, socket.socket] = {}
    wanted = set(cookies)
    most = _room()
    for pid in pids:
        for number in _sockets_of(pid):
            connection = None
            try:
                connection = _duplicate(pid, number, wanted)
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # the process or its descriptor has gone
                if not found:
                    raise _none_left() from None
                yield found
                found = {}
                with contextlib.suppress(OSError):
                    connection = _duplicate(pid, number, wanted)
            if connection is None:
                continue
            wanted.discard(cookie_of(connection))
            found[cookie_of(connection)] = connection
            if len(found) >= most or not wanted:
                yield found
                found = {}
            if not wanted:
                return
    if found:
        yield found


def cookie_of(connection: socket.socket) -> int:
    value: int = struct.unpack("Q", connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0]
    return value


def _room() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        room = soft - len(os.listdir("/proc/self/fd")) - _SPARE
    except OSError:
        room = 0
    if room < 1:
        raise _none_left()
    return room


def _none_left() -> ZerohopError:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ZerohopError(
        f"too few file descriptors (the limit is {soft}) to take connections out of the short-cut",
        hint="allow more with ulimit -n, then do it again",
    )


def _sockets_of(pid: int) -> list[int]:
    """Numbers of the descriptors of a process that are sockets."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    found.append(int(name))
    return found


def _duplicate(pid: int, number: int, wanted: set[int]) -> socket.socket | None:
    """The socket, if it is one of those wanted; raises `OSError` when it cannot be had."""
    pidfd = os.pidfd_open(pid)
    try:
        fd: int = _syscall(_PIDFD_GETFD, pidfd, number, 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)
    try:
        duplicate = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise
    try:
        if duplicate.type == socket.SOCK_STREAM and cookie_of(duplicate) in wanted:
            return duplicate
    except OSError:
        duplicate.close()
        raise
    duplicate.close()
    return None
