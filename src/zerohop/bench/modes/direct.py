"""Mode `direct`: the same programs, in plain cgroups that zerohop does not manage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zerohop.bench.account import HookCost
from zerohop.bench.cgroups import plain_cgroups
from zerohop.bench.modes.base import Carried, Judged, Setting
from zerohop.bench.placement import Role

# Joins the cgroup, then becomes the program: before its first socket, as `zerohop exec` does.
_JOIN: Final = 'echo 0 >"$0/cgroup.procs" && exec "$@"'


class Direct:
    def __init__(self, cgroups: dict[str, Path]) -> None:
        self._cgroups = cgroups

    def enter(self, role: Role, command: Sequence[str]) -> list[str]:
        return ["sh", "-c", _JOIN, str(self._cgroups[role]), *command]

    def evidence(self, operations: int = 0) -> Carried | None:
        return None

    def load(self, case: str) -> float | None:
        return None

    def verify(self, make_calls: Callable[[int], None], judged: Judged | None = None) -> None:
        """Nothing counts here."""

    def hook_cost(self, make_calls: Callable[[int], None]) -> HookCost | None:
        return None


@contextmanager
def open_direct(setting: Setting) -> Iterator[Direct]:
    with plain_cgroups(("server", "client")) as cgroups:
        yield Direct(cgroups)
