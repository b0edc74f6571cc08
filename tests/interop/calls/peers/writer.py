"""Writes to a server exactly what it is told to.

    writer.py HOST PORT blocking|nonblocking ENDS [HEX…]

Each HEX is one write, and is read before the next. Then it reads until ENDS streams have ended and prints their number;
0: until the server says nothing for a while. Connects as a program does that blocks, or does not.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from typing import Final

from h2_wire import connected

SECONDS: Final = 5.0
PAUSE: Final = 0.05
END_STREAM: Final = 1


def ended(received: bytes) -> int:
    """Frames that end a stream, HEADERS and DATA, among those that are whole."""
    count = position = 0
    while position + 9 <= len(received):
        length = int.from_bytes(received[position : position + 3], "big")
        position += 9 + length
        kind, flags = received[position - length - 6], received[position - length - 5]
        count += position <= len(received) and kind in (0, 1) and bool(flags & END_STREAM)
    return count


def main(host: str, port: str, mode: str, ends: str, *writes: str) -> None:
    sock = connected(host, int(port), blocking=mode == "blocking")
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for each in writes:
        data = bytes.fromhex(each)
        if sock.send(data) != len(data):
            raise SystemExit("not one write")
        time.sleep(PAUSE)
    received = b""
    deadline = time.monotonic() + SECONDS
    while not int(ends) or ended(received) < int(ends):
        if not select.select([sock], [], [], SECONDS if int(ends) else 5 * PAUSE)[0] or time.monotonic() > deadline:
            break
        piece = sock.recv(1 << 16)
        if not piece:
            break
        received += piece
    print(ended(received))
    sock.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
