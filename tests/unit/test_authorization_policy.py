"""AuthorizationPolicy documents: what is read, and what is refused, where and with which hint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zerohop.config import ConfigurationError, load
from zerohop.config.policies import Action, Caller, Condition, Existing, Operation, Unreadable, Values

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop"


def written(spec: str, annotations: str = "") -> str:
    """A policy; `spec` is indented lines."""
    return f"{HEAD}{annotations}}}\nspec:\n{spec}"


def test_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        written(
            """
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules:
  - from:
    - source: {principals: ["cluster.local/ns/shop/sa/web", "*/sa/job"], notNamespaces: ["test*"]}
    - source: {serviceAccounts: [web, bank/teller], ipBlocks: [10.1.2.3, "::ffff:10.0.0.0/104"], trustDomains: ["*"]}
    - source: {remoteIpBlocks: ["2001:db8::/32"], notIpBlocks: [10.0.0.0/8]}
    to:
    - operation: {hosts: [Cart.example.com], ports: ["0080"], methods: [POST], notPaths: ["/a/{*}/b", "/x/{**}", "*"]}
    when:
    - {key: "request.headers[X-User]", values: [ann], notValues: [eve]}
    - {key: source.ip, values: [192.0.2.1]}
    - {key: destination.port, notValues: ["443"]}
