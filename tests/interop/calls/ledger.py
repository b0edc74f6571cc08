"""What programs counted about calls beside what the kernel counted."""

from __future__ import annotations

import dataclasses
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zerohop.kernel.datapath import DataPath
from zerohop.kernel.histograms import DURATION_NS, SIZE_BYTES
from zerohop.kernel.telemetry import Calls, FlowReader, Names, Reading, Streams, read_calls, read_reading, read_streams

SETTLE_SECONDS: Final = 5.0

# Flow records are taken away before the kernel comes round to their places again.
DRAIN_SECONDS: Final = 0.005

SUMS: Final = ("request_messages", "response_messages", "request_bytes", "response_bytes")
STREAM_SUMS: Final = ("opened", "closed", "sent_bytes", "received_bytes")


@dataclass(frozen=True, order=True)
class Leg:
    """One hop between two programs: NS/NAME of a managed end, "" for one outside the mesh, and the Service."""

    source: str
    destination: str
    service: str


@dataclass(frozen=True)
class Count:
    """Calls of one method that ended alike, as a program counted them. None: the program cannot know.

    `method` None: plain HTTP/2, then `grpc_status` is None too and `http_status` says what was answered. Bytes: for
    gRPC 5 and the length on the wire for each message, else of content.
    """

    method: str | None
    grpc_status: int | None
    calls: int | None
    request_messages: int | None = None
    response_messages: int | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    http_status: int | None = None


def counts(printed: Mapping[str, Any]) -> list[Count]:
    """What a peer printed under `counts`."""
    return [Count(**each) for each in printed["counts"]]


Label = tuple[Leg, str | None, int | None, int | None]
Line = dict[str, int | None]


def _label(leg: Leg, method: str | None, grpc_status: int | None, http_status: int | None) -> Label:
    # A caller of gRPC does not see which HTTP status carried its call's.
    return leg, method, grpc_status, http_status if method is None else None


def expected_lines(expected: Mapping[Leg, Iterable[Count]]) -> dict[Label, Line]:
    """Sums of what programs counted; None as soon as one part is not known."""
    lines: dict[Label, Line] = {}
    for leg, several in expected.items():
        for each in several:
            if each.calls == 0:
                continue
            line = lines.setdefault(
                _label(leg, each.method, each.grpc_status, each.http_status), dict.fromkeys(("calls", *SUMS), 0)
            )
            for name in line:
                before, more = line[name], getattr(each, name)
                line[name] = None if before is None or more is None else before + more
    return lines


def leg_of(row: Calls | Streams) -> Leg:
    source, destination, service = (
        f"{each.namespace}/{each.name}" if each is not None else ""
        for each in (row.source, row.destination, row.service)
    )
    return Leg(source, destination, service)


def found_lines(rows: Iterable[Calls]) -> dict[Label, Line]:
    lines: dict[Label, Line] = {}
    for row in rows:
        if row.ending == "open":
            continue
        line = lines.setdefault(
            _label(leg_of(row), row.method, row.grpc_status, row.http_status), dict.fromkeys(("calls", *SUMS), 0)
        )
        for name in line:
            line[name] = (line[name] or 0) + getattr(row, name)
    return lines


def differences(expected: Mapping[Label, Line], found: Mapping[Label, Line]) -> list[str]:
    """Where the two are not the same, a line each; what a program cannot know is not compared."""
    said = []
    for label in {**expected, **found}:
        want, have = expected.get(label), found.get(label)
        leg, method, grpc_status, http_status = label
        what = f"{leg.source or '-'} to {leg.destination or '-'} ({leg.service}) {method} {grpc_status} {http_status}"
        if have is None and want is not None and want["calls"] is None:
            continue
        if want is None or have is None:
            said.append(f"{what}: programs {want}, kernel {have}")
            continue
        wrong = {name: (number, have[name]) for name, number in want.items() if number not in (None, have[name])}
        if wrong:
            said.append(f"{what}: (programs, kernel) {wrong}")
    return said


@dataclass(frozen=True)
class Moment:
    """Everything that the kernel has counted until now."""

    calls: dict[tuple[Any, ...], Calls]
    reading: Reading
    streams: dict[Leg, Streams]


def _identity(row: Calls) -> tuple[Any, ...]:
    return (
        leg_of(row), row.method, row.protocol, row.http_status, row.grpc_status, row.ending, row.deadline_exceeded
    )  # fmt: skip


def moment(path: DataPath) -> Moment:
    names = Names(path)
    calls: dict[tuple[Any, ...], Calls] = {}
    for row in read_calls(path, names):
        # Workloads outside the mesh have one number, methods without a name have too: no two rows are alike.
        assert _identity(row) not in calls, row
        calls[_identity(row)] = row
    return Moment(calls, read_reading(path), {leg_of(row): row for row in read_streams(path, names)})


