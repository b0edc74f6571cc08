"""Calls that an AuthorizationPolicy denies, among others that it does not: on every stack, both hooks, both topologies.

Denied calls show status 7 and reach no handler, and nobody else on the connection notices.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interop.calls import languages
from interop.calls.languages import Peers
from interop.calls.ledger import SUMS, counts
from interop.calls.peers import contract
from interop.calls.proxied import serve
from interop.calls.scene import ADDRESSES, CONFIGURATION, PLACEMENTS, Placement, Scene, scene
from interop.nginx import configure
from interop.stage import need
from support.machine import long_run
from support.mesh import Mesh
from support.policies import policy

# Every second one is denied.
CALLS = 200_000 if long_run() else 1_500
CROWDED_CALLS = 1_000_000 if long_run() else 3_000

BAD = {"when": [{"key": "request.headers[x-caller]", "values": ["bad-*"]}]}
POLICIES: list[Mapping[str, Any]] = [
    policy(f"callers-of-{app}", BAD, action="DENY", namespace="calls", app=app) for app in ("server", "proxy")
]

JUDGED = [each for each in PLACEMENTS if each.hooks != "client"]
BOTH = [each for each in JUDGED if each.hooks == "both"]
OUTSIDE = [each for each in JUDGED if each.hooks == "server"]
# Each of the hooks, and each of the topologies.
CROWDED = JUDGED if long_run() else JUDGED[1:3]


@pytest.fixture(scope="module")
def policed_mesh(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path_factory.mktemp("policed"), [*CONFIGURATION, *POLICIES])
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.close()


@pytest.fixture
def play(request: pytest.FixtureRequest, policed_mesh: Mesh, tmp_path: Path) -> Iterator[Scene]:
    with scene(request.param, policed_mesh, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def peer_sync() -> list[str]:
    return [sys.executable, str(languages.PEERS / "grpcio_sync.py")]


def placed(placements: list[Placement], *pairs: tuple[str, str]) -> pytest.MarkDecorator:
    """Every pair in one of the placements; in a long run, in each."""
    cases = [
        pytest.param(each, pair, id=f"{each}-{pair[0]}-to-{pair[1]}")
        for i, each in enumerate(placements)
        for j, pair in enumerate(pairs)
        if long_run() or j % len(placements) == i
    ]
    return pytest.mark.parametrize(("play", "peers"), cases, indirect=True)


def denied_and_allowed(play: Scene, peers: Peers, story: str = "denials", calls: int = CALLS, details: str = "") -> int:
    """Returns on how many connections. `details`: what callers are told; by default what policies say."""
    server = play.serve(peers.serve(play))
    # As long as this a channel waits for a server that has just started, and tries no other connection.
    options = ["grpc.min_reconnect_backoff_ms=20000"] if peers.kinds[0] == "aio" else []
    words = [str(calls), *filter(None, [details]), *options]
    printed = counts(play.call(peers.call(play, story, *words), seconds=3_600))
    # A caller that is refused while it sends may leave the rest.
    unknown = dict.fromkeys(SUMS)
    play.check(replace(each, **unknown) if each.grpc_status == contract.PERMISSION_DENIED else each for each in printed)
    allowed = sum(each.calls or 0 for each in printed if each.grpc_status == 0)
    denied = sum(each.calls or 0 for each in printed if each.grpc_status == contract.PERMISSION_DENIED)
    assert (allowed + denied, abs(allowed - denied) <= 3) == (calls, True)
    assert sum(play.stop(server)["handled"].values()) == allowed
    reading = play.reading()
    assert (reading.recognised.keys(), reading.unread) == ({"http2"}, {})
    return reading.recognised["http2"]


@placed(
    BOTH,
    ("sync", "sync"),
    ("aio", "go"),
    ("go", "js"),
    ("js", "aio"),
    ("go", "rust"),
    ("js", "go"),
    ("go", "tonic"),
    ("aio", "java"),
)
def test_whatever_calls_and_answers(play: Scene, peers: Peers) -> None:
    assert denied_and_allowed(play, peers) == 1


@placed(
    OUTSIDE, ("sync", "sync"), ("aio", "go"), ("go", "js"), ("js", "aio"), ("go", "go"), ("go", "java"), ("js", "tonic")
)
def test_callers_outside(play: Scene, peers: Peers) -> None:
    """The same path allowed to some and denied to others on one connection."""
    assert denied_and_allowed(play, peers) == 1


@placed(JUDGED, ("aio", "go_http"), ("go", "go_http"), ("js", "go_http"))
def test_refused_in_trailers(play: Scene, peers: Peers) -> None:
    assert denied_and_allowed(play, peers) == 1


# What clients make of a 403.
FORBIDDEN = {"aio": "Received http2 header with status: 403", "js": "Received HTTP status code 403"}


@placed(JUDGED, ("aio", "connect"), ("js", "connect"))
def test_refused_by_http(play: Scene, peers: Peers) -> None:
    """A router answers, to whom it is no gRPC: 404, with a page."""
    assert denied_and_allowed(play, peers, details=FORBIDDEN[peers.kinds[0]]) == 1


GATEWAY = """
  keepalive_requests 1000000;
  log_format paths '$uri';
  upstream behind {{ server {play.address}:{play.port}; keepalive 16; }}
  server {{
    listen {play.proxy_address}:{play.proxy_port} http2;
    access_log {play.folder}/access.log paths;
    location /calls.Peer/ {{ grpc_pass grpc://behind; }}
  }}
"""


@pytest.mark.parametrize(
    "play", [Placement("both", topology, "server") for topology in ADDRESSES], ids=str, indirect=True
)
def test_refused_by_a_gateway(play: Scene) -> None:
    """NGINX knows where to by the path: a denied call goes nowhere."""
    need("nginx")
    client = languages.aio()
    server = serve(play)
    proxy = play.serve_proxy(configure(play.folder, "gateway", GATEWAY.format(play=play)))
    where = [play.proxy_address, str(play.proxy_port)]
    made = counts(play.call([*client, "call", "denials", *where, str(CALLS), FORBIDDEN["aio"]], seconds=3_600))
    allowed = [each for each in made if each.grpc_status == 0]
    denied = [replace(each, **dict.fromkeys(SUMS)) for each in made if each.grpc_status != 0]
    assert [each.grpc_status for each in denied] == [contract.PERMISSION_DENIED]
    front, back = play.placement.legs
    play.check({front: [*allowed, *denied], back: allowed})
    play.stop_proxy(proxy, signal.SIGQUIT)
    paths = Counter((play.folder / "access.log").read_text().split())
    assert paths.total() == CALLS
    assert paths[contract.path("Unary")] == CALLS // 2
    assert play.stop(server)["handled"] == {"Unary": CALLS // 2}


@placed(CROWDED, ("aio", "aio"), ("aio", "go"), ("aio", "js"), ("aio", "java"))
def test_a_thousand_at_once(play: Scene, peers: Peers) -> None:
    """Send buffers are full in both directions."""
    assert denied_and_allowed(play, peers, "crowd", CROWDED_CALLS) == 1
