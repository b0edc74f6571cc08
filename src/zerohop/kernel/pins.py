"""Where an instance's programs, maps and links are pinned.

`/sys/fs/bpf/zerohop/NAME/{maps,programs,links,*_links}`; a link's name is the id of its cgroup. `_new_NAME` and
`_old_NAME` exist only while one build replaces another (instance names have no underscore).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Final

from zerohop.errors import ZerohopError
from zerohop.kernel import mounts

BPFFS: Final = Path("/sys/fs/bpf")


def root() -> Path:
    """The folder of all instances; mounts bpffs where no one has."""
    found = mounts.find("bpf")
    if found is None:
        result = subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], capture_output=True, text=True)
        if result.returncode != 0:
            raise ZerohopError(f"cannot mount bpffs: {result.stderr.strip()}", hint=f"mount -t bpf bpf {BPFFS}")
        mounts.find.cache_clear()
        found = BPFFS
    return found / "zerohop"


def folder(instance: str) -> Path:
    return root() / instance


def staging(instance: str) -> Path:
    return root() / f"_new_{instance}"


def retired(instance: str) -> Path:
    return root() / f"_old_{instance}"


def instances() -> list[str]:
    """Every instance that has pins."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(root()) if not name.startswith("_"))
    return []


def remove(path: Path) -> None:
    """Unpins everything below a folder and the folder itself; what nothing else holds is freed by the kernel."""
    for current, folders, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(current, name))
        for name in folders:
            os.rmdir(os.path.join(current, name))
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)
    with contextlib.suppress(OSError):
        root().rmdir()
