"""Denied calls whose frames come in parts: `cuts.py serve PORT`, `cuts.py part PORT`, `cuts.py call PORT HOW`.

The server prints "ready", and answers /t.S/Count with how many other calls its handlers were given. `part` answers
bursts in two writes, each burst cut at the next place, and refuses what it does not know as gRPC servers do.

The caller makes a connection for each place at which the burst of calls is cut, and prints an object a line: {"plan":
where it was cut, "calls": [[grpc-status, what came back as was asked], …] or why the connection ended}; at the end the
server's count. Every second call has "x-deny: yes" as its last header. HOW: whole (two writes), continuation (the same,
with header blocks of two frames), bytes (a byte a write), or a number: so many bursts, each in one write, uncounted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
from frames import END_HEADERS, HEADERS, frame

CONTINUATION = 9
CALLS = 6
PAUSE = 0.002
PATIENCE = 5.0


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0

    def echo(self, request: bytes, context: Any) -> bytes:
        with self.lock:
            self.calls += 1
        return request

    def service(self, details: Any) -> Any:
        if details.method == "/t.S/Echo":
            return grpc.unary_unary_rpc_method_handler(self.echo)
        if details.method == "/t.S/Count":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"%d" % self.calls)
        return None


def serve(port: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


class Connection:
    """One connection, and what came back on its streams."""

    def __init__(self, port: int) -> None:
        self.settled = False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(("127.0.0.1", port))
        select.select([], [self.socket], [])
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http2.initiate_connection()
        self.statuses: dict[int, int] = {}
        self.messages: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.write(self.http2.data_to_send())
        while not self.settled:
            self.read(PATIENCE)

    def write(self, data: bytes) -> None:
        while data:
            select.select([], [self.socket], [])
            data = data[self.socket.send(data) :]

    def read(self, patience: float) -> None:
        if not select.select([self.socket], [], [], patience)[0]:
            raise TimeoutError("nothing comes")
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        for event in self.http2.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settled = True
            if isinstance(event, h2.events.DataReceived):
                self.messages[event.stream_id] = self.messages.get(event.stream_id, b"") + event.data
                self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                fields = dict(event.headers)
                if "grpc-status" in fields:
                    self.statuses[event.stream_id] = int(fields["grpc-status"])
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.ended.add(event.stream_id)
            if isinstance(event, h2.events.ConnectionTerminated):
                raise ConnectionError(f"GOAWAY {event.error_code}")
        self.write(self.http2.data_to_send())

    def burst(self, *, continuation: bool) -> bytes:
        """Calls, as one string of bytes; every second one is denied."""
        parts = []
        for number in range(CALLS):
            stream = self.http2.get_next_available_stream_id()
            self.http2.send_headers(stream, headers(denied=number % 2 == 1, number=number))
            block = self.http2.data_to_send()
            parts.append(split(block, stream) if continuation else block)
            self.http2.send_data(stream, message(number), end_stream=True)
            parts.append(self.http2.data_to_send())
        return b"".join(parts)

    def outcome(self) -> list[list[int | bool | None]]:
        streams = range(1, 2 * CALLS, 2)
        while not self.ended.issuperset(streams):
            self.read(PATIENCE)
        wanted = [message(number) for number in range(CALLS)]
        return [
            [self.statuses.get(stream), self.messages.get(stream) == content]
            for stream, content in zip(streams, wanted, strict=True)
        ]


def headers(*, denied: bool, number: int) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/t.S/Echo"),
        (":authority", "t"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("x-number", str(number)),
        ("x-deny", "yes" if denied else "no"),
    ]


def message(number: int) -> bytes:
    content = bytes([number]) * (1 + 7 * number)
    return b"\0" + len(content).to_bytes(4, "big") + content


def split(data: bytes, stream: int) -> bytes:
    """A HEADERS frame as one and a CONTINUATION of three bytes."""
    block = data[9:]
    return frame(HEADERS, 0, stream, block[:-3]) + frame(CONTINUATION, END_HEADERS, stream, block[-3:])


class Answers:
    """A connection of the server that answers in two writes."""

    def __init__(self, connection: socket.socket, place: int) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.place = place
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.http2.initiate_connection()
        self.requests: dict[int, tuple[str, bytes]] = {}
        self.whole = 0

    def run(self) -> None:
        with contextlib.suppress(OSError), self.socket:
            self.socket.send(self.http2.data_to_send())
            while select.select([self.socket], [], []) and (data := self.socket.recv(65536)):
                for event in self.http2.receive_data(data):
                    self.take(event)
                if self.whole == CALLS:
                    self.answer()
                else:
                    self.socket.send(self.http2.data_to_send())

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = dict(event.headers)[":path"], b""
        if isinstance(event, h2.events.DataReceived):
            path, content = self.requests[event.stream_id]
            self.requests[event.stream_id] = path, content + event.data
        if isinstance(event, h2.events.StreamEnded):
            self.whole += 1

    def answer(self) -> None:
        for stream, (path, content) in self.requests.items():
            fields = [(":status", "200"), ("content-type", "application/grpc")]
            if path == "/t.S/Echo":
                self.http2.send_headers(stream, fields)
                self.http2.send_data(stream, content)
                self.http2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
            else:
                fields += [("grpc-status", "12"), ("grpc-message", "unknown")]
                self.http2.send_headers(stream, fields, end_stream=True)
        self.whole = 0
        data = self.http2.data_to_send()
        place = 1 + self.place % (len(data) - 1)
        self.socket.send(data[:place])
        time.sleep(PAUSE)
        self.socket.send(data[place:])


def part(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.setblocking(False)
        print("ready", flush=True)
        for place in itertools.count():
            select.select([listener], [], [])
            Answers(listener.accept()[0], place).run()


def plans(how: str, size: int) -> Iterator[list[int]]:
    """Where the burst is cut."""
    if how.isdigit():
        yield from ([] for _ in range(int(how)))
    elif how == "bytes":
        yield list(range(1, size))
    else:
        yield from ([at] for at in range(1, size))


def call(port: int, how: str) -> None:
    size = len(Connection(port).burst(continuation=how == "continuation"))
    for plan in plans(how, size):
        connection = Connection(port)
        data = connection.burst(continuation=how == "continuation")
        calls: list[list[int | bool | None]] | str
        try:
            for start, end in itertools.pairwise([0, *plan, size]):
                connection.write(data[start:end])
                time.sleep(PAUSE)
            calls = connection.outcome()
        except (OSError, h2.exceptions.ProtocolError) as error:
            calls = f"{type(error).__name__}: {error}"
        connection.socket.close()
        print(json.dumps({"plan": plan if len(plan) == 1 else how, "calls": calls}), flush=True)
    if how.isdigit():
        return
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        print(int(channel.unary_unary("/t.S/Count")(b"", timeout=20)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["part", port]:
            part(int(port))
        case ["call", port, how]:
            call(int(port), how)
