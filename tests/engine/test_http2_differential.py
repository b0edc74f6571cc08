"""Whole connections against another implementation (PyPI `h2`), in every form and cut that the RFC allows."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

from h2.events import UnknownFrameReceived
from h2.exceptions import ProtocolError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.engine import Kernel, Native
from engine.http2_frames import PREFACE, RST_STREAM, frame, frames
from engine.http2_reader import DirectionReader
from engine.http2_story import Conversation, Headers, as_events, endpoint
from support import machine

Action = tuple[str, dict[str, Any]]


def examples(short: int, long: int) -> settings:
    return settings(
        max_examples=long if machine.long_run() else short,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


names = st.sampled_from([b"te", b"user-agent", b"x-binary-bin", b"cookie", b"grpc-timeout", b"traceparent", b"x" * 200])
values = st.one_of(
    st.sampled_from([b"trailers", b"grpc/1.66", b"1S", b"", b"a" * 3000]),
    st.binary(max_size=60),
)
extra: st.SearchStrategy[Headers] = st.lists(st.tuples(names, values), max_size=5)
paths = st.sampled_from([b"/", b"/shop.Cart/Add", b"/shop.Cart/List", b"/index.html", b"/" + b"p" * 1200])


def requests(path: bytes, more: Headers) -> Headers:
    pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"cart.shop")]
    return [*pseudo, (b"content-type", b"application/grpc"), *more]


request_headers = st.builds(requests, paths, extra)
response_headers = st.builds(
    lambda status, more: [(b":status", status), (b"content-type", b"application/grpc+proto"), *more],
    st.sampled_from([b"200", b"404", b"204", b"503"]),
    extra,
)
trailer_headers = st.builds(
    lambda status, more: [(b"grpc-status", status), *more], st.sampled_from([b"0", b"13", b"16"]), extra
)


def grpc_bytes(flag: int, length: int, present: int) -> bytes:
    """A message, or the beginning of one: a later DATA goes on with it."""
    return (bytes([flag]) + length.to_bytes(4, "big") + bytes(length))[:present]


data = st.lists(
    st.builds(grpc_bytes, st.sampled_from([0] * 8 + [1, 2]), st.sampled_from([0, 1, 100, 900]), st.integers(0, 2000)),
    max_size=4,
).map(b"".join)
picks = st.integers(0, 30)
paddings = st.sampled_from([None, None, 0, 1, 255])
sizes = st.sampled_from([0, 64, 100, 4095, 4096, 4097, 0x10FF, 8192, 65536, 0x7FFFFFFF, 0xFFFFFFFF])


def action(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Action]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: (name, drawn))


ends = st.booleans()
actions = st.one_of(
    action("request", headers=request_headers, end=ends, weight=st.sampled_from([None, None, 16])),
    action("request", headers=request_headers, end=ends, weight=st.none()),
    action("respond", pick=picks, headers=response_headers, end=ends),
    action("respond", pick=picks, headers=response_headers, end=st.just(False)),
    action("upload", pick=picks, data=data, padding=paddings, end=ends),
    action("download", pick=picks, data=data, padding=paddings, end=ends),
    action("trailers", pick=picks, headers=trailer_headers),
    action("request_trailers", pick=picks, headers=trailer_headers),
    action("informational", pick=picks, headers=extra),
    action("reset", pick=picks, code=st.sampled_from([0, 7, 8, 0xFFFFFFFF]), client=ends),
    action("push", pick=picks, headers=request_headers),
    action("announce", size=sizes, client=ends),
    action("ping", client=ends),
)
stories = st.lists(actions, min_size=1, max_size=25)
cuts = st.one_of(
    st.just([1]),
    st.just([20000]),
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.lists(st.integers(1, 3000), min_size=1, max_size=6),
)
looks = st.sampled_from([1, 9, 128, 4096])


def tell(
    engines: tuple[Native, Native] | tuple[Kernel, Kernel],
    story: list[Action],
    seed: int,
    pieces: list[int],
    look: int,
) -> None:
    conversation = Conversation(engines, Random(seed), pieces, look, whole=bool(seed % 2))
    for name, arguments in story:
        getattr(conversation, name)(**arguments)
        if seed % 3 == 0:  # else both sides speak at once, over many actions
            conversation.exchange()
    conversation.exchange()
    conversation.goaway(client=bool(seed // 2 % 2))
    conversation.exchange()
    conversation.check()


TAIL = 8
REST = frame(0x77, 0, 0, bytes(4000)) * TAIL  # more than the longest frame that an endpoint waits for


def damaged(chance: Random, wire: bytes) -> bytes:
    changed = bytearray(wire)
    for _ in range(chance.choice([1, 1, 2])):
        place = chance.randrange(len(PREFACE) + 9, len(changed))
        if chance.randrange(3):
            changed[place] = chance.choice([changed[place] ^ 1 << chance.randrange(8), chance.getrandbits(8)])
        else:
            del changed[place]
    return bytes(changed)


def requests_that_are_damaged(
    engines: tuple[Native, Native], story: list[Action], seed: int, pieces: list[int]
) -> None:
    """What a server reads to its end although it is damaged, the engine reads as that server does."""
    chance = Random(seed)
    conversation = Conversation(engines, chance, [20000], 128)
    for name, arguments in story:
        if name not in ("reset", "push"):  # the server that only listens would not know of them
            getattr(conversation, name)(**arguments)
    conversation.exchange()
    for _ in range(5):
        wire = damaged(chance, bytes(conversation.client.wire))
        server = endpoint(client=False)
        server.initiate_connection()
        try:
            heard = server.receive_data(wire + REST)
        except ProtocolError:
            continue
        if sum(isinstance(event, UnknownFrameReceived) for event in heard[-TAIL:]) < TAIL:
            continue  # it waits for the rest of a frame
        if any(kind == RST_STREAM for kind, *_ in frames(server.data_to_send())):
            continue  # a frame that the state of its stream does not allow: no matter of the engine's
        reader = DirectionReader(engines[0], client=True)
        reader.feed_pieces(wire, itertools.cycle(pieces))
        reader.feed(REST)
        assert reader.events == [each for event in heard for each in as_events(event)]


@examples(60, 10_000)
@given(story=stories, seed=st.integers(0, 1 << 20), pieces=cuts)
def test_damaged_connections(
    two_natives: tuple[Native, Native], story: list[Action], seed: int, pieces: list[int]
) -> None:
    requests_that_are_damaged(two_natives, story, seed, pieces)


@examples(150, 30_000)
@given(story=stories, seed=st.integers(0, 1 << 20), pieces=cuts, look=looks)
def test_connections(
    two_natives: tuple[Native, Native], story: list[Action], seed: int, pieces: list[int], look: int
) -> None:
    tell(two_natives, story, seed, pieces, look)


@examples(20, 2_000)
@given(story=stories, seed=st.integers(0, 1 << 20), pieces=cuts, look=looks)
def test_connections_in_the_kernel(
    two_kernels: tuple[Kernel, Kernel], story: list[Action], seed: int, pieces: list[int], look: int
) -> None:
    tell(two_kernels, story, seed, pieces, look)