""",
            ', annotations: {istio.io/dry-run: "false", zerohop.io/deny: reset, zerohop.io/unreadable: allow,'
            ' zerohop.io/existing-connections: observe, example.com/x: "y"}',
        )
    )
    (policy,) = load(path).policies
    assert (policy.key, policy.action, policy.selector) == ("shop/p", Action.DENY, {"app": "cart"})
    assert (policy.deny_reset, policy.unreadable, policy.existing) == (True, Unreadable.ALLOW, Existing.OBSERVE)
    (rule,) = policy.rules
    assert rule.source.line == 9
    assert rule.callers == (
        Caller(principals=Values(("cluster.local/ns/shop/sa/web", "*/sa/job")), namespaces=Values((), ("test*",))),
        Caller(
            service_accounts=Values(("shop/web", "bank/teller")),
            ip_blocks=Values(("10.1.2.3/32", "10.0.0.0/8")),
            trust_domains=Values(("*",)),
        ),
        Caller(remote_ip_blocks=Values(("2001:db8::/32",)), ip_blocks=Values((), ("10.0.0.0/8",))),
    )
    assert rule.operations == (
        Operation(
            hosts=Values(("Cart.example.com",)),
            ports=Values(("80",)),
            methods=Values(("POST",)),
            paths=Values((), ("/a/{*}/b", "/x/{**}", "*")),
        ),
    )
    assert rule.conditions == (
        Condition("request.headers[x-user]", Values(("ann",), ("eve",))),
        Condition("source.ip", Values(("192.0.2.1/32",))),
        Condition("destination.port", Values((), ("443",))),
    )


@pytest.mark.parametrize("spec", ["  {}", "  rules: []", "  action: DENY"])
def test_what_matches_nothing(tmp_path: Path, spec: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(written(spec).replace("spec:\n  {}", "spec: {}"))
    assert load(path).policies[0].rules == ()


def test_one_rule_that_matches_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(written("  rules: [{}]").replace("security.istio.io/v1", "security.istio.io/v1beta1"))
    ((rule,),) = [policy.rules for policy in load(path).policies]
    assert (rule.callers, rule.operations, rule.conditions) == ((), (), ())


def source(fields: str) -> str:
    return f"  rules: [{{from: [{{source: {{{fields}}}}}]}}]"


def operation(fields: str) -> str:
    return f"  rules: [{{to: [{{operation: {{{fields}}}}}]}}]"


def when(fields: str) -> str:
    return f"  rules: [{{when: [{{{fields}}}]}}]"


# What is written (@@ before the place of the error), what the error says, and the hint.
MISTAKES = {
    "custom": ("  action: @@CUSTOM\n  provider: {name: x}", "there is no external authorizer", "use ALLOW"),
    "provider": ("  provider: @@{name: x}", "is for action CUSTOM", "remove it"),
    "action": ("  action: @@DENI", "'DENI' is not one of its values", "did you mean 'DENY'?"),
    "unknown field": ("  @@rule: []", "unknown field 'rule'", "did you mean 'rules'?"),
    "jwt principal": (source("requestPrincipals: @@[a]"), "no JSON web token", "remove it"),
    "jwt key": (when("key: @@'request.auth.claims[sub]', values: [a]"), "no JSON web token", "remove the condition"),
    "sni": (when("key: @@connection.sni, values: [a]"), "carry no TLS", "remove the condition"),
    "key": (when("key: @@source.nmespace, values: [a]"), "unknown key", "did you mean 'source.namespace'?"),
    "header name": (when("key: @@'request.headers[x user]', values: [a]"), "not the name of a header", "x-user"),
    "no values": (when("key: @@source.namespace"), "neither values nor notValues", "add values"),
    "empty source": ("  rules: [{from: [{source: @@{}}]}]", "is empty", "remove 'from'"),
    "empty from": ("  rules: [{from: @@[]}]", "is empty", "remove it"),
    "no source": ("  rules: [{from: [@@{}]}]", "source is missing", "add 'source:'"),
    "both accounts": (source("principals: [a], serviceAccounts: @@[b]"), "cannot stand beside", "one of them"),
    "account wildcard": (source("serviceAccounts: [@@'web*']"), "have no wildcards", "use principals"),
    "host bits": (source("ipBlocks: [@@10.0.0.1/8]"), "not the beginning of its block", "write 10.0.0.0/8"),
    "no block": (source("ipBlocks: [@@10.0.0]"), "neither an address nor a block", "as in 10.0.0.0/8"),
    "port": (operation("ports: [@@'http']"), "is not a port", "from 1 to 65535"),
    "star inside": (operation("paths: [@@'/a*b']"), "stands only first or last", "as in"),
    "two stars": (operation("methods: [@@'*a*']"), "one '*' only", "as in"),
    "template tail": (operation("paths: [@@'/{**}/a']"), "stands only last", "as in"),
    "template part": (operation("paths: [@@'/a{*}']"), "a whole segment", "as in"),
    "template name": (operation("paths: [@@'/{name}']"), "is neither {*} nor {**}", "as in"),
    "template star": (operation("paths: [@@'/{*}/a*']"), "does not go with", "as in"),
    "empty value": (operation("methods: [@@'']"), "an empty value matches nothing", "'*'"),
    "long value": (operation("paths: [@@'/" + "a" * 1024 + "']"), "longer than 1024 bytes", "match its beginning"),
    "targets and selector": (
        "  selector: @@{matchLabels: {app: a}}\n  targetRefs: [{kind: Service, name: cart}]",
        "a selector or targetRefs", "remove one",
    ),
    "target kind": ("  targetRefs: [{group: apps, kind: @@Gateway, name: a}]", "not supported", "Service"),
    "unknown target": ("  targetRefs: @@[{kind: Service, name: car}]", "no Service shop/car", "did you mean 'cart'?"),
    "rules": ("  rules: @@[" + ", ".join(["{}"] * 513) + "]", "513 rules", "split"),
}  # fmt: skip

SERVICE = "---\napiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {ports: [{port: 80}]}\n"


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(tmp_path: Path, name: str) -> None:
    spec, message, hint = MISTAKES[name]
    text = written(spec) + "\n" + SERVICE
    marked = re.search("@@", text)
    assert marked is not None
    before = text[: marked.start()]
    path = tmp_path / "a.yaml"
    path.write_text(text.replace("@@", "", 1))
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (error,) = caught.value.errors
    assert message in error.message
    assert hint in (error.hint or "")
    assert (error.line, error.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))


@pytest.mark.parametrize(
    ("annotation", "message", "hint"),
    [
        ('istio.io/dry-run: "yes"', "istio.io/dry-run is 'yes'", "known: false, true"),
        ("zerohop.io/deny: rest", "zerohop.io/deny is 'rest'", "did you mean 'reset'?"),
        ("zerohop.io/denial: reset", "unknown annotation", "did you mean 'zerohop.io/deny'?"),
        ("zerohop.io/unreadable: yes please", "zerohop.io/unreadable is", "known: allow, deny"),
    ],
)
def test_annotations(tmp_path: Path, annotation: str, message: str, hint: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(written("  {}", f", annotations: {{{annotation}}}").replace("spec:\n  {}", "spec: {}"))
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (error,) = caught.value.errors
    assert message in error.message
    assert hint in (error.hint or "")
