"""`http2`: `h2load` (connections x streams) against `nghttpd`, answers of 100 bytes, no TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zerohop.bench import h2load
from zerohop.bench.h2load import H2Load
from zerohop.bench.sockets import wait_listening
from zerohop.bench.stage import Stage
from zerohop.bench.workloads.base import service_document, workload_documents

ANSWER_BYTES: Final = 100


class Http2:
    name = "http2"
    cases: tuple[str, ...] = ("1x1", "8x1", "8x10", "64x10")
    unit = "request"
    may_leave = False
    counted_as = "http2 200"
    frames = 3  # HEADERS; HEADERS, DATA

    def prepare(self, scratch: Path) -> dict[str, str]:
        versions = {program: h2load.version(program) for program in ("h2load", "nghttpd")}
        self._documents = scratch / "documents"
        self._documents.mkdir(exist_ok=True)
        (self._documents / "answer").write_bytes(b"x" * ANSWER_BYTES)
        return versions

    def configuration(self, port: int) -> str:
        return workload_documents(shortcut="Auto") + service_document("http2", port)

    @contextmanager
    def serving(self, case: str, stage: Stage) -> Iterator[H2Load]:
        port = str(stage.port)
        command = ("nghttpd", "--no-tls", "-a", stage.address, "-d", str(self._documents), port)
        with stage.start("server", command) as server:
            wait_listening(server, stage.port, stage.deadline())
            connections, streams = case.split("x")
            with stage.fronted(server) as front:
                yield H2Load(int(connections), int(streams), f"http://{stage.address}:{front.port}/answer")
            server.require_running()
