"""What can only be judged with all objects at hand: references, claims on one thing by two objects, totals."""

from __future__ import annotations

from collections.abc import Iterable

from zerohop.config.errors import Problems, Source, nearest, shown, suggest
from zerohop.config.kinds import Objects, Placed
from zerohop.config.model import EndpointSlice, Service, Workload
from zerohop.config.names import (
    MAX_BACKENDS,
    MAX_CGROUP_NODES,
    MAX_ENDPOINTS,
    MAX_PORTS,
    MAX_SERVICES,
    MAX_VIRTUALS,
    MAX_WORKLOADS,
)
from zerohop.config.selection import (
    Declaration,
    Selection,
    declarations,
    plain_endpoints,
    target_numbers,
    virtual_ports,
)


def check_references(objects: Objects, problems: Problems) -> None:
    """Adds an error for everything that the objects say about each other and that does not hold."""
    _check_claims(objects, problems)
    slices: dict[str, list[EndpointSlice]] = {}
    for piece in objects.endpoint_slices:
        slices.setdefault(f"{piece.object.namespace}/{piece.object.service}", []).append(piece.object)
    _check_selectors(objects, slices, problems)
    _check_slices(objects, problems)
    _check_named_ports(objects, slices, problems)
    _check_declarations(objects, problems)
    _check_plain_endpoints(objects, problems)
    _check_virtual_ports(objects, problems)
    _check_policies(objects, problems)
    _check_totals(objects, problems)


def _check_claims(objects: Objects, problems: Problems) -> None:
    """A cgroup, a unit and a virtual address each belong to one object."""
    owners: dict[tuple[str, str], str] = {}

    def claim(what: str, value: str, owner: str, source: Source) -> None:
        first = owners.setdefault((what, value), owner)
        if first != owner:
            problems.add(source, f"{what} {shown(value)} belongs to {first} already", "give it to one of the two")

    for placed in objects.workloads:
        workload = placed.object
        for index, path in enumerate(workload.cgroups):
            claim("cgroup", path, f"Workload {workload.key}", placed.places.of(f"spec.cgroups[{index}]"))
        for index, unit in enumerate(workload.units):
            claim("unit", unit, f"Workload {workload.key}", placed.places.of(f"spec.units[{index}]"))
    for service in objects.services:
        for value in service.object.cluster_ips:
            source = service.places.fields.get("spec.clusterIPs") or service.places.of("spec.clusterIP")
            claim("address", value, f"Service {service.object.key}", source)


def _check_selectors(objects: Objects, slices: dict[str, list[EndpointSlice]], problems: Problems) -> None:
    """A selector finds a workload, unless EndpointSlices say where else the Service's endpoints are."""
    if problems.lost & {"Workload", "EndpointSlice"}:
        return
    workloads = [placed.object for placed in objects.workloads]
    selection = Selection(workloads)
    for placed in objects.services:
        service = placed.object
        if service.selector and service.key not in slices and not selection.of(service.namespace, service.selector):
            wanted = ", ".join(f"{key}={value}" for key, value in service.selector.items())
            message = f"spec.selector: no Workload in namespace {service.namespace} has the labels {wanted}"
            problems.add(placed.places.of("spec.selector"), message, _selector_hint(service, workloads))


def _selector_hint(service: Service, workloads: Iterable[Workload]) -> str:
    everywhere = list(workloads)
    here = [each for each in everywhere if each.namespace == service.namespace]
    if not here:
        elsewhere = [each.namespace for each in everywhere if service.selector.items() <= each.labels.items()]
        if elsewhere:
            return f"such a Workload is in namespace {elsewhere[0]!r}"
        return suggest(service.namespace, {each.namespace for each in everywhere}, "Workload")
    for key, value in service.selector.items():
        values = {each.labels[key] for each in here if key in each.labels}
        if not values:
            near = nearest(key, {label for each in here for label in each.labels})
            return f"did you mean the label {near!r}?" if near else f"no Workload there has a label {key!r}"
        if value not in values:
            return f"{key}: {suggest(value, values, 'value')}"
    return "each label is there, but no Workload carries all of them"


def _check_slices(objects: Objects, problems: Problems) -> None:
    """An EndpointSlice belongs to a Service of its namespace, and its ports to that Service's."""
    services = {placed.object.key: placed.object for placed in objects.services}
    for placed in objects.endpoint_slices:
        piece = placed.object
        service = services.get(f"{piece.namespace}/{piece.service}")
        if service is not None:
            if "ServicePort" not in problems.lost:
                _check_slice_ports(placed, service, problems)
        elif "Service" not in problems.lost:
            here = {each.name for each in services.values() if each.namespace == piece.namespace}
            source = placed.places.of("metadata.labels.kubernetes.io/service-name")
            message = f"kubernetes.io/service-name: no Service {piece.namespace}/{piece.service}"
            problems.add(source, message, suggest(piece.service, here, f"Service in namespace {piece.namespace}"))


def _check_slice_ports(placed: Placed[EndpointSlice], service: Service, problems: Problems) -> None:
    names = {port.name for port in service.ports}
    for index, port in enumerate(placed.object.ports):
        if port.name not in names:
            message = f"ports[{index}].name: Service {service.key} has no port {port.name!r}"
            source = placed.places.fields.get(f"ports[{index}].name") or placed.places.of(f"ports[{index}]")
            problems.add(source, message, suggest(port.name, names, "port"))


