"""Frames that no ordinary client makes: padded, split, continued, interrupted, written byte by byte."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from interop.calls.ledger import Count, counts
from interop.calls.peers import contract
from interop.calls.scene import PLACEMENTS, Scene
from support.frames import END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, literal
from support.machine import long_run

pytest.importorskip("h2", reason="needs h2")

CONTINUATION = 9

PEERS = Path(__file__).parent / "peers"
SEEDS = range(20) if long_run() else range(1)

# Bytes of a write; 0: whole frames, several at a time.
pieces = pytest.mark.parametrize("piece", [1, 7, 100, 0] if long_run() else [1, 0])


def clients(play: Scene, piece: int, form: str) -> list[Count]:
    """One connection after the other: what they counted."""
    found = []
    for seed in SEEDS:
        client = [sys.executable, str(PEERS / "h2_client.py"), play.address, str(play.port)]
        found += counts(play.call([*client, str(seed), str(piece), form]))
    return found


@pieces
def test_short_frames(play: Scene, piece: int) -> None:
    """To grpcio, which takes neither padding nor flags without a meaning."""
    pytest.importorskip("grpc", reason="needs grpcio")
    server = play.serve([sys.executable, str(PEERS / "grpcio_aio.py"), "serve", play.address, str(play.port)])
    play.check(clients(play, piece, "plain"))
    play.stop(server)


@pieces
def test_strange_frames(play: Scene, piece: int) -> None:
    """In both directions: padding, CONTINUATION, priorities, interim responses, frames of unknown types."""
    server = [sys.executable, str(PEERS / "h2_server.py"), play.address, str(play.port), "1", str(piece), "strange"]
    running = play.serve(server)
    play.check(clients(play, piece, "strange"))
    play.stop(running)
    assert play.reading().recognised == {"http2": len(SEEDS)}


REQUEST = (
    b"\x83\x86"  # :method POST, :scheme http
    + literal(b":path", contract.path("BidiStream").encode())
    + literal(b":authority", b"calls")
    + literal(b"te", b"trailers")
    + literal(b"content-type", b"application/grpc")
)
OPENING = PREFACE + frame(SETTINGS, 0, 0, b"")


def write(play: Scene, ends: int, *writes: bytes, mode: str = "nonblocking") -> int:
    """Writes to grpcio; how many streams have ended."""
    here = [play.address, str(play.port)]
    server = play.serve([sys.executable, str(PEERS / "grpcio_aio.py"), "serve", *here])
    client = [sys.executable, str(PEERS / "writer.py"), *here, mode, str(ends), *(each.hex() for each in writes)]
    printed = int(play.run(client))
    play.stop(server)
    return printed


def calls(method: str, count: int) -> Count:
    """Without messages."""
    return Count(contract.path(method), 0, count, 0, 0, 0, 0)


def test_header_blocks_of_one_length(play: Scene) -> None:
    """Each write completes one block and begins another of which just as much is there."""
    # Where the two are cut, the same bytes before would make other lengths of what follows.
    first, second = (REQUEST + literal(b"x", value) + literal(b"y", b"y" * 100) for value in (b"1" * 20, b"2" * 60))
    size = len(REQUEST) + 40

    def begun(stream: int, block: bytes) -> bytes:
        return frame(HEADERS, END_STREAM, stream, block[:size])

    def completed(stream: int, block: bytes) -> bytes:
        return frame(CONTINUATION, END_HEADERS, stream, block[size:])

    writes = [OPENING + begun(1, first), completed(1, first) + begun(3, second), completed(3, second)]
    assert write(play, 2, *writes) == 2
    play.check([calls("BidiStream", 2)])


def blocking_call(play: Scene) -> None:
    request = OPENING + frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST)
    assert write(play, 1, request, mode="blocking") == 1


@pytest.mark.parametrize("play", [each for each in PLACEMENTS if each.hooks != "client"], ids=str, indirect=True)
def test_a_blocking_client(play: Scene) -> None:
    """It stays out of the hooks: its server's end is read in both directions."""
    blocking_call(play)
    play.check([calls("BidiStream", 1)])


@pytest.mark.parametrize("play", [each for each in PLACEMENTS if each.hooks == "client"], ids=str, indirect=True)
def test_a_blocking_client_of_a_server_outside(play: Scene) -> None:
    """Nobody reads it, and that is counted."""
    blocking_call(play)
    assert play.rows() == []
    assert play.reading().unread == {"client_blocking": 1}
