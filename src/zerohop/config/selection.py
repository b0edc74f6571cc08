"""Which workloads and plain addresses are behind a Service's ports, and what protocol that declares for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from zerohop.config.errors import Source
from zerohop.config.model import DEFAULT_WEIGHT, EndpointSlice, Service, ServicePort, Transport, Workload
from zerohop.config.protocol import Protocol, declared_protocol


class Selection:
    """Answers selectors from an index by label, so that many Services over many workloads stay cheap."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self._by_label: dict[tuple[str, str, str], list[Workload]] = {}
        for workload in workloads:
            for label in workload.labels.items():
                self._by_label.setdefault((workload.namespace, *label), []).append(workload)

    def of(self, namespace: str, selector: Mapping[str, str]) -> list[Workload]:
        """The workloads of the namespace that carry all the labels; none for an empty selector, as in Kubernetes."""
        if not selector:
            return []
        candidates = min((self._by_label.get((namespace, *label), []) for label in selector.items()), key=len)
        return [each for each in candidates if selector.items() <= each.labels.items()]


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a Service's port says about a port of a workload. `protocol` None: it says nothing."""

    workload: str
    number: int
    protocol: Protocol | None
    port: ServicePort
    service: Service


def target_numbers(port: ServicePort, slices: Iterable[EndpointSlice]) -> set[int]:
    """The numbers behind a Service's port: its own, or for a name those of the Service's EndpointSlices."""
    if isinstance(port.target_port, int):
        return {port.target_port}
    return {
        each.port
        for piece in slices
        for each in piece.ports
        if each.name == port.name and each.transport is port.transport
    }


def declarations(
    workloads: Iterable[Workload], services: Iterable[Service], slices: Iterable[EndpointSlice]
) -> Iterator[Declaration]:
    """Everything that Services declare about TCP ports of workloads, in the order of the Services."""
    selection = Selection(workloads)
    by_service: dict[str, list[EndpointSlice]] = {}
    for piece in slices:
        by_service.setdefault(f"{piece.namespace}/{piece.service}", []).append(piece)
    for service in services:
        selected = selection.of(service.namespace, service.selector)
        for port in service.ports:
            if port.transport is not Transport.TCP:
                continue
            protocol = declared_protocol(port.app_protocol, port.name)
            for number in sorted(target_numbers(port, by_service.get(service.key, ()))):
                for workload in selected:
                    yield Declaration(workload.key, number, protocol, port, service)


@dataclass(frozen=True, slots=True)
class PlainEndpoint:
    """An address and port that an EndpointSlice gives a Service. `protocol` None: the Service says nothing about it."""

    address: str
    number: int
    protocol: Protocol | None
    port: ServicePort
    service: Service
    ready: bool
    source: Source


def plain_endpoints(services: Iterable[Service], slices: Iterable[EndpointSlice]) -> Iterator[PlainEndpoint]:
    """The TCP endpoints of all EndpointSlices, in their order; what `check_references` refuses is passed over."""
    by_key = {each.key: each for each in services}
    for piece in slices:
        service = by_key.get(f"{piece.namespace}/{piece.service}")
        if service is None:
            continue
        declared = {each.name: each for each in service.ports if each.transport is Transport.TCP}
        for port in piece.ports:
            of_service = declared.get(port.name)
            if port.transport is not Transport.TCP or of_service is None:
                continue
            protocol = declared_protocol(port.app_protocol or of_service.app_protocol, of_service.name)
            for endpoint in piece.endpoints:
                for address in endpoint.addresses:
                    yield PlainEndpoint(address, port.port, protocol, of_service, service, endpoint.ready, piece.source)


@dataclass(frozen=True, slots=True)
class VirtualPort:
    """A Service's port at one of its virtual addresses. `endpoints`: address and port to weight, of the same family."""

    address: str
    port: ServicePort
    service: Service
    endpoints: Mapping[tuple[str, int], int]


def virtual_ports(
    workloads: Iterable[Workload], services: Sequence[Service], slices: Sequence[EndpointSlice]
) -> Iterator[VirtualPort]:
    """What can be connected to by a virtual address, in the order of the Services.

    A Service's endpoints are the workloads that it selects and the ready ones of its EndpointSlices; one that is both
    counts as the workload. A workload that a named targetPort gives several numbers is known by its slices alone.
    """
    services = [each for each in services if each.cluster_ips]
    declared: dict[tuple[str, int], list[Declaration]] = {}
    by_key = {each.key: each for each in workloads}
    for each in declarations(by_key.values(), services, slices):
        declared.setdefault((each.service.key, each.port.port), []).append(each)
    plain: dict[tuple[str, int], list[PlainEndpoint]] = {}
    for endpoint in plain_endpoints(services, slices):
        if endpoint.ready:
            plain.setdefault((endpoint.service.key, endpoint.port.port), []).append(endpoint)
    for service in services:
        for port in service.ports:
            if port.transport is not Transport.TCP:
                continue
            found: dict[tuple[str, int], int] = {}
            selected = declared.get((service.key, port.port), ())
            if len({each.number for each in selected}) == 1:
                for each in selected:
                    workload = by_key[each.workload]
                    found.update(dict.fromkeys(((at, each.number) for at in workload.addresses), workload.weight))
            for endpoint in plain.get((service.key, port.port), ()):
                found.setdefault((endpoint.address, endpoint.number), DEFAULT_WEIGHT)
            for address in service.cluster_ips:
                family = ipaddress.ip_address(address).version
                of_family = {at: found[at] for at in found if ipaddress.ip_address(at[0]).version == family}
                yield VirtualPort(address, port, service, of_family)
