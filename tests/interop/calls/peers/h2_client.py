"""A client on PyPI's `h2`: calls whose frames are as no ordinary client makes them.

    h2_client.py HOST PORT SEED PIECE plain|strange [blocking]      (h2_wire.py says what they do)

Prints what a client prints (peers/README.md).
"""

from __future__ import annotations

import gzip
import random
import socket
import struct
import sys
from typing import Final

import h2.errors
import h2.events
from contract import CANCELLED, UNIMPLEMENTED, Tally, check, path
from h2_wire import Wire, connected
from hpack import HeaderTuple, NeverIndexedHeaderTuple

CALLS: Final = 16
AT_ONCE: Final = 4


def framed(message: bytes, compressed: bool = False) -> bytes:
    return struct.pack("!BI", compressed, len(message)) + message


class Call:
    """One call: what it sends, and what has come back."""

    def __init__(self, chance: random.Random) -> None:
        self.kind = chance.choice(("echo", "echo", "missing", "compressed", "cancelled"))
        self.path = path("Missing" if self.kind == "missing" else "BidiStream")
        self.sizes = [chance.choice((0, 1, 90, 900, 2_500)) for _ in range(chance.randrange(1, 4))]
        messages = [chance.randbytes(size) for size in self.sizes]
        self.entries = [(f"x-{chance.randrange(40)}", "v" * chance.randrange(300)) for _ in range(chance.randrange(30))]
        self.wire = [
            framed(gzip.compress(each), True) if self.kind == "compressed" else framed(each) for each in messages
        ]
        self.answer = b"".join(map(framed, messages))
        self.received = b""
        self.status: int | None = None

    def headers(self, chance: random.Random, authority: str) -> list[HeaderTuple]:
        fields = [
            HeaderTuple(":method", "POST"),
            HeaderTuple(":scheme", "http"),
            HeaderTuple(":path", self.path),
            HeaderTuple(":authority", authority),
            HeaderTuple("te", "trailers"),
            HeaderTuple("content-type", "application/grpc"),
            HeaderTuple("grpc-accept-encoding", "identity"),
        ]
        if self.kind == "compressed":
            fields.append(HeaderTuple("grpc-encoding", "gzip"))
        return fields + [chance.choice((HeaderTuple, NeverIndexedHeaderTuple))(*each) for each in self.entries]

    def add_to(self, tally: Tally) -> None:
        requests = [len(each) - 5 for each in self.wire]
        if self.kind == "missing":
            check("status", self.status, UNIMPLEMENTED)
            # The server may have said so before it had everything.
            tally.add(self.path, UNIMPLEMENTED, None, [])
        else:
            check("answers", self.received, self.answer)
            check("status", self.status, CANCELLED if self.kind == "cancelled" else 0)
            tally.add(self.path, CANCELLED if self.kind == "cancelled" else 0, requests, self.sizes)


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket, chance: random.Random, piece: int, *, strange: bool) -> None:
        self.authority = "{}:{}".format(*sock.getpeername())
        self.chance = chance
        self.wire = Wire(sock, chance, piece, client=True, strange=strange)
        self.calls: dict[int, Call] = {}
        self.receive()  # the server's settings

    def receive(self) -> None:
        events = self.wire.receive()
        if not events:
            raise SystemExit("the server has closed the connection")
        for event in events:
            self._on(event)
        self.wire.send()

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self.calls[event.stream_id].received += event.data
                self.wire.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                for name, value in event.headers:
                    if name == "grpc-status":
                        self.calls[event.stream_id].status = int(value)
            case h2.events.StreamReset():
                check("reset", int(event.error_code), int(h2.errors.ErrorCodes.NO_ERROR))
            case h2.events.ConnectionTerminated():
                raise SystemExit(f"the server refuses to go on: {event}")

    def begin(self, call: Call) -> int:
        connection = self.wire.connection
        stream = connection.get_next_available_stream_id()
        self.calls[stream] = call
        connection.send_headers(stream, call.headers(self.chance, self.authority))
        whole = b"".join(call.wire)
        size = connection.max_outbound_frame_size
        for start in range(0, len(whole), size):
            last = start + size >= len(whole) and call.kind != "cancelled"
            connection.send_data(stream, whole[start : start + size], end_stream=last)
        self.wire.send()
        return stream

    def finish(self, stream: int) -> Call:
        call = self.calls[stream]
        if call.kind == "cancelled":
            while len(call.received) < len(call.answer):
                self.receive()
            self.wire.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            self.wire.send()
            call.status = CANCELLED
        while call.status is None:
            self.receive()
        return call


def main(host: str, port: str, seed: str, piece: str, form: str, blocking: str = "") -> None:
    chance = random.Random(int(seed))
    sock = connected(host, int(port), blocking=bool(blocking))
    client = Client(sock, chance, int(piece), strange=form == "strange")
    tally = Tally()
    for _ in range(CALLS // AT_ONCE):
        for stream in [client.begin(Call(chance)) for _ in range(AT_ONCE)]:
            client.finish(stream).add_to(tally)
    client.wire.close()
    tally.show()


if __name__ == "__main__":
    main(*sys.argv[1:])
