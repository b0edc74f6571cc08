"""grpc-go: an HTTP/2 of its own."""

from __future__ import annotations

from typing import Final

from interop.calls import stories
from interop.calls.languages import Peers
from interop.calls.scene import Scene
from support.machine import long_run

PAIRS: Final = [("go", "go"), ("go", "aio"), ("aio", "go")]


# Where so many calls are made on one connection, in a long run.
MILLION: Final = ("both-loopback", "server-veth")

# Enough for a second.
LOAD_CALLS: Final = {("go", "go"): 25_000, ("go", "aio"): 2_500, ("aio", "go"): 5_000}


@stories.by_turns(PAIRS, 0)
def test_shapes(play: Scene, peers: Peers) -> None:
    stories.shapes(play, peers)


@stories.by_turns(PAIRS, 1)
def test_endings(play: Scene, peers: Peers) -> None:
    stories.endings(play, peers)


@stories.by_turns(PAIRS, 2)
def test_gzip(play: Scene, peers: Peers) -> None:
    stories.gzip(play, peers, "grpc.default_compression_algorithm=2", answered=True)


@stories.by_turns(PAIRS, 3)
def test_reuse(play: Scene, peers: Peers) -> None:
    many = 1_000_000 if peers.kinds == ("go", "go") and str(play.placement) in MILLION else 100_000
    stories.reuse(play, peers, many if long_run() else 2_000)


@stories.by_turns(PAIRS, 4)
def test_servers_come_and_go(play: Scene, peers: Peers) -> None:
    stories.servers_come_and_go(play, peers, LOAD_CALLS[peers.kinds])


@stories.by_turns(PAIRS, 5)
def test_connections_grow_old(play: Scene, peers: Peers) -> None:
    stories.connections_grow_old(play, peers, LOAD_CALLS[peers.kinds])


@stories.by_turns(PAIRS, 0)
def test_keep_alive(play: Scene, peers: Peers) -> None:
    # grpc-go pings as often as every second as a server, as a client not even that.
    stories.keep_alive(play, peers, "grpc.keepalive_time_ms=1000", milliseconds=1_300)


# grpcio's client pings once a second, which takes too long to be too many: three are not.
@stories.only(("server", "veth", ("js", "go")), ("client", "loopback", ("js", "go")))
def test_too_many_pings(play: Scene, peers: Peers) -> None:
    stories.too_many_pings(play, peers)


@stories.only(("both", "veth", ("go", "js")))
def test_shapes_with_js(play: Scene, peers: Peers) -> None:
    stories.shapes(play, peers)


@stories.only(("client", "veth", ("go", "js")), ("both", "loopback", ("js", "go")))
def test_endings_with_js(play: Scene, peers: Peers) -> None:
    stories.endings(play, peers)
