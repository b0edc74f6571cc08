"""Two ends of a connection over loopback, in one process and not blocking."""

from __future__ import annotations

import select
import socket
import time

from zerohop.kernel import cgroup

PATIENCE_SECONDS = 20.0


def pair(
    client_cgroup: str = "", server_cgroup: str = "", port: int = 0, dialled: tuple[str, int] | None = None
) -> tuple[socket.socket, socket.socket]:
    """A connection, its ends made in these cgroups, or where this process is. `dialled`: by a virtual address."""
    if server_cgroup:
        cgroup.enter(server_cgroup)
    with socket.socket() as listener:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        if client_cgroup:
            cgroup.enter(client_cgroup)
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(dialled or listener.getsockname())
        wait(listener, select.POLLIN)
        server, _ = listener.accept()
    server.setblocking(False)
    wait(client, select.POLLOUT)
    return client, server


def receive(end: socket.socket, size: int) -> bytes:
    received = b""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(received) < size and time.monotonic() < deadline:
        wait(end, select.POLLIN)
        try:
            received += end.recv(size - len(received))
        except BlockingIOError:
            continue
    return received


def wait(end: socket.socket, event: int) -> None:
    poll = select.poll()
    poll.register(end, event)
    poll.poll(PATIENCE_SECONDS * 1000)
