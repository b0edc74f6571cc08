"""grpcio: gRPC's C core, with threads and with asyncio."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from interop.calls.ledger import counts
from interop.calls.peers import contract
from interop.calls.scene import PLACEMENTS, Placement, Scene
from support.machine import long_run
from zerohop.kernel.telemetry import Calls

PEERS = Path(__file__).parent / "peers"
KINDS = ["sync", "aio"]
TURNS = [PLACEMENTS[number] for number in (0, 1, 3, 2, 4, 5)]

LOAD_CALLS = 2_500
SERVER_SECONDS = 0.3

PINGING = ["grpc.keepalive_time_ms=50", "grpc.keepalive_permit_without_calls=1", "grpc.http2.max_pings_without_data=0"]
PATIENT = ["grpc.http2.min_ping_interval_without_data_ms=1", "grpc.keepalive_permit_without_calls=1"]


def peer(kind: str, play: Scene, *words: str, options: Sequence[str] = ()) -> list[str]:
    """`words`: serve, or call and the story, and what it takes; `options`: arguments of the channel or server."""
    role, *story = words
    arguments = [*story[:1], play.address, str(play.port), *story[1:]]
    return [sys.executable, str(PEERS / f"grpcio_{kind}.py"), role, *arguments, *options]


everything = pytest.mark.parametrize("kind", KINDS)

# Where it takes long: each placement with one of the kinds, three each.
taking_turns = pytest.mark.parametrize(
    ("play", "kind"),
    [pytest.param(each, KINDS[number % 2], id=f"{each}-{KINDS[number % 2]}") for number, each in enumerate(TURNS)],
    indirect=["play"],
)


# Where it takes long and the placement matters little.
briefly = pytest.mark.parametrize(
    ("play", "kind"),
    [
        pytest.param(Placement("both", "veth"), "sync", id="both-veth-sync"),
        pytest.param(Placement("server", "loopback"), "aio", id="server-loopback-aio"),
    ],
    indirect=["play"],
)


@everything
def test_shapes(play: Scene, kind: str) -> None:
    server = play.serve(peer(kind, play, "serve"))
    play.check(counts(play.call(peer(kind, play, "call", "shapes"))))
    play.stop(server)


@everything
def test_endings(play: Scene, kind: str) -> None:
    server = play.serve(peer(kind, play, "serve"))
    rows = play.check(counts(play.call(peer(kind, play, "call", "endings"))))
    handled = play.stop(server)
    # The server has seen the same.
    deadlines = len(contract.TIMEOUTS) * contract.REPEATS
    assert (handled["cancelled"], handled["expired"]) == (contract.REPEATS, deadlines)
    hanging = [row for row in rows if row.method == contract.path("Hang")]
    assert {(row.grpc_status, row.deadline_exceeded) for row in hanging} == {(1, False), (4, True)}, hanging


@taking_turns
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


@taking_turns
def test_reuse(play: Scene, kind: str) -> None:
    count = 1_000_000 if long_run() else 2_000
    server = play.serve(peer(kind, play, "serve"))
    printed = play.call(peer(kind, play, "call", "reuse", str(count)), seconds=3_600)
    play.check(counts(printed))
    play.stop(server)
    assert play.reading().recognised == {"http2": 1}


@taking_turns
def test_servers_come_and_go(play: Scene, kind: str) -> None:
    """Each stops gracefully in the middle of calls: GOAWAY, and what is in flight goes on to its end."""
    client = play.start_client(peer(kind, play, "call", "load", str(LOAD_CALLS)))
    handled = 0
    while client.poll() is None:
        server = play.serve(peer(kind, play, "serve"))
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(SERVER_SECONDS)
        handled += play.stop(server)["handled"].get("Unary", 0)
    printed = play.finish_client(client)
    rows = play.check(counts(printed))
    assert play.reading().goaways >= 2, play.reading()
    check_uncertain(rows, printed)
    # Some that were answered were not any more when the server's grace was over.
    assert sum(row.calls for row in rows if row.grpc_status == 0) <= handled


@taking_turns
def test_connections_grow_old(play: Scene, kind: str) -> None:
    """The server sends each connection away after a while, and the client makes another one."""
    ages = ["grpc.max_connection_age_ms=200", "grpc.max_connection_age_grace_ms=2000"]
    server = play.serve(peer(kind, play, "serve", options=ages))
    printed = play.call(peer(kind, play, "call", "load", str(LOAD_CALLS)))
    rows = play.check(counts(printed))
    play.stop(server)
    assert play.reading().recognised["http2"] >= 3
    assert play.reading().goaways >= 3
    check_uncertain(rows, printed)


def check_uncertain(rows: Iterable[Calls], printed: Mapping[str, Any]) -> None:
    """Where a connection ended, some calls were not sent any more: the kernel has seen no more of them than failed."""
    failed = sum(row.calls for row in rows if row.grpc_status == contract.UNAVAILABLE)
    assert failed <= printed["uncertain"]


@briefly
def test_keep_alive(play: Scene, kind: str) -> None:
    server = play.serve(peer(kind, play, "serve", options=PATIENT))
    printed = play.call(peer(kind, play, "call", "pings", "1200", options=PINGING))
    rows = play.check(counts(printed))
    play.stop(server)
    assert {row.grpc_status for row in rows} == {0}


@briefly
def test_too_many_pings(play: Scene, kind: str) -> None:
    """The same client, and a server that thinks so: GOAWAY with ENHANCE_YOUR_CALM, and the call in flight fails."""
    server = play.serve(peer(kind, play, "serve", options=["grpc.http2.max_ping_strikes=1"]))
    printed = play.call(peer(kind, play, "call", "pings", "3500", options=PINGING))
    play.check(counts(printed))
    play.stop(server)
    assert play.reading().goaways >= 1
