"""Modes `zerohop`, `shortcut`, `engine`, `policy`: the same programs as workloads of a private instance, which must
really short-cut them, read their calls or leave them unread, and judge them as the mode says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zerohop.bench.account import (
    Account,
    Counts,
    HookCost,
    hook_times_measured,
    require_at_least,
    require_calls,
    require_decided,
    require_none,
    require_refused,
)
from zerohop.bench.modes.base import Carried, Judged, Setting
from zerohop.bench.modes.reload import Reload, wait_ready
from zerohop.bench.placement import Role
from zerohop.bench.programs import child_setup, end_group
from zerohop.bench.signals import ending_signals_held
from zerohop.bench.stage import no_front
from zerohop.bench.workloads.base import CallingWorkload, JudgedWorkload, Workload, policy_document
from zerohop.errors import ZerohopError

PINS: Final = Path("/sys/fs/bpf/zerohop")
_PREFIX: Final = "bench-"

VERIFIED_CALLS: Final = 2000
FORBIDDEN_CALLS: Final = 10
COST_CALLS: Final = 10000

_STOP_SECONDS: Final = 15.0
_COMMAND_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Totals:
    """The part of `zerohop status --json` that proves what a run was."""

    shortcut_connections: int
    carried: Carried
    not_shortcut: dict[str, int]

    @classmethod
    def parse(cls, status: dict[str, Any]) -> Totals:
        totals = status["totals"]
        return cls(
            totals["shortcut_connections_opened"],
            Carried(totals["shortcut_bytes"], totals["tcp_bytes"]),
            totals["not_shortcut"],
        )


def require_shortcut(before: Totals, after: Totals, workload: Workload) -> Carried:
    """The bytes between two readings.

    Raises `ZerohopError` if nothing was short-cut: direct compared with direct would look like a result.
    """
    carried = Carried(
        after.carried.shortcut_bytes - before.carried.shortcut_bytes,
        after.carried.tcp_bytes - before.carried.tcp_bytes,
    )
    reasons = {
        reason: count - before.not_shortcut.get(reason, 0)
        for reason, count in after.not_shortcut.items()
        if count > before.not_shortcut.get(reason, 0)
    }
    if after.shortcut_connections <= before.shortcut_connections:
        raise ZerohopError(
            f"no connection of {workload.name} was short-cut, so there is nothing to compare; "
            f"reasons: {reasons or 'none counted'}",
            hint="run zerohop doctor, and compare the reasons with docs/limits.md",
        )
    if carried.shortcut_bytes == 0 and not workload.may_leave:
        raise ZerohopError(
            f"connections of {workload.name} were enrolled, but all {carried.tcp_bytes} bytes went by TCP",
            hint="run zerohop doctor",
        )
    return carried


class Zerohop:
    """An instance of the workload's own, whose data path is loaded and whose agent runs."""

    before = staticmethod(no_front)

    def __init__(
        self, instance: str, workload: Workload, account: Account, reload: Reload | None, *, engine: bool
    ) -> None:
        self._instance = instance
        self._workload = workload
        self._account = account
        self._reload = reload
        self._engine = engine
        self._loaded: tuple[str, float] | None = None
        self._seen = self._totals()
        self._counts = account.counts()

    def enter(self, role: Role, command: Sequence[str]) -> list[str]:
        return _zerohop(self._instance, "exec", "--workload", f"bench/{role}", "--", *command)

    def evidence(self, operations: int = 0) -> Carried | None:
        before, self._seen = self._seen, self._totals()
        counted = self._counted()
        carried = require_shortcut(before, self._seen, self._workload)
        if not self._engine:
            require_none(counted)
        elif isinstance(self._workload, CallingWorkload):
            require_at_least(counted, self._workload.counted_as, operations)
        return carried

    def load(self, case: str) -> float | None:
        if self._reload is None or not isinstance(self._workload, JudgedWorkload):
            return None
        if self._loaded is None or self._loaded[0] != case:
            self._loaded = case, self._reload.apply(self._workload.policies(case), self._account)
        return self._loaded[1]

    def verify(self, make_calls: Callable[[int], None], judged: Judged | None = None) -> None:
        make_calls(VERIFIED_CALLS)
        self._require_exactly(VERIFIED_CALLS)
        if judged is None or self._reload is None:
            return
        require_decided(self._last_calls(VERIFIED_CALLS // 4), judged.policy, judged.rule)
        judged.make_forbidden(FORBIDDEN_CALLS)
        require_refused(self._last_calls(FORBIDDEN_CALLS))
        self._counts = self._account.counts()
        self._seen = self._totals()

    def hook_cost(self, make_calls: Callable[[int], None]) -> HookCost | None:
        assert isinstance(self._workload, CallingWorkload)
        with hook_times_measured():
            before = self._account.hook_times()
            make_calls(COST_CALLS)
            after = self._account.hook_times()
        self._require_exactly(COST_CALLS)
        return HookCost(COST_CALLS, self._workload.frames, {name: after[name] - before[name] for name in after})

    def _require_exactly(self, calls: int) -> None:
        assert isinstance(self._workload, CallingWorkload)
        before, self._seen = self._seen, self._totals()
        counted = self._counted()
        require_shortcut(before, self._seen, self._workload)
        if self._engine:
            require_calls(counted, self._workload.counted_as, calls)
        else:
            require_none(counted)

    def _last_calls(self, count: int) -> list[dict[str, Any]]:
        """The kernel's records of the calls that ended last."""
        records = _run(self._instance, "flows", "--json", "--kind", "call", "--last", str(count))
        return [json.loads(record) for record in records.splitlines()]

    def _counted(self) -> Counts:
        before, self._counts = self._counts, self._account.counts()
        return self._counts.since(before)

    def _totals(self) -> Totals:
        return Totals.parse(json.loads(_run(self._instance, "status", "--json")))


@contextmanager
def open_zerohop(setting: Setting, *, name: str, engine: bool, policy: bool = False) -> Iterator[Zerohop]:
    """Starts an agent of a private instance; both it and its data path are gone afterwards.

    `policy`: calls are judged by the workload's own policies, else by their path, and by a header that they do not
    have; all are allowed.
    """
    _clean_abandoned()
    instance = f"{_PREFIX}{os.getpid()}-{name}"
    config = setting.scratch / f"{setting.workload.name}-{name}.yaml"
    documents = setting.workload.configuration(setting.port)
    own = isinstance(setting.workload, JudgedWorkload)
    reload = None
    if policy and not own:
        documents += policy_document()
    config.write_text(documents, encoding="utf-8")
    log = setting.scratch / f"{setting.workload.name}-{name}.log"
    agent: subprocess.Popen[bytes] | None = None
    try:
        with ending_signals_held(), log.open("wb") as output:
            agent = subprocess.Popen(
                _zerohop(instance, "run", "-c", str(config), "--metrics", "off", *(() if engine else ("--no-engine",))),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=child_setup(signal.SIGTERM),
            )
        wait_ready(agent, log)
        if policy and own:
            reload = Reload(config, documents, agent, log)
        with Account(instance) as account:
            yield Zerohop(instance, setting.workload, account, reload, engine=engine)
    finally:
        with ending_signals_held():
            if agent is not None:
                end_group(agent, _STOP_SECONDS)
            _run(instance, "clean")


def _clean_abandoned() -> None:
    """Cleans up after a bench that was killed with SIGKILL."""
    for path in PINS.glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            _run(path.name, "clean")


def _zerohop(instance: str, *arguments: str) -> list[str]:
    # -P: the current folder is no place to import from, least of all for root.
    return [sys.executable, "-P", "-m", "zerohop", "--instance", instance, *arguments]


def _run(instance: str, *arguments: str) -> str:
    try:
        result = subprocess.run(
            _zerohop(instance, *arguments), capture_output=True, text=True, timeout=_COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ZerohopError(f"zerohop {' '.join(arguments)} did not end within {_COMMAND_SECONDS:.0f} s") from None
    if result.returncode != 0:
        raise ZerohopError(f"zerohop {' '.join(arguments)} failed: {result.stderr.strip()}")
    return result.stdout