def rows_since(before: Moment, after: Moment) -> list[Calls]:
    """The rows of calls between two moments, without those that have not grown."""
    grown = []
    for identity, row in after.calls.items():
        earlier = before.calls.get(identity)
        row = row if earlier is None else _less(row, earlier)
        if row.calls:
            grown.append(row)
    return grown


def streams_since(before: Moment, after: Moment) -> dict[Leg, Streams]:
    """What has been counted between two moments of connections that are not read."""
    grown = {}
    for leg, row in after.streams.items():
        earlier = before.streams.get(leg)
        if earlier is not None:
            changed = {name: getattr(row, name) - getattr(earlier, name) for name in STREAM_SUMS}
            row = dataclasses.replace(row, **changed)
        grown[leg] = row
    return grown


def _less(row: Calls, earlier: Calls) -> Calls:
    changed: dict[str, Any] = {}
    for name in ("calls", "duration_ns", *SUMS):
        changed[name] = getattr(row, name) - getattr(earlier, name)
    for name in ("durations", "request_sizes", "response_sizes"):
        histogram = getattr(row, name)
        pairs = zip(histogram.counts, getattr(earlier, name).counts, strict=True)
        changed[name] = type(histogram)(tuple(now - then for now, then in pairs))
    return type(row)(**{name: changed.get(name, getattr(row, name)) for name in row.__dataclass_fields__})


def in_flight(rows: Iterable[Calls]) -> int:
    """Calls begun and not ended."""
    return sum(row.calls if row.ending == "open" else -row.calls for row in rows)


class FlowRecorder(threading.Thread):
    """Collects the flow records of calls as they come, from its start to `finish`."""

    def __init__(self, path: DataPath) -> None:
        super().__init__(daemon=True)
        self._reader = FlowReader(path)
        self._done = threading.Event()
        self.flows: list[Any] = []
        self.start()

    @property
    def lost(self) -> int:
        """Records that this process was too slow for: the calls are known to have had one, not what it said."""
        return self._reader.lost

    def run(self) -> None:
        while not self._done.is_set():
            self.flows += self._reader.read()
            self._done.wait(DRAIN_SECONDS)

    def finish(self) -> None:
        if not self._done.is_set():
            self._done.set()
            self.join()
            self.flows += self._reader.read()
            self._reader.close()


def check_histograms(rows: Iterable[Calls]) -> None:
    """Every call is in one bucket of each."""
    for row in rows:
        if row.ending != "open":
            for name in ("durations", "request_sizes", "response_sizes"):
                assert sum(getattr(row, name).counts) == row.calls, f"{name} of {row}"


def check_flows(path: DataPath, rows: Sequence[Calls], recorder: FlowRecorder) -> None:
    """One record for each call, which add up to the rows, and whose values are in the rows' buckets."""
    recorder.finish()
    flows = [flow for flow in recorder.flows if flow.stream]  # a connection's record has none
    ended = [row for row in rows if row.ending != "open"]
    total = sum(row.calls for row in ended)
    if recorder.lost:
        assert len(flows) + recorder.lost >= total
        return
    assert len(flows) == total
    sums: Counter[tuple[Any, ...]] = Counter()
    buckets: Counter[tuple[Any, ...]] = Counter()
    names = Names(path)
    for flow in flows:
        label = (names.methods.get(flow.method), flow.http_status, names.endings[flow.ending], bool(flow.deadline))
        for name in SUMS:
            sums[*label, name] += getattr(flow, name)
        sums[*label, "calls"] += 1
        sums[*label, "duration_ns"] += flow.latency_ns
        buckets[*label, "durations", bisect_left(DURATION_NS, flow.latency_ns)] += 1
        buckets[*label, "request_sizes", bisect_left(SIZE_BYTES, flow.request_bytes)] += 1
        buckets[*label, "response_sizes", bisect_left(SIZE_BYTES, flow.response_bytes)] += 1
    for row in ended:
        label = (row.method, row.http_status, row.ending, row.deadline_exceeded)
        for name in ("calls", "duration_ns", *SUMS):
            sums[*label, name] -= getattr(row, name)
        for name in ("durations", "request_sizes", "response_sizes"):
            for index, count in enumerate(getattr(row, name).counts):
                buckets[*label, name, index] -= count
    for differ in (sums, buckets):
        wrong = {key: value for key, value in differ.items() if value}
        assert not wrong, f"records (+) and rows (-): {wrong}"


def settle(path: DataPath, before: Moment, calls: int) -> tuple[Moment, list[Calls]]:
    """The last look and its rows, once so many calls have ended and none is in flight, or after some time."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        after = moment(path)
        rows = rows_since(before, after)
        ended = sum(row.calls for row in rows if row.ending != "open")
        if (ended >= calls and in_flight(rows) == 0) or time.monotonic() > deadline:
            return after, rows
        time.sleep(0.02)
