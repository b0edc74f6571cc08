"""A server that tells what requests it was given, reading HTTP/2 as leniently as any: `witness.py HOST PORT [PAUSE]`.

Its listener is MPTCP's where the kernel has that: sockets of plain TCP clients are plain TCP all the same. Prints
"ready", then an object a line: {"path": …} for every header block with one, {"line": …} for HTTP/1. `PAUSE`: seconds
that a connection waits until it is accepted.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import threading
import time

from frames import END_HEADERS, HEADERS, PADDED, PREFACE, SETTINGS, frame
from hpack import Decoder, HPACKError

CONTINUATION, PRIORITY = 9, 0x20
IPPROTO_MPTCP = 262


def tell(**found: str) -> None:
    # In one piece: connections have threads.
    print(json.dumps(found) + "\n", end="", flush=True)


class Connection:
    def __init__(self) -> None:
        self.data = b""
        self.block = b""
        self.decoder = Decoder(max_header_list_size=1 << 62)

    def take(self, data: bytes) -> None:
        self.data += data
        if not PREFACE.startswith(self.data[: len(PREFACE)]) and not self.data.startswith(PREFACE):
            if b"\r\n" in self.data:
                tell(line=self.data.split(b"\r\n")[0].decode("latin-1"))
                self.data = PREFACE[:1]
            return
        if not self.data.startswith(PREFACE):
            return
        at = len(PREFACE)
        while len(self.data) - at >= 9:
            (length,) = struct.unpack("!I", b"\0" + self.data[at : at + 3])
            kind, flags = self.data[at + 3], self.data[at + 4]
            if len(self.data) - at < 9 + length:
                break
            self.frame(kind, flags, self.data[at + 9 : at + 9 + length])
            at += 9 + length
        self.data = PREFACE + self.data[at:]

    def frame(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            self.block = payload[5:] if flags & PRIORITY else payload
        elif kind == CONTINUATION:
            self.block += payload
        if kind in (HEADERS, CONTINUATION) and flags & END_HEADERS:
            with contextlib.suppress(HPACKError):
                for name, value in self.decoder.decode(self.block, raw=True):
                    if name == b":path":
                        tell(path=bytes(value).decode("latin-1"))


def serve(connection: socket.socket) -> None:
    state = Connection()
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.send(frame(SETTINGS, 0, 0, b""))
    with contextlib.suppress(OSError), connection:
        while True:
            select.select([connection], [], [])
            try:
                data = connection.recv(65536)
            except BlockingIOError:  # What has come is a part of what is judged as a whole.
                continue
            if not data:
                return
            state.take(data)


def main(host: str, port: str, pause: str = "0") -> None:
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError:
        listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen()
    listener.setblocking(False)
    print("ready", flush=True)
    while True:
        select.select([listener], [], [])
        time.sleep(float(pause))
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=[connection], daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
