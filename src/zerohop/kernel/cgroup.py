"""cgroup v2: where it is mounted, and the folders that zerohop makes below it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zerohop.errors import UnsupportedError, ZerohopError
from zerohop.kernel import mounts

ROOT_NAME: Final = "zerohop"


def mount_point() -> Path:
    """The cgroup v2 mount, looked up: a hybrid machine has it elsewhere than /sys/fs/cgroup."""
    found = mounts.find("cgroup2")
    if found is not None:
        return found
    raise UnsupportedError("no cgroup v2 hierarchy is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup")


def identifier(path: Path) -> int | None:
    """The cgroup's id (its inode number, `cgroup_id()` in the kernel), or None when it does not exist."""
    try:
        return path.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


def instance_path(instance: str) -> str:
    """Where `zerohop exec` puts an instance's workloads, relative to the mount."""
    return f"/{ROOT_NAME}/{instance}"


def exec_path(instance: str, namespace: str, name: str) -> str:
    return f"{instance_path(instance)}/{namespace}/{name}"


def attach_path(path: str, instance: str) -> str:
    """The cgroup to attach to so that `path` is seen even while it comes and goes.

    The top-level cgroup above it lives longer than a unit's or a container's own: a unit that restarts is managed
    from its first socket on, with or without an agent.
    """
    own = instance_path(instance)
    if path == own or path.startswith(own + "/"):
        return own
    return "/" + path.strip("/").split("/", 1)[0]


def absolute(path: str) -> Path:
    return mount_point() / path.lstrip("/")


def ensure(path: str) -> Path:
    """Makes a cgroup and its parents."""
    target = absolute(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise ZerohopError(f"cannot make the cgroup {target}: {error.strerror}", hint="run as root") from error
    return target


def enter(path: str) -> None:
    """Moves the calling process into a cgroup."""
    try:
        (ensure(path) / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise ZerohopError(f"cannot enter the cgroup {path}: {error.strerror}") from error


def processes(path: str) -> Iterator[int]:
    """Every process in a cgroup and below it."""
    for folder, _, _ in os.walk(absolute(path)):
        with contextlib.suppress(OSError):
            for line in (Path(folder) / "cgroup.procs").read_text().split():
                yield int(line)


def remove(path: str) -> list[int]:
    """Removes a cgroup and everything below; processes still inside go to the root. Returns their ids."""
    top = absolute(path)
    moved: list[int] = []
    root = mount_point() / "cgroup.procs"
    for _ in range(10):
        for pid in processes(path):
            with contextlib.suppress(OSError):
                root.write_text(str(pid))
                moved.append(pid)
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if not top.exists():
            return moved
    raise ZerohopError(f"cannot remove the cgroup {top}", hint="look into its cgroup.procs and stop what runs there")
