"""grpc-js: HTTP/2 by Node and nghttp2."""

from __future__ import annotations

from typing import Final

from interop.calls import stories
from interop.calls.languages import Peers
from interop.calls.scene import Scene
from support.machine import long_run

PAIRS: Final = [("js", "js"), ("js", "aio"), ("aio", "js")]

LOAD_CALLS: Final = 1_500


@stories.by_turns(PAIRS, 0)
def test_shapes(play: Scene, peers: Peers) -> None:
    stories.shapes(play, peers)


@stories.by_turns(PAIRS, 1)
def test_endings(play: Scene, peers: Peers) -> None:
    stories.endings(play, peers)


@stories.by_turns(PAIRS, 2)
def test_gzip(play: Scene, peers: Peers) -> None:
    # grpc-js takes compressed messages but does not send any as a server.
    stories.gzip(play, peers, "grpc.default_compression_algorithm=2", answered=peers.kinds[1] == "aio")


@stories.by_turns(PAIRS, 3)
def test_reuse(play: Scene, peers: Peers) -> None:
    stories.reuse(play, peers, 20_000 if long_run() else 1_000)


@stories.by_turns(PAIRS, 4)
def test_servers_come_and_go(play: Scene, peers: Peers) -> None:
    stories.servers_come_and_go(play, peers, LOAD_CALLS)


@stories.by_turns(PAIRS, 5)
def test_connections_grow_old(play: Scene, peers: Peers) -> None:
    stories.connections_grow_old(play, peers, LOAD_CALLS)


@stories.by_turns(PAIRS, 0)
def test_keep_alive(play: Scene, peers: Peers) -> None:
    stories.keep_alive(play, peers)


# A server of grpc-js lets its clients ping as they like.
@stories.only(("both", "veth", ("js", "aio")), ("server", "loopback", ("js", "aio")))
def test_too_many_pings(play: Scene, peers: Peers) -> None:
    stories.too_many_pings(play, peers)
