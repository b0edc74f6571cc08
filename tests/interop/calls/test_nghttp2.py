"""nghttp2: plain HTTP/2 with every kind of frame, and gRPC requests as fast as they go."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

from interop import payload
from interop.calls.ledger import Count
from interop.calls.peers import contract
from interop.calls.scene import PLACEMENTS, Scene
from interop.stage import located, need
from support.machine import long_run

REQUESTS = 3_000
REPEATS = 8

# What one side or the other does with its frames: arguments of nghttpd and of nghttp.
FRAMES: dict[str, tuple[list[str], list[str]]] = {
    "plain": ([], []),
    "padding": (["--padding=255"], ["--padding=255"]),
    "continuation": ([], ["--continuation"]),
    "no-table": (["--header-table-size=0"], ["--header-table-size=0"]),
    "small-table": (["--header-table-size=100"], ["--header-table-size=5000", "--header-table-size=70"]),
    "large-table": (
        ["--header-table-size=65536", "--encoder-header-table-size=65536"],
        ["--header-table-size=65536", "--encoder-header-table-size=65536"],
    ),
    "trailers": (["--trailer=x-end: of it"], ["--no-dep", "--window-bits=10", "--connection-window-bits=16"]),
    "push": (["--push=/small=/tiny,/medium"], []),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("nghttpd", "nghttp", "h2load")
    made = tmp_path_factory.mktemp("files")
    payload.write(made)
    return made


def plain(calls: int, received: int, sent: int = 0, http_status: int = 200) -> Count:
    """HTTP/2 without gRPC: bytes only."""
    return Count(None, None, calls, 0, 0, sent, received, http_status)


def nghttpd(play: Scene, folder: Path, *arguments: str) -> list[str]:
    serving = ["--no-tls", f"--address={play.address}", "-d", str(folder), *arguments]
    return [located("nghttpd"), *serving, str(play.port)]


def succeeded(output: str, requests: int) -> int:
    """h2load's word that so many requests were answered: bytes of content."""
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in output, output
    data = re.search(r"\((\d+)\) data", output)
    assert data, output
    return int(data[1])


@pytest.mark.parametrize(
    ("play", "frames"),
    # Each of them in two placements, of both topologies; in a long run in all.
    [
        pytest.param(place, each, id=f"{place}-{each}")
        for number, each in enumerate(FRAMES)
        for place in (PLACEMENTS if long_run() else (PLACEMENTS[number % 6], PLACEMENTS[(number + 3) % 6]))
    ],
    indirect=["play"],
)
def test_frames(play: Scene, folder: Path, frames: str) -> None:
    """GET of something and of nothing, and uploads that come back, a few at a time on a connection."""
    serving, asking = FRAMES[frames]
    play.serve(nghttpd(play, folder, "--echo-upload", *serving))
    url = f"http://{play.address}:{play.port}"
    nghttp = ["nghttp", "--null-out", f"--multiply={REPEATS}", *asking]
    # A trailer goes with an upload.
    uploading = [*nghttp, *(["--trailer=x-end: of it"] if frames == "trailers" else [])]
    names = [f"{url}/{name}" for name in ("tiny", "small", "medium")]
    assert play.run([*nghttp, *names]) == ""
    expected = [plain(REPEATS, REPEATS * payload.SIZES[name]) for name in ("tiny", "small", "medium")]
    assert play.run([*nghttp, f"{url}/missing"]) == ""
    # How long the page is that says so, nobody has told nghttp.
    expected.append(Count(None, None, REPEATS, 0, 0, 0, None, 404))
    for extra in ([], ["--expect-continue"]):
        assert play.run([*uploading, *extra, f"--data={folder / 'medium'}", f"{url}/up"]) == ""
        size = REPEATS * payload.SIZES["medium"]
        expected.append(plain(REPEATS, size, size))
    play.check(expected)


def test_load(play: Scene, folder: Path) -> None:
    play.serve(nghttpd(play, folder))
    url = f"http://{play.address}:{play.port}"
    load = ["h2load", "-c", "8", "-m", "10", "-n", str(REQUESTS), f"{url}/small", f"{url}/tiny", f"{url}/medium"]
    received = succeeded(play.run(load), REQUESTS)
    assert received == REQUESTS // 3 * sum(payload.SIZES[name] for name in ("small", "tiny", "medium"))
    load = ["h2load", "-c", "2", "-m", "5", "-n", "100", "-d", str(folder / "medium"), f"{url}/small"]
    echoed = succeeded(play.run(load), 100)
    play.check([plain(REQUESTS, received), plain(100, echoed, 100 * payload.SIZES["medium"])])
    assert play.reading().recognised == {"http2": 10}


def test_grpc_load(play: Scene, folder: Path) -> None:
    """Whatever the size of either side's HPACK table, every call is of the right method."""
    pytest.importorskip("grpc", reason="needs grpcio")
    peer = str(Path(__file__).parent / "peers" / "grpcio_aio.py")
    server = play.serve([sys.executable, peer, "serve", play.address, str(play.port)])
    message = contract.message(100)
    body = play.folder / "body"
    body.write_bytes(struct.pack("!BI", 0, len(message)) + message)
    url = f"http://{play.address}:{play.port}"
    expected = []
    for table in (0, 100, 4_096, 65_536):
        calls = 1_000_000 if long_run() and table == 4_096 else 600
        load = [
            *("h2load", "-c", "4", "-m", "25", "-n", str(calls), "-d", str(body)),
            *(f"--header-table-size={table}", f"--encoder-header-table-size={table}"),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            *(url + contract.path(name) for name in ("Unary", "Missing")),
        ]
        received = succeeded(play.run(load, seconds=3_600), calls)
        half, sent = calls // 2, calls // 2 * len(body.read_bytes())
        assert received == sent
        expected += [
            Count(contract.path("Unary"), 0, half, half, half, sent, received),
            Count(contract.path("Missing"), contract.UNIMPLEMENTED, half, half, 0, sent, 0),
        ]
    play.check(expected)
    assert play.stop(server)["handled"] == {"Unary": sum(each.calls or 0 for each in expected) // 2}
