"""Sends other bytes again than the kernel has been shown: `resent.py HOST PORT LIMIT`. Prints how often.

What a frame that nobody knows carries becomes a request when the length of a frame before it is another one. It is sent
as such when TCP takes what comes before just this length: because the send buffer is full, or, where LIMIT is not 0, as
the sockets of this program's cgroup get no more memory than LIMIT bytes.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import sys
import time

from attempts import FORBIDDEN, OPENING, block, connect, headers
from frames import UNKNOWN, frame
from tight import held_memory, put, try_send
from writers import wait_until_acknowledged

SECONDS = 30.0
ENOUGH_FULL, ENOUGH_SHORT = 100, 30  # times: not all are what they are meant to be
SEND_BUFFER, MESSAGE = 65_536, 65_536
HEADER, LENGTH_AT = 9, 2  # a frame's header, and the last byte of the length in it
EMPTY = 27  # frames before the one that carries something, as far as a length of one byte reaches


def unit(stream: int) -> bytes:
    return frame(UNKNOWN, 0, 0, b"") * EMPTY + frame(UNKNOWN, 0, 0, headers(block(FORBIDDEN), stream))


UNIT = len(unit(1))
REQUEST = len(headers(block(FORBIDDEN)))


def message(size: int) -> tuple[bytes, int]:
    """And where the first of its units begins: anywhere."""
    lead = frame(UNKNOWN, 0, 0, bytes(random.randrange(UNIT)))
    return lead + unit(1) * (1 + size // UNIT), len(lead)


def other(at: int, stream: int) -> bytes:
    """The rest of a unit from a length on, which reaches up to the request."""
    return bytes((UNIT - REQUEST - (at - LENGTH_AT + HEADER),)) + unit(stream)[at + 1 :]


def next_length(lead: int, sent: int) -> int:
    """Where the first length begins from `sent` on."""
    at = max(sent - lead, 0)
    start = at - at % UNIT
    within = (at - start - LENGTH_AT + HEADER - 1) // HEADER * HEADER + LENGTH_AT
    return lead + (start + within if within < HEADER * EMPTY else start + UNIT + LENGTH_AT)


def send(connection: socket.socket, stream: int, limit: int) -> bool:
    """Sends a message, or another one from some byte on: whether it has."""
    data, lead = message(MESSAGE)
    if limit:
        wait_until_acknowledged(connection)
    with held_memory(random.randrange(limit // 4, limit) if limit else 0):
        sent = try_send(connection, data)
    while sent < len(data):
        length = next_length(lead, sent)
        # Where memory is short, the kernel shows nothing of the next message.
        if length < len(data) and (limit or length == sent):
            at = (length - lead) % UNIT
            put(connection, data[sent:length] + other(at, stream) + data[length + UNIT - at :])
            return True
        select.select([], [connection], [])
        sent += try_send(connection, data[sent:])
    return False


def main(host: str, port: str, limit: str) -> None:
    connection = connect((host, int(port)))
    if not int(limit):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    put(connection, OPENING + frame(UNKNOWN, 0, 0, bytes(2 << 20)))  # So that TCP carries what follows.
    times = 0
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(OSError):  # A connection that ends: what was sent was not what had been judged.
        while time.monotonic() < deadline and times < (ENOUGH_SHORT if int(limit) else ENOUGH_FULL):
            times += send(connection, 2 * times + 1, int(limit))
    time.sleep(0.2)
    print(times)


if __name__ == "__main__":
    main(*sys.argv[1:])
