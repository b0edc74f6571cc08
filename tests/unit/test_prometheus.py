"""The text format, parsed back by Prometheus' own library; Istio's labels and buckets; calls added up by method."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from zerohop.agent.metrics import chunks
from zerohop.kernel.histograms import DURATION_NS, ISTIO_BOUNDS
from zerohop.kernel.telemetry import Calls, Histogram, Service, Streams, Workload
from zerohop.telemetry.istio import IstioConnections, IstioRequests, end_labels
from zerohop.telemetry.methods import Methods
from zerohop.telemetry.prometheus import counter, gauge, histogram, label_text

SERVER = Workload("t", "server", "cluster.local/ns/t/sa/default")
CLIENT = Workload("t", "client", "cluster.local/ns/t/sa/caller")
ECHO = Service("t", "echo")

# Istio's, from its documentation: Envoy's default buckets.
ISTIO_LE = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
    "300000", "600000", "1800000", "3600000", "+Inf",
]  # fmt: skip


def parsed(text: Iterator[str]) -> dict[Any, float]:
    """Sample name and labels to value; every sample once."""
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families("".join(text)):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def total(samples: dict[Any, float], name: str, **labels: str) -> float:
    return sum(value for (each, own), value in samples.items() if each == name and labels.items() <= dict(own).items())


def in_bucket(index: int, count: int, length: int) -> Histogram:
    return Histogram(tuple(count if each == index else 0 for each in range(length)))


def row(
    *,
    source: Workload | None = CLIENT,
    destination: Workload | None = SERVER,
    method: str | None = "/t.Echo/One",
    protocol: str = "grpc",
    http_status: int = 200,
    grpc_status: int | None = 0,
    ending: str = "complete",
    calls: int = 1,
    duration_ns: int = 2_000_000,
    size: int = 105,
) -> Calls:
    """Calls that are alike, each of `duration_ns` and of `size` bytes and one message both ways."""
    done = ending != "open"
    bucket = sum(bound < duration_ns for bound in DURATION_NS)
    sizes = in_bucket(sum(int(bound) < size for bound in ISTIO_BOUNDS), calls, 20) if done else Histogram(())
    return Calls(
        source=source,
        destination=destination,
        service=ECHO,
        method=method,
        protocol=protocol,
        http_status=http_status if done else 0,
        grpc_status=grpc_status if done else None,
        ending=ending,
        deadline_exceeded=done and grpc_status == 4,
        calls=calls,
        duration_ns=calls * duration_ns * done,
        request_bytes=calls * size * done,
        response_bytes=calls * size * done,
        request_messages=calls * done,
        response_messages=calls * done,
        durations=in_bucket(bucket, calls, len(DURATION_NS) + 1) if done else Histogram(()),
        request_sizes=sizes,
        response_sizes=sizes,
    )


def istio(*rows: Calls, labels: dict[str, dict[str, str]] | None = None) -> dict[Any, float]:
    table = IstioRequests(labels or {})
    for each in rows:
        table.add(each)
    return parsed(table.text())


def methods(*rows: Calls) -> dict[Any, float]:
    table = Methods()
    for each in rows:
        table.add(each)
    return parsed(table.text())


@given(st.dictionaries(st.sampled_from(["a", "b", "method"]), st.text(st.characters(codec="utf-8")), min_size=1))
def test_any_label_value_comes_back(labels: dict[str, str]) -> None:
    ((_, got),) = parsed(counter("x_total", "Help.", [(label_text(labels, labels.values()), 3)]))
    assert dict(got) == labels


def test_values_without_labels_and_families_without_values() -> None:
    text = "".join([*counter("a_total", "Nothing yet.", []), *gauge("b", "One.", [("", 7)])])
    assert text == "# HELP a_total Nothing yet.\n# TYPE a_total counter\n# HELP b One.\n# TYPE b gauge\nb 7\n"


def test_buckets_of_a_histogram_hold_what_is_below_them() -> None:
    samples = parsed(histogram("h", "Help.", [0.5, 1, 1800000], [('a="b"', [1, 0, 2, 4], 9.5)]))
    assert [(dict(own).get("le"), value) for (_, own), value in samples.items()] == [
        ("0.5", 1), ("1", 1), ("1800000", 3), ("+Inf", 7), (None, 9.5), (None, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("compress", [False, True])
def test_chunks_are_the_text(compress: bool) -> None:
    pieces = ["é" * 40_000, "b\n"] * 5
    sent = b"".join(chunks(iter(pieces), compress=compress))
    assert (gzip.decompress(sent) if compress else sent).decode() == "".join(pieces)


def test_both_ends_report_and_an_unmanaged_one_does_not() -> None:
    samples = istio(row(calls=3), row(source=None, calls=2), row(destination=None, calls=5))
    name = "istio_requests_total"
    assert total(samples, name, reporter="source", source_workload="client", destination_workload="server") == 3
    assert total(samples, name, reporter="destination", source_workload="client") == 3
    assert total(samples, name, reporter="destination", source_workload="unknown") == 2
    assert total(samples, name, reporter="source", destination_workload="unknown") == 5
    assert total(samples, name) == 3 + 3 + 2 + 5


def test_methods_are_one_row_of_istio_and_endings_are_not() -> None:
    samples = istio(
        row(calls=2), row(method="/t.Echo/Two", calls=3), row(method=None),
        row(ending="client_reset", grpc_status=1, http_status=0), row(ending="server_reset", grpc_status=13),
        row(ending="closed", grpc_status=14), row(ending="unread", grpc_status=14), row(ending="open", calls=99),
    )  # fmt: skip
    flags = {
        (dict(own)["response_flags"], dict(own)["grpc_response_status"], dict(own)["response_code"]): value
        for (name, own), value in samples.items()
        if name == "istio_requests_total" and dict(own)["reporter"] == "source"
    }
    assert flags == {
        ("-", "0", "200"): 6, ("DR", "1", "0"): 1, ("UR", "13", "200"): 1, ("UC", "14", "200"): 1,
        ("UNREAD", "14", "200"): 1,
    }  # fmt: skip


def test_istios_labels_are_all_there() -> None:
    samples = istio(row(), labels={"t/server": {"app": "s", "version": "v3"}})
    (labels,) = (
        dict(own)
        for (name, own) in samples
        if name == "istio_requests_total" and dict(own)["reporter"] == "destination"
    )
    assert labels == {
        "reporter": "destination",
        "source_workload": "client",
        "source_workload_namespace": "t",
        "source_principal": "spiffe://cluster.local/ns/t/sa/caller",
        "source_app": "unknown",
        "source_version": "unknown",
        "source_cluster": "Kubernetes",
        "source_canonical_service": "client",
        "source_canonical_revision": "latest",
        "destination_workload": "server",
        "destination_workload_namespace": "t",
        "destination_principal": "spiffe://cluster.local/ns/t/sa/default",
        "destination_app": "s",
        "destination_version": "v3",
        "destination_cluster": "Kubernetes",
        "destination_canonical_service": "s",
        "destination_canonical_revision": "v3",
        "destination_service": "echo.t.svc.cluster.local",
        "destination_service_name": "echo",
        "destination_service_namespace": "t",
        "request_protocol": "grpc",
        "connection_security_policy": "none",
        "response_code": "200",
        "grpc_response_status": "0",
        "response_flags": "-",
    }


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, ("unknown", "unknown", "server", "latest")),
        ({"app": "a", "version": "1"}, ("a", "1", "a", "1")),
        ({"app": "a", "app.kubernetes.io/name": "b"}, ("b", "unknown", "b", "latest")),
        ({"version": "1", "app.kubernetes.io/version": "2"}, ("unknown", "2", "server", "2")),
        (
            {"app": "a", "service.istio.io/canonical-name": "c", "service.istio.io/canonical-revision": "3"},
            ("a", "unknown", "c", "3"),
        ),
    ],
)
def test_app_version_and_canonical_names(labels: dict[str, str], expected: tuple[str, ...]) -> None:
    _, _, _, app, version, _, service, revision = end_labels(SERVER, {"t/server": labels})
    assert (app, version, service, revision) == expected


def test_the_kernels_finer_buckets_merge_into_istios() -> None:
    """A call on each of the kernel's bounds and one beyond all: inclusive, as the kernel has them."""
    values = [*DURATION_NS, DURATION_NS[-1] + 1]
    samples = istio(*(row(duration_ns=value) for value in values))
    name = "istio_request_duration_milliseconds"
    buckets = {
        dict(own)["le"]: value
        for (each, own), value in samples.items()
        if each == f"{name}_bucket" and dict(own)["reporter"] == "source"
    }
    assert list(buckets) == ISTIO_LE
    for le, count in buckets.items():
        bound = math.inf if le == "+Inf" else float(le) * 1e6
        assert count == sum(value <= bound for value in values), le
    assert total(samples, f"{name}_sum", reporter="source") == pytest.approx(sum(values) / 1e6)


