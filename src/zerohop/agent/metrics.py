"""The Prometheus endpoint: what the kernel counted, read from the maps at each scrape."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from zerohop.errors import ZerohopError
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.status import Status, read_status
from zerohop.kernel.telemetry import Names, Reading, iterate_calls, read_reading, read_streams
from zerohop.telemetry.istio import IstioConnections, IstioRequests, WorkloadLabels
from zerohop.telemetry.methods import Methods
from zerohop.telemetry.prometheus import CONTENT_TYPE, counter, gauge, label_text

log = logging.getLogger("zerohop")

CHUNK_BYTES: Final = 1 << 16
CLIENT_SECONDS: Final = 30


def read_metrics(path: DataPath, names: Names, labels: WorkloadLabels, flow_records_lost: int) -> Iterator[str]:
    """Reads everything at once, and gives the text bit by bit. `flow_records_lost`: by the access log."""
    status = read_status(path)
    names.refresh()
    requests, connections, methods = IstioRequests(labels), IstioConnections(labels), Methods()
    for row in iterate_calls(path, names):
        requests.add(row)
        methods.add(row)
    for stream in read_streams(path, names):
        connections.add(stream)
    reading = read_reading(path)

    def text() -> Iterator[str]:
        yield from _status(status)
        yield from _reading(reading)
        yield from counter(
            "zerohop_flow_records_lost_total", "Flow records that the access log does not have: it was too slow.",
            [("", flow_records_lost)],
        )  # fmt: skip
        yield from requests.text()
        yield from connections.text()
        yield from methods.text()

    return text()


def _by(label: str, counts: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    return ((label_text([label], [name]), count) for name, count in counts.items())


def _status(status: Status) -> Iterator[str]:
    totals = status.totals
    yield from counter(
        "zerohop_connections_opened_total", "Connections with a managed end.", [("", totals.connections_opened)]
    )
    yield from counter(
        "zerohop_shortcut_connections_opened_total", "Connections that took the short-cut.",
        [("", totals.shortcut_connections_opened)],
    )  # fmt: skip
    yield from counter(
        "zerohop_bytes_total", "Payload bytes by carrier.",
        _by("carrier", {"shortcut": totals.shortcut_bytes, "tcp": totals.tcp_bytes}),
    )  # fmt: skip
    yield from counter(
        "zerohop_not_shortcut_total", "Connections that are not short-cut, by reason.",
        _by("reason", totals.not_shortcut),
    )  # fmt: skip
    yield from counter(
        "zerohop_policy_denied_total", "What policies did not let be: connections at connect or once made, and calls.",
        _by("what", {"connect": totals.refused_connections, "connection": totals.denied_connections,
                     "call": totals.denied_calls}),
    )  # fmt: skip
    yield from counter(
        "zerohop_policy_audited_total", "What AUDIT policies match: connections whose calls nobody judges, and calls.",
        _by("what", {"connection": totals.audited_connections, "call": totals.audited_calls}),
    )  # fmt: skip
    yield from counter(
        "zerohop_policy_dry_run_denied_total", "What would be denied if dry-run policies were in force.",
        _by("what", {"connection": totals.dry_run_denied_connections, "call": totals.dry_run_denied_calls}),
    )  # fmt: skip
    yield from counter("zerohop_helper_errors_total", "Kernel helpers that failed.", _by("helper", totals.errors))
    yield from gauge(
        "zerohop_connections", "Open connections.",
        (
            (label_text(("workload_namespace", "workload", "shortcut"), (each.namespace, each.name, kind)), count)
            for each in status.workloads
            for kind, count in (
                ("true", each.shortcut_connections),
                ("false", each.connections - each.shortcut_connections),
            )
        ),
    )  # fmt: skip
    yield from gauge("zerohop_config_generation", "Configuration in force.", [("", status.generation)])
    yield from gauge("zerohop_unread_members", "Members whose queue nobody reads.", [("", len(status.unread))])
    yield from gauge("zerohop_map_bytes", "Kernel memory of the maps.", [("", status.map_bytes)])


def _reading(reading: Reading) -> Iterator[str]:
    yield from counter(
        "zerohop_connections_recognised_total", "Connections on layer-7 ports, by what their client speaks.",
        _by("protocol", reading.recognised),
    )  # fmt: skip
    yield from counter(
        "zerohop_connections_unread_total", "Connections on layer-7 ports that are not read (any further), by reason.",
        _by("reason", reading.unread),
    )  # fmt: skip
    yield from counter("zerohop_http2_resets_total", "RST_STREAM frames.", [("", reading.resets)])
    yield from counter("zerohop_http2_goaways_total", "GOAWAY frames.", [("", reading.goaways)])
    yield from counter(
        "zerohop_calls_overflow_total", "Calls counted under the method `other` for want of room.",
        [("", reading.overflows)],
    )  # fmt: skip


def chunks(text: Iterator[str], *, compress: bool) -> Iterator[bytes]:
    """The text in pieces that are worth a write each."""
    packer = zlib.compressobj(level=1, wbits=31) if compress else None
    pending: list[str] = []
    size = 0
    for piece in text:
        pending.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            chunk = "".join(pending).encode()
            yield packer.compress(chunk) if packer else chunk
            pending, size = [], 0
    chunk = "".join(pending).encode()
    yield packer.compress(chunk) + packer.flush() if packer else chunk


class _Server(ThreadingHTTPServer):
    def __init__(self, address: str, port: int, read: Callable[[], Iterator[str]]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.read = read
        super().__init__((address, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may go away; anything else belongs into the log and not on a bare stderr."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            log.exception("serving metrics to %s failed", client_address[0])


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_SECONDS

    def do_GET(self) -> None:
        if self.path.partition("?")[0] not in ("/", "/metrics"):
            self.send_error(404, "metrics are at /metrics")
            return
        try:
            text = self.server.read()
        except (ZerohopError, OSError) as error:
            log.warning("no metrics this time: %s", error)
            self.send_error(503, "the kernel's tables could not be read")
            return
        compress = "gzip" in self.headers.get("Accept-Encoding", "")
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        if compress:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        for chunk in chunks(text, compress=compress):
            self.wfile.write(chunk)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Scrapes come all the time: nobody wants a line for each."""


def serve_metrics(address: str, port: int, read: Callable[[], Iterator[str]]) -> int:
    """Serves /metrics from a daemon thread, one reading at a time; returns the port.

    Raises `ZerohopError` when the address is taken.
    """
    reading = threading.Lock()

    def read_alone() -> Iterator[str]:
        with reading:
            return read()

    try:
        server = _Server(address, port, read_alone)
    except OSError as error:
        raise ZerohopError(
            f"cannot serve metrics on {address}:{port}: {error.strerror}",
            hint="name another with --metrics ADDRESS:PORT",
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port
