"""Two ends of an HTTP/2 connection whose resets cross, each a process of its own.

`resets.py serve PORT MILLISECONDS`: takes one connection; refuses every call of a batch of BATCH as a gRPC server does
what it does not know, and resets them all so much later. Prints {"resets", "ignored"} at the end: how many frames of
the client were RST_STREAM, and of the type that nobody knows.
`resets.py call PORT BATCHES`: batches of BATCH calls by a caller who may not make them and goes on sending; resets each
when it is answered. Prints {"statuses": {GRPC_STATUS: n}, "resets"}: of the server.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections import Counter
from typing import Final

from frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    literal,
    read_frame,
    serve_once,
)
from hpack import Decoder

BATCH: Final = 100
NO_ERROR, CANCEL, IGNORED = 0, 8, 0xDB
REQUEST: Final = (
    b"\x83\x86"  # :method POST, :scheme http
    + literal(b":path", b"/t.Resets/Call")
    + literal(b"content-type", b"application/grpc")
    + literal(b"x-deny", b"yes")
)
REFUSAL: Final = b"\x88" + literal(b"content-type", b"application/grpc") + literal(b"grpc-status", b"12")


def resets(streams: list[int], code: int) -> bytes:
    return b"".join(frame(RST_STREAM, 0, each, struct.pack("!I", code)) for each in streams)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, milliseconds: int) -> None:
    seen: Counter[int] = Counter()
    streams: list[int] = []
    await reader.readexactly(len(PREFACE))
    writer.write(frame(SETTINGS, 0, 0, b""))
    try:
        while True:
            kind, _, stream, _ = await read_frame(reader)
            seen[kind] += 1
            if kind != HEADERS:
                continue
            streams.append(stream)
            if len(streams) < BATCH:
                continue
            writer.write(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, each, REFUSAL) for each in streams))
            asyncio.get_running_loop().call_later(milliseconds / 1000, writer.write, resets(streams, NO_ERROR))
            streams = []
    except asyncio.IncompleteReadError:
        print(json.dumps({"resets": seen[RST_STREAM], "ignored": seen[IGNORED]}), flush=True)


async def serve(port: int, milliseconds: int) -> None:
    await serve_once(port, lambda reader, writer: answer(reader, writer, milliseconds))


async def call(port: int, batches: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    decoder = Decoder()
    statuses: Counter[str] = Counter()
    reset = 0
    for number in range(batches):
        streams = [2 * (number * BATCH + each) + 1 for each in range(BATCH)]
        writer.write(b"".join(frame(HEADERS, END_HEADERS, each, REQUEST) for each in streams))
        refused: list[int] = []
        while reset < BATCH * (number + 1):
            kind, _, stream, payload = await read_frame(reader)
            if kind == RST_STREAM:
                reset += 1
            elif kind == HEADERS:
                statuses[dict(decoder.decode(payload))["grpc-status"]] += 1
                refused.append(stream)
                if len(refused) == BATCH:
                    writer.write(resets(refused, CANCEL))
    print(json.dumps({"statuses": statuses, "resets": reset}))
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    role, *numbers = sys.argv[1:]
    asyncio.run({"serve": serve, "call": call}[role](*map(int, numbers)))
