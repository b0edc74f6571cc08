"""AuthorizationPolicies as filters of Envoy's, as Istio translates them; callers by SPIFFE names in certificates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Made = dict[str, Any]
Match = Callable[[str], Made]

TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"


def text(pattern: str, **more: Any) -> Made:
    if pattern == "*":
        return {"safe_regex": {"regex": ".+"}}
    if pattern.endswith("*"):
        return {"prefix": pattern[:-1], **more}
    if pattern.startswith("*"):
        return {"suffix": pattern[1:], **more}
    return {"exact": pattern, **more}


def principal(pattern: str) -> Made:
    matcher = text(pattern) if pattern.startswith("*") else text("spiffe://" + pattern)
    return {"authenticated": {"principal_name": matcher}}


def by_expression(expression: str) -> Made:
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": expression}}}}


def namespace(pattern: str) -> Made:
    return by_expression(f".*/ns/{re.escape(pattern).replace('[*]', '*').replace(chr(92) + '*', '[^/]*')}/.*")


def account(value: str) -> Made:
    name, _, short = value.partition("/")
    return by_expression(f".*/ns/{name}/sa/{short}")


def block(name: str) -> Match:
    def match(value: str) -> Made:
        address, _, length = value.partition("/")
        return {name: {"address_prefix": address, "prefix_len": int(length or 32)}}

    return match


def header(name: str, **more: Any) -> Match:
    return lambda pattern: {"header": {"name": name, "string_match": text(pattern, **more)}}


def host(name: str) -> Match:
    """`name`: `:authority`, or `host`, by which Envoy finds the same."""
    return lambda pattern: (header(name) if pattern == "*" else header(name, ignore_case=True))(pattern)


def path(pattern: str) -> Made:
    if "{" in pattern:
        made = pattern.replace("{**}", "**").replace("{*}", "*")
        return {"uri_template": {"name": "t", "typed_config": {"@type": TEMPLATE, "path_template": made}}}
    return {"url_path": {"path": text(pattern)}}


def port(value: str) -> Made:
    return {"destination_port": int(value)}


SOURCES: Mapping[str, Match] = {
    "principals": principal,
    "namespaces": namespace,
    "serviceAccounts": account,
    "ipBlocks": block("direct_remote_ip"),
    "remoteIpBlocks": block("remote_ip"),
}
OPERATIONS: Mapping[str, Match] = {
    "hosts": host(":authority"),
    "ports": port,
    "methods": header(":method"),
    "paths": path,
}
OF_CALLERS: Mapping[str, Match] = {
    "source.ip": block("direct_remote_ip"),
    "remote.ip": block("remote_ip"),
    "source.namespace": namespace,
    "source.principal": principal,
}
OF_CALLS: Mapping[str, Match] = {"destination.ip": block("destination_ip"), "destination.port": port}


class Logic:
    """AND, OR and NOT, as principals have them or as permissions."""

    def __init__(self, all_of: str, any_of: str, inner: str, not_: str) -> None:
        self._all, self._any, self._inner, self._not = all_of, any_of, inner, not_

    def all(self, parts: Sequence[Made]) -> Made:
        return {self._all: {self._inner: parts}} if parts else {"any": True}

    def any(self, parts: Sequence[Made]) -> Made:
        return {self._any: {self._inner: parts}} if parts else {"any": True}

    def values(self, fields: Mapping[str, Any], name: str, match: Match) -> list[Made]:
        negated = f"not{name[0].upper()}{name[1:]}"
        found = []
        if name in fields:
            found.append(self.any([match(each) for each in fields[name]]))
        if negated in fields:
            found.append({self._not: self.any([match(each) for each in fields[negated]])})
        return found

    def fields(self, fields: Mapping[str, Any], matches: Mapping[str, Match]) -> Made:
        return self.all([part for name, match in matches.items() for part in self.values(fields, name, match)])


PRINCIPALS = Logic("and_ids", "or_ids", "ids", "not_id")
PERMISSIONS = Logic("and_rules", "or_rules", "rules", "not_rule")


def rule(fields: Mapping[str, Any]) -> Made:
    callers = PRINCIPALS.any([PRINCIPALS.fields(each["source"], SOURCES) for each in fields.get("from", [])])
    calls = PERMISSIONS.any([PERMISSIONS.fields(each["operation"], OPERATIONS) for each in fields.get("to", [])])
    who, what = [callers], [calls]
    for each in fields.get("when", []):
        key = each["key"]
        named = re.fullmatch(r"request\.headers\[(.+)\]", key)
        if named:
            name = named[1].lower()
            # zerohop compares hosts without regard to case under this name, too; Istio byte by byte.
            what += PERMISSIONS.values(each, "values", host(name) if name == "host" else header(name))
        elif key in OF_CALLERS:
            who += PRINCIPALS.values(each, "values", OF_CALLERS[key])
        else:
            what += PERMISSIONS.values(each, "values", OF_CALLS[key])
    return {"principals": [PRINCIPALS.all(who)], "permissions": [PERMISSIONS.all(what)]}


def filters(policies: Sequence[Mapping[str, Any]]) -> list[Made]:
    """DENY first, then ALLOW if there is any such policy."""
    found = []
    for action in ("DENY", "ALLOW"):
        chosen = [each for each in policies if each["spec"]["action"] == action]
        if not chosen:
            continue
        rules = {
            f"{each['metadata']['name']}-{number}": rule(fields)
            for each in chosen
            for number, fields in enumerate(each["spec"].get("rules", []))
        }
        if action == "DENY" and not rules:
            continue
        config = {"@type": RBAC, "rules": {"action": action, "policies": rules}}
        found.append({"name": f"rbac-{action}", "typed_config": config})
    return found
