"""Writes compiled tables into the maps. New entries come before stale ones go, so that nothing is ever missing."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from zerohop.compiler import Tables
from zerohop.errors import ZerohopError
from zerohop.kernel import cgroup, pins
from zerohop.kernel.datapath import DataPath

log = logging.getLogger("zerohop")


def text(value: Any) -> str:
    """A NUL-terminated character array as text."""
    return bytes(value).split(b"\0", 1)[0].decode()


def workload_ids(path: DataPath, *, removed: bool = True) -> dict[str, int]:
    """`NS/NAME` to the number by which the kernel knows the workload."""
    return {
        f"{text(value.namespace_name)}/{text(value.name)}": key.value
        for key, value in path.maps["workloads"].items()
        if removed or not value.removed
    }


def cgroup_paths(path: DataPath) -> dict[str, int]:
    """Cgroup path to workload number, as the kernel's tree of names has it."""
    children: dict[int, list[tuple[str, int, int]]] = {}
    for key, value in path.maps["cgroups"].items():
        children.setdefault(key.parent, []).append((text(key.name), value.node, value.workload))
    found: dict[str, int] = {}
    pending = [("", 0)]
    while pending:
        prefix, parent = pending.pop()
        for name, node, workload in children.get(parent, ()):
            if workload:
                found[f"{prefix}/{name}"] = workload
            pending.append((f"{prefix}/{name}", node))
    return found


def apply(
    path: DataPath,
    tables: Tables,
    cgroups: dict[str, str],
    generation: int,
    apply_policies: Callable[[dict[str, int]], None] = lambda _: None,
) -> None:
    """Makes the maps say what `tables` say. `cgroups`: cgroup path to `NS/NAME`, units and `exec` resolved.

    `apply_policies` is given `NS/NAME` to number: a workload has its policies before it has its first socket.

    Workloads keep their numbers for as long as they are configured, or a connection of theirs is open, so
    that established connections keep their names. The generation comes last: by it the kernel decides anew, by tables
    that are complete, about connections that are open (bpf/mesh/shortcut.h, `decide_again`).
    """
    ids = _apply_workloads(path, tables)
    services = _apply_services(path, tables)
    _apply_ports(path, tables, ids, services)
    apply_policies(ids)
    _apply_cgroups(path, {where: ids[name] for where, name in cgroups.items()})
    _apply_endpoints(path, tables, services)
    _apply_virtuals(path, tables, services)
    settings = path.settings()
    settings.generation = generation
    path.write_settings(settings)


def _apply_workloads(path: DataPath, tables: Tables) -> dict[str, int]:
    table = path.maps["workloads"]
    ids = workload_ids(path)
    following = max(ids.values(), default=0) + 1
    for name, entry in tables.workloads.items():
        if name not in ids:
            ids[name] = following
            following += 1
        value = path.layouts.struct("workload")()
        value.namespace_name = entry.namespace.encode()
        value.name = entry.name.encode()
        value.service_account = entry.service_account.encode()
        value.shortcut = entry.shortcut
        table.put(ctypes.c_uint32(ids[name]), value)
    gone = {number for name, number in ids.items() if name not in tables.workloads}
    long_gone = {key.value for key, value in table.items() if value.removed} & gone
    if long_gone:
        long_gone -= {end.workload for _, conn in path.maps["connections"].items() for end in conn.ends}
        # The highest number stays taken, so that none is given twice: old flow records still name the others.
        long_gone -= {max(ids.values())}
        for number in long_gone:
            table.delete(ctypes.c_uint32(number))
        _forget_telemetry(path, long_gone)
    # Until its cgroups have gone too, a connection can be made that is its own: the number is not free yet.
    for number in gone - long_gone:
        key = ctypes.c_uint32(number)
        value = table.get(key)
        if value is not None:
            value.removed = 1
            table.put(key, value)
    return ids


