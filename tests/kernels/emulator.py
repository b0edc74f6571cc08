"""Boots a kernel under virtme-ng in software emulation; the machine's file system is its root, copy-on-write."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REQUIREMENT = "virtme-ng>=1.42,<2"
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "depmod": "kmod"}
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
CPUS = 2
MEMORY = "1G"


class EmulatorError(Exception):
    """The message names the fix."""


@dataclass(frozen=True)
class Run:
    """`seconds` from power-on to the end; `ended` is False when the time was up."""

    seconds: float
    ended: bool


def missing_packages() -> list[str]:
    """Debian packages without which nothing boots."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program, path=SEARCH) is None]


def virtme(folder: Path) -> Path:
    """`vng`: that of this Python's environment or of the machine, else one installed under `folder`."""
    beside = Path(sys.executable).with_name("vng")
    if beside.exists():
        return beside
    found = shutil.which("vng")
    if found:
        return Path(found)
    tools = folder / "tools"
    if not (tools / "bin" / "vng").exists():
        for command in (
            [sys.executable, "-m", "venv", str(tools)],
            [str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT],
        ):
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode != 0:
                raise EmulatorError(f"cannot install {REQUIREMENT}: {result.stderr.strip()}")
    return tools / "bin" / "vng"


def boot(vng: Path, image: Path, command: list[str], shared: Path, seconds: float) -> Run:
    """Runs `command` as root under the kernel `image`, and powers off.

    `shared` is the only folder that the command can change for good; the console goes to `shared`/console.log.
    """
    line = [
        "nice",
        str(vng),
        "--verbose",
        "--run",
        str(image),
        "--disable-kvm",
        "--force-9p",
        "--user",
        "root",
        "--cpus",
        str(CPUS),
        "--memory",
        MEMORY,
        f"--rwdir={shared}={shared}",
        "--exec",
        shlex.join(command),
    ]
    began = time.monotonic()
    with (shared / "console.log").open("wb") as console:
        # A session of its own: qemu is a grandchild, and must end with us whatever happens.
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PATH": f"{vng.parent}:{SEARCH}"},  # vng looks for its own programs there
        )
        try:
            process.wait(seconds)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Run(time.monotonic() - began, ended)
