"""The kept inputs of the fuzzer, natively and in the kernel; a short look for new ones where libFuzzer is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest

from engine import build, fuzz
from engine.engine import Engine, Kernel, Native
from engine.hpack_reader import EngineError, HeaderReader
from engine.http2_reader import DirectionReader
from support import machine

INPUTS = sorted(fuzz.CORPUS.iterdir())
SECONDS = 600 if machine.long_run() else 3

# The fuzzer's input: how it is read, then what is read (fuzz.c).
HOW_SERVER, HOW_BLOCKS = 1, 2
HEAD = 4


@pytest.fixture(scope="session")
def fuzzer(builds: Path) -> tuple[Path, str]:
    return build.fuzzer(builds)


def test_the_kept_inputs(fuzzer: tuple[Path, str], record_property: Callable[[str, object], None]) -> None:
    program, what = fuzzer
    record_property("fuzzer", what)
    fuzz.replay(program, libfuzzer=program.name == build.FUZZER)


def test_inputs_that_nobody_has_seen(fuzzer: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, what = fuzzer
    if program.name != build.FUZZER:
        pytest.skip(what)
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "found"
    found.mkdir()
    fuzz.fuzz(program, found, SECONDS)


def heard(engine: Engine, how: int, data: bytes, size: int) -> tuple[object, str]:
    """What the engine makes of an input that comes in pieces of this size, and the reason if it gives up."""
    if how & HOW_BLOCKS:
        headers = HeaderReader(engine)
        headers.start()
        try:
            return headers.read(data), ""
        except EngineError as error:
            return headers.shim.table_inserted, error.reason
    reader = DirectionReader(engine, client=not how & HOW_SERVER)
    try:
        return (reader.events, reader.feed_pieces(data, repeat(size))), ""
    except EngineError as error:
        return reader.events, error.reason


@pytest.mark.parametrize("size", [1, 100, 1 << 15])
def test_the_kernel_says_what_the_native_build_says(native: Native, in_kernel: Kernel, size: int) -> None:
    for path in INPUTS:
        how, data = path.read_bytes()[0], path.read_bytes()[HEAD:]
        assert heard(in_kernel, how, data, size) == heard(native, how, data, size), path.name
