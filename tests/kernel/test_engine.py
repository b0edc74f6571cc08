"""The engine in the hooks, byte by byte on real sockets: what it reads, what it rewrites, what it gives up, and why."""

from __future__ import annotations

import itertools
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from support.frames import END_HEADERS, END_STREAM, HEADERS, PREFACE, REQUEST, RST_STREAM, SETTINGS, frame, literal
from support.mesh import Mesh, MeshFactory, workload
from support.talker import Talker, conversation
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import Calls, FlowReader, read_calls, read_reading

PORT = 18392
CONTINUATION, DATA, GOAWAY = 9, 0, 7

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "server", "namespace": "t"},
    "spec": {"selector": {"app": "server"}, "ports": [{"name": "grpc", "port": PORT, "appProtocol": "grpc"}]},
}
OUTSIDE = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "outside", "namespace": "t"},
        "spec": {"ports": [{"name": "grpc", "port": PORT, "appProtocol": "grpc"}]},
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "outside-1", "namespace": "t", "labels": {"kubernetes.io/service-name": "outside"}},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": PORT}],
        "endpoints": [{"addresses": ["127.0.0.1"]}],
    },
]

# Who is managed: so many hooks at the sender, the rest at the receiver.
PLACES = {
    "both": ("t/client", "t/server"),
    "server": (None, "t/server"),
    "client": ("t/client", None),
}

OPENING = PREFACE + frame(SETTINGS, 0, 0, b"")
ANSWER = frame(HEADERS, END_HEADERS, 1, b"\x88" + literal(b"content-type", b"application/grpc"))
TRAILERS = frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"grpc-status", b"0"))


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def documents(place: str) -> list[dict[str, Any]]:
    known = [SERVICE] if PLACES[place][1] else OUTSIDE
    return [workload("t/server"), workload("t/client"), *known]


def talk(mesh: Mesh, place: str) -> Any:
    client, server = PLACES[place]
    return conversation(mesh, PORT, client=client, server=server)


def ended(mesh: Mesh, wanted: Callable[[list[Calls]], bool]) -> list[Calls]:
    """The rows of calls once they are as wanted; whatever they are after some seconds."""
    deadline = time.monotonic() + 5
    while True:
        with DataPath.open(mesh.instance) as path:
            rows = read_calls(path)
        if wanted(rows) or time.monotonic() > deadline:
            return rows
        time.sleep(0.05)


def finished(rows: list[Calls]) -> list[Calls]:
    return [row for row in rows if row.ending != "open"]


def message(content: bytes) -> bytes:
    return struct.pack("!BI", 0, len(content)) + content


def send_in_pieces(end: Talker, content: bytes, size: int) -> None:
    for start in range(0, len(content), size):
        end.send(content[start : start + size])


def test_one_call(mesh_factory: MeshFactory, place: str) -> None:
    mesh = mesh_factory(documents(place))
    request = OPENING + frame(HEADERS, END_HEADERS, 1, REQUEST)
    request += frame(DATA, END_STREAM, 1, message(b"abc") + message(b""))
    response = frame(SETTINGS, 0, 0, b"") + ANSWER + frame(DATA, 0, 1, message(b"x" * 100)) + TRAILERS
    for calls, size in enumerate((1, 7, 100_000), 1):
        with talk(mesh, place) as (client, server):
            send_in_pieces(client, request, size)
            assert server.receive(len(request)) == request
            send_in_pieces(server, response, size)
            assert client.receive(len(response)) == response
            rows = finished(ended(mesh, lambda rows, calls=calls: sum(row.calls for row in finished(rows)) == calls))
    (row,) = rows
    names = tuple(end.name if end else None for end in (row.source, row.destination))
    assert names == tuple(key and key.removeprefix("t/") for key in PLACES[place])
    assert row.service is not None
    assert row.service.name == ("server" if PLACES[place][1] else "outside")
    assert (row.method, row.protocol, row.http_status, row.grpc_status, row.ending) == (
        "/torture.Frames/Send", "grpc", 200, 0, "complete",
    )  # fmt: skip
    assert (row.calls, row.request_messages, row.request_bytes) == (3, 6, 39)
    assert (row.response_messages, row.response_bytes) == (3, 315)
    assert sum(row.durations.counts) == sum(row.request_sizes.counts) == sum(row.response_sizes.counts) == 3
    with DataPath.open(mesh.instance) as path:
        reader = FlowReader(path, last=10)
        flows = reader.read()
        assert reader.lost == 0
        assert [(flow.request_bytes, flow.response_messages, flow.stream) for flow in flows] == [(13, 1, 1)] * 3
        assert sum(flow.latency_ns for flow in flows) == row.duration_ns
        reader.close()


