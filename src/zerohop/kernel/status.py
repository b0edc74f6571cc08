"""What the kernel says about an instance, read from the pins: no agent is needed."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import Any, Final

from zerohop.kernel import libbpf
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.highest import highest
from zerohop.kernel.tables import text

UNREAD_SECONDS: Final = 3.0


@dataclass(frozen=True)
class WorkloadStatus:
    namespace: str
    name: str
    service_account: str
    connections: int
    shortcut_connections: int


@dataclass(frozen=True)
class Unread:
    """A member of the short-cut whose queue nobody has read for a while."""

    namespace: str
    workload: str
    port: int
    seconds: float


@dataclass(frozen=True)
class Totals:
    """Counts since the data path was made; bytes are payload, each direction once. None falls.

    By policy: `refused_connections` at connect, `denied_connections` once established, `denied_calls`; what AUDIT
    policies matched; and what would be denied if dry-run policies were in force. `openings_dropped`: packets that
    listeners with policies were not given, for they had data, or asked for MPTCP.
    """

    connections_opened: int
    shortcut_connections_opened: int
    shortcut_bytes: int
    tcp_bytes: int
    carrier_switches: int
    refused_connections: int
    denied_connections: int
    denied_calls: int
    audited_connections: int
    audited_calls: int
    dry_run_denied_connections: int
    dry_run_denied_calls: int
    openings_dropped: int
    not_shortcut: dict[str, int]
    errors: dict[str, int]


# Of the totals: what policies have done.
_POLICY = (
    "refused_connections", "denied_connections", "denied_calls", "audited_connections", "audited_calls",
    "dry_run_denied_connections", "dry_run_denied_calls", "openings_dropped",
)  # fmt: skip


@dataclass(frozen=True)
class ProgramStatus:
    instructions: int
    verified_instructions: int
    run_count: int
    run_ns: int


@dataclass(frozen=True)
class Status:
    generation: int
    draining: bool
    open_connections: int
    workloads: list[WorkloadStatus]
    totals: Totals
    unread: list[Unread]
    map_bytes: int
    programs: dict[str, ProgramStatus]


def read_status(path: DataPath) -> Status:
    """One look at everything; takes an inspection of the open connections."""
    with path.exclusive():
        # Before the walk: an end that closes between is missing this once (zerohop.kernel.highest).
        closed = path.maps["counters"].get(ctypes.c_uint32(0)) or []
        inspection = path.walk()
        totals = _totals(path, closed, inspection)
        open_by_workload = {key.value: value for key, value in path.maps["workload_connections"].items()}
    settings = path.settings()
    named = {key.value: value for key, value in path.maps["workloads"].items()}
    workloads = []
    for number, value in named.items():
        counts = open_by_workload.get(number)
        if value.removed and counts is None:
            continue
        workloads.append(
            WorkloadStatus(
                text(value.namespace_name),
                text(value.name),
                text(value.service_account),
                counts.connections if counts else 0,
                counts.shortcut_connections if counts else 0,
            )
        )
    return Status(
        generation=settings.generation,
        draining=bool(settings.draining),
        open_connections=inspection.connections,
        workloads=sorted(workloads, key=lambda each: (each.namespace, each.name)),
        totals=totals,
        unread=_unread(inspection, named),
        map_bytes=path.memory_bytes(),
        programs={name: _program(fd) for name, fd in path.programs.items()},
    )


def wait_for_unread(path: DataPath) -> None:
    """Without an agent nobody has looked before: looks twice, so that a queue that nobody reads shows its age."""
    with path.inspection() as inspection:
        pending = inspection.unread_count
    if pending:
        time.sleep(UNREAD_SECONDS)


def _totals(path: DataPath, per_cpu: list[Any], inspection: Any) -> Totals:
    reasons, helpers = path.layouts.enum("reason"), path.layouts.enum("helper")

    def total(name: str) -> int:
        return sum(getattr(counters, name) for counters in per_cpu)

    def by_name(array: str, names: Any, prefix: str) -> dict[str, int]:
        sums = {
            name.name.removeprefix(prefix).lower(): sum(getattr(counters, array)[name] for counters in per_cpu)
            for name in names
            if not name.name.endswith("_MAX")
        }
        return {name: count for name, count in sums.items() if count}

    carried = ("shortcut_bytes", "tcp_bytes", "carrier_switches")
    return Totals(
        connections_opened=total("connections_opened"),
        shortcut_connections_opened=total("shortcut_connections_opened"),
        **{name: total(name) for name in _POLICY},
        **highest(path, {name: total(name) + getattr(inspection, name) for name in carried}),
        not_shortcut=by_name("not_shortcut", reasons, "REASON_"),
        errors=by_name("errors", helpers, "HELPER_"),
    )


def _unread(inspection: Any, workloads: dict[int, Any]) -> list[Unread]:
    oldest: dict[tuple[int, int], float] = {}
    for entry in inspection.unread[: inspection.unread_count]:
        key = (entry.workload, entry.port)
        oldest[key] = max(oldest.get(key, 0.0), (inspection.now - entry.since) / 1e9)
    return [
        Unread(text(workloads[number].namespace_name), text(workloads[number].name), port, round(seconds, 1))
        for (number, port), seconds in oldest.items()
        if seconds >= UNREAD_SECONDS and number in workloads
    ]


def _program(fd: int) -> ProgramStatus:
    info = libbpf.program_info(fd)
    return ProgramStatus(info.xlated_prog_len // 8, info.verified_insns, info.run_cnt, info.run_time_ns)
