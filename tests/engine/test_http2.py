"""HTTP/2 frame by frame: what begins a connection, what is refused and why, and the one thing that is rewritten."""

from __future__ import annotations

from itertools import pairwise, repeat

import pytest

from engine.engine import Engine
from engine.hpack_reader import EngineError, Text
from engine.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RESERVED,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from engine.http2_reader import DirectionReader

RST_STREAM, GOAWAY = 3, 7
ACK = 1
BEGIN = frame(SETTINGS, 0, 0)
MAX_BLOCK = 32768 - 4096  # MAX_BLOCK_SIZE
SIZES = [1, 2, 9, 1 << 15]

POST = b"\x83"
POST_FIELD = (Text.of(b":method"), Text.of(b"POST"))


def read(engine: Engine, data: bytes, size: int, *, client: bool = True) -> DirectionReader:
    """A direction that begins as it should, then `data`."""
    reader = DirectionReader(engine, client=client)
    reader.feed_pieces((PREFACE if client else b"") + BEGIN, repeat(size))
    reader.feed_pieces(data, repeat(size))
    return reader


# How connections begin


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP1"),
        (b"PUT /a HTTP/1.1\r\n", "HTTP1"),
        (b"POST /shop.Cart/Add HTTP/1.1\r\n", "HTTP1"),
        (b"PRI /a HTTP/1.1\r\n", "HTTP1"),
        (b"PROPFIND /a HTTP/1.1\r\n", "HTTP1"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"PROXY TCP4 127.0.0.1", "HTTP1"),  # the proxy protocol looks like a method
        (b"get / HTTP/1.1", "NOT_HTTP"),
        (b"\x00\x00\x00\x04", "NOT_HTTP"),
        (b"*3\r\n$3\r\nSET", "NOT_HTTP"),
        (b"A" * 40, "NOT_HTTP"),
        (b"AB C", "NOT_HTTP"),
        (PREFACE + frame(PING, 0, 0, bytes(8)), "FRAME_ORDER"),
        (PREFACE + frame(SETTINGS, ACK, 0), "FRAME_ORDER"),
        (PREFACE + frame(SETTINGS, 0, 0, bytes(5)), "FRAME_ORDER"),
    ],
)
def test_a_client_that_begins_otherwise(engine: Engine, data: bytes, reason: str, size: int) -> None:
    reader = DirectionReader(engine, client=True)
    with pytest.raises(EngineError) as caught:
        reader.feed_pieces(data, repeat(size))
    assert caught.value.reason == reason
    assert reader.events == []


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request", b"SSH-2.0-x\r\n", frame(PING, 0, 0, bytes(8)), PREFACE])
@pytest.mark.parametrize("size", SIZES)
def test_a_server_that_begins_otherwise(engine: Engine, data: bytes, size: int) -> None:
    with pytest.raises(EngineError, match="NOT_HTTP"):
        DirectionReader(engine, client=False).feed_pieces(data, repeat(size))


# What is refused

