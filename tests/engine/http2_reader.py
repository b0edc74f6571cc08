"""Reads one direction of a connection with the engine and says what happened, in the terms of an HTTP/2 library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from engine.engine import Engine, get_bytes, put_bytes
from engine.hpack_reader import EngineError, HeaderReader, Text

END_STREAM: Final = 0x1
STREAMS: Final = 64  # of the harness; more share

Event = tuple[Any, ...]
"""("headers", stream, fields), ("promise", stream, fields), ("data", stream, bytes), ("end", stream),
("reset", stream, code), ("goaway",); fields: ((name, value), ...) as `Text`."""


NO_FRAME: Final = 0xFFFFFFFF


class DirectionReader:
    """`events` grow with what is fed.

    `whole`: frames of headers are taken in as a whole, and what is not waits, as the sender hook does where calls are
    denied. `frames`: of each header block, whether its frame could be replaced.
    """

    def __init__(self, engine: Engine, *, client: bool, look: int = 1, whole: bool = False) -> None:
        self.engine = engine
        self.shim: Any = engine.shim
        self.headers = HeaderReader(engine)
        self.events: list[Event] = []
        self.messages: dict[int, int] = {}  # gRPC messages by stream
        self.malformed: set[int] = set()
        self.frames: list[bool] = []
        self.waiting = b""
        self._bytes: dict[int, int] = {}
        engine.reset()
        engine.call("engine_client" if client else "engine_server")
        self.shim.look = look
        self.shim.whole = whole

    def feed(self, message: bytes) -> bytes:
        """Reads a message as one write sends it; returns what goes out for it. Raises `EngineError`."""
        gone, left = b"", self.waiting + message
        self.waiting = b""
        while left:
            edited, count = self._read(left)
            gone, left = gone + edited[:count], edited[count:]
            if left and not count:  # it is the beginning of a frame
                count = self.engine.call("engine_lead")
                gone, self.waiting = gone + left[:count], left[count:]
                break
        return gone

    def _read(self, message: bytes) -> tuple[bytes, int]:
        """What becomes of it, and how much of it has been read."""
        put_bytes(self.shim, message)
        self.engine.call("engine_message")
        count = len(message)
        events = self.engine.constants.event
        while (result := self.engine.call("engine_step")) > 0:
            event, stream = events(result), self.shim.stream
            if event == events["EVENT_CUT"]:
                count = self.shim.cut
                break
            if event in (events["EVENT_HEADERS"], events["EVENT_PROMISE"]):
                kind, flags, frame = event.name.removeprefix("EVENT_").lower(), self.shim.flags, self.shim.frame
                fields = tuple((field.name, field.value) for field in self.headers.rest())
                self.events.append((kind, stream, fields))
                self.frames.append(frame != NO_FRAME)
                if kind == "headers" and flags & END_STREAM:
                    self.events.append(("end", stream))
            elif event == events["EVENT_DATA"]:
                if not self._data(stream, self.shim.flags):
                    break
            elif event == events["EVENT_RESET"]:
                self.events.append(("reset", stream, self.shim.code))
            elif event == events["EVENT_GOAWAY"]:
                self.events.append(("goaway",))
        if result < 0:
            raise EngineError(self.engine.constants.reason(self.shim.reason).name.removeprefix("REASON_"))
        return get_bytes(self.shim, "bytes", len(message)), count

    def feed_pieces(self, data: bytes, sizes: Iterable[int]) -> bytes:
        """The same, cut into messages of these sizes."""
        edited, done = b"", 0
        for size in sizes:
            if done >= len(data):
                break
            edited += self.feed(data[done : done + size])
            done += size
        return edited

    def _data(self, stream: int, flags: int) -> bool:
        if stream not in self._bytes:
            self.shim.slot = len(self._bytes) % STREAMS
            self.engine.call("engine_stream")
            self._bytes[stream] = 0
        self.shim.slot = list(self._bytes).index(stream) % STREAMS
        if not self.engine.call("engine_data"):
            return False
        self.events.append(("data", stream, self.shim.grpc.bytes - self._bytes[stream]))
        self._bytes[stream] = self.shim.grpc.bytes
        self.messages[stream] = self.shim.grpc.messages
        if self.shim.grpc.malformed:
            self.malformed.add(stream)
        if flags & END_STREAM:
            self.events.append(("end", stream))
        return True


def as_texts(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[Text, Text], ...]:
    return tuple((Text.of(bytes(name)), Text.of(bytes(value))) for name, value in headers)
