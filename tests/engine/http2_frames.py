"""Frames, written differently: the same meaning with other padding and cuts, and frames between that mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING = range(7)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x4, 0x8, 0x20

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

RESERVED = 1 << 31  # in a stream identifier, without meaning

MAX_PARTS = 20  # of a header block; some implementations count them against an attack


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, stream, payload) of whole frames."""
    while data:
        length = int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]
        data = data[9 + length :]


def priority(chance: Random, stream: int) -> bytes:
    depends = chance.choice([0, 1, 3, 0x7FFFFFFF])
    if depends == stream & ~RESERVED:
        depends = 0
    return (depends | chance.getrandbits(1) << 31).to_bytes(4, "big") + chance.randbytes(1)


def parts(chance: Random, whole: bytes) -> list[bytes]:
    """The whole, cut at random places; parts may be empty."""
    count = chance.choice([1, 1, 1, 2, 3, MAX_PARTS])
    cuts = sorted(chance.randint(0, len(whole)) for _ in range(count - 1))
    return [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def padded(chance: Random, flags: int, payload: bytes) -> tuple[int, bytes]:
    if chance.random() < 0.7:
        return flags, payload
    size = chance.choice([0, 1, 8, 9, 255])
    return flags | PADDED, bytes([size]) + payload + bytes(size)


def block_frames(chance: Random, kind: int, flags: int, stream: int, before: bytes, block: bytes) -> bytes:
    """HEADERS or PUSH_PROMISE; `before` is what stands before the header block."""
    first, *rest = parts(chance, block)
    if rest:
        flags &= ~END_HEADERS
    payload = before + first
    if payload:  # `h2` refuses padding after nothing, which RFC 9113 6.2 allows
        flags, payload = padded(chance, flags, payload)
    written = frame(kind, flags, stream, payload)
    for place, part in enumerate(rest, 1):
        written += frame(CONTINUATION, END_HEADERS if place == len(rest) else 0, stream, part)
    return written


def noise(chance: Random) -> bytes:
    """A frame that changes nothing."""
    which = chance.randrange(12)
    if which == 0:
        return frame(PING, 1, 0, chance.randbytes(8))
    if which == 1:
        stream = chance.choice([1, 2, 0x7FFFFFFF])
        return frame(PRIORITY, chance.getrandbits(8), stream, priority(chance, stream))
    if which == 2:
        return frame(WINDOW_UPDATE, chance.getrandbits(8), 0, b"\x00\x00\x00\x01")
    if which == 3:
        size = chance.choice([0, 1, 9, 200, 5000])
        return frame(
            chance.randint(0x20, 0xFF), chance.getrandbits(8), chance.choice([0, 1, 8]), chance.randbytes(size)
        )
    return b""


def rewritten(chance: Random, data: bytes) -> bytes:
    """Whole frames, the preface perhaps before them, in another form."""
    written = b""
    if data.startswith(PREFACE):
        written, data = PREFACE, data[len(PREFACE) :]
        first = 9 + int.from_bytes(data[:3], "big")
        written, data = written + data[:first], data[first:]
    for place, (kind, flags, stream, payload) in enumerate(frames(data)):
        if chance.random() < 0.1:
            stream |= RESERVED
        if place or kind != SETTINGS:  # a server's SETTINGS come first
            written += noise(chance)
        if kind == DATA:
            if flags & PADDED:
                payload, flags = payload[1 : len(payload) - payload[0]], flags & ~PADDED
            pieces = parts(chance, payload)
            for number, piece in enumerate(pieces, 1):
                last = flags if number == len(pieces) else flags & ~END_STREAM
                written += frame(kind, *_ordered(stream, padded(chance, last, piece)))
        elif kind == HEADERS:
            before = payload[:5] if flags & HAS_PRIORITY else b""
            block = payload[len(before) :]
            if chance.random() < 0.2:
                before, flags = priority(chance, stream), flags | HAS_PRIORITY
            written += block_frames(chance, kind, flags, stream, before, block)
        elif kind == PUSH_PROMISE:
            written += block_frames(chance, kind, flags, stream, payload[:4], payload[4:])
        else:
            written += frame(kind, flags, stream, payload)
    return written


def _ordered(stream: int, framed: tuple[int, bytes]) -> tuple[int, int, bytes]:
    flags, payload = framed
    return flags, stream, payload
