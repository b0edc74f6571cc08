"""curl: plain HTTP/2 with NGINX's files, gRPC calls from the command line, HTTP/1.1 where HTTP/2 is expected."""

from __future__ import annotations

import filecmp
import random
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop.calls.ledger import Count
from interop.calls.peers import contract
from interop.calls.scene import PLACEMENTS, Scene
from interop.nginx import configure
from interop.stage import need

SIZES = {"byte": 1, "small": 1_000, "medium": 100_003, "large": 16 << 20}
SIMPLE = ("byte", "medium")  # of which many are handed around at once
RANGE = 1_000
SEND_BUFFER = 4 * SIZES["large"]

# NGINX hands a file's pages to the socket, or reads the file and writes what it has read.
FILES = """
  keepalive_requests 100000;
  server {{
    listen {address}:{port} {protocol};
    root {files};
    location / {{ sendfile on; }}
    location /copied/ {{ alias {files}/; sendfile off; }}
    location /up/ {{ root {folder}; dav_methods PUT; create_full_put_path on; }}
  }}
"""

WORDS = ("http_code", "http_version", "num_connects", "size_upload", "size_download", "size_request", "size_header")


@dataclass(frozen=True)
class Transfer:
    """What curl says of one (its option --write-out)."""

    http_code: int
    http_version: str
    num_connects: int
    size_upload: int
    size_download: int
    size_request: int
    size_header: int

    @classmethod
    def of(cls, line: str) -> Transfer:
        code, version, *numbers = line.split()
        return cls(int(code), version, *map(int, numbers))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("curl", "nginx")
    folder = tmp_path_factory.mktemp("files")
    chance = random.Random(5)
    for name, size in SIZES.items():
        (folder / name).write_bytes(chance.randbytes(size))
    return folder


def curl(play: Scene, transfers: Sequence[Sequence[str]], *options: str, http2: bool = True) -> list[Transfer]:
    """One process for all transfers, in this order unless they are parallel: what it says of each."""
    # What the kernel takes a part of only, curl 7.88 sends twice.
    play.widen_send_buffers(SEND_BUFFER)
    write = "".join(f"%{{{word}}} " for word in WORDS) + "\\n"
    arguments: list[str] = []
    for each in transfers:
        # Prior knowledge is for the connection's first transfer only: curl 7.88 sends its preface again with each.
        version = "--http1.1" if not http2 else "--http2" if arguments else "--http2-prior-knowledge"
        arguments += ["--next"] * bool(arguments)
        arguments += ["--silent", "--show-error", "--max-time", "40", *options, version, "--write-out", write, *each]
    done = [Transfer.of(line) for line in play.run(["curl", *arguments]).splitlines()]
    assert len(done) == len(transfers), done
    assert sum(each.num_connects for each in done) == 1, done
    assert {each.http_version for each in done} == {"2" if http2 else "1.1"}, done
    return done


def plain(transfers: Sequence[Transfer]) -> list[Count]:
    """HTTP/2 without gRPC: bytes only."""
    return [Count(None, None, 1, 0, 0, each.size_upload, each.size_download, each.http_code) for each in transfers]


def serve_files(play: Scene, files: Path, protocol: str) -> str:
    place = {"address": play.address, "port": play.port, "files": files, "folder": play.folder}
    play.serve(configure(play.folder, "files", FILES.format(protocol=protocol, **place)))
    return f"http://{play.address}:{play.port}"


def verify(play: Scene, files: Path, written: Mapping[str, str]) -> None:
    """`written`: paths below the scene's folder, and which of the files each is to be."""
    for path, name in written.items():
        assert filecmp.cmp(play.folder / path, files / name, shallow=False), path


