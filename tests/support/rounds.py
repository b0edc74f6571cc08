"""More bytes on one connection than there are sequence numbers: `rounds.py serve|send PORT`.

First many little frames, to a reader that is slow: the send buffer is full in the middle of some of their headers. Then
other bytes, until the sequence numbers of those have come round. The server prints how many have come.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time

from attempts import OPENING, connect
from frames import UNKNOWN, frame
from resent import SEND_BUFFER, message
from tight import accept_one, put

SLOW_SECONDS, PAUSE = 3.0, 0.0003
LITTLE, PIECE = 65_536, 1 << 20
ALL = (1 << 32) + (1 << 28)
LONGEST = (1 << 24) - 1


def serve(port: int) -> None:
    connection = accept_one(port)
    slow = time.monotonic() + SLOW_SECONDS + 1
    buffer = bytearray(PIECE)
    received = 0
    while True:
        select.select([connection], [], [])
        with contextlib.suppress(BlockingIOError):
            size = connection.recv_into(buffer)
            if not size:
                break
            received += size
        if time.monotonic() < slow:
            time.sleep(PAUSE)
    print(received)


def send(port: int) -> None:
    connection = connect(("127.0.0.1", port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    put(connection, OPENING)
    sent = len(OPENING)
    slow = time.monotonic() + SLOW_SECONDS
    while time.monotonic() < slow:
        data, _ = message(LITTLE)
        put(connection, data)
        sent += len(data)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PIECE)
    long = frame(UNKNOWN, 0, 0, b"\xff" * LONGEST)
    while sent < ALL:
        for at in range(0, len(long), PIECE):
            put(connection, long[at : at + PIECE])
        sent += len(long)
    connection.shutdown(socket.SHUT_WR)
    print(sent)


if __name__ == "__main__":
    {"serve": serve, "send": send}[sys.argv[1]](int(sys.argv[2]))
