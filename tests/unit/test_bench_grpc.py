"""The workload `grpc`: its messages and programs, ghz's report, and what the engine must have counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zerohop.bench import gobuild
from zerohop.bench.account import Counts, HookCost, HookTime, require_at_least, require_calls, require_none
from zerohop.bench.ghz import parse_calls, parse_statuses, require_busy
from zerohop.bench.gobuild import first_complaint
from zerohop.bench.turns import Turn, Turns
from zerohop.bench.workloads import WORKLOADS
from zerohop.bench.workloads.base import CallingWorkload
from zerohop.bench.workloads.grpc import MESSAGE_BYTES, choose_peers, message, prefixed
from zerohop.errors import UnsupportedError, ZerohopError


def test_the_message_is_a_string_in_protobuf_with_a_prefix() -> None:
    content = message()
    assert len(content) == MESSAGE_BYTES
    field_and_type, length = content[:2]
    assert (field_and_type >> 3, field_and_type & 7) == (1, 2)
    assert content[2:].decode("ascii") == "x" * length
    assert prefixed(content) == b"\0\0\0\0\x64" + content


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_of_calls_are_known_as_such(name: str) -> None:
    assert isinstance(WORKLOADS[name], CallingWorkload) == (name in {"http2", "grpc", "policy"})


def report(*calls: tuple[str, int], **statuses: int) -> dict[str, Any]:
    return {
        "statusCodeDistribution": statuses or {"OK": len(calls)},
        "errorDistribution": {},
        "details": [{"timestamp": time, "latency": latency, "error": "", "status": "OK"} for time, latency in calls],
    }


def test_ghz_report() -> None:
    calls = parse_calls(report(("2026-01-02T03:04:05.123456789Z", 90469), ("2026-01-02T05:04:06.5+02:00", 16612000)))
    assert [end for _, end in calls] == pytest.approx([1767323045.123456, 1767323046.5], abs=1e-6)
    assert [end - begin for begin, end in calls] == pytest.approx([90.469e-6, 16.612e-3], abs=1e-6)


@pytest.mark.parametrize("statuses", [{"OK": 3, "Unavailable": 1}, {"Unimplemented": 4}, None])
def test_ghz_failures_are_errors(statuses: dict[str, int] | None) -> None:
    with pytest.raises(ZerohopError, match="ghz: calls failed"):
        parse_statuses({"statusCodeDistribution": statuses})


def test_calls_that_ghz_did_not_keep_are_an_error() -> None:
    with pytest.raises(ZerohopError, match=r"kept 1 of 2 calls.*shorter --seconds"):
        parse_calls(report(("2026-01-02T03:04:05Z", 1), OK=2))


def test_calls_that_span_the_turns() -> None:
    require_busy([(0.8, 0.9), (1.4, 1.5), (2.0, 2.1)], Turns([Turn(1.0, 2.0, 0.0)]))


@pytest.mark.parametrize("ends", [[1.1, 2.1], [0.9, 1.9], [0.9, 2.1], [0.9, 1.5, 2.1]])
def test_calls_that_do_not_span_the_turns_are_an_error(ends: list[float]) -> None:
    with pytest.raises(ZerohopError, match=r"turns.*longer --seconds"):
        require_busy([(end - 0.1, end) for end in ends], Turns([Turn(1.0, 1.4, 0.0), Turn(1.6, 2.0, 0.0)]))


def test_counts_of_a_run_are_what_was_added() -> None:
    before = Counts({"grpc 0": 5, "http2 200": 3}, {"tls": 1})
    after = Counts({"grpc 0": 9, "http2 200": 3, "grpc 14": 1}, {"tls": 2, "http1": 4})
    assert after.since(before) == Counts({"grpc 0": 4, "grpc 14": 1}, {"tls": 1, "http1": 4})


def test_every_call_must_be_counted_as_what_it_was() -> None:
    require_calls(Counts({"grpc 0": 1000}, {}), "grpc 0", 1000)
    for counted in ({"grpc 0": 999}, {"grpc 0": 1000, "grpc 2": 1}, {"http2 200": 1000}, {}):
        with pytest.raises(ZerohopError, match=r"the client made 1000 calls \(grpc 0\), but the engine counted"):
            require_calls(Counts(counted, {}), "grpc 0", 1000)


@pytest.mark.parametrize("made", [0, 1000])
def test_an_engine_that_saw_nothing_is_an_error_with_reasons(made: int) -> None:
    with pytest.raises(ZerohopError, match=r"counted none.*unread: \{'tls': 8\}") as caught:
        require_at_least(Counts({}, {"tls": 8}), "grpc 0", made)
    assert caught.value.hint
    require_at_least(Counts({"grpc 0": 1001}, {}), "grpc 0", made)


def test_an_engine_that_is_off_counts_nothing() -> None:
    require_none(Counts({}, {"http1": 1}))
    with pytest.raises(ZerohopError, match=r"off here.*\{'grpc 0': 7\}"):
        require_none(Counts({"grpc 0": 7}, {}))


def test_cost_of_a_call_is_the_sum_over_the_hooks() -> None:
    sender = HookTime(runs=30, ns=9000) - HookTime(runs=10, ns=1000)
    cost = HookCost(10, 5, {"zerohop_sender": sender, "zerohop_receiver": HookTime(0, 0)})
    assert sender.ns_per_run == 400
    assert cost.hooks["zerohop_receiver"].ns_per_run == 0
    assert cost.ns_per_call == 800


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Makes a PATH of its own, with programs that only know their version; returns a folder for files."""
    monkeypatch.setattr(gobuild, "find_go", lambda: None)

    def make(*programs: str) -> Path:
        tools, scratch = tmp_path / "tools", tmp_path / "scratch"
        tools.mkdir()
        scratch.mkdir()
        for name in programs:
            (tools / name).write_text(f"#!/bin/sh\necho {name} example/9.8\n")
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tools))
        return scratch

    return make


def test_h2load_where_there_is_no_ghz(install: Callable[..., Path]) -> None:
    _, versions = choose_peers(install("h2load", "nghttpd"))
    assert versions == {"h2load": "9.8", "nghttpd": "9.8"}


def test_h2load_where_ghz_has_no_server_and_the_report_says_so(install: Callable[..., Path]) -> None:
    _, versions = choose_peers(install("h2load", "nghttpd", "ghz"))
    assert versions == {
        "h2load": "9.8",
        "nghttpd": "9.8",
        "ghz": "ghz example/9.8, not used: no Go for the gRPC server (install Go 1.24 or later)",
    }


def test_without_any_client_the_packages_are_named(install: Callable[..., Path]) -> None:
    with pytest.raises(UnsupportedError, match="apt-get install nghttp2-client nghttp2-server"):
        choose_peers(install())


def test_a_failed_build_is_quoted_in_a_line() -> None:
    output = "go: downloading google.golang.org/grpc v1.76.0\n# zerohop\nserver.go:15:2: no route to host\nmore\n"
    assert first_complaint(output) == "server.go:15:2: no route to host"
    assert first_complaint("") == "it does not say why"


def test_the_go_server_serves_the_method_of_the_proto_file() -> None:
    peers = Path(gobuild.__file__).parent / "peers" / "grpc"
    proto, server = (peers / "echo.proto").read_text(), (peers / "server.go").read_text()
    package, service, method = (re.search(rf"\b{word} (\w+)", proto) for word in ("package", "service", "rpc"))
    assert package
    assert service
    assert method
    assert f'ServiceName: "{package[1]}.{service[1]}"' in server
    assert f'MethodName: "{method[1]}"' in server
