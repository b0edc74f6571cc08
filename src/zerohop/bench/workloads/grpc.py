"""`grpc`: unary calls of 100 bytes there and back, by `ghz` where there is one, else by `h2load`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import resources
from pathlib import Path
from typing import Final, Protocol

from zerohop.bench import ghz, h2load
from zerohop.bench.ghz import Ghz
from zerohop.bench.gobuild import build_go_server
from zerohop.bench.h2load import H2Load
from zerohop.bench.sockets import wait_listening
from zerohop.bench.stage import Stage
from zerohop.bench.workloads.base import Client, service_document, workload_documents
from zerohop.errors import UnsupportedError, ZerohopError

MESSAGE_BYTES: Final = 100
SERVICE: Final = "bench.Echo"
METHOD: Final = "Unary"
FORBIDDEN: Final = "Forbidden"
ANSWER_TRAILER: Final = "grpc-status: 0"
NOT_FOUND: Final = "404"

CASES: Final = {"1": (1, 1), "50": (1, 50), "8x32": (8, 32)}
"""Connections, and calls at once on each."""


def message() -> bytes:
    """A google.protobuf.StringValue of MESSAGE_BYTES: field 1, its length, as many letters."""
    text = b"x" * (MESSAGE_BYTES - 2)
    return bytes((1 << 3 | 2, len(text))) + text


def prefixed(content: bytes) -> bytes:
    """A message as it stands in DATA: not compressed, its length in four bytes, itself."""
    return b"\0" + len(content).to_bytes(4, "big") + content


class Peers(Protocol):
    path: str
    """Of the method, as the client asks for it."""

    def serving(self, case: str, stage: Stage) -> AbstractContextManager[Client]:
        """A server on `stage` for the block, and the client that calls it as `case` says."""

    def call_forbidden(self, stage: Stage, count: int) -> None:
        """Makes exactly `count` calls of another method, one at a time; `ZerohopError` where they are seen to pass."""


class Nghttp2Peers:
    """`nghttpd`, which answers with a file and a trailer, and `h2load`, which posts a file."""

    versions: dict[str, str]

    def __init__(self, scratch: Path) -> None:
        self.versions = {program: h2load.version(program) for program in ("h2load", "nghttpd")}
        content = prefixed(message())
        self._request = scratch / "request"
        self._request.write_bytes(content)
        # nghttpd tells a file's type by its suffix only, so the method has one, too.
        self._types = scratch / "mime.types"
        self._types.write_text("application/grpc grpc\n", encoding="ascii")
        self.path = f"/{SERVICE}/{METHOD}.grpc"
        self._documents = scratch / "methods"
        (self._documents / SERVICE).mkdir(parents=True, exist_ok=True)
        (self._documents / self.path[1:]).write_bytes(content)

    @contextmanager
    def serving(self, case: str, stage: Stage) -> Iterator[H2Load]:
        with self._serving(case, stage, self.path) as load:
            yield load

    def call_forbidden(self, stage: Stage, count: int) -> None:
        with self._serving("1", stage, f"/{SERVICE}/{FORBIDDEN}.grpc") as load:
            answers = load.statuses(stage, count)
        # Both meshes tell the caller that it may not; nghttpd says that it has no such file.
        if NOT_FOUND in answers or answers.total() != count:
            raise ZerohopError(f"calls that the policies forbid have reached the server: it answered {dict(answers)}")

    @contextmanager
    def _serving(self, case: str, stage: Stage, path: str) -> Iterator[H2Load]:
        documents = ("-d", str(self._documents), f"--mime-types-file={self._types}", "--trailer", ANSWER_TRAILER)
        command = ("nghttpd", "--no-tls", "-a", stage.address, *documents, str(stage.port))
        options = ("-d", str(self._request), "-H", "content-type: application/grpc", "-H", "te: trailers")
        with stage.start("server", command) as server:
            wait_listening(server, stage.port, stage.deadline())
            with stage.fronted(server) as front:
                yield H2Load(*CASES[case], f"http://{stage.address}:{front.port}{path}", options)
            server.require_running()


class GrpcGoPeers:
    """`ghz` and a small server, both made with grpc-go."""

    versions: dict[str, str]
    path = f"/{SERVICE}/{METHOD}"

    def __init__(self, scratch: Path) -> None:
        self._server, built = build_go_server(scratch)
        self.versions = {"ghz": ghz.version(), "grpc-go server": built}
        self._proto = scratch / "echo.proto"
        self._proto.write_bytes(resources.files("zerohop.bench").joinpath("peers", "grpc", "echo.proto").read_bytes())
        self._request = scratch / "message"
        self._request.write_bytes(message())

    @contextmanager
    def serving(self, case: str, stage: Stage) -> Iterator[Ghz]:
        with self._serving(case, stage, METHOD) as load:
            yield load

    def call_forbidden(self, stage: Stage, count: int) -> None:
        with self._serving("1", stage, FORBIDDEN) as load:
            load.call(stage, count, "PermissionDenied")

    @contextmanager
    def _serving(self, case: str, stage: Stage, method: str) -> Iterator[Ghz]:
        with stage.start("server", (str(self._server), f"{stage.address}:{stage.port}")) as server:
            wait_listening(server, stage.port, stage.deadline())
            with stage.fronted(server) as front:
                yield Ghz(front, *CASES[case], self._proto, f"{SERVICE}.{method}", self._request)
            server.require_running()


class Grpc:
    name = "grpc"
    cases: tuple[str, ...] = tuple(CASES)
    unit = "call"
    may_leave = False
    counted_as = "grpc 0"
    frames = 5  # HEADERS, DATA; HEADERS, DATA, HEADERS

    def prepare(self, scratch: Path) -> dict[str, str]:
        peers, versions = choose_peers(scratch)
        self._peers = peers
        return versions

    def configuration(self, port: int) -> str:
        return workload_documents(shortcut="Auto") + service_document("grpc", port)

    def serving(self, case: str, stage: Stage) -> AbstractContextManager[Client]:
        return self._peers.serving(case, stage)


def choose_peers(scratch: Path) -> tuple[Peers, dict[str, str]]:
    """The peers to measure with, and what ran: ghz where its server can be built, else h2load."""
    if shutil.which("ghz") is None:
        nghttp2 = Nghttp2Peers(scratch)
        return nghttp2, nghttp2.versions
    try:
        grpc_go = GrpcGoPeers(scratch)
    except UnsupportedError as error:
        nghttp2 = Nghttp2Peers(scratch)
        return nghttp2, {**nghttp2.versions, "ghz": f"{ghz.version()}, not used: {error}"}
    return grpc_go, grpc_go.versions
