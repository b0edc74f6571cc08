"""Flow records: one a call, or a connection that the engine does not read."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from zerohop.kernel.datapath import GRPC_STATUS_NONE
from zerohop.kernel.telemetry import Names, Workload, wall_clock

# https://grpc.io/docs/guides/status-codes/
GRPC_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

_CALL = 1

# As bpf/shared/policy.h packs who decided.
_DECIDER_SET = 0x80000000
_DECIDER_DENY = 0x40000000
_DECIDER_RULE_BITS = 10


@dataclass(frozen=True, slots=True)
class End:
    """One side of a flow; `workload` None: not managed."""

    workload: Workload | None
    address: str
    port: int

    @property
    def name(self) -> str:
        """`NS/NAME`, or the address of an end outside the mesh."""
        return f"{self.workload.namespace}/{self.workload.name}" if self.workload else self.address

    def as_json(self) -> dict[str, Any]:
        return {
            "namespace": self.workload.namespace if self.workload else None,
            "workload": self.workload.name if self.workload else None,
            "principal": self.workload.principal if self.workload else None,
            "address": self.address,
            "port": self.port,
        }


@dataclass(frozen=True, slots=True)
class Decider:
    """`policy` (`NS/NAME`) and `rule` (its index): None where no rule decided."""

    verdict: str
    policy: str | None
    rule: int | None

    def as_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "policy": self.policy, "rule": self.rule}


@dataclass(frozen=True, slots=True)
class Flow:
    """`time`: of its end. Bytes of a call are of DATA without padding, of a connection all payload.

    `kind`: call or connection. `ending`: complete, client_reset, server_reset, closed, unread. `reason`: why a
    connection is not short-cut, or what denied it. `verdict`: ALLOW or DENY; `policy` (`NS/NAME`) and `rule` (its
    index): what decided so, None where no rule did. `audit`: who audits it. `dry_run`: the verdict, and who decides, if
    dry-run policies were in force; None where there are none, or where nobody read the calls that they ask for.
    """

    time: datetime
    kind: str
    source: End
    destination: End
    service: str | None
    protocol: str
    method: str | None
    http_status: int | None
    grpc_status: int | None
    ending: str
    deadline_exceeded: bool
    verdict: str
    reason: str | None
    policy: str | None
    rule: int | None
    audit: Decider | None
    dry_run: Decider | None
    latency_us: int | None
    request_bytes: int
    response_bytes: int
    request_messages: int
    response_messages: int
    connection: int
    stream: int | None

    def as_json(self) -> dict[str, Any]:
        return {
            "time": self.time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "source": self.source.as_json(),
            "destination": self.destination.as_json(),
            "protocol": self.protocol,
            "method": self.method,
            "grpc_status": self.grpc_status,
            "verdict": self.verdict,
            "reason": self.reason,
            "policy": self.policy,
            "rule": self.rule,
            "latency_us": self.latency_us,
            "request_bytes": self.request_bytes,
            "response_bytes": self.response_bytes,
            "request_messages": self.request_messages,
            "response_messages": self.response_messages,
            "kind": self.kind,
            "service": self.service,
            "http_status": self.http_status,
            "ending": self.ending,
            "deadline_exceeded": self.deadline_exceeded,
            "connection": self.connection,
            "stream": self.stream,
            "audit": {"policy": self.audit.policy, "rule": self.audit.rule} if self.audit else None,
            "dry_run": self.dry_run.as_json() if self.dry_run else None,
        }


def address_of(packed: bytes) -> str:
    """The address of 16 bytes, IPv4 where it is v4-mapped."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def is_known(record: Any, names: Names) -> bool:
    """Whether every number of the record (`struct flow`) has a name."""
    return (
        (not record.method or record.method in names.methods)
        and (not record.source or record.source in names.workloads)
        and (not record.destination or record.destination in names.workloads)
        and (not record.service or record.service in names.services)
        and all(
            not number or number in names.policies
            for number in (record.policy, _policy_number(record.audit), _policy_number(record.dry_run))
        )
    )


def _policy_number(decider: int) -> int:
    return (decider & ~(_DECIDER_SET | _DECIDER_DENY)) >> _DECIDER_RULE_BITS


def _decider(number: int, names: Names) -> Decider | None:
    if not number:
        return None
    rule = number & ((1 << _DECIDER_RULE_BITS) - 1)
    return Decider(
        verdict="DENY" if number & _DECIDER_DENY else "ALLOW",
        policy=names.policies.get(_policy_number(number)),
        rule=rule - 1 if rule else None,
    )


def flow_of(record: Any, names: Names) -> Flow:
    """A record (`struct flow` of bpf/shared/telemetry.h) with names in place of numbers."""
    call = record.kind == _CALL
    service = names.services.get(record.service)
    reason = names.reasons[record.reason] if record.reason else None
    return Flow(
        time=datetime.fromtimestamp(wall_clock(record.end_ns), UTC),
        kind="call" if call else "connection",
        source=End(names.workloads.get(record.source), address_of(bytes(record.source_address)), record.source_port),
        destination=End(
            names.workloads.get(record.destination),
            address_of(bytes(record.destination_address)),
            record.destination_port,
        ),
        service=f"{service.namespace}/{service.name}" if service else None,
        protocol=names.protocols.get(record.protocol, "unknown"),
        method=names.methods.get(record.method),
        http_status=record.http_status or None,
        grpc_status=None if record.grpc_status == GRPC_STATUS_NONE else record.grpc_status,
        ending=names.endings[record.ending],
        deadline_exceeded=bool(record.deadline),
        verdict=names.verdicts[record.verdict].upper(),
        reason=reason,
        policy=names.policies.get(record.policy),
        rule=record.rule - 1 if record.rule else None,
        audit=_decider(record.audit, names),
        dry_run=_decider(record.dry_run, names),
        latency_us=record.latency_ns // 1000 if call else None,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        request_messages=record.request_messages,
        response_messages=record.response_messages,
        connection=record.connection,
        stream=record.stream or None,
    )


def status_name(status: int) -> str:
    return GRPC_STATUSES[status] if status < len(GRPC_STATUSES) else str(status)
