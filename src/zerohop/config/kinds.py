"""From a document to an object: which kinds there are, and Kubernetes' List of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from zerohop.config.authorization_policy import read_authorization_policy
from zerohop.config.documents import Mapping, Node, Unusable, kind_of
from zerohop.config.endpoint_slice import read_endpoint_slice
from zerohop.config.errors import Problems, shown, suggest
from zerohop.config.fields import Fields, Path, Places
from zerohop.config.model import EndpointSlice, Service, Workload
from zerohop.config.policies import AuthorizationPolicy
from zerohop.config.service import read_service
from zerohop.config.workload import read_workload

API_VERSIONS: Final = {
    "Workload": "zerohop.io/v1alpha1",
    "Service": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "AuthorizationPolicy": "security.istio.io/v1",
    "List": "v1",
}
# What an object may say instead: the same fields under an older name.
_OLDER: Final = {"AuthorizationPolicy": "security.istio.io/v1beta1"}
PLANNED: Final = {
    "GRPCRoute": "gateway.networking.k8s.io/v1",
    "MessagePolicy": "zerohop.io/v1alpha1",
}

T = TypeVar("T", Workload, Service, EndpointSlice, AuthorizationPolicy)


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """An object, and where its fields stand."""

    object: T
    places: Places


@dataclass
class Objects:
    """What the documents hold, in their order; the first of objects that have one name. `count` counts them all."""

    workloads: list[Placed[Workload]] = field(default_factory=list)
    services: list[Placed[Service]] = field(default_factory=list)
    endpoint_slices: list[Placed[EndpointSlice]] = field(default_factory=list)
    policies: list[Placed[AuthorizationPolicy]] = field(default_factory=list)
    count: int = 0
    _names: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def read(self, root: Node, problems: Problems) -> None:
        """Reads one document."""
        self._read(root, "the document", problems, nested=False)

    def _read(self, node: Node, what: Path | str, problems: Problems, *, nested: bool) -> None:
        if not isinstance(node, Mapping):
            if not isinstance(node, Unusable):
                message = f"{what} must be an object, not {kind_of(node)}"
                problems.add(node.source, message, "begin with apiVersion, kind and metadata")
            problems.lose_all()
            return
        places = Places(node.source)
        # Paths begin at the object also in a List, so that its fields' places are found under the same names.
        fields = Fields(node, "", problems, places)
        kind = _kind(fields)
        if kind == "List" and not nested:
            self._read_list(fields)
            return
        self.count += 1
        if kind == "List":
            fields.error("kind", "a List in a List", "put its items into the outer one")
            problems.lose_all()
        elif kind == "Workload":
            self._keep(read_workload(fields), kind, self.workloads, places, problems)
        elif kind == "Service":
            self._keep(read_service(fields), kind, self.services, places, problems)
        elif kind == "EndpointSlice":
            self._keep(read_endpoint_slice(fields), kind, self.endpoint_slices, places, problems)
        elif kind == "AuthorizationPolicy":
            self._keep(read_authorization_policy(fields), kind, self.policies, places, problems)

    def _read_list(self, fields: Fields) -> None:
        fields.accept("metadata")
        for item, path in fields.items("items"):
            self._read(item, path, fields.problems, nested=True)
        fields.finish()

    def _keep(self, read: T | None, kind: str, objects: list[Placed[T]], places: Places, problems: Problems) -> None:
        if read is None:
            return
        identity = (kind, read.namespace, read.name)
        if identity in self._names:
            source = places.of("metadata.name")
            message = f"a second {kind} {read.namespace}/{read.name}"
            problems.add(source, message, f"the first is in {self._names[identity]}; remove or rename one")
            return
        self._names[identity] = str(read.source)
        objects.append(Placed(read, places))


def _kind(fields: Fields) -> str | None:
    """The document's kind; None, with an error, for one that cannot be read."""
    version = fields.text("apiVersion", required=True)
    kind = fields.text("kind", required=True)
    problems = fields.problems
    if kind is None:
        problems.lose_all()
        return None
    if kind in PLANNED:
        known = f"{PLANNED[kind]} {kind}" if version == PLANNED[kind] else f"{shown(version or '')} {kind}"
        fields.error("kind", f"{known} is not supported yet", "remove it: this version does not enforce it")
        return None
    if kind not in API_VERSIONS:
        hint = suggest(kind, API_VERSIONS, "kind")
        if hint.startswith("did you mean"):
            problems.lose_all()
        fields.error("kind", f"unknown kind {shown(kind)}", hint)
        return None
    if version is not None and version not in (API_VERSIONS[kind], _OLDER.get(kind)):
        fields.error("apiVersion", f"{shown(version)} has no {kind} that zerohop knows", f"write {API_VERSIONS[kind]}")
    return kind
