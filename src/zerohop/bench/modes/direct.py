"""Modes `direct` and `filtered`: the same programs, in plain cgroups that zerohop does not manage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zerohop.bench.account import HookCost
from zerohop.bench.cgroups import plain_cgroups
from zerohop.bench.modes.base import Carried, Judged, Setting
from zerohop.bench.placement import Role
from zerohop.bench.stage import no_front

# Joins the cgroup, then becomes the program: before its first socket, as `zerohop exec` does.
_JOIN: Final = 'echo 0 >"$0/cgroup.procs" && exec "$@"'

# What `zerohop exec` does besides.
_FILTER: Final = """
import os, sys
from zerohop.kernel import seccomp
seccomp.refuse_unserved(splice=True)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Direct:
    before = staticmethod(no_front)

    def __init__(self, cgroups: dict[str, Path], *, filtered: bool) -> None:
        self._cgroups = cgroups
        # -P: the current folder is no place to import from, least of all for root.
        self._through = [sys.executable, "-P", "-c", _FILTER] if filtered else []

    def enter(self, role: Role, command: Sequence[str]) -> list[str]:
        return ["sh", "-c", _JOIN, str(self._cgroups[role]), *self._through, *command]

    def evidence(self, operations: int = 0) -> Carried | None:
        return None

    def load(self, case: str) -> float | None:
        return None

    def verify(self, make_calls: Callable[[int], None], judged: Judged | None = None) -> None:
        """Nothing counts here."""

    def hook_cost(self, make_calls: Callable[[int], None]) -> HookCost | None:
        return None


@contextmanager
def open_direct(setting: Setting, *, name: str, filtered: bool) -> Iterator[Direct]:
    with plain_cgroups(("server", "client"), name) as cgroups:
        yield Direct(cgroups, filtered=filtered)
