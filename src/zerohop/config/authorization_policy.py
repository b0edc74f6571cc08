"""`security.istio.io/v1` AuthorizationPolicy."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, TypeVar

from zerohop.config.errors import nearest, shown, suggest
from zerohop.config.fields import Fields, Path
from zerohop.config.metadata import Metadata, read_metadata
from zerohop.config.names import Check, Fault, dns_label, dns_subdomain, label_key, label_value
from zerohop.config.policies import (
    Action,
    AuthorizationPolicy,
    Caller,
    Condition,
    Existing,
    Operation,
    Rule,
    Unreadable,
    Values,
)

MAX_RULES: Final = 512
MAX_TARGETS: Final = 16
MAX_VALUE: Final = 1024  # bytes of a string that the kernel looks at

DRY_RUN: Final = "istio.io/dry-run"
_OWN_PREFIX: Final = "zerohop.io/"
_OWN: Final = {
    "zerohop.io/deny": ("status", "reset"),
    "zerohop.io/unreadable": tuple(Unreadable),
    "zerohop.io/existing-connections": tuple(Existing),
}

_HEADER_KEY: Final = re.compile(r"request\.headers\[(.*)\]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEMPLATE: Final = re.compile(r"\{[^/]*\}|[{}]")
_KEYS: Final = (
    "request.headers[NAME]", "source.ip", "remote.ip", "source.namespace", "source.principal", "destination.ip",
    "destination.port",
)  # fmt: skip
_NOTHING: Final = Values()
_NO_TOKENS: Final = "zerohop authenticates workloads, not end users: no JSON web token is checked here"

T = TypeVar("T")


def read_authorization_policy(fields: Fields) -> AuthorizationPolicy | None:
    """The policy that a document describes, with errors reported; None where it cannot even be named."""
    metadata = read_metadata(fields, dns_subdomain)
    spec = fields.mapping("spec")
    action = Action.ALLOW
    selector: dict[str, str] = {}
    services: tuple[str, ...] = ()
    rules: list[Rule] = []
    if spec is not None:
        action = _action(spec)
        selector, services = _targets(spec)
        nodes = spec.items("rules")
        if len(nodes) > MAX_RULES:
            spec.error(
                "rules", f"{len(nodes)} rules; a policy has at most {MAX_RULES}", "split it into several policies"
            )
        # Hundreds of thousands of fields may stand in rules, and objects refer to none of them.
        unplaced = spec.without_places()
        rules = [
            rule
            for node, path in nodes
            if (inner := unplaced.fields_of(node, path)) is not None and (rule := _rule(inner, metadata)) is not None
        ]
        spec.finish()
    fields.finish()
    if metadata is None:
        return None
    annotations = _annotations(fields, metadata)
    if action is Action.AUDIT and annotations.get(DRY_RUN) == "true":
        source = fields.places.of(f"metadata.annotations.{DRY_RUN}")
        fields.problems.add(source, f"metadata.annotations: {DRY_RUN}: AUDIT only reports as it is", "remove it")
    return AuthorizationPolicy(
        namespace=metadata.namespace,
        name=metadata.name,
        action=action,
        selector=selector,
        services=services,
        rules=tuple(rules),
        dry_run=annotations.get(DRY_RUN) == "true",
        deny_reset=annotations.get("zerohop.io/deny") == "reset",
        unreadable=Unreadable(annotations.get("zerohop.io/unreadable", Unreadable.DENY)),
        existing=Existing(annotations.get("zerohop.io/existing-connections", Existing.RESET)),
        source=fields.node.source,
    )


def _annotations(fields: Fields, metadata: Metadata) -> dict[str, str]:
    """Those that mean something here and are valid."""
    known = {DRY_RUN: ("true", "false"), **_OWN}
    found: dict[str, str] = {}
    for name, value in metadata.annotations.items():
        source = fields.places.of(f"metadata.annotations.{name}")
        if name in known:
            if value in known[name]:
                found[name] = value
            else:
                message = f"metadata.annotations: {name} is {shown(value)}"
                fields.problems.add(source, message, suggest(value, known[name], "value"))
        elif name.startswith(_OWN_PREFIX):
            message = f"metadata.annotations: unknown annotation {shown(name)}"
            fields.problems.add(source, message, suggest(name, _OWN, "annotation here"))
    return found


def _action(spec: Fields) -> Action:
    action = spec.text("action")
    if action == "CUSTOM":
        spec.error("action", "CUSTOM is not supported: there is no external authorizer", "use ALLOW, DENY or AUDIT")
        spec.accept("provider")
        return Action.ALLOW
    spec.refuse("provider", "is for action CUSTOM, which is not supported", "remove it")
    return Action(spec.choice("action", list(Action)) or Action.ALLOW)


def _targets(spec: Fields) -> tuple[dict[str, str], tuple[str, ...]]:
    """The selector's labels, and the names of the Services in targetRefs."""
    labels: dict[str, str] = {}
    selector = spec.mapping("selector")
    if selector is not None:
        labels = selector.pairs("matchLabels", label_key, label_value)
        selector.finish()
    if spec.has("targetRef") and spec.has("targetRefs"):
        spec.error("targetRef", "targetRefs is there, too", "put it into targetRefs")
    references = spec.items("targetRefs")
    node = spec.raw("targetRef")
    if node is not None:
        references = [*references, (node, Path(spec.path, "targetRef"))]
    if len(references) > MAX_TARGETS:
        spec.error("targetRefs", f"{len(references)} targets; a policy has at most {MAX_TARGETS}", "split the policy")
    if references and selector is not None:
        spec.error("selector", "a policy has a selector or targetRefs", "remove one of the two")
    names = [
        name
        for node, path in references
        if (inner := spec.fields_of(node, path)) is not None and (name := _target(inner)) is not None
    ]
    return labels, tuple(dict.fromkeys(names))


