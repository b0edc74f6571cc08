"""Listings of everything that zerohop and its tests make outside their own memory, to be compared at the end.

Others may use the machine meanwhile, so what belongs to a process that this test run did not start, directly or by a
pin of an instance whose agent is such a process, is not counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support import machine, network

RUN = Path("/run/zerohop")
SETTLE_SECONDS = 10.0
BPF_KINDS = {"prog": "program", "map": "map", "link": "link"}

Listing = dict[str, set[str]]


def bpftool() -> str | None:
    return shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin")


def _bpf_objects(*arguments: str) -> list[dict[str, object]]:
    tool = bpftool()
    if tool is None:
        return []
    result = subprocess.run([tool, "-j", *arguments], capture_output=True, text=True)
    try:
        found = json.loads(result.stdout)
    except ValueError:
        return []
    if isinstance(found, dict):
        return [] if "error" in found else [found]
    return list(found)


def _label(kind: str, entry: dict[str, object]) -> str:
    name = entry.get("name") or entry.get("type")
    return f"{BPF_KINDS[kind]} {entry['id']} ({name})"


def _tree(folder: Path) -> set[str]:
    found = set()
    for where, folders, files in os.walk(folder):
        found |= {os.path.join(where, name) for name in (*folders, *files)}
    return found


def _cgroups() -> set[str]:
    return {where for where, _, _ in os.walk(machine.cgroup_mount())}


def _our_processes() -> set[str]:
    ours = set()
    for pid in machine.processes():
        if pid != os.getpid() and machine.is_ours(pid):
            ours.add(f"{pid} {machine.command_of(pid)}")
    return ours


def listing() -> Listing:
    """Kind to names."""
    found = {kind: {_label(kind, each) for each in _bpf_objects(kind, "list")} for kind in BPF_KINDS}
    bpffs = machine.mount_of("bpf")
    found["pin"] = _tree(bpffs) if bpffs else set()
    found["network namespace"] = network.names()
    found["cgroup"] = _cgroups()
    found["state"] = _tree(RUN)
    found["process"] = _our_processes()
    return found


def left_behind(before: Listing) -> list[str]:
    """What is there now and was not before, once it had time to go away: one line each."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        now = listing()
        new = {kind: now[kind] - before[kind] for kind in now}
        if any(new.values()):
            new = _without_others(new)
        left = [f"{kind}: {name}" for kind, names in new.items() for name in sorted(names)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.25)


def _without_others(new: Listing) -> Listing:
    instances = _instances_of_others()
    held = _held_by_others(instances)

    def keep(kind: str, name: str) -> bool:
        if kind in BPF_KINDS:
            return name not in held
        if kind == "cgroup":
            return not _has_others_inside(Path(name)) and not instances & set(Path(name).parts)
        if kind in ("pin", "state"):
            return not instances & set(Path(name).parts)
        if kind == "network namespace":
            return not _inhabited_by_others(name)
        return True

    return {kind: {name for name in names if keep(kind, name)} for kind, names in new.items()}


def _instances_of_others() -> set[str]:
    """Instances whose agent lives and is not ours."""
    found = set()
    for path in RUN.glob("*/agent.lock"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = json.loads(path.read_text())["pid"]
            if Path(f"/proc/{pid}").exists() and not machine.is_ours(pid):
                found.add(path.parent.name)
    return found


def _held_by_others(instances: set[str]) -> set[str]:
    """BPF objects that another's process or pin holds."""
    ids: dict[str, set[object]] = {kind: set() for kind in BPF_KINDS}
    for pid in machine.processes():
        if not machine.is_ours(pid):
            for kind, number in _descriptors(pid):
                ids[kind].add(number)
    bpffs = machine.mount_of("bpf")
    for instance in instances if bpffs else ():
        for path in map(Path, _tree(bpffs / "zerohop" / instance)):
            kind = {"programs": "prog", "maps": "map", "links": "link"}.get(path.parent.name.rpartition("_")[2])
            if kind:
                for entry in _bpf_objects(kind, "show", "pinned", str(path)):
                    ids[kind].add(entry["id"])
    for entry in _bpf_objects("link", "list"):
        if entry["id"] in ids["link"]:
            ids["prog"].add(entry.get("prog_id"))
    programs = _bpf_objects("prog", "list")
    for entry in programs:
        if entry["id"] in ids["prog"]:
            used = entry.get("map_ids")
            ids["map"] |= set(used) if isinstance(used, list) else set()
    return {
        _label(kind, entry)
        for kind in BPF_KINDS
        for entry in (programs if kind == "prog" else _bpf_objects(kind, "list"))
        if entry["id"] in ids[kind]
    }


def _descriptors(pid: int) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "bpf" not in os.readlink(path):
                    continue
                text = Path(f"/proc/{pid}/fdinfo/{path.name}").read_text()
                for kind, number in re.findall(r"^(prog|map|link)_id:\s*(\d+)", text, re.MULTILINE):
                    yield kind, int(number)


def _has_others_inside(group: Path) -> bool:
    for path in (group, *map(Path, _tree(group))):
        with contextlib.suppress(OSError):
            for pid in (path / "cgroup.procs").read_text().split():
                if not machine.is_ours(int(pid)):
                    return True
    return False


def _inhabited_by_others(name: str) -> bool:
    result = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    return any(not machine.is_ours(int(pid)) for pid in result.stdout.split())
