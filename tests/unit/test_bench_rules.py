"""The rules of workload `policy`: how many there are, and which of them the calls meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zerohop.bench import envoy
from zerohop.bench.account import require_decided, require_refused
from zerohop.bench.rules import CALLERS, RULES_PER_POLICY, Rule, decider, rule_documents, rules
from zerohop.bench.workloads.base import service_document, workload_documents
from zerohop.compiler import compile_tables
from zerohop.compiler.policies import TERMINAL, compile_policies
from zerohop.compiler.policies.walk import Call, walk
from zerohop.config import load
from zerohop.errors import ZerohopError

METHOD, PORT = "/bench.Echo/Unary", 20000


@pytest.mark.parametrize("count", [1, 100, 512, 513, 2000])
def test_the_last_rule_and_no_other_allows_the_calls(count: int, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    documents = workload_documents(shortcut="Auto") + service_document("grpc", PORT)
    file.write_text(documents + rule_documents(count, METHOD))
    configuration = load(file)
    assert sum(len(each.rules) for each in configuration.policies) == count
    assert max(len(each.rules) for each in configuration.policies) <= RULES_PER_POLICY
    assert len(configuration.workloads) == CALLERS + 2
    tables = compile_policies(configuration, compile_tables(configuration))
    destination = tables.destinations["bench/server"]
    assert destination.layer7

    def decided(client: str, path: str, **headers: str) -> tuple[str, int] | None:
        fields = ((":method", "POST"), (":path", path), (":authority", "127.0.0.1"), *headers.items())
        call = Call(identity=tables.identities[client], port=PORT, fields=fields)
        end = walk(
            destination.allow, destination, call,
            lambda *key: tables.edges.get(key), tables.nodes.get,
        )  # fmt: skip
        decision = tables.decisions[end & ~TERMINAL]
        if not decision.allowed:
            return None
        assert decision.policy is not None
        assert decision.rule is not None
        return "/".join(tables.names[decision.policy][:2]), decision.rule

    assert decided("bench/client", METHOD) == decider(count)
    assert decided("bench/client", METHOD, **{"x-tenant": "suspended"}) is None
    assert decided("bench/client", "/bench.Echo/Forbidden") is None
    assert decided("bench/caller-0", METHOD) is None
    if count > 2:
        # The second rule names a caller, the third a header.
        assert decided("bench/caller-1", "/shop.Service0/Method1") == ("bench/rules-00000", 1)
        assert decided("bench/client", "/shop.Service0/Method1") is None
        assert decided("bench/client", "/shop.Service0/Method2", **{"x-tenant": "tenant-2"}) is not None
        assert decided("bench/client", "/shop.Service0/Method2", **{"x-tenant": "tenant-3"}) is None


@pytest.mark.parametrize("count", [1, 100, 2000])
def test_envoy_gets_the_same_rules(count: int) -> None:
    made = json.loads(envoy.configuration(rules(count, METHOD), "192.0.2.2", "192.0.2.1", 1, 2))
    (listener,) = made["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    rbac, router = manager["typed_config"]["http_filters"]
    assert router["name"] == "router"
    policies = list(rbac["typed_config"]["rules"]["policies"].values())
    assert len(policies) == count

    def said(policy: dict[str, Any]) -> Rule:
        """The rule that a policy is."""
        (principal,), (permission,) = policy["principals"], policy["permissions"]
        method, path, *tenant = permission["and_rules"]["rules"]
        assert method == {"header": {"name": ":method", "string_match": {"exact": "POST"}}}
        negated = bool(tenant) and "not_rule" in tenant[0]
        header = (tenant[0].get("not_rule") or tenant[0])["header"] if tenant else None
        assert header is None or header["name"] == "x-tenant"
        source = principal.get("direct_remote_ip", {}).get("address_prefix")
        account = {None: None, "192.0.2.2": "client"}.get(source) or (source and f"caller-{source.split('.')[3]}")
        return Rule(
            path["url_path"]["path"]["exact"], account, header and header["string_match"]["exact"], negated=negated
        )

    assert list(map(said, policies)) == list(rules(count, METHOD))


def test_an_envoy_without_rules_has_no_filter_for_them() -> None:
    text = envoy.configuration([], "192.0.2.2", "192.0.2.1", 1, 2)
    assert "RBAC" not in text
    assert '"port_value": 1' in text
    assert '"port_value": 2' in text


def test_calls_have_to_be_judged_by_their_rule() -> None:
    record = {"verdict": "ALLOW", "policy": "bench/rules-00000", "rule": 4, "method": METHOD}
    require_decided([record, record], "bench/rules-00000", 4)
    for wrong in ([], [{**record, "rule": 3}], [record, {**record, "policy": None, "rule": None}]):
        with pytest.raises(ZerohopError, match="should have been allowed by rule 4 of bench/rules-00000"):
            require_decided(wrong, "bench/rules-00000", 4)


def test_other_calls_have_to_be_refused() -> None:
    record = {"verdict": "DENY", "policy": None, "rule": None, "method": "/bench.Echo/Forbidden"}
    require_refused([record, record])
    for wrong in ([], [record, {**record, "verdict": "ALLOW", "policy": "bench/rules-00000"}]):
        with pytest.raises(ZerohopError, match="should have been refused"):
            require_refused(wrong)
