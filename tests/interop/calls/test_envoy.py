"""Envoy between client and server: what reaches it, what it makes of that for the server, and what its log says."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from interop import envoy
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
from interop.calls.stories import PATIENT, check_uncertain
from interop.stage import need
from zerohop.kernel.telemetry import Calls

# A connection to the server is for any number of calls at a time, or for one.
KEEPALIVE: dict[str, dict[str, Any]] = {"kept": {}, "fresh": {"max_requests_per_connection": 1}}

LOG = {
    "path": "%REQ(:PATH)%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "flags": "%RESPONSE_FLAGS%",
}


@pytest.fixture(autouse=True)
def programs() -> None:
    need("envoy")
    pytest.importorskip("grpc", reason="needs grpcio")


def to_server(**more: Any) -> envoy.Fields:
    return {"route": {"cluster": "server", "timeout": "0s", **more}}


def forward(
    play: Scene,
    keepalive: str = "kept",
    *,
    routes: Mapping[str, envoy.Fields] | None = None,
    common: envoy.Fields | None = None,
    http2: envoy.Fields | None = None,
    flags: envoy.Fields | None = None,
) -> subprocess.Popen[Any]:
    """`routes`: of methods that do not just go on; `common`: what else there is to the connections of clients."""
    chosen = [{"match": {"path": contract.path(name)}, **to} for name, to in (routes or {}).items()]
    headers = {"max_headers_count": 2 * contract.ENTRIES}
    proxy = envoy.http_proxy(
        [*chosen, {"match": {"prefix": "/"}, **to_server()}],
        play.folder / "access.log",
        LOG,
        common_http_protocol_options={**headers, **(common or {})},
        http2_protocol_options=http2 or {},
    )
    clusters = [
        envoy.http2_cluster("server", play.address, play.port, {**headers, **KEEPALIVE[keepalive]}, http2 or {}),
        envoy.cluster("nobody", "127.0.0.1", 1),
    ]
    listener = envoy.listener(play.proxy_address, play.proxy_port, proxy)
    return play.serve_proxy(envoy.configure(play.folder, listener, clusters, flags))


def check_log(play: Scene, rows: Iterable[Calls]) -> None:
    """Envoy has logged the client's calls as the kernel has counted them."""
    logged: Counter[tuple[Any, ...]] = Counter()
    for line in map(json.loads, (play.folder / "access.log").read_text().splitlines()):
        reset = line["flags"] == "DR"
        label = (line["path"], _ended(line["path"], line["grpc_status"], reset))
        logged[*label, "calls"] += 1
        logged[*label, "request_bytes"] += line["request_bytes"]
        # The client did not wait for all that was there to be sent.
        logged[*label, "response_bytes"] += 0 if reset else line["response_bytes"]
    counted: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        if leg_of(row) == play.placement.legs[0]:
            reset = row.ending == "client_reset"
            label = (row.method, _ended(row.method, row.grpc_status, reset))
            counted[*label, "calls"] += row.calls
            counted[*label, "request_bytes"] += row.request_bytes
            counted[*label, "response_bytes"] += 0 if reset else row.response_bytes
    assert logged == counted


def _ended(method: str | None, grpc_status: int | None, reset: bool) -> int | str | None:
    # An answer to `Hang` and the client's reset may meet; Envoy's own reset has no status in its log.
    return "some way" if method == contract.path("Hang") else "reset" if reset else grpc_status


def stop(
    play: Scene, server: subprocess.Popen[Any], proxy: subprocess.Popen[Any], rows: Iterable[Calls]
) -> dict[str, Any]:
    """Ends both: what the server printed."""
    play.stop_proxy(proxy)
    check_log(play, rows)
    return play.stop(server)


@everywhere
def test_shapes(play: Scene, keepalive: str) -> None:
    """Everything goes on as it comes."""
    server, proxy = serve(play), forward(play, keepalive)
    rows = play.check(dict.fromkeys(play.placement.legs, called(play, "shapes")))
    handled = stop(play, server, proxy, rows)["handled"]
    assert named(handled) == by_method(rows, play.placement.legs[1])