def test_sizes_and_messages() -> None:
    samples = istio(row(size=0), row(size=1), row(size=100, calls=2), row(protocol="http2", grpc_status=None, size=101))
    for name in ("istio_request_bytes", "istio_response_bytes"):
        below = {
            le: total(samples, f"{name}_bucket", reporter="source", le=le, request_protocol="grpc") for le in ISTIO_LE
        }
        assert list(below.values()) == [1, 2, 2, 2, 2, 2, *[4] * 14]
        assert total(samples, f"{name}_sum", reporter="source", request_protocol="grpc") == 201
        assert total(samples, f"{name}_sum", reporter="source", request_protocol="http") == 101
    for name in ("istio_request_messages_total", "istio_response_messages_total"):
        assert total(samples, name, reporter="source") == 4
        assert {dict(own)["request_protocol"] for each, own in samples if each == name} == {"grpc"}


def test_connections_that_are_not_read() -> None:
    table = IstioConnections({})
    for protocol in ("tcp", "grpc"):
        table.add(Streams(CLIENT, SERVER, ECHO, protocol, opened=3, closed=2, sent_bytes=10, received_bytes=700))
    samples = parsed(table.text())
    for reporter in ("source", "destination"):
        who = {"reporter": reporter, "request_protocol": "tcp", "response_flags": "-"}
        assert total(samples, "istio_tcp_connections_opened_total", **who) == 6
        assert total(samples, "istio_tcp_connections_closed_total", **who) == 4
        assert total(samples, "istio_tcp_sent_bytes_total", **who) == 1400
        assert total(samples, "istio_tcp_received_bytes_total", **who) == 20


