"""The rules of workload `policy`: as many as asked, of the kinds that services have, of which one allows the calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from zerohop.bench.topology import SERVER_ADDRESSES

RULES_PER_POLICY: Final = 512
CALLERS: Final = 16
"""Service accounts beside the client's that rules name, each with a workload."""

_WORKLOAD: Final = """\
---
apiVersion: zerohop.io/v1alpha1
kind: Workload
metadata: {{name: caller-{number}, namespace: bench}}
spec: {{serviceAccount: caller-{number}, addresses: [{addresses}], shortcut: Auto}}
"""

_POLICY: Final = """\
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {name}
  namespace: bench
spec:
  selector:
    matchLabels:
      app: server
  action: ALLOW
  rules:
"""

_FROM: Final = """\
  - from:
    - source:
        serviceAccounts: [{account}]
    to:
"""
_TO: Final = "  - to:\n"
_OPERATION: Final = """\
    - operation:
        methods: ["POST"]
        paths: [{paths}]
"""
_WHEN: Final = """\
    when:
    - key: request.headers[x-tenant]
      {values}
"""


@dataclass(frozen=True)
class Rule:
    """Allows to POST to `path`.

    `account`: whom, None: everybody. `tenant`: with which header x-tenant, None: any or none; or, if `negated`, with
    none that is that.
    """

    path: str
    account: str | None = None
    tenant: str | None = None
    negated: bool = False

    @property
    def document(self) -> str:
        """An element of an AuthorizationPolicy's `rules`."""
        source = _TO if self.account is None else _FROM.format(account=self.account)
        operation = _OPERATION.format(paths=f'"{self.path}"')
        if self.tenant is None:
            return source + operation
        return source + operation + _WHEN.format(values=f"{'notValues' if self.negated else 'values'}: [{self.tenant}]")


def rule_documents(count: int, method: str) -> str:
    """ALLOW policies for `bench/server` with `count` rules altogether; to follow other documents.

    The last rule is the only one by which `bench/client` may call `method` (a path), which has no header x-tenant.
    """
    addresses = ", ".join(SERVER_ADDRESSES)
    parts = [_WORKLOAD.format(number=number, addresses=addresses) for number in range(CALLERS)]
    for number, rule in enumerate(rules(count, method)):
        if number % RULES_PER_POLICY == 0:
            parts.append(_POLICY.format(name=_name(number)))
        parts.append(rule.document)
    return "".join(parts)


def decider(count: int) -> tuple[str, int]:
    """The policy (`NS/NAME`) and its rule that allow the calls."""
    return f"bench/{_name(count - 1)}", (count - 1) % RULES_PER_POLICY


def _name(rule: int) -> str:
    return f"rules-{rule // RULES_PER_POLICY:05}"


def rules(count: int, method: str) -> Iterator[Rule]:
    """`count` rules, of which the last alone lets `client` call `method` (a path)."""
    for number in range(count - 1):
        path = f"/shop.Service{number // 20}/Method{number % 20}"
        account = f"caller-{number % CALLERS}" if number % 3 else "client"
        yield Rule(
            path,
            account if number % 4 in (1, 3) else None,
            f"tenant-{number}" if number % 4 in (2, 3) else None,
        )
    yield Rule(method, "client", "suspended", negated=True)
