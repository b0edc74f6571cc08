"""Two ends of an HTTP/2 connection that end the same calls at the same time.

`endings.py client|server PORT ROUNDS STREAMS CPU`: in each round the client begins so many gRPC calls in one write;
then it ends every one of them, each in a write of its own, with DATA or, every second one, with RST_STREAM, while the
server answers them in the same order. Both know what the other will send, so nobody parses anything.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

import frames
from talker import connect, wait

OPENING = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b"")
SETTINGS = frames.frame(frames.SETTINGS, 0, 0, b"")


def begun(stream: int) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, frames.REQUEST)


def ended(stream: int) -> bytes:
    if stream & 2:
        return frames.frame(frames.RST_STREAM, 0, stream, struct.pack("!I", frames.CANCEL))
    return frames.frame(frames.DATA, frames.END_STREAM, stream, b"\0\0\0\0\0")


def answered(stream: int) -> bytes:
    flags = frames.END_HEADERS | frames.END_STREAM
    return frames.frame(frames.HEADERS, flags, stream, b"\x88" + frames.literal(b"grpc-status", b"0"))


def send(connection: socket.socket, content: bytes) -> None:
    while content:
        wait(connection, "write")
        content = content[connection.send(content) :]


def receive(connection: socket.socket, count: int) -> None:
    while count:
        wait(connection, "read")
        piece = connection.recv(count)
        if not piece:
            raise EOFError
        count -= len(piece)


def main(role: str, port: int, rounds: int, streams: int, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    connection = connect("connect" if role == "client" else "listen", port)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if role == "client":
        send(connection, OPENING)
        receive(connection, len(SETTINGS))
    else:
        receive(connection, len(OPENING))
        send(connection, SETTINGS)
    for number in range(rounds):
        first = 1 + 2 * streams * number
        identifiers = range(first, first + 2 * streams, 2)
        beginning = b"".join(map(begun, identifiers))
        if role == "client":
            send(connection, beginning)
            for each in identifiers:
                send(connection, ended(each))
            receive(connection, len(b"".join(map(answered, identifiers))))
        else:
            receive(connection, len(beginning))
            for each in identifiers:
                send(connection, answered(each))
            receive(connection, len(b"".join(map(ended, identifiers))))
    print("done", flush=True)
    sys.stdin.readline()
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], *(int(each) for each in sys.argv[2:]))
