"""What this machine can do, and which processes are this test run's."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "ZEROHOP_TEST_SESSION"
BPFFS = "/sys/fs/bpf"


@functools.cache
def mount_of(kind: str) -> Path | None:
    """Where a file system of this type is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, type_, *_ = line.split()
        if type_ == kind:
            return Path(where)
    return None


def cgroup_mount() -> Path:
    mount = mount_of("cgroup2")
    assert mount is not None
    return mount


@contextlib.contextmanager
def bpffs() -> Iterator[None]:
    """Mounts bpffs for the tests where nobody has; a machine that cannot mount it skips them."""
    if os.geteuid() != 0 or mount_of("bpf") is not None:
        yield
        return
    mounted = subprocess.run(["mount", "-t", "bpf", "bpf", BPFFS], capture_output=True).returncode == 0
    mount_of.cache_clear()
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", BPFFS], check=True)
            mount_of.cache_clear()


def zerohop_script() -> Path:
    """The console script of the environment that runs the tests."""
    return Path(sys.executable).with_name("zerohop")


def why_no_kernel_tests() -> str | None:
    """Why tests that need the kernel cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if mount_of("cgroup2") is None:
        return "needs cgroup v2: mount -t cgroup2 none /sys/fs/cgroup"
    if mount_of("bpf") is None:
        return f"needs bpffs: mount -t bpf bpf {BPFFS}"
    if shutil.which("ip") is None:
        return "needs ip(8): install iproute2"
    if not zerohop_script().exists():
        return f"needs the console script {zerohop_script()}: pip install the package"
    return None


def long_run() -> bool:
    return os.environ.get("ZEROHOP_LONG") == "1"


def processes() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def is_ours(pid: int) -> bool:
    """Whether this test run started the process, directly or not, whatever became of its parents."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={os.environ.get(MARK)}".encode() in environment


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