def _check_named_ports(objects: Objects, slices: dict[str, list[EndpointSlice]], problems: Problems) -> None:
    """A Workload does not name its ports, so that only an EndpointSlice can give a named targetPort its number."""
    if problems.lost & {"EndpointSlice", "EndpointPort"}:
        return
    for placed in objects.services:
        for port in placed.object.ports:
            if isinstance(port.target_port, str) and not target_numbers(port, slices.get(placed.object.key, ())):
                message = f"targetPort: nothing says which number the port {port.target_port!r} has"
                problems.add(port.target_source, message, "write the number on which the program listens")


def _check_declarations(objects: Objects, problems: Problems) -> None:
    """Services agree about a port of a workload; there are no more ports than the kernel's table holds."""
    first: dict[tuple[str, int], Declaration] = {}
    reported: set[tuple[Source, Source]] = set()
    ports = {(each.object.key, port) for each in objects.workloads for port in each.object.exclude_ports}
    full = False
    for each in declarations(
        [placed.object for placed in objects.workloads],
        [placed.object for placed in objects.services],
        [placed.object for placed in objects.endpoint_slices],
    ):
        ports.add((each.workload, each.number))
        if len(ports) > MAX_PORTS and not full:
            full = True
            message = f"more than {MAX_PORTS} ports of workloads are declared or excluded"
            problems.add(each.port.source, message, "select fewer workloads, or declare fewer ports")
        if each.protocol is None:
            continue
        other = first.setdefault((each.workload, each.number), each)
        pair = (each.port.source, other.port.source)
        if other.protocol is not each.protocol and other.protocol is not None and pair not in reported:
            reported.add(pair)
            problems.add(
                each.port.source,
                f"port {each.number} of Workload {each.workload} is {each.protocol.name.lower()} here and"
                f" {other.protocol.name.lower()} in Service {other.service.key}",
                f"make the two agree; the other is in {other.port.source}",
            )


def _check_policies(objects: Objects, problems: Problems) -> None:
    """A policy's targets are Services of its namespace. A selector may come before the workloads that it is for."""
    if "Service" in problems.lost:
        return
    services = {placed.object.key for placed in objects.services}
    for placed in objects.policies:
        policy = placed.object
        here = {key.partition("/")[2] for key in services if key.startswith(f"{policy.namespace}/")}
        for name in policy.services:
            if name not in here:
                source = placed.places.fields.get("spec.targetRefs") or placed.places.of("spec.targetRef")
                message = f"spec.targetRefs: no Service {policy.namespace}/{name}"
                problems.add(source, message, suggest(name, here, f"Service in namespace {policy.namespace}"))


def _check_plain_endpoints(objects: Objects, problems: Problems) -> None:
    """There are no more addresses outside the mesh than the kernel's table holds."""
    endpoints: set[tuple[str, int]] = set()
    services = [placed.object for placed in objects.services]
    for each in plain_endpoints(services, [placed.object for placed in objects.endpoint_slices]):
        endpoints.add((each.address, each.number))
        if len(endpoints) > MAX_ENDPOINTS:
            message = f"more than {MAX_ENDPOINTS} addresses and ports of EndpointSlices"
            problems.add(each.source, message, "list only those that this node's workloads call")
            return


def _check_virtual_ports(objects: Objects, problems: Problems) -> None:
    """There are no more virtual addresses and endpoints behind them than the kernel's tables hold twice."""
    found = virtual_ports(
        [placed.object for placed in objects.workloads],
        [placed.object for placed in objects.services],
        [placed.object for placed in objects.endpoint_slices],
    )
    endpoints = 0
    for ports, each in enumerate(found, start=1):
        endpoints += len(each.endpoints)
        if ports > MAX_VIRTUALS or endpoints > MAX_BACKENDS // 2:
            limit = f"{MAX_VIRTUALS} ports of" if ports > MAX_VIRTUALS else f"{MAX_BACKENDS // 2} endpoints behind"
            hint = "give clusterIPs only to the Services that this node's workloads call"
            problems.add(each.service.source, f"more than {limit} virtual addresses", hint)
            return


def _check_totals(objects: Objects, problems: Problems) -> None:
    """What the kernel's tables of Services, of workloads and of cgroup names hold."""
    for placed_service in objects.services[MAX_SERVICES : MAX_SERVICES + 1]:
        message = f"more than {MAX_SERVICES} Services"
        problems.add(placed_service.object.source, message, "keep those that this node's workloads are in or call")
    # `zerohop exec` has /zerohop/INSTANCE/NAMESPACE/WORKLOAD; a unit adds its name and a slice at least.
    nodes: set[str] = {"/zerohop", "/zerohop/default"}
    for number, placed in enumerate(objects.workloads, start=1):
        workload = placed.object
        for path in (
            f"/zerohop/default/{workload.key}",
            *workload.cgroups,
            *(f"/system.slice/{u}" for u in workload.units),
        ):
            parts = path.split("/")
            nodes.update("/".join(parts[:depth]) for depth in range(2, len(parts) + 1))
        if number > MAX_WORKLOADS:
            problems.add(workload.source, f"more than {MAX_WORKLOADS} Workloads", "spread them over several nodes")
            return
        if len(nodes) > MAX_CGROUP_NODES:
            message = f"the cgroup paths up to here have more than {MAX_CGROUP_NODES} different parts"
            problems.add(workload.source, message, "name their common parent instead")
            return