def test_the_announced_table_size_is_lowered_to_the_mirrors(mesh_factory: MeshFactory, place: str) -> None:
    mesh = mesh_factory(documents(place))

    def settings(size: int) -> bytes:
        values = ((3, 100), (1, size), (4, 1 << 20))
        return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", *each) for each in values))

    with talk(mesh, place) as (client, server):
        client.send(PREFACE)
        server.receive(len(PREFACE))
        for announced in (0, 4_095, 4_096, 4_097, 65_536, 0xFFFFFFFF):
            expected = settings(min(announced, 4_096))
            for size in (1, 2, 5, 11, 100):
                send_in_pieces(client, settings(announced), size)
                assert server.receive(len(expected)) == expected
                send_in_pieces(server, settings(announced), size)
                assert client.receive(len(expected)) == expected
    assert mesh.unread() == {}


def test_a_header_block_in_many_frames_and_writes(mesh_factory: MeshFactory, place: str) -> None:
    mesh = mesh_factory(documents(place))
    block = REQUEST + b"".join(literal(b"x-%04d" % number, bytes(100)) for number in range(150))
    assert len(block) > 16_384
    cuts = [0, 1, 10, 5_000, 5_001, 12_000, len(block)]
    frames = [
        frame(CONTINUATION if start else HEADERS, END_HEADERS if end == len(block) else 0, 1, block[start:end])
        for start, end in itertools.pairwise(cuts)
    ]
    request = OPENING + b"".join(frames) + frame(DATA, END_STREAM, 1, b"")
    response = frame(SETTINGS, 0, 0, b"") + ANSWER + TRAILERS
    for piece in (1, 500, 5_000):
        with talk(mesh, place) as (client, server):
            whole = len(request) - 3_000 if piece == 1 else 0
            client.send(request[:whole])
            send_in_pieces(client, request[whole:], piece)
            assert server.receive(len(request)) == request
            server.send(response)
            client.receive(len(response))
    (row,) = finished(ended(mesh, lambda rows: sum(row.calls for row in finished(rows)) == 3))
    assert (row.method, row.calls, row.grpc_status) == ("/torture.Frames/Send", 3, 0)


def test_a_header_block_beyond_the_limit_is_named(mesh_factory: MeshFactory, place: str) -> None:
    mesh = mesh_factory(documents(place))
    block = REQUEST + b"".join(literal(b"x-%04d" % number, bytes(120)) for number in range(300))
    request = OPENING + frame(HEADERS, 0, 1, block[:16_000]) + frame(CONTINUATION, 0, 1, block[16_000:30_000])
    request += frame(CONTINUATION, END_HEADERS, 1, block[30_000:])
    with talk(mesh, place) as (client, server):
        client.send(request)
        assert server.receive(len(request)) == request
        server.send(ANSWER)
        assert client.receive(len(ANSWER)) == ANSWER
        deadline = time.monotonic() + 5
        while not mesh.unread() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert mesh.unread() == {"block_too_large": 1}


