"""grpcio: gRPC's C core, with threads and with asyncio."""

from __future__ import annotations

import sys

import pytest

from interop.calls import stories
from interop.calls.languages import PEERS, Peers
from interop.calls.scene import PLACEMENTS, Placement, Scene
from support.machine import long_run

KINDS = ["sync", "aio"]
TURNS = [PLACEMENTS[number] for number in (0, 1, 3, 2, 4, 5)]

LOAD_CALLS = 2_500


@pytest.fixture
def peers(kind: str) -> Peers:
    """Client and server of the same kind."""
    command = [sys.executable, str(PEERS / f"grpcio_{kind}.py")]
    return Peers((kind, kind), command, command)


everything = pytest.mark.parametrize("kind", KINDS)

# Where it takes long: each placement with one of the kinds, three each.
taking_turns = pytest.mark.parametrize(
    ("play", "kind"),
    [pytest.param(each, KINDS[number % 2], id=f"{each}-{KINDS[number % 2]}") for number, each in enumerate(TURNS)],
    indirect=["play"],
)

# Where it takes longest: each of the hooks and each topology, all of it in a long run.
slowly = (
    taking_turns
    if long_run()
    else pytest.mark.parametrize(
        ("play", "kind"),
        [
            pytest.param(Placement("both", "loopback"), "aio", id="both-loopback-aio"),
            pytest.param(Placement("server", "veth"), "sync", id="server-veth-sync"),
            pytest.param(Placement("client", "loopback"), "aio", id="client-loopback-aio"),
        ],
        indirect=["play"],
    )
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
def test_shapes(play: Scene, peers: Peers) -> None:
    stories.shapes(play, peers)


@everything
def test_endings(play: Scene, peers: Peers) -> None:
    stories.endings(play, peers)


@taking_turns
def test_gzip(play: Scene, peers: Peers) -> None:
    stories.gzip(play, peers, "grpc.default_compression_algorithm=2", answered=True)


@taking_turns
def test_reuse(play: Scene, peers: Peers) -> None:
    stories.reuse(play, peers, 1_000_000 if long_run() else 2_000)


@slowly
def test_servers_come_and_go(play: Scene, peers: Peers) -> None:
    stories.servers_come_and_go(play, peers, LOAD_CALLS)


@slowly
def test_connections_grow_old(play: Scene, peers: Peers) -> None:
    stories.connections_grow_old(play, peers, LOAD_CALLS)


@briefly
def test_keep_alive(play: Scene, peers: Peers) -> None:
    stories.keep_alive(play, peers)


@briefly
def test_too_many_pings(play: Scene, peers: Peers) -> None:
    stories.too_many_pings(play, peers)
