"""Takes connections out of the short-cut without losing a byte, so that a data path can be removed or replaced.

A socket leaves the sockhash when it sends a segment (bpf/mesh/shortcut.h, `on_transmit`). A busy connection does so
soon. An idle one is nudged: TCP keep-alive is switched on for a moment through a duplicate of its descriptor, and the
probe is the segment that lets it go.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

from zerohop.kernel import borrow, cgroup
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.tables import cgroup_paths

log = logging.getLogger("zerohop")

_PROBE_SECONDS: Final = 1
_GRACE_SECONDS: Final = 0.06  # longer than LEAVE_GRACE_NS in bpf/shared/bounds.h, so that the first probe counts
_BATCH_SECONDS: Final = 1.5  # until the first probe of each has surely been answered
_LATE_NS: Final = 10_000_000
_USED: Final = {
    "connection": ("ends",),
    "end": ("cookie", "flags"),
    "cgroup_key": ("parent", "name"),
    "cgroup_node": ("node", "workload"),
}


def drain(path: DataPath, *, timeout: float = 4.0, progress: Callable[[int], None] | None = None) -> int | None:
    """Stops the short-cut and waits until every member has left.

    Returns how many stay, `timeout` seconds after one was nudged for the first time; None when the data path is another
    build's and does not tell. Those that stay keep working: their programs live as long as the sockets do. Raises
    `ZerohopError` when this process may not open the few descriptors that it takes.
    """
    _stop(path)
    time.sleep(_GRACE_SECONDS)
    missing = _not_understood(path)
    if missing:
        log.warning(
            "%s was made by another build, with tables that this one does not understand (%s): idle connections are not"
            " looked for, they go on by TCP and keep its programs until they close",
            path.folder,
            "; ".join(missing),
        )
        time.sleep(min(timeout, _BATCH_SECONDS))
        return None
    with borrow.hard_limit():
        return _nudge_all(path, timeout, progress or (lambda _: None))


def _not_understood(path: DataPath) -> list[str]:
    """What another build's data path lacks of that by which members are found."""
    lacking = [f"{name}: {path.unknown[name]}" for name in ("connections", "cgroups") if name in path.unknown]
    if not lacking:
        for name, fields in _USED.items():
            made = path.layouts.struct(name)
            lacking += [f"struct {name} has no {field}" for field in fields if not hasattr(made, field)]
        flags = path.layouts.enum("end_flag").__members__
        lacking += [f"no {flag}" for flag in ("END_OPEN", "END_ENROLLED", "END_LEFT") if flag not in flags]
    return lacking


def _stop(path: DataPath) -> None:
    """From now on nothing is enrolled and nothing sent past TCP.

    The kernel counts LEAVE_GRACE_NS from the stamp. It is taken before the kernel can see it, so what lies between
    shortens the grace; nor may it lie ahead, for the kernel takes that for a grace that is over.
    """
    settings = path.settings()
    if settings.draining:
        return
    with _undisturbed():
        settings.draining = time.monotonic_ns()
        path.write_settings(settings)
        late = time.monotonic_ns() - settings.draining
    if late > _LATE_NS:
        log.warning("%s: connections may have left %d ms sooner than they should", path.folder, late // 1_000_000)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Real-time priority, where the machine allows it: a busy one must not put this process to sleep just now."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, policy, parameter)


def _nudge_all(path: DataPath, timeout: float, progress: Callable[[int], None]) -> int:
    deadline = time.monotonic() + timeout
    tried: set[int] = set()
    while True:
        staying = members(path)
        progress(len(staying))
        if not staying or time.monotonic() >= deadline:
            return len(staying)
        for batch in borrow.batches(_processes(path), staying):
            fresh = batch.keys() - tried
            with contextlib.ExitStack() as nudged:
                for connection in batch.values():
                    nudged.enter_context(_keepalive(connection))
                began = time.monotonic()
                if fresh:
                    deadline = began + timeout
                    tried |= fresh
                while time.monotonic() < min(deadline, began + _BATCH_SECONDS) and members(path) & batch.keys():
                    time.sleep(0.1)
            progress(len(members(path)))
            if not fresh and time.monotonic() >= deadline:
                break
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


def _processes(path: DataPath) -> list[int]:
    """The processes of the managed cgroups."""
    return list(dict.fromkeys(pid for where in cgroup_paths(path) for pid in cgroup.processes(where)))


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