def test_many_calls_at_a_time(mesh_factory: MeshFactory, place: str) -> None:
    mesh = mesh_factory(documents(place))
    streams = range(1, 2_401, 2)
    with talk(mesh, place) as (client, server):
        client.send(OPENING)
        server.receive(len(OPENING))
        requests = b"".join(
            frame(HEADERS, END_HEADERS, each, REQUEST) + frame(DATA, END_STREAM, each, message(bytes(each % 7)))
            for each in streams
        )
        client.send(requests)
        server.receive(len(requests))
        rows = ended(mesh, lambda rows: sum(row.calls for row in rows) == len(streams))
        assert [(row.ending, row.calls) for row in rows] == [("open", len(streams))]
        # Some get an answer, some are reset, by either side; the rest stays until the connection closes.
        answers = frame(SETTINGS, 0, 0, b"") + b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, each, b"\x88" + literal(b"grpc-status", b"5"))
            for each in streams[:400]
        )
        answers += b"".join(frame(RST_STREAM, 0, each, struct.pack("!I", 7)) for each in streams[400:500])
        server.send(answers)
        client.receive(len(answers))
        resets = b"".join(frame(RST_STREAM, 0, each, struct.pack("!I", 8)) for each in streams[500:700])
        client.send(resets)
        server.receive(len(resets))
        client.close()
        server.close()
        rows = ended(mesh, lambda rows: sum(row.calls for row in finished(rows)) == len(streams))
    by_ending = {(row.ending, row.grpc_status): row.calls for row in finished(rows)}
    assert by_ending == {
        ("complete", 5): 400,
        ("server_reset", 14): 100,
        ("client_reset", 1): 200,
        ("closed", 14): 500,
    }
    assert sum(row.request_bytes for row in finished(rows)) == sum(5 + each % 7 for each in streams)
    assert next(row.calls for row in rows if row.ending == "open") == len(streams)


def test_methods_beyond_the_limit_share_one(mesh_factory: MeshFactory) -> None:
    mesh = mesh_factory(documents("both"))
    with DataPath.open(mesh.instance) as path:
        settings = path.settings()
        settings.max_methods = 3
        path.write_settings(settings)
    with talk(mesh, "both") as (client, server):
        client.send(OPENING)
        for number in range(10):
            block = REQUEST.replace(b"/torture.Frames/Send", b"/torture.Frames/%04d" % (number % 5))
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block))
        server.receive(len(OPENING))
        client.close()
        server.close()
        rows = ended(mesh, lambda rows: sum(row.calls for row in finished(rows)) == 10)
    assert {row.method: row.calls for row in finished(rows)} == {
        "/torture.Frames/0000": 2,
        "/torture.Frames/0001": 2,
        "/torture.Frames/0002": 2,
        None: 4,
    }


# What a client says first, why it is not read, and what it is taken for.
STRANGE = (
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http1", "http1"),
    (b"POST /a HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", "http1", "http1"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls", "tls"),
    (b"*1\r\n$4\r\nPING\r\n", "not_http", "other"),
    (b"SSH-2.0-x\r\n", "not_http", "other"),
    (PREFACE + frame(DATA, 0, 1, b""), "frame_order", "http2"),
    (OPENING + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"), "hpack_integer", "http2"),
    (OPENING + frame(HEADERS, END_HEADERS, 1, b"\xbe"), "hpack_index", "http2"),
    (OPENING + frame(RST_STREAM, 0, 1, b"abc"), "frame_size", "http2"),
)


def test_what_is_not_read_is_named_and_left_alone(mesh_factory: MeshFactory, place: str) -> None:
    mesh = mesh_factory(documents(place))
    answer = b"HTTP/1.1 200 OK\r\n\r\n"
    reasons: Counter[str] = Counter()
    spoken: Counter[str] = Counter()
    for request, reason, speaks in STRANGE:
        with talk(mesh, place) as (client, server):
            for _ in range(20):
                client.send(request)
                assert server.receive(len(request)) == request
                server.send(answer)
                assert client.receive(len(answer)) == answer
        reasons[reason] += 1
        spoken[speaks] += 1
        with DataPath.open(mesh.instance) as path:
            reading = read_reading(path)
        assert (reading.unread, reading.recognised) == (reasons, spoken), request
