"""Calls and connections under Istio's names and labels, so that its dashboards and Kiali find what they look for.

https://istio.io/latest/docs/reference/config/metrics/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from zerohop.kernel.histograms import DURATION_NS, ISTIO_BOUNDS
from zerohop.kernel.telemetry import Calls, Streams, Workload
from zerohop.telemetry.flags import RESPONSE_FLAGS
from zerohop.telemetry.prometheus import counter, histogram, label_text

UNKNOWN: Final = "unknown"
CLUSTER: Final = "Kubernetes"

# `NS/NAME` of a workload to its Kubernetes labels.
WorkloadLabels = Mapping[str, Mapping[str, str]]

_END_LABELS: Final = (
    "workload", "workload_namespace", "principal", "app", "version", "cluster", "canonical_service",
    "canonical_revision",
)  # fmt: skip
_SERVICE_LABELS: Final = ("destination_service", "destination_service_name", "destination_service_namespace")

# Where in the kernel's finer buckets those of Istio end.
_ENDS: Final = [DURATION_NS.index(round(bound * 1_000_000)) + 1 for bound in ISTIO_BOUNDS]
_SLICES: Final = [slice(a, b) for a, b in zip((0, *_ENDS), (*_ENDS, len(DURATION_NS) + 1), strict=True)]


def _first(labels: Mapping[str, str], *names: str, default: str) -> str:
    return next((labels[name] for name in names if name in labels), default)


def end_labels(workload: Workload | None, labels: WorkloadLabels) -> tuple[str, ...]:
    """What Istio says of an end, in the order of its labels, taken from the workload's own as Istio takes them."""
    if workload is None:
        return (UNKNOWN,) * len(_END_LABELS)
    own = labels.get(f"{workload.namespace}/{workload.name}", {})
    app, version = ("app.kubernetes.io/name", "app"), ("app.kubernetes.io/version", "version")
    return (
        workload.name,
        workload.namespace,
        f"spiffe://{workload.principal}",
        _first(own, *app, default=UNKNOWN),
        _first(own, *version, default=UNKNOWN),
        CLUSTER,
        _first(own, "service.istio.io/canonical-name", *app, default=workload.name),
        _first(own, "service.istio.io/canonical-revision", *version, default="latest"),
    )


class _Ends:
    """The labels that all of Istio's metrics have, as text."""

    def __init__(self, labels: WorkloadLabels) -> None:
        self._labels = labels
        self._known: dict[tuple[str, Workload | None], str] = {}

    def _end(self, side: str, workload: Workload | None) -> str:
        text = self._known.get((side, workload))
        if text is None:
            text = label_text([f"{side}_{name}" for name in _END_LABELS], end_labels(workload, self._labels))
            self._known[side, workload] = text
        return text

    def reports(self, row: Calls | Streams, protocol: str) -> Iterator[str]:
        """Once for each managed end, which reports."""
        service = row.service
        names = (service.host, service.name, service.namespace) if service else (UNKNOWN,) * 3
        common = (
            f"{self._end('source', row.source)},{self._end('destination', row.destination)},"
            f"{label_text(_SERVICE_LABELS, names)},"
            f'request_protocol="{protocol}",connection_security_policy="none"'
        )
        if row.source:
            yield f'reporter="source",{common}'
        if row.destination:
            yield f'reporter="destination",{common}'


@dataclass(slots=True)
class _Requests:
    grpc: bool
    calls: int = 0
    duration_ns: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    request_messages: int = 0
    response_messages: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * len(_SLICES))
    request_sizes: list[int] = field(default_factory=lambda: [0] * len(_SLICES))
    response_sizes: list[int] = field(default_factory=lambda: [0] * len(_SLICES))

    def add(self, row: Calls, durations: list[int]) -> None:
        self.calls += row.calls
        self.duration_ns += row.duration_ns
        self.request_bytes += row.request_bytes
        self.response_bytes += row.response_bytes
        self.request_messages += row.request_messages
        self.response_messages += row.response_messages
        self.durations = list(map(int.__add__, self.durations, durations))
        self.request_sizes = list(map(int.__add__, self.request_sizes, row.request_sizes.counts))
        self.response_sizes = list(map(int.__add__, self.response_sizes, row.response_sizes.counts))


class IstioRequests:
    """Calls that have ended, added up under equal labels: Istio has none for the method."""

    def __init__(self, labels: WorkloadLabels) -> None:
        self._ends = _Ends(labels)
        self._rows: dict[str, _Requests] = {}

    def add(self, row: Calls) -> None:
        if row.ending == "open":
            return
        durations = [sum(row.durations.counts[each]) for each in _SLICES]
        grpc = row.protocol == "grpc"
        status = "" if row.grpc_status is None else row.grpc_status
        answer = (
            f'response_code="{row.http_status}",grpc_response_status="{status}",'
            f'response_flags="{RESPONSE_FLAGS[row.ending]}"'
        )
        for common in self._ends.reports(row, "grpc" if grpc else "http"):
            labels = f"{common},{answer}"
            known = self._rows.get(labels)
            if known is None:
                known = self._rows[labels] = _Requests(grpc)
            known.add(row, durations)

    def text(self) -> Iterator[str]:
        rows = self._rows.items()
        grpc = [(labels, row) for labels, row in rows if row.grpc]
        yield from counter(
            "istio_requests_total", "Requests that have ended.", ((labels, row.calls) for labels, row in rows)
        )
        yield from histogram(
            "istio_request_duration_milliseconds", "From the request's beginning to the response's end.", ISTIO_BOUNDS,
            ((labels, row.durations, row.duration_ns / 1e6) for labels, row in rows),
        )  # fmt: skip
        yield from histogram(
            "istio_request_bytes", "Bodies of requests.", ISTIO_BOUNDS,
            ((labels, row.request_sizes, row.request_bytes) for labels, row in rows),
        )  # fmt: skip
        yield from histogram(
            "istio_response_bytes", "Bodies of responses.", ISTIO_BOUNDS,
            ((labels, row.response_sizes, row.response_bytes) for labels, row in rows),
        )  # fmt: skip
        yield from counter(
            "istio_request_messages_total", "gRPC messages of clients.",
            ((labels, row.request_messages) for labels, row in grpc),
        )  # fmt: skip
        yield from counter(
            "istio_response_messages_total", "gRPC messages of servers.",
            ((labels, row.response_messages) for labels, row in grpc),
        )  # fmt: skip


class IstioConnections:
    """Connections that the engine does not read, added up under equal labels. `sent` is what the server sent."""

    def __init__(self, labels: WorkloadLabels) -> None:
        self._ends = _Ends(labels)
        self._rows: dict[str, list[int]] = {}

    def add(self, row: Streams) -> None:
        for common in self._ends.reports(row, "tcp"):
            sums = self._rows.setdefault(f'{common},response_flags="-"', [0] * 4)
            values = (row.opened, row.closed, row.received_bytes, row.sent_bytes)
            sums[:] = [a + b for a, b in zip(sums, values, strict=True)]

    def text(self) -> Iterator[str]:
        for index, (name, help_text) in enumerate(
            (
                ("istio_tcp_connections_opened_total", "Connections opened."),
                ("istio_tcp_connections_closed_total", "Connections closed."),
                ("istio_tcp_sent_bytes_total", "Bytes of servers, counted when a connection has closed."),
                ("istio_tcp_received_bytes_total", "Bytes of clients, counted when a connection has closed."),
            )
        ):
            yield from counter(name, help_text, ((labels, row[index]) for labels, row in self._rows.items()))
