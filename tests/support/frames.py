"""Two ends of an HTTP/2 connection that are awkward, each a process of its own.

`frames.py serve PORT`: takes one connection, reads it in fits and starts, answers nothing, ends with the client.
`frames.py send PORT SEED BYTES SNDBUF UNSENT`: sends gRPC requests on many streams in frames of random sizes, with a
send buffer of SNDBUF bytes of which UNSENT (TCP_NOTSENT_LOWAT) may wait; 0: as it is by default. What the kernel
does not take is sent again together with more, or, where a frame may begin, after another frame, as real programs do.
Prints {"requests", "messages", "bytes", "resets", "partial"}: messages by their prefixes, bytes of DATA without
padding, and how often the kernel took a part only.
"""

from __future__ import annotations

import asyncio
import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, UNKNOWN = 0, 1, 3, 4, 6, 0xFA
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
CANCEL: Final = 8
HEADER_SIZE: Final = 9

SIZES: Final = (0, 1, 100, 5_000, 70_000, 400_000)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes((kind, flags)) + struct.pack("!I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing and without Huffman coding (RFC 7541 6.2.2), shorter than 127 bytes."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """Its type, flags, stream, and payload."""
    head = await reader.readexactly(HEADER_SIZE)
    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], head[4], int.from_bytes(head[5:], "big"), payload


async def serve_once(
    port: int, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    """Prints `ready`, and ends when `answer` has done with the one connection."""
    ended = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        writer.close()
        ended.set()

    async with await asyncio.start_server(once, "127.0.0.1", port):
        print("ready", flush=True)
        await ended.wait()


REQUEST: Final = (
    b"\x83\x86"  # :method POST, :scheme http
    + literal(b":path", b"/torture.Frames/Send")
    + literal(b"content-type", b"application/grpc")
)


class Stream:
    """A request's messages, and how far they have been sent."""

    def __init__(self, sizes: list[int]) -> None:
        self.content = b"".join(struct.pack("!BI", 0, size) + bytes(size) for size in sizes)
        self.sent = 0
        self.prefix_ends = []
        at = 0
        for size in sizes:
            self.prefix_ends.append(at + 5)
            at += 5 + size

    def take(self, size: int) -> bytes:
        piece = self.content[self.sent : self.sent + size]
        self.sent += len(piece)
        return piece

    def messages(self) -> int:
        return sum(end <= self.sent for end in self.prefix_ends)


class Writer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.open: dict[int, Stream] = {}
        self.counts = {"requests": 0, "messages": 0, "bytes": 0, "resets": 0, "partial": 0}

    def next_frame(self) -> bytes:
        chance = self.random.random()
        if chance < 0.1:
            return frame(PING, 0, 0, self.random.randbytes(8))
        if chance < 0.15:
            return frame(UNKNOWN, self.random.randrange(256), 0, self.random.randbytes(self.random.randrange(300)))
        if not self.open or (chance < 0.4 and len(self.open) < 40):
            stream = 2 * self.counts["requests"] + 1
            self.counts["requests"] += 1
            self.open[stream] = Stream(self.random.choices(SIZES, k=self.random.randrange(1, 4)))
            return frame(HEADERS, END_HEADERS, stream, REQUEST)
        stream = self.random.choice(list(self.open))
        if chance > 0.98:
            self.close(stream)
            self.counts["resets"] += 1
            return frame(RST_STREAM, 0, stream, struct.pack("!I", CANCEL))
        return self.data(stream, self.random.choice((1, 4, 9, 1_000, 16_384)))

    def data(self, stream: int, size: int) -> bytes:
        state = self.open[stream]
        piece = state.take(size)
        flags = 0
        if state.sent == len(state.content):
            self.close(stream)
            flags = END_STREAM
        if self.random.random() < 0.2:
            padding = self.random.randrange(256)
            return frame(DATA, flags | PADDED, stream, bytes((padding,)) + piece + bytes(padding))
        return frame(DATA, flags, stream, piece)

    def close(self, stream: int) -> None:
        state = self.open.pop(stream)
        self.counts["bytes"] += state.sent
        self.counts["messages"] += state.messages()

    def finish(self) -> list[bytes]:
        """Frames that end every open stream."""
        return [self.data(stream, 1 << 24) for stream in list(self.open)]


def send(port: int, seed: int, size: int, sndbuf: int, unsent: int) -> None:
    connection = socket.socket()
    if sndbuf:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    if unsent:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    writer = Writer(seed)
    frames = [PREFACE + frame(SETTINGS, 0, 0, b"")]
    begun = 0  # bytes of the first frame that are sent already
    total = 0
    while total < size or frames:
        while total < size and len(frames) < writer.random.randrange(1, 30):
            frames.append(writer.next_frame())
            if total + sum(map(len, frames)) >= size:
                frames += writer.finish()
                size = 0
        select.select([], [connection], [], 30)
        batch = b"".join(frames)[begun:]
        try:
            taken = connection.send(batch)
        except BlockingIOError:
            taken = 0
        total += taken
        writer.counts["partial"] += taken < len(batch)
        begun += taken
        while frames and begun >= len(frames[0]):
            begun -= len(frames.pop(0))
        if not begun and frames and taken < len(batch):
            frames.insert(0, frame(PING, 0, 0, writer.random.randbytes(8)))
    print(json.dumps(writer.counts), flush=True)
    connection.close()


def serve(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    print("listening", flush=True)
    select.select([listener], [], [])
    connection, _ = listener.accept()
    connection.setblocking(False)
    pauses = random.Random(port)
    while True:
        select.select([connection], [], [])
        if not connection.recv(pauses.choice((100, 5_000, 200_000))):
            return
        if pauses.random() < 0.05:
            time.sleep(0.001)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        send(*(int(each) for each in sys.argv[2:]))
