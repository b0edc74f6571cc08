"""Calls through a proxy: where it runs, who calls and who answers."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from interop.calls.ledger import Count, Leg, counts, leg_of
from interop.calls.peers import contract
from interop.calls.scene import Placement, Scene
from zerohop.kernel.telemetry import Calls

PEERS: Final = Path(__file__).parent / "peers"

PLACES: Final = [
    Placement("both", "loopback", "server"),
    Placement("both", "veth", "server"),
    Placement("both", "veth", "client"),
    Placement("both", "veth", "outside"),
]


def placed(*chosen: tuple[Placement, str]) -> pytest.MarkDecorator:
    params = [pytest.param(place, kept, id=f"{place}-{kept}") for place, kept in chosen]
    return pytest.mark.parametrize(("play", "keepalive"), params, indirect=["play"])


# `keepalive` says what the proxy's connections to the server are for: `kept`, many calls; `fresh`, one each.
everywhere: Final = placed(*((place, ("kept", "fresh")[number % 2]) for number, place in enumerate(PLACES)))
briefly: Final = placed((PLACES[0], "fresh"), (PLACES[3], "kept"))
once: Final = pytest.mark.parametrize("play", [PLACES[0]], ids=str, indirect=True)


def peer(name: str, *words: str) -> list[str]:
    return [sys.executable, str(PEERS / f"{name}.py"), *words]


def serve(play: Scene, *options: str) -> subprocess.Popen[Any]:
    return play.serve(peer("grpcio_aio", "serve", play.address, str(play.port), *options))


def call(play: Scene, story: str, *arguments: str) -> dict[str, Any]:
    """What the client printed."""
    return play.call(peer("grpcio_aio", "call", story, play.proxy_address, str(play.proxy_port), *arguments))


def called(play: Scene, story: str, *arguments: str) -> list[Count]:
    """What the client counted."""
    return counts(call(play, story, *arguments))


def once_each(play: Scene, *names: str) -> list[Count]:
    """One call of each method, with a message; how long an answer is that is not gRPC's, its caller does not know."""
    words = [play.proxy_address, str(play.proxy_port), *(contract.path(name) for name in names)]
    return [replace(each, response_bytes=None) for each in counts(play.call(peer("grpcio_once", *words)))]


# HTTP statuses of answers in the server's place, and what gRPC's callers make of them.
STATUSES: Final = {
    400: contract.INTERNAL, 401: 16, 403: 7, 404: 12, 413: 2, 429: 14, 500: 2, 502: 14, 503: 14, 504: 14,
}  # fmt: skip

# Of a server that sends the proxy's connections away, after the calls that are in flight.
AGES: Final = ("grpc.max_connection_age_ms=100", "grpc.max_connection_age_grace_ms=5000")

# Of one that compresses its answers.
GZIP: Final = "grpc.default_compression_algorithm=2"


def check_compressed(play: Scene, rows: Iterable[Calls]) -> None:
    """Of the story `gzip`: what was compressed is as long on either side of the proxy."""
    by_leg = [
        {row.method: (row.request_bytes, row.response_bytes) for row in rows if leg_of(row) == leg}
        for leg in play.placement.legs
    ]
    assert by_leg[0] == by_leg[1]
    assert all(0 < size < 10_000 for size in by_leg[0][contract.path("Unary")]), by_leg


def by_method(rows: Iterable[Calls], leg: Leg) -> Counter[str | None]:
    calls: Counter[str | None] = Counter()
    for row in rows:
        if leg_of(row) == leg:
            calls[row.method] += row.calls
    return calls


def named(handled: Mapping[str, int]) -> Counter[str | None]:
    """What a server printed under `handled`, by paths."""
    return Counter({contract.path(name): calls for name, calls in handled.items()})
