"""Bytes to a server that has hardly any memory for its sockets: `tight.py serve|send PORT LIMIT`.

The server's cgroup lets its sockets have LIMIT bytes, of which it holds a changing part in connections to itself. Both
print a digest of what they have sent or received; the sender also how often `send` has failed with ENOMEM.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator

from writers import receive

PIECE = 8_192
HELD_SECONDS, FREE_SECONDS = 0.02, 0.02
MESSAGES, SIZES = 400, (100, 2_000, 9_000, 30_000, 60_000)


def try_send(connection: socket.socket, data: bytes) -> int:
    with contextlib.suppress(BlockingIOError):
        return connection.send(data)
    return 0


def put(connection: socket.socket, data: bytes) -> None:
    while data:
        select.select([], [connection], [])
        data = data[try_send(connection, data) :]


@contextlib.contextmanager
def held_memory(size: int) -> Iterator[None]:
    """So many bytes that nobody reads, or as many as there is memory for."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        taken = PIECE
        while size > 0 and taken >= PIECE:
            writer = sockets.enter_context(socket.create_connection(listener.getsockname()))
            sockets.enter_context(listener.accept()[0])
            writer.setblocking(False)
            taken = 0
            while part := try_send(writer, bytes(min(PIECE, size - taken))):
                taken += part
            size -= taken
        yield


def sizes() -> list[int]:
    """Of the messages."""
    chosen = random.Random(1)
    return [chosen.choice(SIZES) for _ in range(MESSAGES)]


def hold(limit: int) -> None:
    while True:
        with held_memory(random.randrange(limit * 9 // 10, limit * 11 // 10)):
            time.sleep(HELD_SECONDS)
        time.sleep(FREE_SECONDS)


def accept_one(port: int) -> socket.socket:
    """Prints `ready` when it listens."""
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    print("ready", flush=True)
    select.select([listener], [], [])
    connection, _ = listener.accept()
    connection.setblocking(False)
    return connection


def serve(port: int, limit: int) -> None:
    connection = accept_one(port)
    threading.Thread(target=hold, args=[limit], daemon=True).start()
    digest = hashlib.sha256()
    for size in sizes():
        # An answer to each: a bulk transfer TCP would carry.
        digest.update(receive(connection, size))
        put(connection, b"!")
    print(digest.hexdigest())


def send(port: int) -> None:
    connection = socket.socket()
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        connection.connect(("127.0.0.1", port))
    digest = hashlib.sha256()
    failed = 0
    for size in sizes():
        rest = random.randbytes(size)
        digest.update(rest)
        while rest:
            select.select([], [connection], [])
            try:
                rest = rest[try_send(connection, rest) :]
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                failed += 1
        receive(connection, 1)
    print(json.dumps({"digest": digest.hexdigest(), "failed": failed}))


if __name__ == "__main__":
    role, port, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if role == "serve":
        serve(port, limit)
    else:
        send(port)
