"""Calls as Prometheus metrics: Istio's names and labels, and zerohop's own by method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from zerohop.kernel.histograms import DURATION_NS, ISTIO_BOUNDS, SIZE_BYTES
from zerohop.kernel.telemetry import Calls, Reading, Streams, Workload

UNKNOWN: Final = "unknown"
OTHER: Final = "other"
CLUSTER: Final = "Kubernetes"

# Envoy's %RESPONSE_FLAGS%: downstream and upstream as a proxy between the two would have it.
_FLAGS: Final = {"complete": "-", "client_reset": "DR", "server_reset": "UR", "closed": "UC", "unread": "NFCF"}
_PROTOCOLS: Final = {"grpc": "grpc", "http": "http", "http2": "http"}

_END_LABELS: Final = (
    "workload", "workload_namespace", "principal", "app", "version", "cluster", "canonical_service",
    "canonical_revision",
)  # fmt: skip
_COMMON: Final = (
    "reporter",
    *(f"source_{name}" for name in _END_LABELS),
    *(f"destination_{name}" for name in _END_LABELS),
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "connection_security_policy",
)
_REQUEST: Final = (*_COMMON, "response_code", "grpc_response_status", "response_flags")
_METHOD: Final = ("source", "source_namespace", "destination", "destination_namespace", "service", "method")

# `NS/NAME` of a workload to its Kubernetes labels.
WorkloadLabels = Mapping[str, Mapping[str, str]]


class _Table:
    """Values added up under equal labels: scalars by name, histograms by bucket."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], dict[str, int]] = {}
        self.buckets: dict[tuple[str, ...], dict[str, list[int]]] = {}

    def add(self, labels: tuple[str, ...], sums: Mapping[str, int], buckets: Mapping[str, Iterable[int]]) -> None:
        row = self.sums.setdefault(labels, {})
        for name, value in sums.items():
            row[name] = row.get(name, 0) + value
        histograms = self.buckets.setdefault(labels, {})
        for name, counts in buckets.items():
            known = histograms.get(name)
            histograms[name] = list(counts) if known is None else [a + b for a, b in zip(known, counts, strict=True)]


def _end(workload: Workload | None, labels: WorkloadLabels) -> tuple[str, ...]:
    if workload is None:
        return (UNKNOWN,) * len(_END_LABELS)
    own = labels.get(f"{workload.namespace}/{workload.name}", {})
    app = own.get("app", own.get("app.kubernetes.io/name", UNKNOWN))
    version = own.get("version", own.get("app.kubernetes.io/version", UNKNOWN))
    return (
        workload.name,
        workload.namespace,
        f"spiffe://{workload.principal}",
        app,
        version,
        CLUSTER,
        own.get("service.istio.io/canonical-name", app if app != UNKNOWN else workload.name),
        own.get("service.istio.io/canonical-revision", version if version != UNKNOWN else "latest"),
    )


def _common(row: Calls | Streams, labels: WorkloadLabels, protocol: str) -> Iterator[tuple[str, ...]]:
    """The labels that all have, once for each managed end that reports."""
    service = row.service
    for reporter, end in (("source", row.source), ("destination", row.destination)):
        if end is not None:
            yield (
                reporter,
                *_end(row.source, labels),
                *_end(row.destination, labels),
                service.host if service else UNKNOWN,
                service.name if service else UNKNOWN,
                service.namespace if service else UNKNOWN,
                protocol,
                "none",
            )


def _cumulative(bounds: Iterable[float], counts: list[int], all_bounds: tuple[int, ...]) -> list[tuple[str, float]]:
    """Prometheus buckets at `bounds`, a part of the ascending `all_bounds` that the kernel counts by."""
    found: list[tuple[str, float]] = []
    at = total = 0
    for bound in bounds:
        while at < len(all_bounds) and all_bounds[at] <= bound:
            total += counts[at]
            at += 1
        found.append((f"{bound:g}", total))
    return [*found, ("+Inf", float(sum(counts)))]