def test_files(play: Scene, files: Path) -> None:
    """One after the other on one connection, then many at once on another one."""
    url = serve_files(play, files, "http2")
    out = play.folder / "out"
    gets = [(f"{url}{where}{name}", "--output", f"{out}{where}{name}") for name in SIZES for where in ("/", "/copied/")]
    puts = [("--upload-file", str(files / name), f"{url}/up/{name}") for name in SIZES]
    others = [
        (f"{url}/missing", "--output", "/dev/null"),
        (f"{url}/large", "--head", "--output", "/dev/null"),
        (f"{url}/large", "--range", f"{RANGE}-{2 * RANGE - 1}", "--output", "/dev/null"),
    ]
    done = curl(play, [*gets, *puts, *others], "--create-dirs")
    assert [each.http_code for each in done] == [200] * len(gets) + [201] * len(puts) + [404, 200, 206]
    assert [each.size_upload for each in done if each.http_code == 201] == list(SIZES.values())
    assert [each.size_download for each in done[-2:]] == [0, RANGE]

    together = [
        *((f"{url}/{name}", "--output", f"{out}/{number}-{name}") for number in range(20) for name in SIMPLE),
        *(("--upload-file", str(files / name), f"{url}/up/{number}-{name}") for number in range(20) for name in SIMPLE),
    ]
    parallel = curl(play, together, "--parallel", "--parallel-max", "20")
    play.check(plain([*done, *parallel]))
    assert play.reading().recognised == {"http2": 2}

    verify(play, files, {f"{folder}/{name}": name for name in SIZES for folder in ("out", "out/copied", "up")})
    several = [(f"{number}-{name}", name) for number in range(20) for name in SIMPLE]
    verify(play, files, {f"{folder}/{path}": name for path, name in several for folder in ("out", "up")})


def test_grpc(play: Scene, files: Path) -> None:
    """Calls that are written by hand, several on one connection."""
    pytest.importorskip("grpc", reason="needs grpcio")
    peer = str(Path(__file__).parent / "peers" / "grpcio_aio.py")
    server = play.serve([sys.executable, peer, "serve", play.address, str(play.port)])
    asked = [*(("Unary", contract.message(size), 0) for size in (0, *SIZES.values())), ("Fail", b"\5", 5)]
    # An answer that comes before the request's end makes curl 7.88 fail: nothing but headers is sent there.
    asked.append(("Missing", None, contract.UNIMPLEMENTED))
    transfers, expected = [], []
    for number, (method, message, status) in enumerate(asked):
        into = play.folder
        sent = b"" if message is None else struct.pack("!BI", 0, len(message)) + message
        (into / f"body-{number}").write_bytes(sent)
        transfers.append(
            (
                *("--header", "content-type: application/grpc", "--header", "te: trailers"),
                *(("--request", "POST") if message is None else ("--data-binary", f"@{into}/body-{number}")),
                *("--dump-header", f"{into}/headers-{number}", "--output", f"{into}/answer-{number}"),
                f"http://{play.address}:{play.port}{contract.path(method)}",
            )
        )
        requests, answers = int(message is not None), int(status == 0)
        expected.append(Count(contract.path(method), status, 1, requests, answers, len(sent), answers * len(sent)))
    done = curl(play, transfers)
    verify(play, play.folder, {f"answer-{number}": f"body-{number}" for number in range(len(SIZES) + 1)})
    rows = play.check(expected)
    assert play.stop(server)["handled"] == {"Unary": len(SIZES) + 1, "Fail": 1}
    assert play.reading().recognised == {"http2": 1}
    assert {(row.http_status, row.ending) for row in rows} == {(200, "complete")}

    # The programs agree with what is expected.
    assert [(each.size_upload, each.size_download) for each in done] == [
        (each.request_bytes, each.response_bytes) for each in expected
    ]
    for number, (_, _, status) in enumerate(asked):
        headers = (play.folder / f"headers-{number}").read_text()
        assert f"grpc-status: {status}\n" in headers, headers


def over_http1(play: Scene, files: Path, names: Iterable[str]) -> list[Transfer]:
    """Downloads and uploads on one connection."""
    url = serve_files(play, files, "")
    gets = [(f"{url}{where}{name}", "--output", "/dev/null") for name in names for where in ("/", "/copied/")]
    puts = [("--upload-file", str(files / name), f"{url}/up/{name}") for name in names]
    done = curl(play, [*gets, *puts], http2=False)
    verify(play, files, {f"up/{name}": name for name in names})
    return done


def test_http1(play: Scene, files: Path) -> None:
    """Is recognised and left alone."""
    over_http1(play, files, SIZES)
    assert play.rows() == []
    reading = play.reading()
    assert (reading.recognised, reading.unread) == ({"http1": 1}, {"http1": 1})


loopback = pytest.mark.parametrize("play", [each for each in PLACEMENTS if each.topology == "loopback"], indirect=True)


@loopback
def test_bytes_of_http1(play: Scene, files: Path) -> None:
    done = over_http1(play, files, SIZES)
    streams = play.streams(1)
    assert streams.sent_bytes == sum(each.size_request + each.size_upload for each in done)
    assert streams.received_bytes == sum(each.size_header + each.size_download for each in done)


@loopback
def test_openings_of_http1(play: Scene, files: Path) -> None:
    over_http1(play, files, SIMPLE)
    streams = play.streams(1)
    assert (streams.opened, streams.closed) == (1, 1)
