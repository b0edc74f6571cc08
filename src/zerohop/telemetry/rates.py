"""What happened between two readings of the rows of calls, for each method between two workloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from zerohop.kernel.histograms import DURATION_NS
from zerohop.kernel.telemetry import Calls
from zerohop.telemetry.quantiles import duration_ns

UNMANAGED = "outside"
OTHER = "other"


@dataclass(slots=True)
class Sums:
    """Of one method: calls that have ended, errors among them, starts, calls by duration."""

    ended: int = 0
    errors: int = 0
    started: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * (len(DURATION_NS) + 1))


@dataclass(frozen=True, slots=True)
class MethodRate:
    """Rates are per second of the interval; quantiles in microseconds, of the calls that ended in it, None without."""

    source: str
    destination: str
    service: str | None
    method: str
    calls: float
    errors: float
    p50_us: float | None
    p90_us: float | None
    p99_us: float | None
    in_flight: int
    request_bytes: float
    response_bytes: float


Key = tuple[str, str, str | None, str]


def is_error(row: Calls) -> bool:
    """A status other than OK; for plain HTTP/2 a 5xx, or no answer."""
    if row.grpc_status is not None:
        return row.grpc_status != 0
    return row.http_status >= 500 or row.ending != "complete"


def sums_of(rows: Iterable[Calls], wanted: Callable[[Calls], bool] = lambda row: True) -> dict[Key, Sums]:
    """Rows that are wanted, added up by method and both ends."""
    found: dict[Key, Sums] = {}
    for row in rows:
        if not wanted(row):
            continue
        key = (
            f"{row.source.namespace}/{row.source.name}" if row.source else UNMANAGED,
            f"{row.destination.namespace}/{row.destination.name}" if row.destination else UNMANAGED,
            f"{row.service.namespace}/{row.service.name}" if row.service else None,
            (row.method or OTHER) if row.protocol == "grpc" else "(HTTP/2)",
        )
        sums = found.setdefault(key, Sums())
        if row.ending == "open":
            sums.started += row.calls
            continue
        sums.ended += row.calls
        sums.errors += row.calls if is_error(row) else 0
        sums.request_bytes += row.request_bytes
        sums.response_bytes += row.response_bytes
        sums.durations = [a + b for a, b in zip(sums.durations, row.durations.counts, strict=True)]
    return found


def rates(before: dict[Key, Sums], after: dict[Key, Sums], seconds: float) -> list[MethodRate]:
    """What changed in `seconds`; a method that nothing has called yet is left out."""
    found = []
    for key, now in after.items():
        then = before.get(key, Sums())
        durations = [max(0, b - a) for a, b in zip(then.durations, now.durations, strict=True)]
        quantiles = [duration_ns(durations, share) for share in (0.5, 0.9, 0.99)]
        p50, p90, p99 = (None if each is None else each / 1000 for each in quantiles)
        found.append(
            MethodRate(
                *key,
                calls=max(0, now.ended - then.ended) / seconds,
                errors=max(0, now.errors - then.errors) / seconds,
                p50_us=p50,
                p90_us=p90,
                p99_us=p99,
                in_flight=max(0, now.started - now.ended),
                request_bytes=max(0, now.request_bytes - then.request_bytes) / seconds,
                response_bytes=max(0, now.response_bytes - then.response_bytes) / seconds,
            )
        )
    return found