def istio_calls(rows: Iterable[Calls], labels: WorkloadLabels) -> Iterator[Metric]:
    """Istio's request metrics, from rows that have ended."""
    table = _Table()
    for row in rows:
        if row.ending == "open":
            continue
        request = (
            str(row.http_status),
            "" if row.grpc_status is None else str(row.grpc_status),
            _FLAGS[row.ending],
        )
        sums = {
            "calls": row.calls,
            "duration_ns": row.duration_ns,
            "request_bytes": row.request_bytes,
            "response_bytes": row.response_bytes,
            "request_messages": row.request_messages,
            "response_messages": row.response_messages,
        }
        histograms = {
            "durations": row.durations.counts,
            "request_sizes": row.request_sizes.counts,
            "response_sizes": row.response_sizes.counts,
        }
        for common in _common(row, labels, _PROTOCOLS.get(row.protocol, "http")):
            table.add((*common, *request), sums, histograms)

    def counter(name: str, help_text: str, field: str, grpc_only: bool = False) -> Metric:
        family = CounterMetricFamily(name, help_text, labels=_REQUEST)
        protocol = _REQUEST.index("request_protocol")
        for key, values in table.sums.items():
            if not grpc_only or key[protocol] == "grpc":
                family.add_metric(key, values[field])
        return family

    def histogram(
        name: str, help_text: str, field: str, total: str, scale: float, all_bounds: tuple[int, ...]
    ) -> Metric:
        family = HistogramMetricFamily(name, help_text, labels=_REQUEST)
        for key, values in table.sums.items():
            buckets = _cumulative([bound * scale for bound in ISTIO_BOUNDS], table.buckets[key][field], all_bounds)
            named = [(f"{bound:g}", count) for bound, (_, count) in zip(ISTIO_BOUNDS, buckets[:-1], strict=True)]
            family.add_metric(key, [*named, buckets[-1]], sum_value=values[total] / scale)
        return family

    yield counter("istio_requests", "Calls and requests that have ended.", "calls")
    yield histogram(
        "istio_request_duration_milliseconds",
        "Start of the request to end of the response.",
        "durations", "duration_ns", 1e6, DURATION_NS,
    )  # fmt: skip
    yield histogram("istio_request_bytes", "Body of the request.", "request_sizes", "request_bytes", 1, SIZE_BYTES)
    yield histogram("istio_response_bytes", "Body of the response.", "response_sizes", "response_bytes", 1, SIZE_BYTES)
    yield counter("istio_request_messages", "gRPC messages of clients.", "request_messages", grpc_only=True)
    yield counter("istio_response_messages", "gRPC messages of servers.", "response_messages", grpc_only=True)


def istio_streams(rows: Iterable[Streams], labels: WorkloadLabels) -> Iterator[Metric]:
    """Istio's TCP metrics: connections that the engine does not read. As in Istio, `sent` is what the server sent."""
    names = (
        ("istio_tcp_connections_opened", "Connections opened.", "opened"),
        ("istio_tcp_connections_closed", "Connections closed.", "closed"),
        ("istio_tcp_sent_bytes", "Bytes of responses, counted when a connection has closed.", "received_bytes"),
        ("istio_tcp_received_bytes", "Bytes of requests, counted when a connection has closed.", "sent_bytes"),
    )
    table = _Table()
    for row in rows:
        for common in _common(row, labels, "tcp"):
            table.add((*common, "-"), {field: getattr(row, field) for _, _, field in names}, {})
    for name, help_text, field in names:
        family = CounterMetricFamily(name, help_text, labels=(*_COMMON, "response_flags"))
        for key, values in table.sums.items():
            family.add_metric(key, values[field])
        yield family


