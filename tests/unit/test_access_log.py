"""Lines of the access log, and files that do not take them."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from zerohop.errors import ZerohopError
from zerohop.kernel.telemetry import Workload
from zerohop.telemetry.access_log import LogFile, as_envoy, as_json
from zerohop.telemetry.flows import Decider, End, Flow

CALL = Flow(
    time=datetime(2026, 11, 23, 8, 0, 1, 250_123, UTC),
    kind="call",
    source=End(Workload("shop", "web", "cluster.local/ns/shop/sa/web"), "127.0.0.1", 40_000),
    destination=End(Workload("shop", "cart", "cluster.local/ns/shop/sa/cart"), "127.0.0.1", 50_051),
    service="shop/cart",
    protocol="grpc",
    method="/shop.Cart/Add",
    http_status=200,
    grpc_status=0,
    ending="complete",
    deadline_exceeded=False,
    verdict="ALLOW",
    reason=None,
    policy=None,
    rule=None,
    audit=Decider("ALLOW", "shop/watched", 2),
    dry_run=Decider("DENY", None, None),
    latency_us=2_750,
    request_bytes=105,
    response_bytes=1_005,
    request_messages=1,
    response_messages=3,
    connection=77,
    stream=5,
)

CONNECTION = replace(
    CALL, kind="connection", source=End(None, "2001:db8::1", 40_000), destination=End(None, "2001:db8::2", 5432),
    service=None, protocol="tcp", method=None, http_status=None, grpc_status=None, reason="peer_unmanaged",
    latency_us=None, request_messages=0, response_messages=0, stream=None, audit=None, dry_run=None,
)  # fmt: skip


def test_json_has_every_field() -> None:
    line = as_json(CALL)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-11-23T08:00:01.250123Z",
        "source": {
            "namespace": "shop",
            "workload": "web",
            "principal": "cluster.local/ns/shop/sa/web",
            "address": "127.0.0.1",
            "port": 40_000,
        },
        "destination": {
            "namespace": "shop",
            "workload": "cart",
            "principal": "cluster.local/ns/shop/sa/cart",
            "address": "127.0.0.1",
            "port": 50_051,
        },
        "protocol": "grpc",
        "method": "/shop.Cart/Add",
        "grpc_status": 0,
        "verdict": "ALLOW",
        "reason": None,
        "policy": None,
        "rule": None,
        "latency_us": 2_750,
        "request_bytes": 105,
        "response_bytes": 1_005,
        "request_messages": 1,
        "response_messages": 3,
        "kind": "call",
        "service": "shop/cart",
        "http_status": 200,
        "ending": "complete",
        "deadline_exceeded": False,
        "connection": 77,
        "stream": 5,
        "audit": {"policy": "shop/watched", "rule": 2},
        "dry_run": {"verdict": "DENY", "policy": None, "rule": None},
    }


def test_json_of_a_connection_between_others() -> None:
    line = json.loads(as_json(CONNECTION))
    assert line["source"] == {
        "namespace": None,
        "workload": None,
        "principal": None,
        "address": "2001:db8::1",
        "port": 40_000,
    }
    assert {name for name, value in line.items() if value is None} == {
        "method", "grpc_status", "policy", "rule", "latency_us", "service", "http_status", "stream",
        "audit", "dry_run",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flow", "line"),
    [
        (
            replace(CALL, method="/a.B/C"),
            '[2026-11-23T08:00:01.247Z] "POST /a.B/C HTTP/2" 200 - 105 1005 2 - "-" "-" "-" "-" "127.0.0.1:50051"',
        ),
        (
            replace(CALL, ending="client_reset", grpc_status=1, http_status=None, method=None, response_bytes=0),
            '[2026-11-23T08:00:01.247Z] "POST - HTTP/2" 0 DR 105 0 2 - "-" "-" "-" "-" "127.0.0.1:50051"',
        ),
        (
            replace(CALL, protocol="http2", method=None, grpc_status=None, latency_us=999),
            '[2026-11-23T08:00:01.249Z] "- - HTTP/2" 200 - 105 1005 0 - "-" "-" "-" "-" "127.0.0.1:50051"',
        ),
        (
            CONNECTION,
            '[2026-11-23T08:00:01.250Z] "- - -" 0 - 105 1005 - - "-" "-" "-" "-" "[2001:db8::2]:5432"',
        ),
    ],
    ids=["call", "reset", "http2", "connection"],
)  # fmt: skip
def test_envoys_default_format(flow: Flow, line: str) -> None:
    """START_TIME is that of the request's beginning; flow records carry the end."""
    assert as_envoy(flow) == line


def test_a_log_goes_on_in_a_new_file_after_the_old_one_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("there already\n")
    file = LogFile(str(path))
    assert file.write(["one"]) == 0
    moved = path.rename(tmp_path / "access.log.1")
    assert file.write(["two"]) == 0
    file.reopen()
    assert file.write(["three", "four"]) == 0
    file.close()
    assert moved.read_text() == "there already\none\ntwo\n"
    assert path.read_text() == "three\nfour\n"


def test_what_cannot_be_reopened_goes_on_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "access.log"
    path.parent.mkdir()
    file = LogFile(str(path))
    path.parent.rename(tmp_path / "gone")
    with pytest.raises(ZerohopError, match="No such file"):
        file.reopen()
    assert file.write(["kept"]) == 0
    file.close()
    assert (tmp_path / "gone" / "access.log").read_text() == "kept\n"


def test_a_pipe_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ZerohopError, match="cannot write the access log"):
        LogFile(str(tmp_path / "pipe"))


def test_lines_that_a_full_disk_refuses_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    file = LogFile("/dev/full")
    with caplog.at_level("ERROR", "zerohop"):
        assert file.write(["a", "b", "c"]) == 3
        assert file.write(["d"]) == 1
    file.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No space left" in caplog.text


def test_a_torn_line_is_ended_before_the_next(tmp_path: Path) -> None:
    """The limit of a file's size stands for a disk that fills up in the middle of a line."""
    path = tmp_path / "access.log"
    file = LogFile(str(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15, hard))
        assert file.write(["first", "second, cut", "third"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.write(["fourth"]) == 0
    file.close()
    assert path.read_text() == "first\nsecond, c\nfourth\n"
