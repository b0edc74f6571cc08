"""Reads its connections with splice(2) into a pipe, and prints what came.

splicer.py PORT
"""

from __future__ import annotations

import os
import select
import socket
import sys


def main() -> None:
    reading, writing = os.pipe()
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        listener.setblocking(False)
        select.select([listener], [], [])
        sock, _ = listener.accept()
    sock.setblocking(False)
    while True:
        select.select([sock], [], [])
        try:
            moved = os.splice(sock.fileno(), writing, 65536)
        except BlockingIOError:
            select.select([], [], [], 0.1)  # readable, it said: not so busy a loop as real programs make of it
            continue
        if not moved:
            return
        print(os.read(reading, moved), flush=True)


main()
