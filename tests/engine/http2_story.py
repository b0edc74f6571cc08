"""Two HTTP/2 endpoints (PyPI `h2`) that talk through the engine, which reads both directions between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import h2.connection
import h2.events
from h2.config import H2Configuration
from h2.settings import SettingCodes

from engine.engine import Engine
from engine.http2_frames import rewritten
from engine.http2_reader import DirectionReader, Event, as_texts

Headers = list[tuple[bytes, bytes]]

MIRROR = 4096
MAX_STREAMS = 40


def endpoint(*, client: bool) -> h2.connection.H2Connection:
    return h2.connection.H2Connection(
        H2Configuration(
            client_side=client,
            header_encoding=False,
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
    )


def as_events(event: h2.events.Event) -> list[Event]:
    """What the engine should say of what the receiver says."""
    match event:
        case (
            h2.events.RequestReceived()
            | h2.events.ResponseReceived()
            | h2.events.InformationalResponseReceived()
            | h2.events.TrailersReceived()
        ):
            return [("headers", event.stream_id, as_texts(event.headers or []))]
        case h2.events.PushedStreamReceived():
            return [("promise", event.parent_stream_id, as_texts(event.headers or []))]
        case h2.events.DataReceived():
            return [("data", event.stream_id, len(event.data))]
        case h2.events.StreamEnded():
            return [("end", event.stream_id)]
        case h2.events.StreamReset():
            return [("reset", event.stream_id, int(event.error_code))]
        case h2.events.ConnectionTerminated():
            return [("goaway",)]
    return []


@dataclass
class Stream:
    number: int
    request_open: bool
    response_begun: bool = False
    response_open: bool = True


class Side:
    """One endpoint, and the direction that it sends."""

    def __init__(self, engine: Engine, *, client: bool, look: int, whole: bool) -> None:
        self.client = client
        self.connection = endpoint(client=client)
        self.reader = DirectionReader(engine, client=client, look=look, whole=whole)
        self.expected: list[Event] = []  # what the receiver said
        self.sent: dict[int, bytearray] = {}  # DATA by stream
        self.wire = bytearray()  # all that the receiver got
        self.table_size = -1  # as announced after the first SETTINGS, and let through

    def send_data(self, stream: int, data: bytes, padding: int | None, *, end: bool) -> None:
        self.connection.send_data(stream, data, end_stream=end, pad_length=padding)
        self.sent.setdefault(stream, bytearray()).extend(data)


class Conversation:
    """Actions that make sense in no state of the connection are left out."""

    def __init__(
        self, engines: tuple[Engine, Engine], chance: Random, cuts: Sequence[int], look: int, *, whole: bool = False
    ) -> None:
        self.chance = chance
        self.cuts = cuts
        self.client = Side(engines[0], client=True, look=look, whole=whole)
        self.server = Side(engines[1], client=False, look=look, whole=whole)
        self.streams: list[Stream] = []
        self.over = False
        self.client.connection.initiate_connection()
        self.server.connection.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Until neither has anything to say."""
        while self._carry(self.client, self.server) or self._carry(self.server, self.client):
            pass

    def _carry(self, sender: Side, receiver: Side) -> bool:
        data = sender.connection.data_to_send()
        if not data:
            return False
        edited = sender.reader.feed_pieces(rewritten(self.chance, data), itertools.cycle(self.cuts))
        sender.wire += edited
        # Its encoder also writes table sizes that were withdrawn before it wrote anything, which its decoder refuses.
        receiver.connection.decoder.max_allowed_table_size = 1 << 32
        for event in receiver.connection.receive_data(edited):
            sender.expected += as_events(event)
            if isinstance(event, h2.events.DataReceived):
                receiver.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        return True

    def check(self) -> None:
        for side in (self.client, self.server):
            assert side.reader.events == side.expected
            for stream, data in side.sent.items():
                messages, malformed = grpc_messages(bytes(data))
                assert side.reader.messages[stream] == messages
                assert (stream in side.reader.malformed) == malformed

    # Actions

    def request(self, headers: Headers, *, end: bool, weight: int | None) -> None:
        if len(self.streams) >= MAX_STREAMS:
            return
        number = self.client.connection.get_next_available_stream_id()
        self.client.connection.send_headers(number, headers, end_stream=end, priority_weight=weight)
        self.streams.append(Stream(number, request_open=not end))

    def informational(self, pick: int, headers: Headers) -> None:
        stream = self._pick(
            pick, lambda s: not s.response_begun and s.response_open and bool(s.number % 2), server=True
        )
        if stream:
            self.server.connection.send_headers(stream.number, [(b":status", b"103"), *headers])

    def respond(self, pick: int, headers: Headers, *, end: bool) -> None:
        stream = self._pick(pick, lambda s: s.response_open and not s.response_begun, server=True)
        if stream:
            self.server.connection.send_headers(stream.number, headers, end_stream=end)
            stream.response_begun, stream.response_open = True, not end

    def upload(self, pick: int, data: bytes, padding: int | None, *, end: bool) -> None:
        stream = self._pick(pick, lambda s: s.request_open)
        if stream:
            self.client.send_data(stream.number, data, padding, end=end)
            stream.request_open = not end

    def download(self, pick: int, data: bytes, padding: int | None, *, end: bool) -> None:
        stream = self._pick(pick, lambda s: s.response_open and s.response_begun, server=True)
        if stream:
            self.server.send_data(stream.number, data, padding, end=end)
            stream.response_open = not end

    def trailers(self, pick: int, headers: Headers) -> None:
        stream = self._pick(pick, lambda s: s.response_open and s.response_begun, server=True)
        if stream:
            self.server.connection.send_headers(stream.number, headers, end_stream=True)
            stream.response_open = False

    def request_trailers(self, pick: int, headers: Headers) -> None:
        stream = self._pick(pick, lambda s: s.request_open)
        if stream:
            self.client.connection.send_headers(stream.number, headers, end_stream=True)
            stream.request_open = False

    def reset(self, pick: int, code: int, *, client: bool) -> None:
        # Nothing may be under way: what crosses a reset is no event to the one that sent it.
        self.exchange()
        stream = self._pick(pick, lambda s: s.request_open or s.response_open)
        if stream:
            (self.client if client else self.server).connection.reset_stream(stream.number, code)
            stream.request_open = stream.response_open = False
            self.exchange()

    def push(self, pick: int, headers: Headers) -> None:
        stream = self._pick(pick, lambda s: s.response_open and bool(s.number % 2), server=True)
        if stream and len(self.streams) < MAX_STREAMS:
            number = self.server.connection.get_next_available_stream_id()
            self.server.connection.push_stream(stream.number, number, headers)
            self.streams.append(Stream(number, request_open=False))

    def announce(self, size: int, *, client: bool) -> None:
        """SETTINGS_HEADER_TABLE_SIZE among others; the engine lets no more than its mirror holds pass."""
        sender, receiver = (self.client, self.server) if client else (self.server, self.client)
        if min(size, MIRROR) == sender.table_size:
            return  # told the same size twice, its encoder forgets that there was another before
        sender.table_size = min(size, MIRROR)
        settings: dict[SettingCodes | int, int] = {
            SettingCodes.INITIAL_WINDOW_SIZE: 65536 + size % 1000,
            SettingCodes.HEADER_TABLE_SIZE: size,
            SettingCodes.MAX_CONCURRENT_STREAMS: 4097,
        }
        sender.connection.update_settings(settings)
        self.exchange()
        assert receiver.connection.remote_settings.header_table_size == min(size, MIRROR)
        assert receiver.connection.remote_settings.initial_window_size == 65536 + size % 1000
        assert receiver.connection.remote_settings.max_concurrent_streams == 4097

    def ping(self, *, client: bool) -> None:
        (self.client if client else self.server).connection.ping(b"\x00\x00\x01\x01\x04\x00\x00\x00")

    def goaway(self, *, client: bool) -> None:
        (self.client if client else self.server).connection.close_connection(additional_data=b"\x00\x00\x00\x01" * 9)
        self.over = True

    def _pick(self, pick: int, wanted: Callable[[Stream], bool], *, server: bool = False) -> Stream | None:
        if server:
            self.exchange()  # it has to know the stream
        found = [stream for stream in self.streams if wanted(stream)]
        return found[pick % len(found)] if found else None


def grpc_messages(data: bytes) -> tuple[int, bool]:
    """Whole prefixes in one direction of a call, and whether one of them is none of gRPC's."""
    count = 0
    while data:
        if data[0] > 1:
            return count, True
        if len(data) < 5:
            break
        count += 1
        data = data[5 + int.from_bytes(data[1:5], "big") :]
    return count, False
