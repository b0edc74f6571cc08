"""Where the scheduler may put the two programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from zerohop.errors import UnsupportedError

Role = Literal["server", "client"]


@dataclass(frozen=True)
class Placement:
    """CPUs that each program may use; None leaves the choice to the scheduler."""

    server: frozenset[int] | None
    client: frozenset[int] | None

    def cpus(self, role: Role) -> frozenset[int] | None:
        return self.server if role == "server" else self.client


def _free(cpus: list[int]) -> Placement:
    return Placement(None, None)


def _same(cpus: list[int]) -> Placement:
    return Placement(frozenset(cpus[:1]), frozenset(cpus[:1]))


def _split(cpus: list[int]) -> Placement:
    if len(cpus) < 2:
        raise UnsupportedError("placement split needs two CPUs", hint="use --placement same")
    server = cpus[0]
    # Two threads of one core share its execution units; another core is the honest "one CPU each".
    other_cores = [cpu for cpu in cpus[1:] if server not in _siblings(cpu)]
    return Placement(frozenset([server]), frozenset([(other_cores or cpus[1:])[0]]))


def _siblings(cpu: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return parse_cpu_list(path.read_text(encoding="ascii"))
    except OSError:
        return {cpu}


def parse_cpu_list(text: str) -> set[int]:
    """Reads the kernel's list format: `0-2,5` is {0, 1, 2, 5}."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


PLACEMENTS: Final[dict[str, Callable[[list[int]], Placement]]] = {
    "free": _free,
    "same": _same,
    "split": _split,
}


def choose_placement(name: str) -> Placement:
    """The placement `name` on the CPUs this process may use; `UnsupportedError` where there are too few."""
    return PLACEMENTS[name](sorted(os.sched_getaffinity(0)))
