"""Stories that any client plays with any server, and what is the same of them wherever they play."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from interop.calls.languages import Peers
from interop.calls.ledger import SUMS, Count, counts
from interop.calls.peers import contract
from interop.calls.scene import ADDRESSES, PLACEMENTS, Placement, Scene
from support.machine import long_run
from zerohop.kernel.telemetry import Calls

SERVER_SECONDS: Final = 0.3

PINGING: Final = (
    "grpc.keepalive_time_ms=50", "grpc.keepalive_permit_without_calls=1", "grpc.http2.max_pings_without_data=0",
)  # fmt: skip
PATIENT: Final = ("grpc.http2.min_ping_interval_without_data_ms=1", "grpc.keepalive_permit_without_calls=1")
AGEING: Final = ("grpc.max_connection_age_ms=50", "grpc.max_connection_age_grace_ms=2000")

HOOKS: Final = ("both", "server", "client")
TOPOLOGIES: Final = tuple(ADDRESSES)

Kinds = tuple[str, str]  # the client's and the server's


def by_turns(pairs: Sequence[Kinds], first: int) -> pytest.MarkDecorator:
    """Each pair somewhere, each kind of hooks once; `first`: where the first pair plays. In a long run, all of it."""
    if long_run():
        return _played([(placement, pair) for placement in PLACEMENTS for pair in pairs])
    turns = [(number, pair) for number, pair in enumerate(pairs, first)]
    return _played([(Placement(HOOKS[number % 3], TOPOLOGIES[number % 2]), pair) for number, pair in turns])


def only(*turns: tuple[str, str, Kinds]) -> pytest.MarkDecorator:
    """Hooks, topology, pair."""
    return _played([(Placement(hooks, topology), pair) for hooks, topology, pair in turns])


def _played(turns: Sequence[tuple[Placement, Kinds]]) -> pytest.MarkDecorator:
    cases = [pytest.param(placement, pair, id=f"{placement}-{pair[0]}-to-{pair[1]}") for placement, pair in turns]
    return pytest.mark.parametrize(("play", "peers"), cases, indirect=True)


def shapes(play: Scene, peers: Peers) -> None:
    server = play.serve(peers.serve(play))
    play.check(counts(play.call(peers.call(play, "shapes"))))
    play.stop(server)


def endings(play: Scene, peers: Peers) -> None:
    server = play.serve(peers.serve(play))
    expected = counts(play.call(peers.call(play, "endings")))
    hang, both = contract.path("Hang"), contract.path("BidiStream")
    repeats, deadlines = contract.REPEATS, len(contract.TIMEOUTS) * contract.REPEATS
    if peers.kinds[1] == "go":
        # It cancels calls at their deadlines, together with the client: who was first is not the same everywhere.
        assert sum(each.calls or 0 for each in expected if each.method == hang) == repeats + deadlines
        unknown = dict.fromkeys(("calls", *SUMS))
        expected = [replace(each, **unknown) if each.method == hang else each for each in expected]
        expected += [Count(hang, status, **unknown) for status in (contract.CANCELLED, contract.DEADLINE_EXCEEDED)]
    rows = play.check(expected)
    handled = play.stop(server)
    # The server has seen the same.
    assert (handled["cancelled"], handled["expired"]) == (repeats, deadlines)
    hanging = [row for row in rows if row.method == hang]
    assert {(row.grpc_status, row.deadline_exceeded) for row in hanging} == {(1, False), (4, True)}, hanging
    # How they ended may not be known, all the rest is.
    sizes = sum(range(repeats))
    messages, size = repeats + deadlines, 5 * repeats + sizes + deadlines * (5 + len("never"))
    assert _sums(rows, hang) == (repeats + deadlines, messages, 0, size, 0)
    messages, size = 3 * repeats, 3 * (5 * repeats + sizes)
    assert _sums(rows, both) == (repeats, messages, messages, size, size)


def _sums(rows: Iterable[Calls], method: str) -> tuple[int, ...]:
    """Calls of a method, however they ended, and what they carried."""
    return tuple(sum(getattr(row, name) for row in rows if row.method == method) for name in ("calls", *SUMS))


def gzip(play: Scene, peers: Peers, *options: str, answered: bool) -> None:
    """`options`: of the server's; `answered`: whether it compresses too."""
    server = play.serve(peers.serve(play, *options))
    rows = play.check(counts(play.call(peers.call(play, "gzip"))))
    play.stop(server)
    # Zeros become a thousandth in length; what is not compressible has been compared to the byte already.
    (row,) = (row for row in rows if row.method == contract.path("Unary") and row.ending == "complete")
    assert 0 < row.request_bytes < 10_000, row
    assert (0 < row.response_bytes < 10_000) == answered, row


def reuse(play: Scene, peers: Peers, count: int) -> None:
    server = play.serve(peers.serve(play))
    play.check(counts(play.call(peers.call(play, "reuse", str(count)), seconds=3_600)))
    play.stop(server)
    assert play.reading().recognised == {"http2": 1}


def servers_come_and_go(play: Scene, peers: Peers, count: int) -> None:
    """Each stops gracefully in the middle of calls: GOAWAY, and what is in flight goes on to its end."""
    client = play.start_client(peers.call(play, "load", str(count)))
    handled = 0
    while client.poll() is None:
        server = play.serve(peers.serve(play))
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(SERVER_SECONDS)
        handled += play.stop(server)["handled"].get("Unary", 0)
    printed = play.finish_client(client)
    rows = play.check(counts(printed))
    assert play.reading().goaways >= 1, play.reading()
    check_uncertain(rows, printed)
    # Some that were answered were not any more when the server's grace was over.
    assert sum(row.calls for row in rows if row.grpc_status == 0) <= handled


def connections_grow_old(play: Scene, peers: Peers, count: int) -> None:
    """The server sends each connection away after a while, and the client makes another one."""
    server = play.serve(peers.serve(play, *AGEING))
    printed = play.call(peers.call(play, "load", str(count)))
    rows = play.check(counts(printed))
    play.stop(server)
    assert play.reading().recognised["http2"] >= 3
    assert play.reading().goaways >= 3
    check_uncertain(rows, printed)


def keep_alive(play: Scene, peers: Peers, *options: str, milliseconds: int = 600) -> None:
    """`options`: of the server's; `milliseconds`: for how long nothing else is on the connection."""
    server = play.serve(peers.serve(play, *PATIENT, *options))
    rows = play.check(counts(play.call(peers.call(play, "pings", str(milliseconds), *PINGING))))
    play.stop(server)
    assert {row.grpc_status for row in rows} == {0}


def too_many_pings(play: Scene, peers: Peers) -> None:
    """The same client, and a server that thinks so: GOAWAY with ENHANCE_YOUR_CALM, and the call in flight fails."""
    server = play.serve(peers.serve(play, "grpc.http2.max_ping_strikes=1"))
    printed = counts(play.call(peers.call(play, "pings", "3500", *PINGING)))
    # The server says UNAVAILABLE or just closes. After such a GOAWAY grpc-js takes no notice of that.
    said = {contract.RESOURCE_EXHAUSTED: contract.UNAVAILABLE}
    play.check(replace(each, grpc_status=said.get(each.grpc_status, each.grpc_status)) for each in printed)
    play.stop(server)
    assert play.reading().goaways >= 1


def check_uncertain(rows: Iterable[Calls], printed: Mapping[str, Any]) -> None:
    """Where a connection ended, some calls were not sent any more: the kernel has seen no more of them than failed."""
    failed = sum(row.calls for row in rows if row.grpc_status == contract.UNAVAILABLE)
    assert failed <= printed["uncertain"]
