"""A private data path to experiment with: the production object, in cgroups of doctor's own.

Its programs, maps and attachment are held by descriptors alone, its network namespaces have no names: they end with
the process, however it ends. Only its cgroups have to be removed; a doctor that was killed leaves them empty, and the
next one takes them away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from zerohop.compiler import Tables, WorkloadEntry
from zerohop.doctor import signals
from zerohop.errors import ZerohopError
from zerohop.kernel import cgroup, libbpf, pins, tables
from zerohop.kernel.datapath import CGROUP_HOOKS, DataPath

CLIENT: Final = "doctor/client"
SERVER: Final = "doctor/server"
PLAIN: Final = "plain/plain"  # attached to, but no workload: its sockets stay plain TCP

_PREFIX: Final = "doctor-"
_SHORTCUT_ALWAYS: Final = 2
_DYING_SECONDS: Final = 1.0


class Laboratory:
    """Loads on `load`, attaches on `attach`; use as a context manager, which removes all of it."""

    def __init__(self) -> None:
        self.instance = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(2)}"
        self.path: DataPath
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Laboratory:
        self._stack.enter_context(signals.unwinding())
        sweep()
        return self

    def __exit__(self, *_: object) -> None:
        with signals.held():
            self._stack.close()

    def load(self) -> None:
        """Loads the object and attaches its socket hooks to its own sockhash. Raises `ZerohopError`."""
        # An underscore: what lists instances passes over it while it is there.
        folder = pins.root() / f"_{self.instance}"
        with signals.held():
            try:
                self.path = DataPath.load(folder)
            finally:
                pins.remove(folder)
        self._stack.callback(self.path.close)

    def attach(self) -> None:
        """Makes the workloads and attaches to their cgroup. Raises `ZerohopError`, `OSError`."""
        self._stack.callback(self._remove_cgroups)
        entries = {
            name: WorkloadEntry("doctor", name.removeprefix("doctor/"), "default", _SHORTCUT_ALWAYS)
            for name in (CLIENT, SERVER)
        }
        wanted = Tables(workloads=entries, cgroups={}, units={}, ports={}, excluded=frozenset())
        for name in (CLIENT, SERVER, PLAIN):
            cgroup.ensure(self.cgroup_of(name))
        tables.apply(self.path, wanted, tables.wanted_cgroups(self.instance, wanted, {}), 1)
        fd = os.open(cgroup.absolute(cgroup.instance_path(self.instance)), os.O_RDONLY | os.O_DIRECTORY)
        try:
            for hook in CGROUP_HOOKS.values():
                program = self.path.programs[hook.program]
                link = libbpf.link_create(program, fd, hook.attach_type, "doctor's cgroup")
                self._stack.callback(os.close, link)
        finally:
            os.close(fd)

    def cgroup_of(self, name: str) -> str:
        """The cgroup path of `NS/NAME`."""
        return cgroup.exec_path(self.instance, *name.split("/"))

    def _remove_cgroups(self) -> None:
        _remove_cgroups(self.instance)


def sweep() -> None:
    """Removes what a doctor that was killed left."""
    for folder in cgroup.absolute(cgroup.ROOT_NAME).glob(f"{_PREFIX}*"):
        if not _lives(folder.name):
            _remove_cgroups(folder.name)
    for folder in pins.root().glob(f"_{_PREFIX}*"):
        if not _lives(folder.name.removeprefix("_")):
            with contextlib.suppress(OSError):
                pins.remove(folder)


def _remove_cgroups(instance: str) -> None:
    """Removes an instance's cgroups; a process that dies just now needs a moment until it is out of them."""
    deadline = time.monotonic() + _DYING_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(ZerohopError):
            cgroup.remove(cgroup.instance_path(instance))
            break
        time.sleep(0.01)
    with contextlib.suppress(OSError):
        cgroup.absolute(cgroup.ROOT_NAME).rmdir()


def _lives(name: str) -> bool:
    pid = name.removeprefix(_PREFIX).partition("-")[0]
    return not pid.isdecimal() or Path("/proc", pid).exists()
