"""`v1` Service."""

from __future__ import annotations

import ipaddress
from typing import Final

from zerohop.config.documents import Node, Scalar
from zerohop.config.errors import shown
from zerohop.config.fields import Fields
from zerohop.config.metadata import read_metadata
from zerohop.config.model import Service, ServicePort, Transport
from zerohop.config.names import address, canonical_address, dns_label, label_key, label_value, target_port_name

_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")

# Set by or for whoever brings traffic from outside the cluster to the node: kube-proxy, a cloud's controller.
_OUTSIDE: Final = (
    "allocateLoadBalancerNodePorts",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "loadBalancerClass",
    "loadBalancerIP",
)


def read_service(fields: Fields) -> Service | None:
    """The Service that a document describes, with errors reported; None where it cannot even be named."""
    metadata = read_metadata(fields, dns_label)
    spec = fields.mapping("spec", required=True)
    selector: dict[str, str] = {}
    cluster_ips: tuple[str, ...] = ()
    ports: list[ServicePort] = []
    if spec is not None:
        selector = spec.pairs("selector", label_key, label_value)
        cluster_ips, headless = _cluster_ips(spec)
        before = len(spec.problems.errors)
        ports = _ports(spec, headless=headless)
        if len(spec.problems.errors) != before:
            spec.problems.lost.add("ServicePort")
        _check_rest(spec)
        spec.finish()
    fields.accept("status")
    fields.finish()
    if metadata is None:
        fields.problems.lost.add("Service")
        return None
    return Service(
        namespace=metadata.namespace,
        name=metadata.name,
        labels=metadata.labels,
        selector=selector,
        cluster_ips=cluster_ips,
        ports=tuple(ports),
        source=fields.node.source,
    )


def _check_rest(spec: Fields) -> None:
    """The fields with one meaning that zerohop can honour, and those with none."""
    spec.accept(*_OUTSIDE, "ipFamilies", "ipFamilyPolicy", "trafficDistribution")
    if spec.choice("type", _TYPES) == "ExternalName":
        spec.error("type", "ExternalName is not supported", "remove the Service; clients can use that name")
    spec.refuse("externalName", "is not supported", "remove the Service; clients can use that name")
    spec.refuse("externalIPs", "is not supported", "use clusterIPs")
    spec.refuse(
        "loadBalancerSourceRanges", "is not enforced by zerohop", "remove it, and restrict sources at the load balancer"
    )
    spec.refuse("sessionAffinityConfig", "is not supported", "remove it")
    if spec.choice("sessionAffinity", ("None", "ClientIP")) == "ClientIP":
        spec.error("sessionAffinity", "ClientIP is not supported", "remove it, or write None")
    if spec.choice("internalTrafficPolicy", ("Cluster", "Local")) == "Local":
        spec.error("internalTrafficPolicy", "Local is not supported", "remove it, or write Cluster")
    if spec.boolean("publishNotReadyAddresses"):
        spec.error("publishNotReadyAddresses", "true is not supported", "remove it, or write false")


def _cluster_ips(spec: Fields) -> tuple[tuple[str, ...], bool]:
    """The virtual addresses, and whether the Service says that it has none (`None`)."""
    single = spec.text("clusterIP")
    listed = spec.texts("clusterIPs")
    if single and not spec.has("clusterIPs"):
        written = [(single, spec.place("clusterIP"), "spec.clusterIP")]
    else:
        written = [(text.value, text.source, f"spec.clusterIPs[{index}]") for index, text in enumerate(listed)]
    if single and listed and canonical_address(listed[0].value) != canonical_address(single):
        spec.error("clusterIP", f"{shown(single)} is not the first of clusterIPs", "make the two equal, or keep one")
    if [value for value, _, _ in written] == ["None"]:
        return (), True
    good: list[str] = []
    for value, source, path in written:
        fault = address(value)
        if fault is not None:
            spec.problems.add(source, f"{path}: {fault.message}", fault.hint)
        elif any(_family(value) == _family(other) for other in good):
            spec.problems.add(source, f"{path}: a second address of one family", "give one IPv4 and one IPv6 address")
        else:
            good.append(canonical_address(value))
    return tuple(good), False


def _family(value: str) -> int:
    return ipaddress.ip_address(value).version


def _ports(spec: Fields, *, headless: bool) -> list[ServicePort]:
    """The ports that could be read; errors for the others, for names and for numbers that occur twice."""
    items = spec.items("ports")
    if spec.is_empty("ports") and not headless:
        spec.error("ports", "at least one port is needed", "as in ports: [{name: grpc, port: 80, targetPort: 50051}]")
    ports: list[ServicePort] = []
    names: dict[str, int] = {}
    numbers: set[tuple[int, Transport]] = set()
    for node, path in items:
        fields = spec.fields_of(node, path)
        if fields is None:
            continue
        port = _port(fields, needs_name=len(items) > 1)
        if port is None:
            continue
        if port.name and port.name in names:
            fields.error("name", f"a second port {port.name!r}", f"line {names[port.name]} has it already")
        if (port.port, port.transport) in numbers:
            fields.error("port", f"{port.transport} port {port.port} is there twice", "keep one of them")
        names.setdefault(port.name, port.source.line)
        numbers.add((port.port, port.transport))
        ports.append(port)
    return ports


def _port(fields: Fields, *, needs_name: bool) -> ServicePort | None:
    name = fields.text("name", dns_label, required=needs_name)
    number = fields.integer("port", 1, 65535, required=True)
    target = _target(fields)
    transport = fields.choice("protocol", list(Transport))
    app_protocol = fields.text("appProtocol", label_key)
    fields.accept("nodePort")
    fields.finish()
    if number is None:
        return None
    return ServicePort(
        name=name or "",
        port=number,
        target_port=number if target is None else target,
        transport=Transport(transport or Transport.TCP),
        app_protocol=app_protocol,
        source=fields.node.source,
        target_source=fields.place("targetPort"),
    )


def _target(fields: Fields) -> int | str | None:
    """`targetPort`: a number, or a name that starts life as a string."""
    node: Node | None = fields.raw("targetPort")
    if isinstance(node, Scalar) and node.type == "str":
        return fields.text("targetPort", target_port_name)
    return fields.integer("targetPort", 1, 65535)
