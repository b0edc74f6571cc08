"""The objects of a configuration, as the compiler reads them: checked, with defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from zerohop.config.errors import Source
from zerohop.config.policies import ROOT_NAMESPACE, TRUST_DOMAIN, AuthorizationPolicy

DEFAULT_WEIGHT: Final = 1


class Shortcut(StrEnum):
    """Which connections of a workload may pass TCP by."""

    AUTO = "Auto"
    ALWAYS = "Always"
    DISABLED = "Disabled"


class Transport(StrEnum):
    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


@dataclass(frozen=True, slots=True)
class Workload:
    """`zerohop.io/v1alpha1` Workload. Cgroup paths read `/a/b`, relative to the cgroup v2 mount."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    service_account: str
    addresses: tuple[str, ...]
    cgroups: tuple[str, ...]
    units: tuple[str, ...]
    shortcut: Shortcut
    exclude_ports: tuple[int, ...]
    source: Source
    weight: int = DEFAULT_WEIGHT

    @property
    def key(self) -> str:
        """`NS/NAME`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service. `target_port` is a name only where EndpointSlices give its number."""

    name: str
    port: int
    target_port: int | str
    transport: Transport
    app_protocol: str | None
    source: Source
    target_source: Source


@dataclass(frozen=True, slots=True)
class Service:
    """`v1` Service. No selector: only EndpointSlices give it endpoints."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    selector: Mapping[str, str]
    cluster_ips: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    source: Source

    @property
    def key(self) -> str:
        """`NS/NAME`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """A port of an EndpointSlice: the number behind the Service's port of that name."""

    name: str
    port: int
    transport: Transport
    app_protocol: str | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    addresses: tuple[str, ...]
    ready: bool


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """`discovery.k8s.io/v1` EndpointSlice; `service` is a Service's name in the same namespace."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    service: str
    ports: tuple[EndpointPort, ...]
    endpoints: tuple[Endpoint, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything the files say. `digest` is the SHA-256 of the files' names and contents, in hexadecimal."""

    workloads: tuple[Workload, ...]
    services: tuple[Service, ...]
    endpoint_slices: tuple[EndpointSlice, ...]
    digest: str
    policies: tuple[AuthorizationPolicy, ...] = ()
    root_namespace: str = ROOT_NAMESPACE
    trust_domain: str = TRUST_DOMAIN
