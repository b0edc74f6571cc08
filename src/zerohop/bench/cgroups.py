"""Plain cgroups for programs that zerohop does not manage, so that both modes differ in nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from zerohop.bench.signals import ending_signals_held
from zerohop.errors import UnsupportedError, ZerohopError

_PREFIX: Final = "zerohop-bench-"
_REMOVE_SECONDS: Final = 5.0


def cgroup2_mount(mountinfo: str) -> Path | None:
    """The first cgroup v2 mount in the text of /proc/self/mountinfo."""
    for line in mountinfo.splitlines():
        place, _, kind = line.partition(" - ")
        if kind.split(" ")[0] == "cgroup2":
            return Path(place.split(" ")[4].replace("\\040", " "))
    return None


def require_cgroup2() -> Path:
    """The first cgroup v2 mount; `UnsupportedError` where there is none."""
    mount = cgroup2_mount(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    if mount is None:
        raise UnsupportedError("no cgroup v2 hierarchy is mounted", hint="run mount -t cgroup2 none /sys/fs/cgroup")
    return mount


@contextmanager
def plain_cgroups(names: tuple[str, ...], mode: str) -> Iterator[dict[str, Path]]:
    """One cgroup for each name, below one of the bench's own mode; removed at the end, with what runs there."""
    mount = require_cgroup2()
    _remove_abandoned(mount)
    parent = mount / f"{_PREFIX}{os.getpid()}-{mode}"
    try:
        with ending_signals_held():
            for name in names:
                (parent / name).mkdir(parents=True)
        yield {name: parent / name for name in names}
    finally:
        with ending_signals_held():
            _remove(parent)


def _remove_abandoned(mount: Path) -> None:
    """Removes what a bench left that was killed with SIGKILL."""
    for path in mount.glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            _remove(path)


def _remove(parent: Path) -> None:
    if not parent.exists():
        return
    with suppress(OSError):  # Linux before 5.14 has no such file; then the programs were stopped one by one.
        (parent / "cgroup.kill").write_text("1", encoding="ascii")
    deadline = time.monotonic() + _REMOVE_SECONDS
    for path in [*(child for child in parent.iterdir() if child.is_dir()), parent]:
        while True:
            try:
                path.rmdir()
                break
            except OSError as error:
                # Busy for the moment between a program's end and the kernel's forgetting it.
                if time.monotonic() > deadline:
                    raise ZerohopError(f"cannot remove cgroup {path}: {error.strerror}") from error
                time.sleep(0.02)
