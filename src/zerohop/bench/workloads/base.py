"""What every workload offers to the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from zerohop.bench.figures import Figures
from zerohop.bench.stage import Stage
from zerohop.bench.topology import SERVER_ADDRESSES


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

    def run(self, case: str, stage: Stage) -> Figures:
        """Starts server and client on `stage`, measures once, and has ended both."""


_WORKLOAD: Final = """\
apiVersion: zerohop.io/v1alpha1
kind: Workload
metadata: {{name: {name}, namespace: bench, labels: {{app: {name}}}}}
spec: {{serviceAccount: {name}, addresses: [{addresses}], shortcut: {shortcut}}}
"""


def workload_documents(*, shortcut: str) -> str:
    """The two Workload documents, with `shortcut` `Auto` or `Always`."""
    addresses = ", ".join(SERVER_ADDRESSES)
    return "---\n".join(
        _WORKLOAD.format(name=name, addresses=addresses, shortcut=shortcut) for name in ("server", "client")
    )
