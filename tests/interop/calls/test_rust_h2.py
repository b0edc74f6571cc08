"""hyper's HTTP/2 (Rust's `h2`), with gRPC's framing by hand."""

from __future__ import annotations

from typing import Final

from interop.calls import stories
from interop.calls.languages import Peers
from interop.calls.scene import Scene
from support.machine import long_run

PAIRS: Final = [("rust", "rust"), ("rust", "aio"), ("aio", "rust")]

# Enough for a second.
LOAD_CALLS: Final = {("rust", "rust"): 15_000, ("rust", "aio"): 2_500, ("aio", "rust"): 5_000}


@stories.by_turns(PAIRS, 0)
def test_shapes(play: Scene, peers: Peers) -> None:
    stories.shapes(play, peers)


@stories.by_turns(PAIRS, 1)
def test_endings(play: Scene, peers: Peers) -> None:
    stories.endings(play, peers)


@stories.by_turns(PAIRS, 3)
def test_reuse(play: Scene, peers: Peers) -> None:
    stories.reuse(play, peers, 100_000 if long_run() else 2_000)


@stories.by_turns(PAIRS, 4)
def test_servers_come_and_go(play: Scene, peers: Peers) -> None:
    stories.servers_come_and_go(play, peers, LOAD_CALLS[peers.kinds])


@stories.by_turns(PAIRS, 5)
def test_connections_grow_old(play: Scene, peers: Peers) -> None:
    stories.connections_grow_old(play, peers, LOAD_CALLS[peers.kinds])