def _forget_telemetry(path: DataPath, workloads: set[int]) -> None:
    """Removes the rows of workloads that nothing names any more, to make room."""
    for name in ("series", "spare_series", "tcp_series"):
        table = path.maps[name]
        for key in list(table.keys()):
            if key.source in workloads or key.destination in workloads:
                table.delete(key)
    methods = path.maps["methods"]
    for key in list(methods.keys()):
        if key.destination in workloads:
            methods.delete(key)
    for number in workloads:
        path.maps["method_counts"].delete(ctypes.c_uint32(number))


def has_removed_with_connections(path: DataPath) -> bool:
    """Whether a workload that is configured no more still has open connections."""
    removed = {key.value for key, value in path.maps["workloads"].items() if value.removed}
    if not removed:
        return False
    with path.inspection():
        return any(key.value in removed for key, _ in path.maps["workload_connections"].items())


def _apply_cgroups(path: DataPath, wanted: dict[str, int]) -> None:
    table = path.maps["cgroups"]
    key_type, node_type = path.layouts.struct("cgroup_key"), path.layouts.struct("cgroup_node")
    present = {(key.parent, bytes(key.name)): value.node for key, value in table.items()}
    following = max(present.values(), default=0) + 1
    keep: set[tuple[int, bytes]] = set()
    workload_at = {where.strip("/"): number for where, number in wanted.items()}
    nodes: dict[str, int] = {"": 0}
    for where in sorted({"/".join(full.split("/")[:n]) for full in workload_at for n in range(1, full.count("/") + 2)}):
        parent, _, name = where.rpartition("/")
        key = key_type(nodes[parent], name.encode())
        identity = (key.parent, bytes(key.name))
        number = present.get(identity)
        if number is None:
            number, following = following, following + 1
        nodes[where] = number
        keep.add(identity)
        table.put(key, node_type(number, workload_at.get(where, 0)))
    for parent_node, name_bytes in present.keys() - keep:
        table.delete(key_type(parent_node, name_bytes))


def _apply_services(path: DataPath, tables: Tables) -> dict[str, int]:
    """`NS/NAME` to number. A Service keeps it as long as there is room: rows of telemetry name it when it has gone."""
    table = path.maps["services"]
    ids = {f"{text(value.namespace_name)}/{text(value.name)}": key.value for key, value in table.items()}
    following = max(ids.values(), default=0) + 1
    if len(ids.keys() | set(tables.services)) > table.entries():
        _forget_services(path, ids, set(tables.services))
    for name in tables.services:
        if name not in ids:
            ids[name] = following
            following += 1
            namespace, _, own = name.partition("/")
            table.put(ctypes.c_uint32(ids[name]), path.layouts.struct("service")(namespace.encode(), own.encode()))
    return ids


def _forget_services(path: DataPath, ids: dict[str, int], wanted: set[str]) -> None:
    """Takes out Services that are configured no more: those that no row names, and as many others as must be."""
    table = path.maps["services"]
    rows = (key for name in ("series", "spare_series", "tcp_series") for key, _ in path.maps[name].items())
    named = {key.service for key in rows}
    for name in sorted(ids.keys() - wanted, key=lambda name: (ids[name] in named, ids[name])):
        if ids[name] in named and len(ids.keys() | wanted) <= table.entries():
            return
        table.delete(ctypes.c_uint32(ids.pop(name)))


def _apply_ports(path: DataPath, tables: Tables, ids: dict[str, int], services: dict[str, int]) -> None:
    table = path.maps["ports"]
    key_type, value_type = path.layouts.struct("port_key"), path.layouts.struct("port")
    wanted: dict[tuple[int, int], Any] = {}
    for (name, number), protocol in tables.ports.items():
        service = tables.port_services.get((name, number), "")
        wanted[ids[name], number] = value_type(int(protocol), 0, services.get(service, 0))
    for name, number in tables.excluded:
        wanted.setdefault((ids[name], number), value_type(0, 0, 0)).excluded = 1
    for (workload, number), value in wanted.items():
        table.put(key_type(workload, number), value)
    for key in list(table.keys()):
        if (key.workload, key.port) not in wanted:
            table.delete(key)


