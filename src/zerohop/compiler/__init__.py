"""From checked objects to what the kernel's tables hold. Pure: no files, no kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from zerohop.config import Configuration, Shortcut
from zerohop.config.protocol import Protocol
from zerohop.config.selection import declarations

__all__ = ["Protocol", "Tables", "WorkloadEntry", "compile_tables"]

# `enum shortcut_mode` of bpf/shared/types.h.
_SHORTCUT: Final = {Shortcut.DISABLED: 0, Shortcut.AUTO: 1, Shortcut.ALWAYS: 2}


@dataclass(frozen=True, slots=True)
class WorkloadEntry:
    """A workload as the kernel knows it. `shortcut`: 0 disabled, 1 auto, 2 always."""

    namespace: str
    name: str
    service_account: str
    shortcut: int


@dataclass(frozen=True, slots=True)
class Tables:
    """Every workload is named `NS/NAME`, the key of `workloads`.

    `cgroups`: path relative to the cgroup v2 mount, `/a/b`, to workload, without those that `zerohop exec` makes.
    `units`: systemd unit to workload. `ports`: workload and the TCP port on which it listens, to the declared protocol.
    `excluded`: workload and port that stay plain TCP.
    """

    workloads: dict[str, WorkloadEntry]
    cgroups: dict[str, str]
    units: dict[str, str]
    ports: dict[tuple[str, int], Protocol]
    excluded: frozenset[tuple[str, int]]


def compile_tables(configuration: Configuration) -> Tables:
    """The tables for a configuration that `zerohop.config.load` has accepted.

    Where one Service names a protocol for a port and another does not, the one that does counts.
    """
    workloads = configuration.workloads
    ports: dict[tuple[str, int], Protocol] = {}
    undeclared: set[tuple[str, int]] = set()
    for each in declarations(workloads, configuration.services, configuration.endpoint_slices):
        if each.protocol is None:
            undeclared.add((each.workload, each.number))
        else:
            ports[each.workload, each.number] = each.protocol
    for key in undeclared:
        ports.setdefault(key, Protocol.TCP)
    return Tables(
        workloads={
            each.key: WorkloadEntry(each.namespace, each.name, each.service_account, _SHORTCUT[each.shortcut])
            for each in workloads
        },
        cgroups={path: each.key for each in workloads for path in each.cgroups},
        units={unit: each.key for each in workloads for unit in each.units},
        ports=ports,
        excluded=frozenset((each.key, port) for each in workloads for port in each.exclude_ports),
    )
