"""One end closes while the other writes, over and over, each on a CPU of its own.

`closing.py CONNECTIONS`: prints {"refused": {errno name: connections}}, what ended the writers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections import Counter

from talker import wait


def accept(listener: socket.socket) -> socket.socket:
    wait(listener, "read")
    connection, _ = listener.accept()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def write(connection: socket.socket) -> str:
    """Writes bytes until that is refused: why."""
    while True:
        try:
            connection.send(b"x")
        except BlockingIOError:
            wait(connection, "write")
        except OSError as refused:
            return errno.errorcode[refused.errno or 0]


def close_all(port: int, connections: int) -> None:
    for number in range(connections):
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            wait(client, "write")
            client.send(b"go")
            wait(client, "read")
            for _ in range(number % 8):
                with contextlib.suppress(BlockingIOError):
                    client.recv(4096)


def main(connections: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with socket.socket() as listener:
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        child = os.fork()
        if not child:
            os.sched_setaffinity(0, {cpus[-1]})
            close_all(listener.getsockname()[1], connections)
            os._exit(0)
        os.sched_setaffinity(0, {cpus[0]})
        refused: Counter[str] = Counter()
        for _ in range(connections):
            with accept(listener) as connection:
                wait(connection, "read")
                connection.recv(2)
                refused[write(connection)] += 1
        _, status = os.waitpid(child, 0)
    assert status == 0
    print(json.dumps({"refused": refused}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
