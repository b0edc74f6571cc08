"""A server on PyPI's `h2`, whose frames are as no ordinary server makes them: `BidiStream` of peers/README.md only.

    h2_server.py HOST PORT SEED PIECE plain|strange      (h2_wire.py says what the last two do)

One connection after the other; SIGTERM ends it, exit status 0.
"""

from __future__ import annotations

import gzip
import random
import select
import signal
import socket
import struct
import sys

import h2.events
from contract import UNIMPLEMENTED, path
from h2_wire import Wire


class Answer:
    """To one stream."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.known = headers[":path"] == path("BidiStream")
        self.received = b""

    def messages(self) -> bytes:
        """The answer to what is whole by now."""
        answer = b""
        while len(self.received) >= 5:
            compressed, size = struct.unpack_from("!BI", self.received)
            if len(self.received) < 5 + size:
                break
            message, self.received = self.received[5 : 5 + size], self.received[5 + size :]
            message = gzip.decompress(message) if compressed else message
            answer += struct.pack("!BI", 0, len(message)) + message
        return answer


class Server:
    """One connection."""

    def __init__(self, sock: socket.socket, chance: random.Random, piece: int, *, strange: bool) -> None:
        self.chance = chance
        self.wire = Wire(sock, chance, piece, client=False, strange=strange)
        self.answers: dict[int, Answer] = {}

    def run(self) -> None:
        while events := self.wire.receive():
            for event in events:
                self._on(event)
            self.wire.send()
        self.wire.close()

    def _on(self, event: h2.events.Event) -> None:
        connection = self.wire.connection
        entries = [(f"y-{self.chance.randrange(40)}", "w" * self.chance.randrange(300)) for _ in range(10)]
        match event:
            case h2.events.RequestReceived():
                answer = Answer(dict(event.headers))
                self.answers[event.stream_id] = answer
                if self.chance.random() < 0.5:
                    connection.send_headers(event.stream_id, [(":status", "103"), *entries])
                fields = [(":status", "200"), ("content-type", "application/grpc"), *entries]
                if answer.known:
                    connection.send_headers(event.stream_id, fields)
                else:
                    fields.append(("grpc-status", str(UNIMPLEMENTED)))
                    connection.send_headers(event.stream_id, fields, end_stream=True)
            case h2.events.DataReceived():
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                answer = self.answers[event.stream_id]
                answer.received += event.data
                whole = answer.messages() if answer.known else b""
                size = connection.max_outbound_frame_size
                for start in range(0, len(whole), size):
                    connection.send_data(event.stream_id, whole[start : start + size])
            case h2.events.StreamEnded():
                if self.answers[event.stream_id].known:
                    connection.send_headers(event.stream_id, [*entries, ("grpc-status", "0")], end_stream=True)


def main(host: str, port: str, seed: str, piece: str, form: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    chance = random.Random(int(seed))
    with socket.create_server((host, int(port))) as listener:
        listener.setblocking(False)  # sockets of blocking programs stay out of the hooks
        while True:
            select.select([listener], [], [])
            sock, _ = listener.accept()
            Server(sock, chance, int(piece), strange=form == "strange").run()


if __name__ == "__main__":
    main(*sys.argv[1:])
