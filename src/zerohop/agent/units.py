"""systemd units: which cgroup each has, or will have when it starts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable


def cgroups_of(units: Iterable[str]) -> dict[str, str]:
    """Unit name to cgroup path relative to the cgroup v2 mount.

    systemd is asked (`ControlGroup`, or the `Slice` of a unit that does not run); where it does not answer, the
    path is the one that systemd gives a unit without a slice of its own.
    """
    return {unit: _cgroup_of(unit) for unit in units}


def _cgroup_of(unit: str) -> str:
    properties = _show(unit)
    if properties.get("ControlGroup"):
        return properties["ControlGroup"]
    if unit.endswith(".slice"):
        return _slice_path(unit)
    return f"{_slice_path(properties.get('Slice') or 'system.slice')}/{unit}"


def _slice_path(name: str) -> str:
    """`a-b.slice` lies at `/a.slice/a-b.slice` (systemd.slice(5))."""
    parts = name.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


def _show(unit: str) -> dict[str, str]:
    if not shutil.which("systemctl"):
        return {}
    result = subprocess.run(
        ["systemctl", "show", "--property=ControlGroup,Slice", "--", unit], capture_output=True, text=True
    )
    if result.returncode != 0:
        return {}
    return dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
