"""Which flows and methods somebody wants to see: one meaning for every command."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import click

from zerohop.kernel.telemetry import Calls, Names, Workload
from zerohop.telemetry.flows import GRPC_STATUSES, Flow


def parse_status(value: str) -> tuple[bool, int]:
    """`OK`, `not_found`, `5`, and after `!` everything else: (negated, number). Raises `click.BadParameter`."""
    negated, name = value.startswith("!"), value.removeprefix("!").upper()
    if name in GRPC_STATUSES:
        return negated, GRPC_STATUSES.index(name)
    if name.isdigit() and int(name) < len(GRPC_STATUSES):
        return negated, int(name)
    raise click.BadParameter(
        f"{value!r} is no gRPC status; there are 0 to 16, or {', '.join(GRPC_STATUSES)}", param_hint="--status"
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """Empty fields match everything. Workloads are `NS/NAME` or `NS/*`, methods a glob."""

    workload: str = ""
    source: str = ""
    destination: str = ""
    service: str = ""
    method: str = ""
    status: tuple[bool, int] | None = None
    reason: str = ""
    protocol: str = ""
    kind: str = ""
    verdict: str = ""
    policy: str = ""
    dry_run: str = ""
    audited: bool = False

    def require_known(self, names: Names) -> None:
        """Raises `click.BadParameter` for a reason or protocol that this build does not have."""
        reasons = [name for number, name in names.reasons.items() if number]
        for noun, value, known in (
            ("reason", self.reason, reasons),
            ("protocol", self.protocol, list(names.protocols.values())),
        ):
            if value and value not in known:
                from zerohop.config.errors import nearest

                near = nearest(value, known)
                hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
                raise click.BadParameter(f"{value!r} is no {noun}; {hint}", param_hint=f"--{noun}")

    def _ends(self, source: Workload | None, destination: Workload | None) -> bool:
        names = [f"{each.namespace}/{each.name}" if each else "" for each in (source, destination)]
        return (
            (not self.workload or any(fnmatchcase(name, self.workload) for name in names))
            and (not self.source or fnmatchcase(names[0], self.source))
            and (not self.destination or fnmatchcase(names[1], self.destination))
        )

    def _labels(self, service: str, method: str | None, status: int | None) -> bool:
        if self.service and not fnmatchcase(service, self.service):
            return False
        if self.method and not fnmatchcase(method or "", self.method):
            return False
        return self.status is None or (status is not None and (status == self.status[1]) != self.status[0])

    def flow(self, flow: Flow) -> bool:
        return (
            self._ends(flow.source.workload, flow.destination.workload)
            and self._labels(flow.service or "", flow.method, flow.grpc_status)
            and (not self.reason or flow.reason == self.reason)
            and (not self.protocol or flow.protocol == self.protocol)
            and (not self.kind or flow.kind == self.kind)
            and (not self.verdict or flow.verdict == self.verdict)
            and (not self.policy or fnmatchcase(flow.policy or "", self.policy))
            and (not self.dry_run or (flow.dry_run is not None and flow.dry_run.verdict == self.dry_run))
            and (not self.audited or flow.audit is not None)
        )

    def calls(self, row: Calls) -> bool:
        """Calls in flight have no status yet: they match any."""
        service = f"{row.service.namespace}/{row.service.name}" if row.service else ""
        if row.ending == "open":
            return self._ends(row.source, row.destination) and (
                (not self.service or fnmatchcase(service, self.service))
                and (not self.method or fnmatchcase(row.method or "", self.method))
            )
        return self._ends(row.source, row.destination) and self._labels(service, row.method, row.grpc_status)
