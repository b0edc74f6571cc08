"""The Prometheus endpoint: what the kernel counted, read from the maps at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zerohop.errors import ZerohopError
from zerohop.kernel.status import Status
from zerohop.kernel.telemetry import Calls, Reading, Streams
from zerohop.telemetry import prometheus


@dataclass(frozen=True)
class Scrape:
    """One reading of everything. `labels`: `NS/NAME` of a workload to its labels in the configuration."""

    status: Status
    calls: list[Calls]
    streams: list[Streams]
    reading: Reading
    labels: prometheus.WorkloadLabels
    flow_records_lost: int  # by the access log


class MeshCollector(Collector):
    """One scrape is one inspection of the kernel."""

    def __init__(self, read: Callable[[], Scrape]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        scrape = self._read()
        status = scrape.status
        totals = status.totals
        yield CounterMetricFamily(
            "zerohop_connections_opened", "Connections with a managed end.", totals.connections_opened
        )
        yield CounterMetricFamily(
            "zerohop_shortcut_connections_opened",
            "Connections that took the short-cut.",
            totals.shortcut_connections_opened,
        )
        carried = CounterMetricFamily("zerohop_bytes", "Payload bytes by carrier.", labels=["carrier"])
        carried.add_metric(["shortcut"], totals.shortcut_bytes)
        carried.add_metric(["tcp"], totals.tcp_bytes)
        yield carried
        reasons = CounterMetricFamily(
            "zerohop_not_shortcut", "Connections that are not short-cut, by reason.", labels=["reason"]
        )
        for reason, count in totals.not_shortcut.items():
            reasons.add_metric([reason], count)
        yield reasons
        errors = CounterMetricFamily("zerohop_helper_errors", "Kernel helpers that failed.", labels=["helper"])
        for helper, count in totals.errors.items():
            errors.add_metric([helper], count)
        yield errors
        open_now = GaugeMetricFamily(
            "zerohop_connections",
            "Open connections.",
            labels=["workload_namespace", "workload", "shortcut"],
        )
        for each in status.workloads:
            open_now.add_metric([each.namespace, each.name, "true"], each.shortcut_connections)
            open_now.add_metric([each.namespace, each.name, "false"], each.connections - each.shortcut_connections)
        yield open_now
        yield GaugeMetricFamily("zerohop_config_generation", "Configuration in force.", status.generation)
        yield GaugeMetricFamily("zerohop_unread_members", "Members whose queue nobody reads.", len(status.unread))
        yield GaugeMetricFamily("zerohop_map_bytes", "Kernel memory of the maps.", status.map_bytes)
        yield from prometheus.istio_calls(scrape.calls, scrape.labels)
        yield from prometheus.istio_streams(scrape.streams, scrape.labels)
        yield from prometheus.calls_by_method(scrape.calls)
        yield from prometheus.reading_metrics(scrape.reading)
        yield CounterMetricFamily(
            "zerohop_flow_records_lost",
            "Flow records that were overwritten before the access log had them.",
            scrape.flow_records_lost,
        )


def serve_metrics(address: str, port: int, read: Callable[[], Scrape]) -> WSGIServer:
    """Serves /metrics from a daemon thread; raises `ZerohopError` when the address is taken."""
    registry = CollectorRegistry()
    registry.register(MeshCollector(read))
    try:
        server, _ = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise ZerohopError(
            f"cannot serve metrics on {address}:{port}: {error.strerror}",
            hint="name another with --metrics ADDRESS:PORT",
        ) from error
    return server