# Envoy resets what the client has reset, with INTERNAL_ERROR; a connection that is for one call it closes instead.
GIVEN_UP = {"kept": contract.CANCELLED, "fresh": contract.UNAVAILABLE}


def behind(made: Iterable[Count], keepalive: str) -> Iterator[Count]:
    """What of the story `endings` goes on to the server."""
    for each in made:
        name = (each.method or "").rpartition("/")[2]
        if name == "Hang":
            # At a deadline the server may be first. One may have passed before there was anything to pass on.
            for status in (contract.DEADLINE_EXCEEDED, GIVEN_UP[keepalive]):
                yield replace(each, grpc_status=status, **dict.fromkeys(("calls", *SUMS)))
        elif name in ("BidiStream", "ServerStream") and each.grpc_status == contract.CANCELLED:
            yield replace(each, grpc_status=GIVEN_UP[keepalive])
        else:
            yield each


@everywhere
def test_endings(play: Scene, keepalive: str) -> None:
    """A call that the client has reset ends for the server, too."""
    server, proxy = serve(play), forward(play, keepalive)
    front, back = play.placement.legs
    made = called(play, "endings")
    rows = play.check({front: made, back: list(behind(made, keepalive))})
    handled = stop(play, server, proxy, rows)
    assert handled["cancelled"] == contract.REPEATS
    hanging = contract.path("Hang")
    reached = by_method(rows, back)[hanging]
    assert handled["handled"]["Hang"] <= reached <= by_method(rows, front)[hanging]


SETTINGS: dict[str, dict[str, Any]] = {
    "nghttp2": {"flags": {"http2_use_oghttp2": False}},
    "table": {"http2": {"hpack_table_size": 1 << 16}},
    "windows": {"http2": {"initial_stream_window_size": 65_535, "initial_connection_window_size": 65_535}},
}


@once
@pytest.mark.parametrize("name", SETTINGS)
def test_settings(play: Scene, name: str) -> None:
    """Envoy's other HTTP/2 library; a table that the kernel has no room for; the smallest windows it has."""
    server, proxy = serve(play), forward(play, **SETTINGS[name])
    made = [*called(play, "shapes"), *called(play, "endings")]
    rows = play.check(dict(zip(play.placement.legs, (made, list(behind(made, "kept"))), strict=True)))
    assert stop(play, server, proxy, rows)["cancelled"] == contract.REPEATS


@briefly
def test_reuse(play: Scene, keepalive: str) -> None:
    count = 300
    server, proxy = serve(play), forward(play, keepalive)
    rows = play.check(dict.fromkeys(play.placement.legs, called(play, "reuse", str(count))))
    assert play.reading().recognised["http2"] == 1 + (count if keepalive == "fresh" else 1)
    assert stop(play, server, proxy, rows)["handled"] == {"Unary": count}


@once
def test_gzip(play: Scene) -> None:
    """Compressed messages go on as they are: so many bytes on either side, however many the client does not know."""
    server, proxy = serve(play, GZIP), forward(play)
    rows = play.check(dict.fromkeys(play.placement.legs, called(play, "gzip")))
    stop(play, server, proxy, rows)
    check_compressed(play, rows)


@once
def test_servers_connections_grow_old(play: Scene) -> None:
    """The server sends Envoy's connections away, after the calls that are in flight."""
    count = 1_500
    server, proxy = serve(play, *AGES), forward(play)
    made = called(play, "load", str(count))
    assert {each.grpc_status for each in made} == {0}, made
    rows = play.check(dict.fromkeys(play.placement.legs, made))
    assert play.reading().goaways >= 3, play.reading()
    assert stop(play, server, proxy, rows)["handled"] == {"Unary": count}


