"""What the hooks counted and recorded about calls and connections, read from an instance's pins with names resolved."""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from operator import add
from typing import Any, Final

from zerohop.kernel.batches import walk
from zerohop.kernel.datapath import GRPC_STATUS_NONE, DataPath
from zerohop.kernel.maps import Map, possible_cpus
from zerohop.kernel.tables import text

TRUST_DOMAIN: Final = "cluster.local"

# How long a record that is being written is waited for.
UNFINISHED_SECONDS: Final = 1.0

# Under this key, METHOD_LAST of bpf/mesh/methods.h, `method_counts` has the last number that was given.
_METHOD_LAST: Final = 0xFFFFFFFF

_SUMS: Final = (
    "calls",
    "duration_ns",
    "request_bytes",
    "response_bytes",
    "request_messages",
    "response_messages",
)
_HISTOGRAMS: Final = ("durations", "request_sizes", "response_sizes")


@dataclass(frozen=True, slots=True)
class Workload:
    """An end that is managed. `principal`: its identity, `cluster.local/ns/NS/sa/SA`."""

    namespace: str
    name: str
    principal: str


@dataclass(frozen=True, slots=True)
class Service:
    namespace: str
    name: str

    @property
    def host(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts`: values in each bucket; the last bucket has no upper bound, the others those of
    `zerohop.kernel.histograms`, inclusive."""

    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that are alike in every label. An end is None when it is not managed, a method when it has no number.

    `ending`: open, complete, client_reset, server_reset, closed, unread; in a row with `open`, `calls` counts starts,
    so that in flight is what has started and not ended, and everything else is zero. `grpc_status` is what the caller
    sees, None for plain HTTP/2; `http_status` 0: none was sent. Bytes are of DATA without padding.
    """

    source: Workload | None
    destination: Workload | None
    service: Service | None
    method: str | None
    protocol: str
    http_status: int
    grpc_status: int | None
    ending: str
    deadline_exceeded: bool
    calls: int
    duration_ns: int
    request_bytes: int
    response_bytes: int
    request_messages: int
    response_messages: int
    durations: Histogram
    request_sizes: Histogram
    response_sizes: Histogram


@dataclass(frozen=True, slots=True)
class Streams:
    """Connections that the engine does not read. Bytes are the client's, counted when the connection has closed."""

    source: Workload | None
    destination: Workload | None
    service: Service | None
    protocol: str
    opened: int
    closed: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Connections on layer-7 ports: what their clients speak, and why the engine does not read them (any further)."""

    recognised: dict[str, int]
    unread: dict[str, int]
    resets: int
    goaways: int
    overflows: int


class Names:
    """Numbers of the tables to names. `refresh` reads what has been added since."""

    def __init__(self, path: DataPath) -> None:
        self._path = path
        self.workloads: dict[int, Workload] = {}
        self.services: dict[int, Service] = {}
        self.methods: dict[int, str] = {}
        self.policies: dict[int, str] = {}
        self._learned = -1
        self._complete = False
        self.endings = _names(path, "ending", "ENDING_")
        self.protocols = _names(path, "protocol", "PROTOCOL_")
        self.reasons = _names(path, "reason", "REASON_")
        self.verdicts = _names(path, "verdict", "VERDICT_")
        self.refresh()

    def refresh(self) -> None:
        layouts, maps = self._path.layouts, self._path.maps
        for number, value in _structures(maps["workloads"], ctypes.c_uint32, layouts.struct("workload")):
            namespace = text(value.namespace_name)
            principal = f"{TRUST_DOMAIN}/ns/{namespace}/sa/{text(value.service_account)}"
            self.workloads[number] = Workload(namespace, text(value.name), principal)
        for number, value in _structures(maps["services"], ctypes.c_uint32, layouts.struct("service")):
            self.services[number] = Service(text(value.namespace_name), text(value.name))
        for number, value in _structures(maps["policy_names"], ctypes.c_uint32, layouts.struct("policy_name")):
            self.policies[number] = f"{text(value.namespace_name)}/{text(value.name)}"
        learned = maps["method_counts"].get(ctypes.c_uint32(_METHOD_LAST))
        last = learned or 0
        if last == self._learned and self._complete:
            return
        # A number is given before its row is there: they are complete once nothing came between two looks.
        self._complete = last == self._learned
        self._learned = last
        for _, value in _structures(maps["methods"], layouts.struct("method_key"), layouts.struct("method")):
            if value.number not in self.methods:
                path = ctypes.string_at(ctypes.addressof(value) + type(value).path.offset, value.length)
                self.methods[value.number] = printable(path)


def printable(raw: bytes) -> str:
    """What a client called a method, which may be anything, without what would act on a terminal or end a line."""
    decoded = raw.decode("utf-8", "backslashreplace")
    if decoded.isprintable():
        return decoded
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in decoded)


def _structures(table: Map, key: type[Any], value: type[Any]) -> Iterator[tuple[Any, Any]]:
    for each, content in walk(table, key):
        yield each, value.from_buffer(content)


def _names(path: DataPath, enumeration: str, prefix: str) -> dict[int, str]:
    """Lower-case names without their prefix, by number."""
    members = path.layouts.enum(enumeration)
    return {int(each): each.name.removeprefix(prefix).lower() for each in members if not each.name.endswith("_MAX")}


def iterate_calls(path: DataPath, names: Names | None = None) -> Iterator[Calls]:
    """Every row of calls, one at a time: there may be `MAX_SERIES`. What ends meanwhile is in flight and has ended."""
    names = names or Names(path)
    key_type, series = path.layouts.struct("series_key"), path.layouts.struct("series")
    started: dict[tuple[int, ...], int] = {}
    for key, count in path.open_calls():
        started[_without_result(key)] = count
    cpus, words = possible_cpus(), ctypes.sizeof(series) // 8
    first = {name: getattr(series, name).offset // 8 for name in (*_SUMS, *_HISTOGRAMS)}
    parts = [slice(first[name], first[name] + getattr(series, name).size // 8) for name in _HISTOGRAMS]
    rows = chain(
        walk(path.maps["series"], key_type, cpus=cpus),
        # Rows of their own, with the keys of some of the others.
        walk(path.maps["spare_series"], key_type),
    )
    for key, content in rows:
        values = _sum(content.cast("Q"), words, first["calls"])
        if values is None:
            continue
        identity = _without_result(key)
        started[identity] = started.get(identity, 0) + values[first["calls"]]
        durations, request_sizes, response_sizes = (Histogram(tuple(values[part])) for part in parts)
        yield Calls(
            **_labels(identity, names),
            http_status=key.http_status,
            grpc_status=None if key.grpc_status == GRPC_STATUS_NONE else key.grpc_status,
            ending=names.endings[key.ending],
            deadline_exceeded=bool(key.deadline),
            durations=durations,
            request_sizes=request_sizes,
            response_sizes=response_sizes,
            **dict[str, Any]((name, values[first[name]]) for name in _SUMS),
        )
    nothing = Histogram(())
    for identity, count in started.items():
        yield Calls(
            **_labels(identity, names),
            http_status=0,
            grpc_status=None,
            ending="open",
            deadline_exceeded=False,
            durations=nothing,
            request_sizes=nothing,
            response_sizes=nothing,
            **dict[str, Any](dict.fromkeys(_SUMS, 0), calls=count),
        )


def read_calls(path: DataPath, names: Names | None = None) -> list[Calls]:
    """Every row of calls."""
    return list(iterate_calls(path, names))


def _without_result(key: Any) -> tuple[int, ...]:
    return key.source, key.destination, key.service, key.method, key.protocol


def _labels(identity: tuple[int, ...], names: Names) -> dict[str, Any]:
    source, destination, service, method, protocol = identity
    return {
        "source": names.workloads.get(source),
        "destination": names.workloads.get(destination),
        "service": names.services.get(service),
        "method": names.methods.get(method),
        "protocol": names.protocols.get(protocol, ""),
    }


def _sum(numbers: memoryview, words: int, decisive: int) -> list[int] | None:
    """The sums over CPUs of `words` numbers each, without those CPUs whose number at `decisive` is 0; None: all are."""
    sums: list[int] | None = None
    for start in range(0, len(numbers), words):
        if numbers[start + decisive]:
            part = numbers[start : start + words].tolist()
            sums = part if sums is None else list(map(add, sums, part))
    return sums


def read_streams(path: DataPath, names: Names | None = None) -> list[Streams]:
    """Every row of connections that the engine does not read."""
    names = names or Names(path)
    key_type, series = path.layouts.struct("tcp_series_key"), path.layouts.struct("tcp_series")
    fields = [name for name, *_ in series._fields_]
    rows = []
    for key, content in walk(path.maps["tcp_series"], key_type):
        labels = _labels((key.source, key.destination, key.service, 0, key.protocol), names)
        labels.pop("method")
        rows.append(Streams(**labels, **dict(zip(fields, content.cast("Q"), strict=True))))
    return rows


def read_reading(path: DataPath) -> Reading:
    """What became of the connections on layer-7 ports."""
    per_cpu = path.maps["counters"].get(ctypes.c_uint32(0)) or []

    def by_name(array: str, names: dict[int, str]) -> dict[str, int]:
        sums = {name: sum(getattr(each, array)[number] for each in per_cpu) for number, name in names.items()}
        return {name: count for name, count in sums.items() if count}

    return Reading(
        recognised=by_name("recognised", _names(path, "speaks", "SPEAKS_")),
        unread=by_name("unread", _names(path, "reason", "REASON_")),
        resets=sum(each.resets for each in per_cpu),
        goaways=sum(each.goaways for each in per_cpu),
        overflows=sum(each.overflows for each in per_cpu),
    )


class FlowReader:
    """Follows the flow records of every CPU. Reading costs the kernel nothing, and any number of readers may.

    `lost`: records that were overwritten before this reader came to them.
    """

    def __init__(self, path: DataPath, *, last: int = 0) -> None:
        """`last`: how many records that are there already are wanted, of each CPU."""
        self._path = path
        self._flow: type[Any] = path.layouts.struct("flow")
        self._size = ctypes.sizeof(self._flow)
        entries = path.maps["flows"].entries()
        self._per_cpu = entries // possible_cpus()
        length = -(-entries * self._size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(path.maps["flows"].fd, length, mmap.MAP_SHARED, mmap.PROT_READ)
        self._next = [max(1, count - last + 1) for count in self._counts()]
        self._unfinished: dict[int, tuple[int, float]] = {}  # CPU to a record that is being written, since when
        self.lost = 0

    def close(self) -> None:
        self._memory.close()

    def _counts(self) -> list[int]:
        return list(self._path.maps["flow_counts"].get(ctypes.c_uint32(0)) or [])

    def read(self) -> list[Any]:
        """The records since the last call, as `struct flow`, by the time of their end."""
        found: list[Any] = []
        for cpu, count in enumerate(self._counts()):
            found += self._read_cpu(cpu, count)
        found.sort(key=lambda flow: flow.end_ns)
        return found

    def _read_cpu(self, cpu: int, count: int) -> Iterator[Any]:
        oldest = count - self._per_cpu + 1
        if self._next[cpu] < oldest:
            self.lost += oldest - self._next[cpu]
            self._next[cpu] = oldest
        while self._next[cpu] <= count:
            wanted = self._next[cpu]
            at = (cpu * self._per_cpu + (wanted - 1) % self._per_cpu) * self._size
            number = self._number(at)
            if number == wanted:
                flow = self._flow.from_buffer_copy(self._memory, at)
                if self._number(at) == wanted:
                    yield flow
                else:
                    self.lost += 1
            elif number < wanted and self._is_being_written(cpu, wanted):
                return
            else:
                self.lost += 1
            self._next[cpu] += 1

    def _number(self, at: int) -> int:
        return int.from_bytes(self._memory[at : at + 8], sys.byteorder)

    def _is_being_written(self, cpu: int, wanted: int) -> bool:
        """A record's number is given before it is written, by a program that may be interrupted in between."""
        known, since = self._unfinished.get(cpu, (0, 0.0))
        if known != wanted:
            since = time.monotonic()
            self._unfinished[cpu] = wanted, since
        return time.monotonic() - since < UNFINISHED_SECONDS


def wall_clock(monotonic_ns: int) -> float:
    """Seconds since the epoch of an instant of CLOCK_MONOTONIC, which is what the kernel's records carry."""
    return (time.time_ns() - time.monotonic_ns() + monotonic_ns) / 1e9
