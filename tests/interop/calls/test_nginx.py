"""NGINX between client and server: what reaches it, and what it makes of that for the server."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from interop.calls.ledger import SUMS, Count, counts, leg_of
from interop.calls.peers import contract
from interop.calls.proxied import (
    AGES,
    GZIP,
    STATUSES,
    briefly,
    by_method,
    call,
    called,
    check_compressed,
    everywhere,
    named,
    once,
    once_each,
    serve,
)
from interop.calls.scene import Scene
from interop.nginx import configure
from interop.stage import need

FORWARD = """
  log_format paths '$uri';
  large_client_header_buffers 4 64k;
  keepalive_requests {requests};
  upstream behind {{ server {address}:{port}; {keepalive} }}
  server {{
    listen {proxy_address}:{proxy_port} http2;
    access_log {folder}/access.log paths;
    grpc_buffer_size 64k;
    location / {{ grpc_pass grpc://behind; }}
    {locations}
  }}
"""

# A connection to the server is never for several calls at a time.
KEEPALIVE = {"kept": "keepalive 16;", "fresh": ""}


@pytest.fixture(autouse=True)
def programs() -> None:
    need("nginx")
    pytest.importorskip("grpc", reason="needs grpcio")


def forward(
    play: Scene, keepalive: str = "kept", requests: int = 1_000_000, locations: str = ""
) -> subprocess.Popen[Any]:
    """`requests`: of a client's connection before it is sent away."""
    body = FORWARD.format(
        address=play.address,
        port=play.port,
        proxy_address=play.proxy_address,
        proxy_port=play.proxy_port,
        folder=play.folder,
        keepalive=KEEPALIVE[keepalive],
        requests=requests,
        locations=locations,
    )
    return play.serve_proxy(configure(play.folder, "proxy", body))


def stop(
    play: Scene, server: subprocess.Popen[Any], proxy: subprocess.Popen[Any], reached: Counter[str | None]
) -> dict[str, Any]:
    """Ends both: what the server printed. `reached`: the calls that NGINX has taken, and so logged."""
    play.stop_proxy(proxy, signal.SIGQUIT)
    assert Counter((play.folder / "access.log").read_text().split()) == reached
    return play.stop(server)


@everywhere
def test_shapes(play: Scene, keepalive: str) -> None:
    """Everything goes on as it comes."""
    server, proxy = serve(play), forward(play, keepalive)
    made = called(play, "shapes")
    rows = play.check(dict.fromkeys(play.placement.legs, made))
    handled = stop(play, server, proxy, by_method(rows, play.placement.legs[0]))["handled"]
    assert named(handled) == by_method(rows, play.placement.legs[1])


def behind(made: Iterable[Count]) -> Iterator[Count]:
    """What of the story `endings` goes on to the server."""
    for each in made:
        name = (each.method or "").rpartition("/")[2]
        unknown = dict.fromkeys(("calls", *SUMS))
        if name == "Hang":
            # The client's reset closes the server's connection, unless the deadline comes first there: which one ended
            # a call, nobody knows.
            for status in (contract.DEADLINE_EXCEEDED, contract.UNAVAILABLE):
                yield replace(each, grpc_status=status, **unknown)
        elif name in ("BidiStream", "ServerStream"):
            # The server says so itself, into the closed connection, or there is nothing but its end.
            assert each.grpc_status == contract.CANCELLED
            yield replace(each, grpc_status=contract.UNAVAILABLE)
        elif name == "Missing":
            # Answered by the path alone: a request that comes later is not a part of the call any more.
            yield replace(each, request_messages=None, request_bytes=None)
        else:
            yield each


@everywhere
def test_endings(play: Scene, keepalive: str) -> None:
    """A call that the client has reset is closed with its connection to the server."""
    server, proxy = serve(play), forward(play, keepalive)
    front, back = play.placement.legs
    made = called(play, "endings")
    rows = play.check({front: made, back: list(behind(made))})
    handled = stop(play, server, proxy, by_method(rows, play.placement.legs[0]))
    assert handled["cancelled"] == contract.REPEATS
    # A deadline may have passed before there was a connection to the server.
    hanging = contract.path("Hang")
    reached = by_method(rows, back)[hanging]
    assert handled["handled"]["Hang"] <= reached <= by_method(rows, front)[hanging]
    found = {(row.grpc_status, row.deadline_exceeded) for row in rows if leg_of(row) == back and row.method == hanging}
    assert found <= {(contract.DEADLINE_EXCEEDED, True), (contract.UNAVAILABLE, False)}, found
    assert (contract.UNAVAILABLE, False) in found


@briefly
def test_reuse(play: Scene, keepalive: str) -> None:
    """Connections to the server: not many, since it may answer before NGINX has ended its request, or one for each."""
    count = 300
    server, proxy = serve(play), forward(play, keepalive)
    rows = play.check(dict.fromkeys(play.placement.legs, called(play, "reuse", str(count))))
    connections = play.reading().recognised["http2"] - 1
    assert connections == count if keepalive == "fresh" else 1 <= connections <= count // 4
    assert stop(play, server, proxy, by_method(rows, play.placement.legs[0]))["handled"] == {"Unary": count}


@once
def test_gzip(play: Scene) -> None:
    """Compressed messages go on as they are: so many bytes on either side, however many the client does not know."""
    server, proxy = serve(play, GZIP), forward(play)
    rows = play.check(dict.fromkeys(play.placement.legs, called(play, "gzip")))
    stop(play, server, proxy, by_method(rows, play.placement.legs[0]))
    check_compressed(play, rows)


@once
def test_servers_connections_grow_old(play: Scene) -> None:
    """The server sends NGINX's connections away, after the calls that are in flight."""
    count = 1_500
    server, proxy = serve(play, *AGES), forward(play)
    made = called(play, "load", str(count))
    # Where the connection's end comes with the answer's, NGINX 1.22 resets the call that it has in its hands.
    assert {each.grpc_status for each in made} <= {0, contract.INTERNAL}, made
    front = [replace(each, response_messages=None, response_bytes=None) if each.grpc_status else each for each in made]
    size = sum(each.request_bytes or 0 for each in made)
    back = Count(contract.path("Unary"), 0, count, count, count, size, size)
    rows = play.check(dict(zip(play.placement.legs, (front, [back]), strict=True)))
    assert play.reading().goaways >= 3, play.reading()
    assert stop(play, server, proxy, by_method(rows, play.placement.legs[0]))["handled"] == {"Unary": count}


@once
def test_clients_connections_grow_old(play: Scene) -> None:
    """NGINX sends the client away after so many calls, one after the other."""
    server, proxy = serve(play), forward(play, requests=100)
    rows = play.check(dict.fromkeys(play.placement.legs, called(play, "reuse", "1000")))
    assert play.reading().goaways == 10
    assert play.reading().recognised["http2"] >= 11
    assert stop(play, server, proxy, by_method(rows, play.placement.legs[0]))["handled"] == {"Unary": 1_000}


TIME_OUTS = """
  location = /calls.Peer/Down { grpc_pass grpc://127.0.0.1:1; }
  location = /calls.Peer/Slow { grpc_pass grpc://behind; grpc_read_timeout 200ms; }
  location = /calls.Peer/Hang { grpc_pass grpc://behind; grpc_read_timeout 200ms; }
"""


@once
def test_servers_that_do_not_answer(play: Scene) -> None:
    """NGINX answers instead, or resets the call whose answer has begun, and closes the server's connection."""
    server, proxy = serve(play), forward(play, locations=TIME_OUTS)
    front, back = play.placement.legs
    made = once_each(play, "Down", "Slow", "Hang")
    assert [each.grpc_status for each in made] == [contract.UNAVAILABLE, contract.UNAVAILABLE, contract.INTERNAL]
    reached = [replace(each, grpc_status=contract.UNAVAILABLE) for each in made[1:]]
    rows = play.check({front: made, back: reached})
    handled = stop(play, server, proxy, by_method(rows, front))
    assert handled == {"handled": {"Slow": 1, "Hang": 1}, "cancelled": 1, "expired": 0}


@once
def test_answers_of_its_own(play: Scene) -> None:
    """nghttp reads them to their ends, as gRPC's clients do if they come fast enough."""
    need("nghttp")
    answers = "".join(f"location = /calls.Peer/Http{each} {{ return {each}; }}" for each in STATUSES)
    server, proxy = serve(play), forward(play, locations=answers)
    front, back = play.placement.legs
    asked = {contract.path(f"Http{each}"): status for each, status in STATUSES.items()}
    urls = [f"http://{play.proxy_address}:{play.proxy_port}{path}" for path in asked]
    play.run(["nghttp", "--null-out", "-H:method: POST", "-Hcontent-type: application/grpc", "-Hte: trailers", *urls])
    made = [Count(path, status, 1, 0, 0, 0, None) for path, status in asked.items()]
    rows = play.check({front: made, back: []})
    assert {row.ending for row in rows} == {"complete"}
    assert stop(play, server, proxy, by_method(rows, front))["handled"] == {}


@once
def test_answers_of_its_own_that_take_long(play: Scene) -> None:
    """gRPC's clients have seen enough with the headers."""
    answers = "".join(f"location = /calls.Peer/Http{each} {{ limit_rate 20; return {each}; }}" for each in STATUSES)
    server, proxy = serve(play), forward(play, locations=answers)
    front, back = play.placement.legs
    made = once_each(play, *(f"Http{each}" for each in STATUSES))
    assert [each.grpc_status for each in made] == list(STATUSES.values())
    rows = play.check({front: made, back: []})
    assert {row.ending for row in rows} == {"client_reset"}
    assert stop(play, server, proxy, by_method(rows, front))["handled"] == {}


@once
def test_clients_are_sent_away_in_calls(play: Scene) -> None:
    """What the client has begun when NGINX's GOAWAY comes is not answered any more."""
    server, proxy = serve(play), forward(play, requests=100)
    printed = call(play, "load", "2000")
    rows = play.check(dict.fromkeys(play.placement.legs, counts(printed)))
    front, back = (by_method(rows, leg) for leg in play.placement.legs)
    assert back.total() <= front.total() <= back.total() + printed["uncertain"]
    assert named(stop(play, server, proxy, back)["handled"]) == back