def _target(fields: Fields) -> str | None:
    group = fields.text("group") or ""
    kind = fields.text("kind", required=True)
    name = fields.text("name", dns_label, required=True)
    namespace = fields.text("namespace", dns_label)
    fields.finish()
    if kind is not None and (group not in ("", "core") or kind != "Service"):
        what = f"{group}/{kind}" if group else kind
        fields.error("kind", f"{shown(what)} is not supported", 'name a Service: group: "", kind: Service')
        return None
    if namespace is not None:
        fields.error("namespace", "a target is in the policy's own namespace", "remove it")
        return None
    return name


def _rule(fields: Fields, metadata: Metadata | None) -> Rule | None:
    namespace = metadata.namespace if metadata else ""
    callers = _each(fields, "from", "source", lambda inner: _caller(inner, namespace))
    operations = _each(fields, "to", "operation", _operation)
    conditions = [
        condition
        for node, path in fields.items("when")
        if (inner := fields.fields_of(node, path)) is not None and (condition := _condition(inner)) is not None
    ]
    fields.finish()
    return Rule(tuple(callers), tuple(operations), tuple(conditions), fields.node.source)


def _each(fields: Fields, name: str, wrapped: str, read: Callable[[Fields], T]) -> list[T]:
    """The entries of `from` or `to`, each a mapping of one name."""
    found: list[T] = []
    if fields.absent(name):
        return found
    elements = fields.items(name)
    if not elements and fields.has(name) and fields.is_empty(name):
        fields.error(name, "is empty", f"remove it: without '{name}' a rule matches all")
    for node, path in elements:
        outer = fields.fields_of(node, path)
        if outer is None:
            continue
        inner = outer.mapping(wrapped, required=True)
        outer.finish()
        if inner is None:
            continue
        before = len(fields.problems.errors)
        value = read(inner)
        if len(fields.problems.errors) == before:
            if not inner.node.entries:
                message = f"{inner.path} is empty"
                fields.problems.add(inner.node.source, message, f"say what it matches, or remove '{name}'")
            found.append(value)
    return found


def _caller(fields: Fields, namespace: str) -> Caller:
    principals = _values(fields, "principals", "notPrincipals", _pattern)
    namespaces = _values(fields, "namespaces", "notNamespaces", _pattern)
    accounts = _values(fields, "serviceAccounts", "notServiceAccounts", _account)
    for name in ("requestPrincipals", "notRequestPrincipals"):
        fields.refuse(name, _NO_TOKENS, "remove it, or check tokens in the service")
    caller = Caller(
        principals=principals,
        namespaces=namespaces,
        service_accounts=Values(
            tuple(_full_account(each, namespace) for each in accounts.any_of),
            tuple(_full_account(each, namespace) for each in accounts.none_of),
        )
        if accounts
        else accounts,
        trust_domains=_values(fields, "trustDomains", "notTrustDomains", _pattern),
        ip_blocks=_values(fields, "ipBlocks", "notIpBlocks", _block, _canonical_block),
        remote_ip_blocks=_values(fields, "remoteIpBlocks", "notRemoteIpBlocks", _block, _canonical_block),
    )
    fields.finish()
    if accounts and (principals or namespaces):
        name = "serviceAccounts" if accounts.any_of else "notServiceAccounts"
        fields.error(name, "cannot stand beside principals or namespaces", "say it with one of them")
    return caller


def _operation(fields: Fields) -> Operation:
    operation = Operation(
        hosts=_values(fields, "hosts", "notHosts", _pattern),
        ports=_values(fields, "ports", "notPorts", _port, _canonical_port),
        methods=_values(fields, "methods", "notMethods", _pattern),
        paths=_values(fields, "paths", "notPaths", _path),
    )
    fields.finish()
    return operation


