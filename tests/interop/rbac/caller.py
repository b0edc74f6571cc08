"""Makes calls as it is told: `caller.py [CERTIFICATE KEY]`, jobs on stdin, an object a line.

A job is {"source", "destination", "port", "tls", "calls": [{"path", "host", "headers"}]}. Prints for each the statuses
of its calls: grpc-status, -1 where there was none, null where the connection ended or was refused.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack

SECONDS = 20
EMPTY_MESSAGE = bytes(5)


class Wire:
    """A socket that does not block, plain or in TLS."""

    def __init__(self, job: dict[str, Any], context: ssl.SSLContext | None) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.bind((job["source"], 0))
        error = self.socket.connect_ex((job["destination"], job["port"]))
        if error not in (0, 115):
            raise OSError(error, "connect")
        self.wait(write=True)
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        if context is not None:
            self.socket.setblocking(True)
            self.socket.settimeout(SECONDS)
            self.socket = context.wrap_socket(self.socket)

    def wait(self, *, write: bool = False) -> None:
        if isinstance(self.socket, ssl.SSLSocket):
            return
        found = select.select([] if write else [self.socket], [self.socket] if write else [], [], SECONDS)
        if not any(found):
            raise TimeoutError

    def send(self, data: bytes) -> None:
        while data:
            self.wait(write=True)
            data = data[self.socket.send(data) :]

    def receive(self) -> bytes:
        self.wait()
        return self.socket.recv(65536)


def make(job: dict[str, Any], context: ssl.SSLContext | None) -> list[int | None]:
    statuses: dict[int, int] = {}
    ended: set[int] = set()
    streams = [2 * number + 1 for number in range(len(job["calls"]))]
    wire = None
    try:
        wire = Wire(job, context if job["tls"] else None)
        state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
        state.initiate_connection()
        for stream, call in zip(streams, job["calls"], strict=True):
            fields = [
                (":method", "POST"), (":scheme", "http"), (":authority", call["host"]),
                # In no table: who is refused from outside the mesh must not have it there (docs/policy.md).
                hpack.NeverIndexedHeaderTuple(":path", call["path"]),
                ("content-type", "application/grpc"), ("te", "trailers"), *map(tuple, call["headers"]),
            ]  # fmt: skip
            state.send_headers(stream, fields)
            state.send_data(stream, EMPTY_MESSAGE, end_stream=True)
        wire.send(state.data_to_send())
        deadline = time.monotonic() + SECONDS
        while len(ended) < len(streams) and time.monotonic() < deadline:
            data = wire.receive()
            if not data:
                break
            for event in state.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    for name, value in event.headers:
                        if bytes(name) == b"grpc-status":
                            statuses[event.stream_id] = int(value)
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    ended.add(event.stream_id)
            wire.send(state.data_to_send())
    except OSError:
        pass
    finally:
        if wire is not None:
            wire.socket.close()
    return [statuses.get(stream, -1) if stream in ended else None for stream in streams]


def main(*certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate:
        context.load_cert_chain(*certificate)
    for line in sys.stdin:
        print(json.dumps(make(json.loads(line), context)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
