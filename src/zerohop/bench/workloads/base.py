"""What every workload offers to the runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from zerohop.bench.figures import Figures
from zerohop.bench.rules import Rule
from zerohop.bench.stage import Stage
from zerohop.bench.topology import SERVER_ADDRESSES
from zerohop.bench.turns import Work


class Workload(Protocol):
    name: str
    cases: tuple[str, ...]
    unit: str
    """What one operation is, for people: `round trip`, `request`, `MiB`."""
    may_leave: bool
    """Whether zerohop may rightly decide that a connection of this workload is best left to TCP."""

    def prepare(self, scratch: Path) -> dict[str, str]:
        """Makes the programs ready; returns their versions. `UnsupportedError` names what is missing."""

    def configuration(self, port: int) -> str:
        """The YAML documents that make `bench/server` (listening on `port`) and `bench/client` short-cut."""


@runtime_checkable
class StreamWorkload(Workload, Protocol):
    """A workload whose programs measure by themselves, one mode after the other."""

    def run(self, case: str, stage: Stage) -> Figures:
        """Starts server and client on `stage`, measures once, and has ended both."""


class Client(Protocol):
    """A load generator, whose server runs."""

    @property
    def passes(self) -> Mapping[str, float]:
        """What it has to be started for, one after the other, to have all figures; for which part of the time."""

    def working(self, stage: Stage, which: str, seconds: float) -> AbstractContextManager[Work]:
        """Starts it for one of its `passes`: it is warm when the block begins, and works for `seconds` from then on."""

    def call(self, stage: Stage, count: int) -> None:
        """Makes exactly `count` calls; raises `ZerohopError` unless each is answered."""


@runtime_checkable
class CallingWorkload(Workload, Protocol):
    """A workload whose operations are calls that the engine reads and counts; its modes take turns."""

    counted_as: str
    """How each of them is counted: a key of `account.Counts.calls`."""
    frames: int
    """HTTP/2 frames that one of them is, both ways together."""

    def serving(self, case: str, stage: Stage) -> AbstractContextManager[Client]:
        """A server on `stage` for the block, and the client that calls it as `case` says."""


@runtime_checkable
class JudgedWorkload(CallingWorkload, Protocol):
    """A workload whose calls are judged by policies of its own, other ones in each case."""

    def policies(self, case: str) -> str:
        """The YAML documents, to follow those of `configuration`."""

    def rules(self, case: str) -> Iterable[Rule]:
        """What `policies` says, for others to judge by."""

    def decider(self, case: str) -> tuple[str, int]:
        """The policy (`NS/NAME`) and its rule by which the calls are allowed."""

    def make_forbidden_calls(self, stage: Stage, count: int) -> None:
        """Makes exactly `count` calls that the policies forbid; raises `ZerohopError` where they are seen to pass."""


_WORKLOAD: Final = """\
apiVersion: zerohop.io/v1alpha1
kind: Workload
metadata: {{name: {name}, namespace: bench, labels: {{app: {name}}}}}
spec: {{serviceAccount: {name}, addresses: [{addresses}], shortcut: {shortcut}}}
"""

_SERVICE: Final = """\
---
apiVersion: v1
kind: Service
metadata: {{name: server, namespace: bench}}
spec:
  selector: {{app: server}}
  ports: [{{name: {protocol}, port: {port}, targetPort: {port}, appProtocol: {protocol}}}]
"""


_POLICY: Final = """\
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  rules:
  - from: [{source: {serviceAccounts: [client]}}]
    to: [{operation: {methods: [GET, POST], paths: ["/*"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: strangers, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules:
  - when: [{key: "request.headers[x-user]", values: [stranger]}]
"""


def policy_document() -> str:
    """Policies by which every call to `bench/server` is judged, and allowed; to follow other documents."""
    return _POLICY


def workload_documents(*, shortcut: str) -> str:
    """The two Workload documents, with `shortcut` `Auto` or `Always`."""
    addresses = ", ".join(SERVER_ADDRESSES)
    return "---\n".join(
        _WORKLOAD.format(name=name, addresses=addresses, shortcut=shortcut) for name in ("server", "client")
    )


def service_document(protocol: str, port: int) -> str:
    """The Service document of `bench/server`, whose `port` speaks `protocol`; to follow other documents."""
    return _SERVICE.format(protocol=protocol, port=port)
