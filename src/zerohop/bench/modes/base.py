"""What every mode offers to the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zerohop.bench.account import HookCost
from zerohop.bench.placement import Role
from zerohop.bench.programs import Program
from zerohop.bench.stage import Front, Stage
from zerohop.bench.workloads.base import Workload
from zerohop.errors import ZerohopError


@dataclass(frozen=True)
class Setting:
    """What a mode is opened for.

    `port`: the server's; `scratch`: a folder for temporary files; `front_port`: of what the mode has before the server.
    """

    workload: Workload
    port: int
    scratch: Path
    front_port: int = 0


@dataclass(frozen=True)
class Carried:
    """Payload bytes of a run, by the way they went, counted at the sender."""

    shortcut_bytes: int = 0
    tcp_bytes: int = 0

    def __add__(self, other: Carried) -> Carried:
        return Carried(self.shortcut_bytes + other.shortcut_bytes, self.tcp_bytes + other.tcp_bytes)

    @property
    def shortcut_share(self) -> float:
        """Between 0 and 1; 0 when nothing was counted."""
        total = self.shortcut_bytes + self.tcp_bytes
        return self.shortcut_bytes / total if total else 0.0


@dataclass(frozen=True)
class Judged:
    """What a case's policies make of its calls: `rule` of `policy` (`NS/NAME`) allows them.

    `make_forbidden` makes a number of other calls, each of which is refused.
    """

    policy: str
    rule: int
    make_forbidden: Callable[[int], None]


class TooMuchError(ZerohopError):
    """A case is more than a mode can take; the other modes go on without it."""


class Mode(Protocol):
    def load(self, case: str) -> float | None:
        """Puts the policies that the workload has for a case in force, where the mode has policies.

        Returns how many seconds passed from the written configuration until calls were judged by it; raises
        `TooMuchError` where they never were.
        """

    def enter(self, role: Role, command: Sequence[str]) -> list[str]:
        """The command that runs `command` in this mode's surroundings, and becomes it."""

    def before(self, stage: Stage, server: Program) -> AbstractContextManager[Front]:
        """What clients connect to for the block: `server`, which listens on `stage`, or what the mode has before it."""

    def evidence(self, operations: int = 0) -> Carried | None:
        """How the run that just ended was carried, where the mode counts it; it did at least so many operations.

        Raises `ZerohopError` when the run was not what the mode's name says.
        """

    def verify(self, make_calls: Callable[[int], None], judged: Judged | None = None) -> None:
        """Has a known number of calls made; `TooMuchError` where that takes too long to go on.

        Raises `ZerohopError` unless the engine counted exactly these, or none where the mode is without it, and unless
        they were judged as the policies have it, where the mode has any.
        """

    def hook_cost(self, make_calls: Callable[[int], None]) -> HookCost | None:
        """What a call takes in the hooks, where the mode has any. Measuring slows down the calls that it has made."""
