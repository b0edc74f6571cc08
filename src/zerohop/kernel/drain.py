"""Takes connections out of the short-cut without losing a byte, so that a data path can be removed or replaced.

A socket leaves the sockhash when it sends a segment (bpf/mesh/shortcut.h, `on_transmit`). A busy connection does so
soon. An idle one is nudged: TCP keep-alive is switched on for a moment through a duplicate of its descriptor, and the
probe is the segment that lets it go.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

from zerohop.kernel import cgroup
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.tables import cgroup_paths

_PIDFD_GETFD: Final = 438
_SO_COOKIE: Final = 57
_PROBE_SECONDS: Final = 1
_GRACE_SECONDS: Final = 0.06  # longer than LEAVE_GRACE_NS in bpf/shared/bounds.h, so that the first probe counts
_syscall = ctypes.CDLL(None, use_errno=True).syscall


def drain(path: DataPath, *, timeout: float = 4.0, progress: Callable[[int], None] | None = None) -> int:
    """Stops the short-cut and waits until every member has left; returns how many stay (seconds: `timeout`).

    Those that stay keep working: their programs live as long as the sockets do.
    """
    # One duplicate descriptor a member stays open while it is nudged.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = path.settings()
    if not settings.draining:
        settings.draining = time.monotonic_ns()
        path.write_settings(settings)
    deadline = time.monotonic() + timeout
    time.sleep(_GRACE_SECONDS)
    with contextlib.ExitStack() as nudged:
        seen: set[int] = set()
        while True:
            cookies = members(path)
            if progress:
                progress(len(cookies))
            if not cookies or time.monotonic() >= deadline:
                return len(cookies)
            fresh = cookies - seen
            if fresh:
                for connection in _descriptors(path, fresh):
                    nudged.enter_context(_keepalive(connection))
                seen |= fresh
            time.sleep(0.1)


def members(path: DataPath) -> set[int]:
    """Cookies of the sockets that are in the sockhash."""
    flag = path.layouts.enum("end_flag")
    mask = flag["END_OPEN"] | flag["END_ENROLLED"] | flag["END_LEFT"]
    wanted = flag["END_OPEN"] | flag["END_ENROLLED"]
    return {
        end.cookie
        for _, connection in path.maps["connections"].items()
        for end in connection.ends
        if end.flags & mask == wanted
    }


def _descriptors(path: DataPath, cookies: set[int]) -> Iterator[socket.socket]:
    """Duplicates of the members' descriptors, looked for in the processes of the managed cgroups."""
    for where in cgroup_paths(path):
        for pid in cgroup.processes(where):
            yield from _descriptors_of(pid, cookies)


def _descriptors_of(pid: int, cookies: set[int]) -> Iterator[socket.socket]:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
                fd = _syscall(_PIDFD_GETFD, pidfd, int(name), 0)
                if fd < 0:
                    continue
                duplicate = socket.socket(fileno=fd)
                if duplicate.type == socket.SOCK_STREAM and _cookie(duplicate) in cookies:
                    yield duplicate
                else:
                    duplicate.close()
    except OSError:
        return
    finally:
        os.close(pidfd)


def _cookie(connection: socket.socket) -> int:
    value: int = struct.unpack("Q", connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0]
    return value


@contextlib.contextmanager
def _keepalive(connection: socket.socket) -> Iterator[None]:
    """Sends keep-alive probes from now on; the application's own setting comes back at the end."""
    with connection:
        try:
            enabled = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            interval = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
        except OSError:
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)