def calls_by_method(rows: Iterable[Calls]) -> Iterator[Metric]:
    """zerohop's own: by workloads, service, method and status."""
    rows = list(rows)

    def labels(row: Calls) -> tuple[str, ...]:
        return (
            row.source.name if row.source else UNKNOWN,
            row.source.namespace if row.source else UNKNOWN,
            row.destination.name if row.destination else UNKNOWN,
            row.destination.namespace if row.destination else UNKNOWN,
            f"{row.service.namespace}/{row.service.name}" if row.service else UNKNOWN,
            row.method or OTHER,
        )

    def counter(
        name: str, help_text: str, more: tuple[str, ...], value: Callable[[Calls], Mapping[tuple[str, ...], int]]
    ) -> Metric:
        sums: dict[tuple[str, ...], int] = {}
        for row in ended:
            for extra, count in value(row).items():
                key = (*labels(row), *extra)
                sums[key] = sums.get(key, 0) + count
        family = CounterMetricFamily(name, help_text, labels=(*_METHOD, *more))
        for key, count in sums.items():
            family.add_metric(key, count)
        return family

    def status(row: Calls) -> tuple[str, ...]:
        return ("" if row.grpc_status is None else str(row.grpc_status),)

    ended = [row for row in rows if row.ending != "open"]
    flight: dict[tuple[str, ...], int] = {}
    durations: dict[tuple[str, ...], tuple[list[int], int]] = {}
    for row in rows:
        key = labels(row)
        flight[key] = flight.get(key, 0) + (row.calls if row.ending == "open" else -row.calls)
    for row in ended:
        key = (*labels(row), *status(row))
        counts, total = durations.get(key, ([0] * (len(DURATION_NS) + 1), 0))
        durations[key] = (
            [a + b for a, b in zip(counts, row.durations.counts, strict=True)],
            total + row.duration_ns,
        )
    yield counter("zerohop_calls", "Calls that have ended.", ("grpc_status",), lambda row: {status(row): row.calls})
    family = HistogramMetricFamily(
        "zerohop_call_duration_seconds",
        "Start of the request to end of the response.",
        labels=(*_METHOD, "grpc_status"),
    )
    for key, (counts, total) in durations.items():
        buckets = _cumulative(DURATION_NS, counts, DURATION_NS)
        named = [(f"{bound / 1e9:g}", count) for bound, (_, count) in zip(DURATION_NS, buckets[:-1], strict=True)]
        family.add_metric(key, [*named, buckets[-1]], sum_value=total / 1e9)
    yield family
    for way in ("request", "response"):
        for what in ("bytes", "messages"):
            field = f"{way}_{what}"
            yield counter(f"zerohop_{field}", f"{what.capitalize()} of {way}s.", (), _field(field))
    yield counter(
        "zerohop_call_resets",
        "Calls whose stream was reset.",
        ("by",),
        lambda row: {(row.ending.removesuffix("_reset"),): row.calls} if row.ending.endswith("_reset") else {},
    )
    yield counter(
        "zerohop_deadlines_exceeded",
        "Calls that their caller gave up at the deadline, or that ended with DEADLINE_EXCEEDED.",
        (),
        lambda row: {(): row.calls} if row.deadline_exceeded else {},
    )
    gauge = GaugeMetricFamily("zerohop_calls_in_flight", "Calls that have begun and not ended.", labels=_METHOD)
    for key, count in flight.items():
        gauge.add_metric(key, max(0, count))
    yield gauge


def _field(name: str) -> Callable[[Calls], Mapping[tuple[str, ...], int]]:
    return lambda row: {(): getattr(row, name)}


def reading_metrics(reading: Reading) -> Iterator[Metric]:
    """What became of connections on layer-7 ports."""
    family = CounterMetricFamily(
        "zerohop_connections_recognised", "Connections on layer-7 ports by what they speak.", labels=["protocol"]
    )
    for name, count in reading.recognised.items():
        family.add_metric([name], count)
    yield family
    family = CounterMetricFamily(
        "zerohop_connections_unread", "Connections on layer-7 ports that are not read (any further).", labels=["reason"]
    )
    for name, count in reading.unread.items():
        family.add_metric([name], count)
    yield family
    yield CounterMetricFamily("zerohop_http2_resets", "RST_STREAM frames.", reading.resets)
    yield CounterMetricFamily("zerohop_http2_goaways", "GOAWAY frames.", reading.goaways)
    yield CounterMetricFamily(
        "zerohop_telemetry_overflows", "Calls counted under the method `other` for want of room.", reading.overflows
    )