def _apply_endpoints(path: DataPath, tables: Tables, services: dict[str, int]) -> None:
    table = path.maps["endpoints"]
    value_type = path.layouts.struct("endpoint")
    for (address, port), (protocol, service) in tables.endpoints.items():
        table.put(_endpoint_key(path, address, port), value_type(int(protocol), services[service]))
    for key in list(table.keys()):
        if (bytes(key.address), key.port) not in tables.endpoints:
            table.delete(key)


def _apply_virtuals(path: DataPath, tables: Tables, services: dict[str, int]) -> None:
    """A list of endpoints is never changed: another takes its place in one step, and then it goes."""
    virtuals, backends = path.maps["virtuals"], path.maps["backends"]
    key_type, backend_type = path.layouts.struct("backend_key"), path.layouts.struct("backend")
    lists: dict[int, dict[int, tuple[bytes, int, int]]] = {}
    for place, value in backends.items():
        entry = (bytes(value.endpoint.address), value.endpoint.port, value.weight_end)
        lists.setdefault(place.list, {})[place.index] = entry
    present = {(bytes(key.address), key.port): value for key, value in virtuals.items()}
    following = max(lists, default=0) + 1
    used: set[int] = set()
    for (address, port), wanted in tables.virtuals.items():
        ends = accumulate(weight for _, _, weight in wanted.endpoints)
        entries = dict(
            enumerate((at, number, end) for (at, number, _), end in zip(wanted.endpoints, ends, strict=True))
        )
        value = present.get((address, port))
        if value is None or lists.get(value.list) != entries:
            value = path.layouts.struct("virtual_service")(list=following, count=len(entries))
            value.weight = sum(weight for _, _, weight in wanted.endpoints)
            for index, (at, number, end) in entries.items():
                backend = backend_type(weight_end=end, list=following)
                backend.endpoint = _endpoint_key(path, at, number)
                backends.put(key_type(following, index), backend)
            following += 1
        value.service = services[wanted.service]
        virtuals.put(_endpoint_key(path, address, port), value)
        used.add(value.list)
    for address, port in present.keys() - tables.virtuals.keys():
        virtuals.delete(_endpoint_key(path, address, port))
    for number in lists.keys() - used:
        for index in lists[number]:
            backends.delete(key_type(number, index))


def _endpoint_key(path: DataPath, address: bytes, port: int) -> Any:
    key = path.layouts.struct("endpoint_key")(port=port)
    key.address[:] = address
    return key


def overlaps(instance: str, wanted: dict[str, str]) -> list[tuple[str, str, str]]:
    """Cgroups that another instance manages too: (our path, its path, its name)."""
    found: list[tuple[str, str, str]] = []
    for other in pins.instances():
        if other == instance or not (pins.folder(other) / "maps" / "settings").exists():
            continue
        try:
            with DataPath.open_any(other) as path:
                theirs = cgroup_paths(path)
        except (ZerohopError, KeyError, AttributeError) as error:
            # Half made or half removed, or of a build that keeps its cgroups otherwise.
            log.warning("what instance %s manages cannot be read: %s", other, error)
            continue
        for mine in wanted:
            for its in theirs:
                if f"{mine}/".startswith(f"{its}/") or f"{its}/".startswith(f"{mine}/"):
                    found.append((mine, its, other))
    return found


def wanted_cgroups(instance: str, tables: Tables, units: dict[str, str]) -> dict[str, str]:
    """Cgroup path to `NS/NAME`: configured, of units (`units`: unit to path), and where `exec` puts processes."""
    wanted = dict(tables.cgroups)
    for unit, name in tables.units.items():
        if wanted.setdefault(units[unit], name) != name:
            raise ZerohopError(
                f"workloads {wanted[units[unit]]} and {name} share the cgroup {units[unit]} (the unit {unit})",
                hint="bind it to one of the two",
            )
    for name, entry in tables.workloads.items():
        wanted[cgroup.exec_path(instance, entry.namespace, entry.name)] = name
    return wanted
