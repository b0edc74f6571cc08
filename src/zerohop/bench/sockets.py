"""What sockets a program has, from the kernel's table: looking by connecting would be counted as part of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from zerohop.bench.programs import Program
from zerohop.errors import ZerohopError

_LISTEN: Final = "0A"
_ESTABLISHED: Final = "01"


def wait_listening(server: Program, port: int, deadline: float) -> None:
    """Waits until something listens on `port`; raises `ZerohopError` when the server ends or takes too long."""
    _wait(server, lambda table: is_listening(table, port), f"does not listen on port {port}", deadline)


def wait_connected(server: Program, port: int, connections: int, deadline: float) -> None:
    """Waits until so many connections to `port` are open."""
    _wait(server, lambda table: count_connections(table, port) >= connections, "was not connected to", deadline)


def is_listening(table: str, port: int) -> bool:
    """Whether the text of /proc/net/tcp has a socket in LISTEN on `port`."""
    return (port, _LISTEN) in _sockets(table)


def count_connections(table: str, port: int) -> int:
    """Connections in ESTABLISHED whose local port is `port`, in the text of /proc/net/tcp."""
    return _sockets(table).count((port, _ESTABLISHED))


def _sockets(table: str) -> list[tuple[int, str]]:
    rows = (line.split() for line in table.splitlines()[1:])
    return [(int(row[1].split(":")[1], 16), row[3]) for row in rows]


def _wait(server: Program, wanted: Callable[[str], bool], otherwise: str, deadline: float) -> None:
    while True:
        server.require_running()
        # A program that has ended has no such file any more.
        with suppress(OSError):
            if wanted(Path(f"/proc/{server.pid}/net/tcp").read_text(encoding="ascii")):
                return
        if time.monotonic() > deadline:
            raise ZerohopError(f"{server.name} {otherwise}")
        time.sleep(0.01)
