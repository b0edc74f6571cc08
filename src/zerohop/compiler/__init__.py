"""From checked objects to what the kernel's tables hold. Pure: no files, no kernel."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from zerohop.config import Configuration, Shortcut
from zerohop.config.protocol import Protocol
from zerohop.config.selection import declarations, plain_endpoints, virtual_ports

__all__ = ["Protocol", "Tables", "VirtualService", "WorkloadEntry", "compile_tables"]

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
class VirtualService:
    """What a virtual address and port stand for. `endpoints`: addresses (16 bytes), ports and weights, never empty."""

    service: str
    endpoints: tuple[tuple[bytes, int, int], ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """Every workload is named `NS/NAME`, the key of `workloads`.

    `cgroups`: path relative to the cgroup v2 mount, `/a/b`, to workload, without those that `zerohop exec` makes.
    `units`: systemd unit to workload. `ports`: workload and the TCP port on which it listens, to the declared protocol.
    `excluded`: workload and port that stay plain TCP. `services`: `NS/NAME` of those that `port_services` and
    `endpoints` name, in the configuration's order. `port_services`: workload and port to the first Service that has it.
    `endpoints`: plain addresses of Services (16 bytes, IPv4 as v4-mapped) and ports, to protocol and Service.
    `virtuals`: virtual addresses and ports that have endpoints.
    """

    workloads: dict[str, WorkloadEntry]
    cgroups: dict[str, str]
    units: dict[str, str]
    ports: dict[tuple[str, int], Protocol]
    excluded: frozenset[tuple[str, int]]
    services: tuple[str, ...] = ()
    port_services: dict[tuple[str, int], str] = field(default_factory=dict)
    endpoints: dict[tuple[bytes, int], tuple[Protocol, str]] = field(default_factory=dict)
    virtuals: dict[tuple[bytes, int], VirtualService] = field(default_factory=dict)


def compile_tables(configuration: Configuration) -> Tables:
    """The tables for a configuration that `zerohop.config.load` has accepted.

    Where one Service names a protocol for a port and another does not, the one that does counts.
    """
    workloads = configuration.workloads
    ports: dict[tuple[str, int], Protocol] = {}
    undeclared: set[tuple[str, int]] = set()
    port_services: dict[tuple[str, int], str] = {}
    for each in declarations(workloads, configuration.services, configuration.endpoint_slices):
        port_services.setdefault((each.workload, each.number), each.service.key)
        if each.protocol is None:
            undeclared.add((each.workload, each.number))
        else:
            ports[each.workload, each.number] = each.protocol
    for key in undeclared:
        ports.setdefault(key, Protocol.TCP)
    endpoints = _endpoints(configuration, ports)
    virtuals = {
        (_sixteen_bytes(each.address), each.port.port): VirtualService(
            each.service.key,
            tuple((_sixteen_bytes(at), number, weight) for (at, number), weight in each.endpoints.items()),
        )
        for each in virtual_ports(workloads, configuration.services, configuration.endpoint_slices)
        if each.endpoints
    }
    named = {
        *port_services.values(),
        *(service for _, service in endpoints.values()),
        *(each.service for each in virtuals.values()),
    }
    return Tables(
        workloads={
            each.key: WorkloadEntry(each.namespace, each.name, each.service_account, _SHORTCUT[each.shortcut])
            for each in workloads
        },
        cgroups={path: each.key for each in workloads for path in each.cgroups},
        units={unit: each.key for each in workloads for unit in each.units},
        ports=ports,
        excluded=frozenset((each.key, port) for each in workloads for port in each.exclude_ports),
        services=tuple(each.key for each in configuration.services if each.key in named),
        port_services=port_services,
        endpoints=endpoints,
        virtuals=virtuals,
    )


def _endpoints(
    configuration: Configuration, ports: Mapping[tuple[str, int], Protocol]
) -> dict[tuple[bytes, int], tuple[Protocol, str]]:
    """What a managed client may dial outside the mesh; of two Services the first counts.

    Where a workload listens the kernel knows better whose connection it is: it sees the listener.
    """
    listening: dict[int, set[bytes]] = {}
    addresses = {each.key: [_sixteen_bytes(address) for address in each.addresses] for each in configuration.workloads}
    for workload, number in ports:
        listening.setdefault(number, set()).update(addresses[workload])
    found: dict[tuple[bytes, int], tuple[Protocol, str]] = {}
    for each in plain_endpoints(configuration.services, configuration.endpoint_slices):
        address = _sixteen_bytes(each.address)
        if address not in listening.get(each.number, ()):
            found.setdefault((address, each.number), (each.protocol or Protocol.TCP, each.service.key))
    return found


def _sixteen_bytes(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
