"""Where the kernel's file systems are mounted, also for a caller that does not see them.

`ip netns exec` gives its program a fresh /sys without cgroup v2 and bpffs. Whoever started it still has them, and
/proc/PID/root leads there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path


@functools.cache
def find(kind: str) -> Path | None:
    """The first mount of a file system of this type, in this process's mount namespace or else an ancestor's."""
    for pid in _ancestry():
        own = pid == os.getpid()
        found = _in(pid, kind)
        if found is None:
            continue
        path = found if own else Path(f"/proc/{pid}/root{found}")
        if os.access(path, os.R_OK):
            return path
    return None


def _ancestry() -> Iterator[int]:
    """This process, its parent, and so on to the first."""
    pid = os.getpid()
    while pid > 0:
        yield pid
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return
        pid = int(stat.rpartition(")")[2].split()[1])


def _in(pid: int, kind: str) -> Path | None:
    try:
        lines = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 2 and fields[2] == kind:
            return Path(fields[1].encode().decode("unicode_escape"))
    return None
