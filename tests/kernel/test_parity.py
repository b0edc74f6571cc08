"""Socket semantics: one list of scenarios with and without zerohop; what differs stands in docs/limits.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Direct, Launcher, Mesh, MeshFactory, workload

pytestmark = pytest.mark.usefixtures("kernel")

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ROOT / "docs" / "limits.md"
PROGRAM = ROOT / "tests" / "support" / "parity"
MODES = ("nonblocking", "warm", "blocking", "turned")
SECONDS = 100
WORKLOAD = "t/both"

Results = dict[str, Any]


@dataclass(frozen=True)
class Limit:
    """A row of the table: a scenario, the modes in which it differs, what a program sees."""

    scenario: str
    modes: frozenset[str]
    sees: str


def limits() -> list[Limit]:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \|", LIMITS.read_text(), re.MULTILINE)
    return [Limit(name, frozenset(re.findall(r"[a-z]+", modes)), sees) for name, modes, sees in rows]


def run(launcher: Launcher, space: network.Namespace, mode: str, *names: str, allow_splice: bool = False) -> Results:
    program = launcher.exec_popen(
        WORKLOAD,
        [sys.executable, str(PROGRAM), mode, *names],
        space.name,
        allow_splice,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = program.communicate(timeout=SECONDS)
    assert program.returncode == 0, errors
    results: Results = json.loads(output)
    return results


def differences(
    direct: Direct, mesh: Mesh, space: network.Namespace, mode: str, listed: set[str]
) -> dict[str, tuple[Any, Any]]:
    """Scenario to its notes (without, with zerohop) where they differ; what is not listed, in two runs of it."""
    plain, meshed = run(direct, space, mode), run(mesh, space, mode)
    found = {name: (plain[name], meshed[name]) for name in plain if plain[name] != meshed[name]}
    again = [name for name in found if name not in listed]
    if again:
        plain, meshed = run(direct, space, mode, *again), run(mesh, space, mode, *again)
        for name in again:
            if plain[name] == meshed[name]:
                del found[name]
    return found


def first_difference(plain: Any, meshed: Any) -> str:
    if not isinstance(plain, list) or not isinstance(meshed, list):
        return f"{plain if isinstance(plain, str) else 'notes'} against {meshed}"
    for one, other in zip(plain, meshed, strict=False):
        if one != other:
            return f"{one[0]}: {one[1]!r} against {other[1]!r}"
    return f"{len(plain)} notes against {len(meshed)}"


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, tuple[Any, Any]]]:
    """Mode to differences, of the modes that have run."""
    return {}


@pytest.mark.parametrize("mode", MODES)
def test_scenarios(
    direct: Direct,
    mesh_factory: MeshFactory,
    netns: network.Namespace,
    seen: dict[str, dict[str, tuple[Any, Any]]],
    mode: str,
) -> None:
    mesh = mesh_factory([workload(WORKLOAD, "Always")])
    listed = {limit.scenario: limit for limit in limits() if mode in limit.modes}
    found = differences(direct, mesh, netns, mode, set(listed))
    seen[mode] = found
    totals = mesh.totals()
    if mode == "blocking":
        assert totals["shortcut_connections_opened"] == 0
        assert totals["not_shortcut"].get("client_blocking", 0) > 100
    else:
        assert totals["shortcut_connections_opened"] > 90
        assert totals["shortcut_bytes"] > 0
    unlisted = [f"{name}: {first_difference(*notes)}" for name, notes in found.items() if name not in listed]
    hanging = [
        name
        for name, (_, meshed) in found.items()
        if meshed == "hang" and (name not in listed or "hang" not in listed[name].sees)
    ]
    assert unlisted == [], "these differ and are not in docs/limits.md"
    assert hanging == [], "these hang and docs/limits.md does not say so"


def test_no_limit_is_stale(seen: dict[str, dict[str, tuple[Any, Any]]]) -> None:
    if set(seen) != set(MODES):
        pytest.skip("compares with what the other tests of this file have seen")
    differ = {name for found in seen.values() for name in found}
    stale = [limit.scenario for limit in limits() if limit.scenario not in differ]
    assert stale == [], "docs/limits.md lists what does not differ any more"


def test_without_the_filter_blocking_programs_splice(
    direct: Direct, mesh_factory: MeshFactory, netns: network.Namespace
) -> None:
    """`--allow-splice`: what stays plain TCP splices as ever."""
    mesh = mesh_factory([workload(WORKLOAD, "Always")])
    names = ("splice-into-the-socket", "splice-out-of-the-socket", "ring-splice")
    plain = run(direct, netns, "blocking", *names)
    assert run(mesh, netns, "blocking", *names, allow_splice=True) == plain
