"""`discovery.k8s.io/v1` EndpointSlice."""

from __future__ import annotations

import ipaddress
from typing import Final

from zerohop.config.errors import shown
from zerohop.config.fields import Fields
from zerohop.config.metadata import Metadata, read_metadata
from zerohop.config.model import Endpoint, EndpointPort, EndpointSlice, Transport
from zerohop.config.names import address, canonical_address, dns_label, dns_subdomain, label_key
from zerohop.config.workload import unique

SERVICE_LABEL: Final = "kubernetes.io/service-name"
_VERSIONS: Final = {"IPv4": 4, "IPv6": 6}


def read_endpoint_slice(fields: Fields) -> EndpointSlice | None:
    """The EndpointSlice that a document describes, with errors reported; None where it lacks a name or Service."""
    metadata = read_metadata(fields, dns_subdomain)
    family = fields.choice("addressType", ("IPv4", "IPv6", "FQDN"), required=True)
    if family == "FQDN":
        fields.error("addressType", "FQDN is not supported", "list IPv4 or IPv6 addresses")
    before = len(fields.problems.errors)
    ports = _ports(fields)
    if len(fields.problems.errors) != before:
        fields.problems.lost.add("EndpointPort")
    endpoints = [
        endpoint
        for node, path in fields.items("endpoints")
        if (inner := fields.fields_of(node, path)) is not None
        and (endpoint := _endpoint(inner, _VERSIONS.get(family or ""))) is not None
    ]
    fields.finish()
    service = _service(fields, metadata)
    if metadata is None or service is None:
        fields.problems.lost.add("EndpointSlice")
        return None
    return EndpointSlice(
        namespace=metadata.namespace,
        name=metadata.name,
        labels=metadata.labels,
        service=service,
        ports=tuple(ports),
        endpoints=tuple(endpoints),
        source=fields.node.source,
    )


def _service(fields: Fields, metadata: Metadata | None) -> str | None:
    if metadata is None:
        return None
    service = metadata.labels.get(SERVICE_LABEL)
    if service is not None:
        return service
    if metadata.complete:
        source = fields.places.of("metadata.labels")
        fields.problems.add(source, f"metadata.labels: {SERVICE_LABEL} is missing", "set it to the Service's name")
    return None


def _ports(fields: Fields) -> list[EndpointPort]:
    ports: list[EndpointPort] = []
    for node, path in fields.items("ports"):
        inner = fields.fields_of(node, path)
        if inner is None:
            continue
        # Kubernetes writes "" where the Service's only port has no name.
        name = inner.text("name", lambda value: dns_label(value) if value else None) or ""
        number = inner.integer("port", 1, 65535, required=True)
        transport = inner.choice("protocol", list(Transport))
        app_protocol = inner.text("appProtocol", label_key)
        inner.finish()
        if any(port.name == name for port in ports):
            inner.error("name", f"a second port {name!r}", "give every port its own name")
        elif number is not None:
            ports.append(EndpointPort(name, number, Transport(transport or Transport.TCP), app_protocol))
    return ports


def _endpoint(fields: Fields, version: int | None) -> Endpoint | None:
    texts = fields.texts("addresses", address if version else None)
    if fields.is_empty("addresses"):
        fields.error("addresses", "at least one address is needed", "as in addresses: [10.0.0.7]")
    for text in texts:
        if version and ipaddress.ip_address(text.value).version != version:
            message = f"{fields.name_of('addresses')}: {shown(text.value)} is not IPv{version}, the slice's addressType"
            fields.problems.add(text.source, message, "put it into a slice of its own addressType")
    ready = True
    conditions = fields.mapping("conditions")
    if conditions is not None:
        ready = conditions.boolean("ready") is not False
        conditions.boolean("serving")
        conditions.boolean("terminating")
        conditions.finish()
    fields.accept("deprecatedTopology", "hints", "hostname", "nodeName", "targetRef", "zone")
    fields.finish()
    if not version:
        return None
    return Endpoint(unique(texts, fields.problems, canonical_address), ready)
