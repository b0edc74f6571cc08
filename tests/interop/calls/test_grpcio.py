"""grpcio: gRPC's C core, with threads and with asyncio."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from interop.calls.ledger import counts
from interop.calls.peers import contract
from interop.calls.scene import Scene
from support.machine import long_run

PEERS = Path(__file__).parent / "peers"
KINDS = ["sync"]


def peer(kind: str, play: Scene, *words: str, options: Sequence[str] = ()) -> list[str]:
    """`words`: serve, or call and the story, and what it takes; `options`: arguments of the channel or server."""
    role, *story = words
    arguments = [*story[:1], play.address, str(play.port), *story[1:]]
    return [sys.executable, str(PEERS / f"grpcio_{kind}.py"), role, *arguments, *options]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_shapes(play: Scene, kind: str) -> None:
    server = play.serve(peer(kind, play, "serve"))
    play.check(counts(play.call(peer(kind, play, "call", "shapes"))))
    play.stop(server)


def test_endings(play: Scene, kind: str) -> None:
    server = play.serve(peer(kind, play, "serve"))
    rows = play.check(counts(play.call(peer(kind, play, "call", "endings"))))
    handled = play.stop(server)
    # The server has seen the same.
    deadlines = len(contract.TIMEOUTS) * contract.REPEATS
    assert (handled["cancelled"], handled["expired"]) == (contract.REPEATS, deadlines)
    hanging = [row for row in rows if row.method == contract.path("Hang") and row.ending != "open"]
    assert {(row.grpc_status, row.deadline_exceeded) for row in hanging} == {(1, False), (4, True)}, hanging


def test_gzip(play: Scene, kind: str) -> None:
    gzip = 2
    server = play.serve(peer(kind, play, "serve", options=[f"grpc.default_compression_algorithm={gzip}"]))
    printed = play.call(peer(kind, play, "call", "gzip"))
    rows = play.check(counts(printed))
    play.stop(server)
    # Zeros become a thousandth in length; what is not compressible has been compared to the byte already.
    (row,) = (row for row in rows if row.method == contract.path("Unary") and row.ending == "complete")
    assert 0 < row.request_bytes < 10_000, row
    assert 0 < row.response_bytes < 10_000, row


def test_reuse(play: Scene, kind: str) -> None:
    count = 1_000_000 if long_run() else 2_000
    server = play.serve(peer(kind, play, "serve"))
    printed = play.call(peer(kind, play, "call", "reuse", str(count)), seconds=3_600)
    play.check(counts(printed))
    play.stop(server)
    assert play.reading().recognised == {"http2": 1}
