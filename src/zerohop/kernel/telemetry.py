"""What the hooks counted and recorded about calls and connections, read from an instance's pins with names resolved."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from zerohop.kernel.datapath import DataPath
from zerohop.kernel.maps import possible_cpus
from zerohop.kernel.tables import text

GRPC_STATUS_NONE: Final = 255

_SUMS: Final = (
    "calls",
    "duration_ns",
    "request_bytes",
    "response_bytes",
    "request_messages",
    "response_messages",
)


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
    """Numbers of the tables to names, as they are now."""

    def __init__(self, path: DataPath) -> None:
        self.workloads: dict[int, Workload] = {}
        for key, value in path.maps["workloads"].items():
            namespace = text(value.namespace_name)
            principal = f"cluster.local/ns/{namespace}/sa/{text(value.service_account)}"
            self.workloads[key.value] = Workload(namespace, text(value.name), principal)
        self.services = {
            key.value: Service(text(value.namespace_name), text(value.name))
            for key, value in path.maps["services"].items()
        }
        self.methods = {
            value.number: ctypes.string_at(ctypes.addressof(value) + type(value).path.offset, value.length).decode(
                "utf-8", "backslashreplace"
            )
            for _, value in path.maps["methods"].items()
        }
        self.endings = _names(path, "ending", "ENDING_")
        self.protocols = _names(path, "protocol", "PROTOCOL_")
        self.reasons = _names(path, "reason", "REASON_")


def _names(path: DataPath, enumeration: str, prefix: str) -> dict[int, str]:
    """Lower-case names without their prefix, by number."""
    members = path.layouts.enum(enumeration)
    return {int(each): each.name.removeprefix(prefix).lower() for each in members if not each.name.endswith("_MAX")}


def read_calls(path: DataPath, names: Names | None = None) -> list[Calls]:
    """Every row of calls. What ends while this reads is in flight and has ended, in this one reading."""
    names = names or Names(path)
    rows = []
    started: dict[bytes, int] = {}
    open_keys: dict[bytes, Any] = {}
    for key, count in path.open_calls():
        started[bytes(key)] = count
        open_keys[bytes(key)] = key
    for key, values in path.maps["series"].items():
        sums: dict[str, Any] = {name: sum(getattr(value, name) for value in values) for name in _SUMS}
        if not sums["calls"]:
            continue
        rows.append(
            Calls(
                **_labels(key, names),
                http_status=key.http_status,
                grpc_status=None if key.grpc_status == GRPC_STATUS_NONE else key.grpc_status,
                ending=names.endings[key.ending],
                deadline_exceeded=bool(key.deadline),
                durations=_histogram(values, "durations"),
                request_sizes=_histogram(values, "request_sizes"),
                response_sizes=_histogram(values, "response_sizes"),
                **sums,
            )
        )
        open_key = type(key)(key.source, key.destination, key.service, key.method, protocol=key.protocol)
        open_keys[bytes(open_key)] = open_key
        started[bytes(open_key)] = started.get(bytes(open_key), 0) + sums["calls"]
    nothing = Histogram(())
    for identity, count in started.items():
        rows.append(
            Calls(
                **_labels(open_keys[identity], names),
                http_status=0,
                grpc_status=None,
                ending="open",
                deadline_exceeded=False,
                durations=nothing,
                request_sizes=nothing,
                response_sizes=nothing,
                **dict[str, Any](dict.fromkeys(_SUMS, 0), calls=count),
            )
        )
    return rows


def _labels(key: Any, names: Names) -> dict[str, Any]:
    return {
        "source": names.workloads.get(key.source),
        "destination": names.workloads.get(key.destination),
        "service": names.services.get(key.service),
        "method": names.methods.get(key.method),
        "protocol": names.protocols.get(key.protocol, ""),
    }


def _histogram(values: list[Any], name: str) -> Histogram:
    return Histogram(tuple(map(sum, zip(*(getattr(value, name) for value in values), strict=True))))


def read_streams(path: DataPath, names: Names | None = None) -> list[Streams]:
    """Every row of connections that the engine does not read."""
    names = names or Names(path)
    return [
        Streams(
            source=names.workloads.get(key.source),
            destination=names.workloads.get(key.destination),
            service=names.services.get(key.service),
            protocol=names.protocols.get(key.protocol, ""),
            opened=sum(value.opened for value in values),
            closed=sum(value.closed for value in values),
            sent_bytes=sum(value.sent_bytes for value in values),
            received_bytes=sum(value.received_bytes for value in values),
        )
        for key, values in path.maps["tcp_series"].items()
    ]


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
        cpus = possible_cpus()
        entries = path.maps["flows"].entries()
        self._per_cpu = entries // cpus
        length = -(-entries * self._size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(path.maps["flows"].fd, length, mmap.MAP_SHARED, mmap.PROT_READ)
        self._next = [max(1, count - last + 1) for count in self._counts()]
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
            flow = self._flow.from_buffer_copy(self._memory, at)
            # It is written between two looks at its number, or not at all.
            again = int.from_bytes(self._memory[at : at + 8], "little")
            if flow.sequence < wanted or again < wanted:
                if flow.sequence == 0 and again == 0 and wanted == count:
                    return  # being written
                self.lost += 1
            elif flow.sequence == again == wanted:
                yield flow
            else:
                self.lost += 1
            self._next[cpu] += 1


def wall_clock(monotonic_ns: int) -> float:
    """Seconds since the epoch of an instant of CLOCK_MONOTONIC, which is what the kernel's records carry."""
    return time.time() - (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - monotonic_ns) / 1e9
