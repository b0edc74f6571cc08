"""Two ends of an HTTP/2 connection, each a process of its own: calls, and every way in which servers answer them.

`answers.py serve PORT HOW`: takes one connection; the last part of a call's path, after a slash or a dash, names its
answer in ANSWERS. HOW it is written: whole, in frames, or in halves of frames, their headers and their payloads.
`answers.py call PORT WHAT…`: makes calls one after the other; `+NAME` is one that is allowed, `-NAME` one that is not.
Prints for each what came: ["headers", {NAME: VALUE}], ["data", TEXT], ["end"] of the stream, ["reset"]; or ["closed"],
the last, when the connection ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_SIZE,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    literal,
    read_frame,
    serve_once,
)
from hpack import Decoder, Encoder

GRPC: Final = ("content-type", "application/grpc")
TEXT: Final = ("content-type", "text/plain")
UNIMPLEMENTED: Final = [("grpc-status", "12"), ("grpc-message", "unknown method")]
MESSAGE: Final = b"\0\0\0\0\x02hi"
PAGE: Final = b"404 page not found\n"

Headers = list[tuple[str, str]]


def _status(code: int) -> tuple[str, str]:
    return (":status", str(code))


# What a server sends: a header block, or DATA. The stream ends with the last.
ANSWERS: Final[dict[str, list[Headers | bytes]]] = {
    "ok": [[_status(200), GRPC], MESSAGE, [("grpc-status", "0")]],
    "lone": [[_status(200), GRPC, *UNIMPLEMENTED]],
    "trailers": [[_status(200), GRPC, ("trailer", "Grpc-Status")], UNIMPLEMENTED],
    "interim": [[_status(103), ("link", "a")], [_status(200), GRPC, *UNIMPLEMENTED]],
    "early": [[_status(200), GRPC, *UNIMPLEMENTED], b""],
    "error": [[_status(404), TEXT, ("content-length", str(len(PAGE)))], PAGE],
    "bare": [[_status(404), ("content-length", "0")]],
    # Of which the table has none, so that the encoder inserts it and refers to it later.
    "odd": [[_status(405), TEXT], PAGE],
    # More than a refusal.
    "message": [[_status(200), GRPC], MESSAGE, [("grpc-status", "0")]],
    "page": [[_status(200), TEXT], PAGE],
    "elsewhere": [[_status(302), ("location", "/"), TEXT], PAGE],
    "empty": [[_status(204)]],
}  # fmt: skip


def answer_to(encoder: Encoder, stream: int, name: str) -> list[bytes]:
    """Frames."""
    parts = ANSWERS[name]
    out = []
    for number, part in enumerate(parts):
        last = END_STREAM if number == len(parts) - 1 else 0
        if isinstance(part, bytes):
            out.append(frame(DATA, last, stream, part))
        else:
            out.append(frame(HEADERS, END_HEADERS | last, stream, encoder.encode(part)))
    return out


def writes(frames: list[bytes], how: str) -> list[bytes]:
    match how:
        case "whole":
            return [b"".join(frames)]
        case "frames":
            return frames
        case "halves":
            return [half for each in frames for half in (each[:HEADER_SIZE], each[HEADER_SIZE:]) if half]
    raise ValueError(how)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, how: str) -> None:
    encoder, decoder = Encoder(), Decoder()
    await reader.readexactly(len(PREFACE))
    writer.write(frame(SETTINGS, 0, 0, b""))
    try:
        while True:
            kind, _, stream, payload = await read_frame(reader)
            if kind != HEADERS:
                continue
            path = str(dict(decoder.decode(payload))[":path"])
            frames = answer_to(encoder, stream, path.replace("-", "/").rpartition("/")[2])
            for each in writes(frames, how):
                writer.write(each)
                await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        pass  # the client, or the mesh, has ended it


async def serve(port: str, how: str) -> None:
    await serve_once(int(port), lambda reader, writer: answer(reader, writer, how))


def request(stream: int, what: str) -> bytes:
    block = (
        b"\x83\x86"  # :method POST, :scheme http
        + literal(b":path", b"/t.Answers/" + what[1:].encode())
        + literal(b":authority", b"a")
        + literal(b"content-type", GRPC[1].encode())
        + (literal(b"x-deny", b"yes") if what[0] == "-" else b"")
    )
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, b"\0" * 5)


async def received(reader: asyncio.StreamReader, decoder: Decoder, stream: int) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            kind, flags, of, payload = await read_frame(reader)
        except (asyncio.IncompleteReadError, OSError):
            return [*found, ["closed"]]
        if of != stream:
            continue
        if kind == RST_STREAM:
            return [*found, ["reset"]]
        if kind == HEADERS:
            found.append(["headers", dict(decoder.decode(payload))])
        elif kind == DATA:
            found.append(["data", payload.decode()])
        if flags & END_STREAM:
            return [*found, ["end"]]


async def call(port: str, *what: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    decoder = Decoder()
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    for number, each in enumerate(what):
        stream = 2 * number + 1
        writer.write(request(stream, each))
        found = await received(reader, decoder, stream)
        print(json.dumps(found), flush=True)
        if found[-1] == ["closed"]:
            break
    writer.close()


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    asyncio.run({"serve": serve, "call": call}[role](*words))
