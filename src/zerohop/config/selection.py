"""Which workloads and plain addresses are behind a Service's ports, and what protocol that declares for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from zerohop.config.errors import Source
from zerohop.config.model import EndpointSlice, Service, ServicePort, Transport, Workload
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
    service: Service
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
                    yield PlainEndpoint(address, port.port, protocol, service, piece.source)