def test_calls_by_method() -> None:
    samples = methods(
        row(calls=4), row(calls=2, http_status=0), row(ending="client_reset", grpc_status=4, calls=3),
        row(ending="server_reset", grpc_status=8), row(ending="open", calls=12),
        row(method=None), row(protocol="http2", method=None, grpc_status=None),
    )  # fmt: skip
    one = {"source": "client", "source_namespace": "t", "destination": "server", "destination_namespace": "t"}
    one |= {"service": "t/echo", "method": "/t.Echo/One"}
    assert total(samples, "zerohop_calls_total", **one, grpc_status="0") == 6
    assert total(samples, "zerohop_calls_total", **one, grpc_status="4") == 3
    assert total(samples, "zerohop_calls_total", method="other", grpc_status="0") == 1
    assert total(samples, "zerohop_calls_total", method="(HTTP/2)", grpc_status="") == 1
    assert total(samples, "zerohop_call_duration_seconds_count", **one, grpc_status="0") == 6
    assert total(samples, "zerohop_call_duration_seconds_bucket", **one, grpc_status="0", le="0.002") == 6
    assert total(samples, "zerohop_call_duration_seconds_bucket", **one, grpc_status="0", le="0.0015") == 0
    assert total(samples, "zerohop_call_duration_seconds_sum", **one, grpc_status="0") == pytest.approx(0.012)
    assert total(samples, "zerohop_response_bytes_total", **one, grpc_status="0") == 6 * 105
    assert total(samples, "zerohop_request_messages_total", **one) == 10
    assert total(samples, "zerohop_calls_in_flight", **one) == 12 - 10
    assert total(samples, "zerohop_call_resets_total", **one, by="client") == 3
    assert total(samples, "zerohop_call_resets_total", **one, by="server") == 1
    assert total(samples, "zerohop_call_resets_total", method="other") == 0
    assert total(samples, "zerohop_deadlines_exceeded_total", **one) == 3
