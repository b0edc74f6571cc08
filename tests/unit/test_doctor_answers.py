"""What doctor makes of answers: verdicts, children that hang or crash, bytes compared, the cache, and the output."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from zerohop.cli.doctor import _print
from zerohop.doctor import Check, Effect, Result, cache, child, is_ok, verdict
from zerohop.doctor.checks import Broken, Subject, Unknown
from zerohop.doctor.experiments import EXPERIMENTS
from zerohop.doctor.stream import Stream, queued

MATTERS = Subject("order", Effect.NO_SHORTCUT, "bytes could arrive in the wrong order")
LOADS = Subject("object", Effect.REFUSE, "nothing can be loaded")
COMFORT = Subject("veth", Effect.DEGRADES, "some connections stay plain TCP")


@pytest.mark.parametrize(
    ("checks", "ok", "expected"),
    [
        ([], True, "ok"),
        ([MATTERS.ok("1 byte"), COMFORT.broken("no")], True, "ok"),
        ([MATTERS.ok("1 byte"), COMFORT.unknown("no tool")], True, "ok"),
        ([MATTERS.broken("byte 3")], False, "no-shortcut"),
        ([MATTERS.unknown("no namespace")], True, "no-shortcut"),
        ([MATTERS.broken("byte 3"), LOADS.broken("the verifier")], False, "refuse"),
        ([LOADS.unknown("not looked at")], True, "ok"),
    ],
)
def test_verdict(checks: list[Check], ok: bool, expected: str) -> None:
    assert is_ok(checks) is ok
    assert verdict(checks) == expected


def test_a_consequence_is_empty_exactly_when_ok() -> None:
    assert MATTERS.ok("seen").consequence == ""
    for check in (MATTERS.broken("seen"), MATTERS.unknown("seen"), MATTERS.skipped("needs root")):
        assert check.consequence


def test_json_has_the_documented_keys() -> None:
    assert MATTERS.broken("byte 3").as_json() == {
        "name": "order",
        "result": "broken",
        "detail": "byte 3",
        "consequence": "bytes could arrive in the wrong order",
    }


def test_names_are_unique() -> None:
    names = [each.subject.name for each in EXPERIMENTS]
    assert len(names) == len(set(names))


def answer_of(experiment: object, *, seconds: float = 10.0) -> Check:
    assert callable(experiment)
    return child.run(MATTERS, experiment, seconds=seconds)


def test_a_child_answers() -> None:
    assert answer_of(lambda step: "12 bytes") == MATTERS.ok("12 bytes")


def test_a_child_raises_what_it_found() -> None:
    def broken(step: child.Step) -> str:
        raise Broken("byte 3")

    def unknown(step: child.Step) -> str:
        raise Unknown("no nft")

    def failing(step: child.Step) -> str:
        return str(1 // 0)

    assert answer_of(broken) == MATTERS.broken("byte 3")
    assert answer_of(unknown) == MATTERS.unknown("no nft")
    failed = answer_of(failing)
    assert failed.result is Result.UNKNOWN
    assert "ZeroDivisionError" in failed.detail


def test_a_hang_is_broken_and_names_its_step() -> None:
    def hang(step: child.Step) -> str:
        step("waiting for a byte")
        time.sleep(60)
        return ""

    begun = time.monotonic()
    check = answer_of(hang, seconds=0.3)
    assert time.monotonic() - begun < 10
    assert check.result is Result.BROKEN
    assert "waiting for a byte" in check.detail


def test_a_crash_is_unknown() -> None:
    def crash(step: child.Step) -> str:
        step("about to die")
        os.kill(os.getpid(), 9)
        return ""

    check = answer_of(crash)
    assert check.result is Result.UNKNOWN
    assert "about to die" in check.detail


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        client.setblocking(False)
        server.setblocking(False)
        yield client, server


def test_a_stream_arrives(ends: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream("up", *ends)
    for size in (1, 1000, 50_000):
        stream.send_whole(size)
    stream.receive_all()
    assert (stream.sent, stream.received, queued(ends[1])) == (51_001, 51_001, 0)


def test_a_stream_sees_a_wrong_byte(ends: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream("up", *ends)
    stream.send_whole(100)
    stream.sent += 1  # as if a byte had overtaken
    stream.send_whole(100)
    with pytest.raises(Broken, match=r"byte 100 of 201"):
        stream.receive_all()


def test_a_stream_sees_an_early_end(ends: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream("up", *ends)
    stream.send_whole(10)
    stream.sent = 20
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(Broken, match="end of file after 10 of 20"):
        stream.receive_all()


def test_the_cache_keeps_a_good_answer_for_its_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    good = [LOADS.ok("loads"), MATTERS.ok("in order"), COMFORT.unknown("no tool")]
    cache.remember("blue", b"build", good)
    assert cache.recall("blue", b"build") == good
    assert cache.recall("blue", b"other") is None
    assert cache.recall("green", b"build") is None
    cache.forget("blue")
    assert cache.recall("blue", b"build") is None


@pytest.mark.parametrize("bad", [MATTERS.broken("byte 3"), MATTERS.unknown("busy"), LOADS.broken("refused")])
def test_the_cache_keeps_no_bad_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Check) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    cache.remember("blue", b"build", [bad])
    assert cache.recall("blue", b"build") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": 1}', "\0"])
def test_the_cache_survives_junk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(cache, "RUN", tmp_path)
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / cache.FILE).write_text(content)
    assert cache.recall("blue", b"build") is None


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for each in EXPERIMENTS:
        _print(each.subject.unknown("a long story with 123456 bytes and no end, " * 5))
        _print(each.subject.ok("loading failed; the kernel said\n    R1 is invalid\n "))
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert lines
    assert max(map(len, lines)) <= 80
