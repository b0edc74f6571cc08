"""AuthorizationPolicy read word by word from Istio's reference: slow, without tables, to compare the compiler with."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from zerohop.config import Configuration, Workload
from zerohop.config.policies import Action, AuthorizationPolicy, Caller, Condition, Operation, Rule, Values


@dataclass(frozen=True)
class Request:
    """`workload`: the client's, None outside the mesh. `http`: method, path, host; None on a port that is not HTTP.

    The path is one that servers read alike, maybe with a query; `headers` have no `host`.
    """

    workload: Workload | None
    source: str
    destination: str
    port: int
    http: tuple[str, str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def matches_text(pattern: str, value: str | None, *, path: bool = False) -> bool:
    if value is None:
        return False
    if path and "{" in pattern:
        expression = re.escape(pattern).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+")
        return re.fullmatch(expression, value, re.DOTALL) is not None
    if pattern == "*":
        return value != ""
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    return value == pattern


def in_block(block: str, address: str) -> bool:
    network, parsed = ipaddress.ip_network(block), ipaddress.ip_address(address)
    return parsed.version == network.version and parsed in network


def holds(values: Values, match: Callable[[str], bool]) -> bool:
    return (not values.any_of or any(map(match, values.any_of))) and not any(map(match, values.none_of))


class Semantics:
    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def applicable(
        self, destination: Workload, port: int, action: Action, *, dry_run: bool = False
    ) -> list[AuthorizationPolicy]:
        found = []
        for policy in self.configuration.policies:
            if policy.action is not action or (policy.dry_run and not dry_run):
                continue
            if policy.services:
                services = [
                    each
                    for each in self.configuration.services
                    if each.namespace == policy.namespace and each.name in policy.services
                ]
                if not any(
                    each.namespace == destination.namespace
                    and each.selector
                    and each.selector.items() <= destination.labels.items()
                    and any(ported.target_port == port for ported in each.ports)
                    for each in services
                ):
                    continue
            else:
                if policy.namespace not in (destination.namespace, self.configuration.root_namespace):
                    continue
                if not all(destination.labels.get(key) == value for key, value in policy.selector.items()):
                    continue
            found.append(policy)
        return sorted(found, key=lambda each: each.key)

    def first(self, policies: Iterable[AuthorizationPolicy], request: Request) -> bool:
        return any(self.rule(policy, rule, request) for policy in policies for rule in policy.rules)

    def allowed(self, destination: Workload, request: Request, *, dry_run: bool = False) -> bool:
        """`dry_run`: as if those policies were in force."""
        denying = self.applicable(destination, request.port, Action.DENY, dry_run=dry_run)
        allowing = self.applicable(destination, request.port, Action.ALLOW, dry_run=dry_run)
        if self.first(denying, request):
            return False
        return not allowing or self.first(allowing, request)

    def asks_for_paths(self, destination: Workload, port: int) -> bool:
        """Whether any policy does."""
        applicable = [each for action in Action for each in self.applicable(destination, port, action, dry_run=True)]
        return any(each.paths for policy in applicable for rule in policy.rules for each in rule.operations)

    def audited(self, destination: Workload, request: Request) -> bool:
        return self.first(self.applicable(destination, request.port, Action.AUDIT), request)

    def rule(self, policy: AuthorizationPolicy, rule: Rule, request: Request) -> bool:
        denies = policy.action is Action.DENY
        return (
            (not rule.callers or any(self.caller(each, request) for each in rule.callers))
            and (not rule.operations or any(self.operation(each, request, denies=denies) for each in rule.operations))
            and all(self.condition(each, request, denies=denies) for each in rule.conditions)
        )

    def identity(self, request: Request) -> tuple[str | None, str | None, str | None, str | None]:
        workload, domain = request.workload, self.configuration.trust_domain
        if workload is None:
            return None, None, None, None
        account = f"{workload.namespace}/{workload.service_account}"
        principal = f"{domain}/ns/{workload.namespace}/sa/{workload.service_account}"
        return principal, workload.namespace, account, domain

    def caller(self, caller: Caller, request: Request) -> bool:
        principal, namespace, account, domain = self.identity(request)
        return (
            holds(caller.principals, lambda each: matches_text(each, principal))
            and holds(caller.namespaces, lambda each: matches_text(each, namespace))
            and holds(caller.service_accounts, lambda each: each == account)
            and holds(caller.trust_domains, lambda each: matches_text(each, domain))
            and holds(caller.ip_blocks, lambda each: in_block(each, request.source))
            and holds(caller.remote_ip_blocks, lambda each: in_block(each, request.source))
        )

    def operation(self, operation: Operation, request: Request, *, denies: bool) -> bool:
        if not holds(operation.ports, lambda each: int(each) == request.port):
            return False
        if request.http is None:
            return denies or not (operation.methods or operation.paths or operation.hosts)
        method, path, host = request.http
        return (
            holds(operation.methods, lambda each: matches_text(each, method))
            and holds(operation.paths, lambda each: matches_text(each, re.split("[?#]", path)[0], path=True))
            and holds(operation.hosts, lambda each: matches_text(each.lower(), host.lower()))
        )

    def condition(self, condition: Condition, request: Request, *, denies: bool) -> bool:
        principal, namespace, _, _ = self.identity(request)
        found = re.fullmatch(r"request\.headers\[(.*)\]", condition.key)
        if found:
            if request.http is None:
                return denies
            if found[1] == "host":  # for Envoy another name of :authority; compared here as `hosts` are
                host = request.http[2].lower()
                return holds(condition.values, lambda each: matches_text(each.lower(), host))
            value = request.headers.get(found[1])
            return holds(condition.values, lambda each: matches_text(each, value))
        texts = {"source.principal": principal, "source.namespace": namespace, "destination.port": str(request.port)}
        if condition.key in texts:
            return holds(condition.values, lambda each: matches_text(each, texts[condition.key]))
        address = request.destination if condition.key == "destination.ip" else request.source
        return holds(condition.values, lambda each: in_block(each, address))