REFUSED = [
    (frame(DATA, 0, 0, b"x"), "FRAME_STREAM"),
    (frame(HEADERS, END_HEADERS, 0, POST), "FRAME_STREAM"),
    (frame(PRIORITY, 0, 0, bytes(5)), "FRAME_STREAM"),
    (frame(PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE"),
    (frame(PRIORITY, 0, 1, bytes(6)), "FRAME_SIZE"),
    (frame(PRIORITY, 0, 3, b"\x80\0\0\x03\x0f"), "FRAME_STREAM"),
    (frame(HEADERS, END_HEADERS | HAS_PRIORITY, 3, b"\0\0\0\x03\x0f\x83"), "FRAME_STREAM"),
    (frame(RST_STREAM, 0, 0, bytes(4)), "FRAME_STREAM"),
    (frame(RST_STREAM, 0, 1, bytes(5)), "FRAME_SIZE"),
    (frame(SETTINGS, 0, 1), "FRAME_STREAM"),
    (frame(SETTINGS, 0, 0, bytes(7)), "FRAME_SIZE"),
    (frame(SETTINGS, ACK, 0, bytes(6)), "FRAME_SIZE"),
    (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), "FRAME_ORDER"),  # by a client
    (frame(PING, 0, 1, bytes(8)), "FRAME_STREAM"),
    (frame(PING, 0, 0, bytes(9)), "FRAME_SIZE"),
    (frame(GOAWAY, 0, 1, bytes(8)), "FRAME_STREAM"),
    (frame(GOAWAY, 0, 0, bytes(7)), "FRAME_SIZE"),
    (frame(WINDOW_UPDATE, 0, 0, bytes(3)), "FRAME_SIZE"),
    (frame(CONTINUATION, END_HEADERS, 1, POST), "FRAME_ORDER"),
    (frame(HEADERS, 0, 1, POST) + frame(DATA, 0, 1), "FRAME_ORDER"),
    (frame(HEADERS, 0, 1, POST) + frame(0x77, 0, 0), "FRAME_ORDER"),
    (frame(HEADERS, 0, 1, POST) + frame(CONTINUATION, END_HEADERS, 3), "FRAME_ORDER"),
    (frame(HEADERS, END_HEADERS | PADDED, 1), "FRAME_SIZE"),
    (frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, bytes(4)), "FRAME_SIZE"),
    (frame(HEADERS, END_HEADERS | HAS_PRIORITY | PADDED, 1, b"\x01" + bytes(5)), "FRAME_SIZE"),
    (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x02" + POST), "FRAME_PADDING"),
    (frame(DATA, PADDED, 1, b"\x01"), "FRAME_PADDING"),
    (frame(DATA, PADDED, 1), "FRAME_SIZE"),
    (frame(HEADERS, END_HEADERS, 1, b"\x80"), "HPACK_INDEX"),
    (frame(HEADERS, END_HEADERS, 1, b"\x40"), "HPACK_TRUNCATED"),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_what_is_refused(engine: Engine, data: bytes, reason: str, size: int) -> None:
    with pytest.raises(EngineError) as caught:
        read(engine, data, size)
    assert caught.value.reason == reason


@pytest.mark.parametrize("size", SIZES)
def test_a_promise_without_room_for_its_stream(engine: Engine, size: int) -> None:
    with pytest.raises(EngineError, match="FRAME_SIZE"):
        read(engine, frame(PUSH_PROMISE, END_HEADERS, 1, bytes(3)), size, client=False)


# What is not refused


@pytest.mark.parametrize("size", SIZES)
def test_forms_that_are_rare(engine: Engine, size: int) -> None:
    padding = bytes([3]) + POST + bytes(3)
    data = (
        frame(HEADERS, END_HEADERS, 1 | RESERVED)  # an empty block
        + frame(HEADERS, 0, 3)
        + frame(CONTINUATION, 0, 3)
        + frame(CONTINUATION, END_HEADERS | END_STREAM, 3 | RESERVED, POST)  # END_STREAM is no flag of CONTINUATION
        + frame(HEADERS, END_HEADERS | PADDED | END_STREAM, 5, padding)
        + frame(HEADERS, END_HEADERS | PADDED, 7, bytes([255]) + bytes(255))
        + frame(PRIORITY, 0xFF, 1, bytes(5))
        + frame(0x77, 0xFF, 9, b"x" * 100)
        + frame(DATA, 0, 1)
        + frame(DATA, PADDED, 1, bytes([255]) + bytes(255))
        + frame(DATA, PADDED | END_STREAM, 1, b"\x00")
        + frame(WINDOW_UPDATE, 0, 1, bytes(4))
        + frame(SETTINGS, ACK, 0)
        + frame(RST_STREAM, 0xFF, 3, b"\x00\x00\x00\x08")
        + frame(GOAWAY, 0xFF, 0, bytes(8))
    )
    assert read(engine, data, size).events == [
        ("headers", 1, ()),
        ("headers", 3, (POST_FIELD,)),
        ("headers", 5, (POST_FIELD,)),
        ("end", 5),
        ("headers", 7, ()),
        ("data", 1, 0),
        ("data", 1, 0),
        ("data", 1, 0),
        ("end", 1),
        ("reset", 3, 8),
        ("goaway",),
    ]


@pytest.mark.parametrize("size", [1, 5000, 1 << 15])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_longest_header_block(engine: Engine, parts: int, size: int) -> None:
    def block(length: int) -> bytes:
        """`length` bytes of HEADERS and CONTINUATION payload, one field after the other."""
        payload = POST * length
        cuts = [length * part // parts for part in range(parts + 1)]
        return b"".join(
            frame(CONTINUATION if start else HEADERS, END_HEADERS if stop == length else 0, 1, payload[start:stop])
            for start, stop in pairwise(cuts)
        )

    (event,) = read(engine, block(MAX_BLOCK), size).events
    assert event == ("headers", 1, (POST_FIELD,) * MAX_BLOCK)
    with pytest.raises(EngineError, match="BLOCK_TOO_LARGE"):
        read(engine, block(MAX_BLOCK + 1), size)


# The table's size


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize(
    "announced",
    [
        0,
        1,
        64,
        0xFFF,
        0x1000,
        0x1001,
        0x10FF,
        0x1100,
        0x2000,
        0xFFFF,
        0x10000,
        0x10FFF,
        0x1000000,
        0x7FFFFFFF,
        0xFFFFFFFF,
    ],
)
def test_the_tables_size_is_lowered_to_the_mirrors(engine: Engine, announced: int, client: bool) -> None:
    def settings(size: int) -> bytes:
        """The size among others that look like it, twice, then another SETTINGS."""
        one = b"\x00\x01" + size.to_bytes(4, "big")
        payload = b"\x00\x04\x00\x01\x00\x01" + one + b"\x01\x01\xff\xff\xff\xff" + one + b"\x00\x00\xff\xff\xff\xff"
        return frame(SETTINGS, 0, 0, payload) + frame(SETTINGS, 0, 0, one)

    preface = PREFACE if client else b""
    for size in SIZES:
        reader = DirectionReader(engine, client=client)
        edited = reader.feed_pieces(preface + settings(announced), repeat(size))
        assert edited == preface + settings(min(announced, 4096))


# gRPC messages


@pytest.mark.parametrize("size", [*SIZES, 4, 5, 6])
def test_messages_across_frames(engine: Engine, size: int) -> None:
    messages = b"\x00\x00\x00\x00\x03abc" + b"\x01\x00\x00\x00\x00" * 3 + b"\x00\x00\x00\x02\x01" + bytes(513)
    for cut in (1, 4, 5, 7, 8, 9, 16000):
        pieces = [messages[start : start + cut] for start in range(0, len(messages), cut)]
        reader = read(engine, b"".join(frame(DATA, 0, 1, piece) for piece in [*pieces, b"\x02"]), size)
        assert sum(event[2] for event in reader.events) == len(messages) + 1
        assert reader.messages == {1: 5}
        assert reader.malformed == {1}


# Frames of headers as a whole


@pytest.mark.parametrize("look", [1, 4096])
def test_frames_of_headers_are_whole_wherever_they_are_cut(engine: Engine, look: int) -> None:
    """So they can be replaced: of the first part only a zero goes out before the second."""
    request = [frame(HEADERS, END_HEADERS, stream, POST + b"\x84" * (stream * 40)) for stream in (1, 3, 5)]
    data = request[0] + frame(DATA, 0, 1, b"\0" * 9) + request[1] + frame(PING, 0, 0, bytes(8)) + request[2]
    for place in range(1, len(data)):
        reader = DirectionReader(engine, client=True, look=look, whole=True)
        reader.feed(PREFACE + BEGIN)
        first = reader.feed(data[:place])
        assert first + reader.waiting == data[:place]
        assert first + reader.feed(data[place:]) == data
        assert [each[1] for each in reader.events if each[0] == "headers"] == [1, 3, 5]
        assert reader.frames == [True] * 3


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(frame(DATA, 0, 1, bytes(70_000))[:2], id="longer than any block"),
        pytest.param(frame(DATA, 0, 1, bytes(100))[:4], id="another type"),
        pytest.param(frame(HEADERS, END_HEADERS | PADDED, 1, bytes(100))[:30], id="padded"),
        pytest.param(frame(HEADERS, 0, 1, bytes(100))[:30], id="more to come"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, bytes(4096))[:30], id="longer than the window"),
    ],
)
def test_what_is_never_replaced_does_not_wait(engine: Engine, begun: bytes) -> None:
    reader = DirectionReader(engine, client=True, whole=True)
    reader.feed(PREFACE + BEGIN)
    assert reader.feed(begun) == begun
