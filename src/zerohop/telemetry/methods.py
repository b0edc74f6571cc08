"""Calls by method, which Istio's metrics do not have, under zerohop's own names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from zerohop.kernel.histograms import DURATION_NS
from zerohop.kernel.telemetry import Calls
from zerohop.telemetry.prometheus import counter, gauge, histogram, label_text

UNKNOWN: Final = "unknown"
OTHER: Final = "other"
PLAIN_HTTP2: Final = "(HTTP/2)"

_LABELS: Final = ("source", "source_namespace", "destination", "destination_namespace", "service", "method")
_BOUNDS: Final = [bound / 1e9 for bound in DURATION_NS]


def _labels(row: Calls) -> str:
    """The kernel learns methods of gRPC only: paths of other requests are without bound."""
    ends = [
        each for end in (row.source, row.destination) for each in ((end.name, end.namespace) if end else (UNKNOWN,) * 2)
    ]
    service = f"{row.service.namespace}/{row.service.name}" if row.service else UNKNOWN
    return label_text(_LABELS, (*ends, service, (row.method or OTHER) if row.protocol == "grpc" else PLAIN_HTTP2))


@dataclass(slots=True)
class _Ended:
    """Calls of one method that ended with one status."""

    durations: tuple[int, ...]
    calls: int = 0
    duration_ns: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    request_messages: int = 0
    response_messages: int = 0

    def add(self, row: Calls) -> None:
        # As a rule a status has one row: then nothing is added up, and nothing copied.
        if self.calls:
            self.durations = tuple(map(int.__add__, self.durations, row.durations.counts))
        self.calls += row.calls
        self.duration_ns += row.duration_ns
        self.request_bytes += row.request_bytes
        self.response_bytes += row.response_bytes
        self.request_messages += row.request_messages
        self.response_messages += row.response_messages


@dataclass(slots=True)
class _Method:
    started: int = 0
    ended: int = 0
    client_resets: int = 0
    server_resets: int = 0
    deadlines: int = 0


class Methods:
    """Every row of calls added up by method, and by method and grpc-status."""

    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}
        self._ended: dict[str, _Ended] = {}

    def add(self, row: Calls) -> None:
        labels = _labels(row)
        method = self._methods.get(labels)
        if method is None:
            method = self._methods[labels] = _Method()
        if row.ending == "open":
            method.started += row.calls
            return
        method.ended += row.calls
        method.client_resets += row.calls if row.ending == "client_reset" else 0
        method.server_resets += row.calls if row.ending == "server_reset" else 0
        method.deadlines += row.calls if row.deadline_exceeded else 0
        with_status = f'{labels},grpc_status="{"" if row.grpc_status is None else row.grpc_status}"'
        ended = self._ended.get(with_status)
        if ended is None:
            ended = self._ended[with_status] = _Ended(row.durations.counts)
        ended.add(row)

    def text(self) -> Iterator[str]:
        ended, methods = self._ended.items(), self._methods.items()
        yield from counter("zerohop_calls_total", "Calls that have ended.", ((key, row.calls) for key, row in ended))
        yield from histogram(
            "zerohop_call_duration_seconds", "From the request's beginning to the response's end.", _BOUNDS,
            ((key, row.durations, row.duration_ns / 1e9) for key, row in ended),
        )  # fmt: skip
        yield from counter(
            "zerohop_request_bytes_total", "DATA of requests, without padding.",
            ((key, row.request_bytes) for key, row in ended),
        )  # fmt: skip
        yield from counter(
            "zerohop_response_bytes_total", "DATA of responses, without padding.",
            ((key, row.response_bytes) for key, row in ended),
        )  # fmt: skip
        yield from counter(
            "zerohop_request_messages_total", "gRPC messages of clients.",
            ((key, row.request_messages) for key, row in ended),
        )  # fmt: skip
        yield from counter(
            "zerohop_response_messages_total", "gRPC messages of servers.",
            ((key, row.response_messages) for key, row in ended),
        )  # fmt: skip
        yield from gauge(
            "zerohop_calls_in_flight", "Calls that have begun and not ended.",
            ((key, row.started - row.ended) for key, row in methods),
        )  # fmt: skip
        yield from counter(
            "zerohop_call_resets_total", "Calls that one side reset before the response had ended.",
            (
                (f'{key},by="{by}"', count)
                for key, row in methods
                for by, count in (("client", row.client_resets), ("server", row.server_resets))
            ),
        )  # fmt: skip
        yield from counter(
            "zerohop_deadlines_exceeded_total", "Calls that ended with DEADLINE_EXCEEDED, by whomever.",
            ((key, row.deadlines) for key, row in methods),
        )  # fmt: skip
