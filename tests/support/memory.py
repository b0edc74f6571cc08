"""Sockets that get no memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Sockets of programs that are started here get no more memory together. Skips where nothing limits just these."""
    mounts = [line.split()[1:4] for line in Path("/proc/mounts").read_text().splitlines()]
    found = [Path(where) for where, kind, options in mounts if kind == "cgroup" and "memory" in options.split(",")]
    if not found or not (found[0] / "memory.kmem.tcp.limit_in_bytes").exists():
        pytest.skip("no cgroup v1 here that limits the memory of TCP sockets")
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if "memory" in line.split(":")[1])
    back = found[0] / own.split(":", 2)[2].lstrip("/") / "cgroup.procs"
    if not back.exists():
        pytest.skip(f"this program's own cgroup is not to be seen: {back}")
    try:
        group = Path(tempfile.mkdtemp(prefix="zerohop-", dir=found[0]))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        (group / "memory.kmem.tcp.limit_in_bytes").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        back.write_text(str(os.getpid()))
        group.rmdir()