LIMITS: dict[str, dict[str, Any]] = {
    "calls": {"max_requests_per_connection": 100},
    "time": {"max_connection_duration": "0.05s"},
}


@once
@pytest.mark.parametrize("limit", LIMITS)
def test_clients_connections_grow_old(play: Scene, limit: str) -> None:
    """Envoy sends the client away, and answers what comes until it has gone."""
    server, proxy = serve(play), forward(play, common=LIMITS[limit])
    printed = call(play, "load", "1500")
    made = counts(printed)
    # gRPC gives a call up that it has not sent when it reads that.
    rows = play.check(dict.fromkeys(play.placement.legs, made))
    check_uncertain(rows, printed)
    assert play.reading().goaways >= 3, play.reading()
    front, back = (by_method(rows, leg) for leg in play.placement.legs)
    assert front.total() == 1_500 - printed["uncertain"]
    assert front == back == named(stop(play, server, proxy, rows)["handled"])


@once
def test_keep_alive(play: Scene) -> None:
    """Envoy pings client and server."""
    pings = {"connection_keepalive": {"interval": "0.05s", "timeout": "5s"}}
    server, proxy = serve(play, *PATIENT), forward(play, http2=pings)
    rows = play.check(dict.fromkeys(play.placement.legs, called(play, "pings", "600")))
    assert stop(play, server, proxy, rows)["handled"] == {"Slow": 2}


@once
def test_retries(play: Scene) -> None:
    """A call that Envoy makes again is another one to the server."""
    again, statuses = 2, {contract.RESOURCE_EXHAUSTED, contract.UNAVAILABLE}
    policy = {"retry_on": "resource-exhausted,unavailable", "num_retries": again}
    server, proxy = serve(play), forward(play, routes={"Fail": to_server(retry_policy=policy)})
    front, back = play.placement.legs
    made = called(play, "endings")
    retried = [each for each in made if each.method == contract.path("Fail") and each.grpc_status in statuses]
    rows = play.check({front: made, back: [*behind(made, "kept"), *again * retried]})
    assert stop(play, server, proxy, rows)["handled"]["Fail"] == len(contract.STATUSES) + again * len(statuses)


TIME_OUTS = {
    "Down": {"route": {"cluster": "nobody"}},
    "Slow": to_server(timeout="0.2s"),
    "Hang": to_server(timeout="0.2s"),
}


@once
@pytest.mark.parametrize("said", [contract.UNAVAILABLE, contract.DEADLINE_EXCEEDED])
def test_servers_that_do_not_answer(play: Scene, said: int) -> None:
    """Envoy answers instead, or resets the call whose answer has begun; the server's call it resets."""
    flags = {"grpc_timeout_returns_deadline_exceeded": said == contract.DEADLINE_EXCEEDED}
    server, proxy = serve(play), forward(play, routes=TIME_OUTS, flags=flags)
    front, back = play.placement.legs
    made = once_each(play, *TIME_OUTS)
    assert [each.grpc_status for each in made] == [contract.UNAVAILABLE, said, contract.INTERNAL]
    reached = [replace(each, grpc_status=contract.CANCELLED) for each in made[1:]]
    rows = play.check({front: made, back: reached})
    assert stop(play, server, proxy, rows) == {"handled": {"Slow": 1, "Hang": 1}, "cancelled": 1, "expired": 0}


@once
def test_answers_of_its_own(play: Scene) -> None:
    answers = {f"Http{each}": {"direct_response": {"status": each}} for each in STATUSES}
    server, proxy = serve(play), forward(play, routes=answers)
    front, back = play.placement.legs
    made = once_each(play, *answers)
    assert [each.grpc_status for each in made] == list(STATUSES.values())
    rows = play.check({front: [replace(each, response_bytes=0) for each in made], back: []})
    assert {row.ending for row in rows} == {"complete"}
    # Its log has nothing of the requests, which it has not waited for.
    play.stop_proxy(proxy)
    assert play.stop(server)["handled"] == {}
