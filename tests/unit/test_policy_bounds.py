"""Policies beyond what the kernel's tables hold are refused, at a place in a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_policy_compiler import by_path, compiled, policy, rule

from zerohop.compiler import policies as policies_compiler
from zerohop.compiler.policies import TooComplexError
from zerohop.config.policies import Caller, Values

RULES = [rule(Caller(ip_blocks=Values((f"10.0.{number}.0/24",)))) for number in range(4)]


@pytest.mark.parametrize(("bound", "generations"), [("MAX_POLICIES", 1), ("MAX_BLOCKS", 2)])
def test_bounds_are_those_of_the_kernel(bound: str, generations: int) -> None:
    header = (Path(__file__).parents[2] / "bpf" / "shared" / "bounds.h").read_text()
    defined = re.search(rf"#define {bound} (\d+)", header)
    assert defined
    assert getattr(policies_compiler, bound) == int(defined[1]) // generations


def test_too_many_policies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies_compiler, "MAX_POLICIES", 3)
    compiled(*(policy(name=f"p{number}") for number in range(3)))
    with pytest.raises(TooComplexError, match=r"policies.yaml:7: more than 3 policies"):
        compiled(*(policy(name=f"p{number}") for number in range(4)))


def test_too_many_address_blocks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies_compiler, "MAX_BLOCKS", 3)
    compiled(policy(*RULES[:3]), policy(RULES[0], name="again"))
    with pytest.raises(TooComplexError, match=r"policies.yaml:7: .* 4 different address blocks, 3 at most"):
        compiled(policy(*RULES))


def test_rules_that_overlap_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is not kept busy for ever."""
    monkeypatch.setattr("zerohop.compiler.policies.diagram.MAX_WORK", 20)
    with pytest.raises(TooComplexError, match="overlap too much"):
        compiled(policy(*by_path(30)))