def _condition(fields: Fields) -> Condition | None:
    key = fields.text("key", required=True)
    place = len(fields.problems.errors)
    if key is None:
        fields.accept("values", "notValues")
        fields.finish()
        return None
    found = _HEADER_KEY.fullmatch(key)
    check: Check = _pattern
    normal: Callable[[str], str] = str
    if found:
        if not _TOKEN.fullmatch(found[1]):
            fields.error("key", f"{shown(found[1])} is not the name of a header", "as in request.headers[x-user]")
        key = f"request.headers[{found[1].lower()}]"
    elif key in ("source.ip", "remote.ip", "destination.ip"):
        check, normal = _block, _canonical_block
    elif key == "destination.port":
        check, normal = _port, _canonical_port
    elif key.startswith("request.auth."):
        fields.error("key", f"{shown(key)}: {_NO_TOKENS}", "remove the condition, or check tokens in the service")
    elif key == "connection.sni":
        fields.error("key", "connection.sni: connections carry no TLS that the mesh could read", "remove the condition")
    elif key not in ("source.namespace", "source.principal"):
        near = nearest(key, _KEYS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(_KEYS)}"
        fields.error("key", f"unknown key {shown(key)}", hint)
    values = _values(fields, "values", "notValues", check, normal)
    fields.finish()
    if len(fields.problems.errors) == place and not values:
        fields.error("key", "neither values nor notValues", "add values: [...]")
    return Condition(key, values)


def _values(fields: Fields, name: str, negated: str, check: Check, normal: Callable[[str], str] = str) -> Values:
    """A list and its negation."""
    if fields.absent(name, negated):
        return _NOTHING
    found = []
    for each in (name, negated):
        texts = fields.strings(each, check)
        if not texts and fields.has(each) and fields.is_empty(each):
            fields.error(each, "is empty", "remove it, or say what it matches")
        found.append(texts if normal is str else tuple(map(normal, texts)))
    return Values(*found)


def _length(value: str) -> Fault | None:
    if not value:
        return Fault("an empty value matches nothing", "write a value, or '*' for any that is not empty")
    if len(value) > MAX_VALUE or (not value.isascii() and len(value.encode()) > MAX_VALUE):
        return Fault(f"{shown(value)} is longer than {MAX_VALUE} bytes", "match its beginning: 'abc*'")
    return None


def _pattern(value: str) -> Fault | None:
    """`abc`, `abc*`, `*abc` or `*`."""
    fault = _length(value)
    if fault is None and "*" in value[1:-1]:
        return Fault(f"{shown(value)}: '*' stands only first or last", "as in 'abc*', '*abc' or '*'")
    if fault is None and len(value) > 1 and value[0] == value[-1] == "*":
        return Fault(f"{shown(value)}: one '*' only, first or last", "as in 'abc*' or '*abc'")
    return fault


def _path(value: str) -> Fault | None:
    """A pattern, or a template: `{*}` is one segment, `{**}` the rest."""
    if "{" not in value and "}" not in value:
        return _pattern(value)
    operators = _TEMPLATE.findall(value)
    if _length(value):
        return _length(value)
    hint = "as in /shop/{*}/items or /shop/{**}"
    segments = value.split("/")
    for operator in operators:
        if operator not in ("{*}", "{**}"):
            return Fault(f"{shown(value)}: {shown(operator)} is neither {{*}} nor {{**}}", hint)
    if any(("{" in each or "}" in each) and each not in ("{*}", "{**}") for each in segments):
        return Fault(f"{shown(value)}: an operator is a whole segment of the path", hint)
    if "{**}" in segments[:-1]:
        return Fault(f"{shown(value)}: {{**}} stands only last", hint)
    if "*" in value.replace("{*}", "").replace("{**}", ""):
        return Fault(f"{shown(value)}: '*' does not go with {{*}} and {{**}}", hint)
    return None if value.startswith("/") else Fault(f"{shown(value)} does not begin with '/'", hint)


def _account(value: str) -> Fault | None:
    namespace, slash, name = value.rpartition("/")
    if "*" in value:
        return Fault(f"{shown(value)}: service accounts have no wildcards", "use principals: ['*/ns/shop/sa/cart']")
    return (dns_label(namespace) if slash else None) or dns_subdomain(name)


def _full_account(value: str, namespace: str) -> str:
    return value if "/" in value else f"{namespace}/{value}"


def _block(value: str) -> Fault | None:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        with_host = str(error).endswith("has host bits set")
        if with_host:
            meant = ipaddress.ip_network(value, strict=False)
            return Fault(f"{shown(value)} is not the beginning of its block", f"write {meant}")
        return Fault(f"{shown(value)} is neither an address nor a block", "as in 10.0.0.0/8 or 2001:db8::1")
    return None


def _canonical_block(value: str) -> str:
    network = ipaddress.ip_network(value)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return f"{mapped}/{network.prefixlen - 96}"
    return str(network)


def _port(value: str) -> Fault | None:
    if value.isascii() and value.isdigit() and 1 <= int(value[:10]) <= 65535:
        return None
    return Fault(f"{shown(value)} is not a port", 'write a number from 1 to 65535 in quotes, as in "8080"')


def _canonical_port(value: str) -> str:
    return str(int(value))
