"""AuthorizationPolicy as the compiler reads it, checked, with defaults. Its meaning is Istio's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from zerohop.config.errors import Source

ROOT_NAMESPACE: Final = "istio-system"
TRUST_DOMAIN: Final = "cluster.local"


class Action(StrEnum):
    """What a policy does with a call that one of its rules matches. AUDIT only reports it."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"


@dataclass(frozen=True, slots=True)
class Values:
    """A field and its negation: one of `any_of` (no constraint when empty) and none of `none_of`."""

    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.any_of or self.none_of)


@dataclass(frozen=True, slots=True)
class Caller:
    """`rules[].from[].source`. Service accounts read `NAMESPACE/NAME`, blocks as CIDR."""

    principals: Values = Values()
    namespaces: Values = Values()
    service_accounts: Values = Values()
    trust_domains: Values = Values()
    ip_blocks: Values = Values()
    remote_ip_blocks: Values = Values()


@dataclass(frozen=True, slots=True)
class Operation:
    """`rules[].to[].operation`. Ports in decimal."""

    hosts: Values = Values()
    ports: Values = Values()
    methods: Values = Values()
    paths: Values = Values()


@dataclass(frozen=True, slots=True)
class Condition:
    """`rules[].when[]`. `key` as in `request.headers[x-user]`, the name in small letters; blocks as CIDR."""

    key: str
    values: Values


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches when one caller, one operation and all conditions do; no callers, no operations: all of them."""

    callers: tuple[Caller, ...]
    operations: tuple[Operation, ...]
    conditions: tuple[Condition, ...]
    source: Source


class Unreadable(StrEnum):
    """Connections whose calls cannot be judged (`zerohop.io/unreadable`)."""

    DENY = "deny"
    ALLOW = "allow"


class Existing(StrEnum):
    """Connections from before there were policies for their calls (`zerohop.io/existing-connections`)."""

    RESET = "reset"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """`security.istio.io/v1` AuthorizationPolicy. `services`: names of targetRefs, in its namespace.

    `deny_reset` (`zerohop.io/deny: reset`): a denied call costs its connection. `dry_run` (`istio.io/dry-run`): what it
    would do is reported, not done.
    """

    namespace: str
    name: str
    action: Action
    selector: Mapping[str, str]
    services: tuple[str, ...]
    rules: tuple[Rule, ...]
    dry_run: bool
    deny_reset: bool
    unreadable: Unreadable
    existing: Existing
    source: Source

    @property
    def key(self) -> str:
        """`NS/NAME`."""
        return f"{self.namespace}/{self.name}"
