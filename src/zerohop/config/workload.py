"""`zerohop.io/v1alpha1` Workload."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from zerohop.config.errors import Problems, shown
from zerohop.config.fields import Fields, Text
from zerohop.config.metadata import read_metadata
from zerohop.config.model import DEFAULT_WEIGHT, Shortcut, Workload
from zerohop.config.names import (
    address,
    canonical_address,
    cgroup_path,
    dns_subdomain,
    normal_cgroup,
    unit_name,
    workload_name,
)

DEFAULT_ADDRESSES: Final = ("127.0.0.1", "::1")
MAX_WEIGHT: Final = 1000


def read_workload(fields: Fields) -> Workload | None:
    """The Workload that a document describes, with errors reported; None where it cannot even be named."""
    metadata = read_metadata(fields, workload_name)
    spec = fields.mapping("spec")
    service_account: str | None = None
    addresses: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    shortcut: str | None = None
    ports: list[int] = []
    weight: int | None = None
    if spec is not None:
        service_account = spec.text("serviceAccount", dns_subdomain)
        addresses = unique(spec.texts("addresses", address), fields.problems, canonical_address)
        cgroups = unique(spec.texts("cgroups", cgroup_path), fields.problems, normal_cgroup)
        units = unique(spec.texts("units", unit_name), fields.problems)
        shortcut = spec.choice("shortcut", list(Shortcut))
        ports = _ports(spec)
        weight = spec.integer("weight", 1, MAX_WEIGHT)
        spec.finish()
    fields.finish()
    if metadata is None or not metadata.complete:
        fields.problems.lost.add("Workload")
    if metadata is None:
        return None
    return Workload(
        namespace=metadata.namespace,
        name=metadata.name,
        labels=metadata.labels,
        service_account=service_account or "default",
        addresses=addresses or DEFAULT_ADDRESSES,
        cgroups=cgroups,
        units=units,
        shortcut=Shortcut(shortcut or Shortcut.AUTO),
        exclude_ports=tuple(ports),
        source=fields.node.source,
        weight=weight or DEFAULT_WEIGHT,
    )


def unique(
    texts: Iterable[Text], problems: Problems, normal: Callable[[str], str] = lambda value: value
) -> tuple[str, ...]:
    """The values in their normal form; one that came before is an error."""
    seen: dict[str, Text] = {}
    for text in texts:
        value = normal(text.value)
        if value in seen:
            problems.add(text.source, f"{shown(text.value)} is listed twice", "keep one of them")
        else:
            seen[value] = text
    return tuple(seen)


def _ports(spec: Fields) -> list[int]:
    ports: list[int] = []
    for node, path in spec.items("excludePorts"):
        port = spec.number(node, path, 1, 65535)
        if port in ports:
            spec.problems.add(node.source, f"{path}: {port} is listed twice", "keep one of them")
        elif port is not None:
            ports.append(port)
    return ports
