"""Reconciles: configuration files and cgroups on one side, the kernel's tables and attachments on the other."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zerohop import doctor
from zerohop.agent import lock, units
from zerohop.agent.notify import notify
from zerohop.compiler import Tables, compile_tables
from zerohop.compiler.policies import PolicyTables, compile_policies
from zerohop.config import Configuration, ConfigurationError, digest, load
from zerohop.config.watch import ConfigWatcher
from zerohop.errors import ZerohopError
from zerohop.kernel import cgroup, lifecycle, tables
from zerohop.kernel.datapath import MAX_METHODS, DataPath
from zerohop.kernel.existing import reset_existing
from zerohop.kernel.policies import Generations
from zerohop.kernel.resets import Resets
from zerohop.kernel.status import read_status
from zerohop.telemetry.access_log import AccessLog

log = logging.getLogger("zerohop")

CGROUP_SECONDS: Final = 1.0
INSPECT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Options:
    """`engine`: read calls. `max_methods`: of one destination. `flow_sampling`: one of N gets a record; 0: none."""

    engine: bool = True
    max_methods: int = MAX_METHODS
    flow_sampling: int = 1


DEFAULTS: Final = Options()


class Agent:
    """One instance's agent. `start` makes the kernel ready, `serve` keeps it so until a signal ends it."""

    def __init__(self, instance: str, config: Path, options: Options = DEFAULTS) -> None:
        self.instance = instance
        self.config = config
        self.options = options
        self.labels: dict[str, Mapping[str, str]] = {}
        self.access_log: AccessLog | None = None
        self._stack = contextlib.ExitStack()
        self._digest = ""
        self._refused = ""
        self._tables: Tables
        self._wanted: dict[str, str] = {}
        self._warned: set[tuple[str, str, int]] = set()
        self._policies = Generations()
        self.path: DataPath

    def start(self) -> lifecycle.Origin:
        """Takes the lock, loads the configuration, obtains the data path, applies and attaches.

        Raises `ZerohopError` (with all errors of the configuration) before anything in the kernel has changed.
        """
        self._lock = lock.AgentLock(self.instance)
        self._stack.callback(self._lock.release)
        self._catch_signals()
        configuration = load(self.config)
        compiled = compile_tables(configuration)
        policies = compile_policies(configuration, compiled)
        wanted = self._resolve(compiled)
        # For tests alone: of builds that are broken on purpose, and on a kernel that has been examined already.
        shortcut = bool(os.environ.get("ZEROHOP_SKIP_DOCTOR")) or doctor.shortcut_works(self.instance)

        def prepare(path: DataPath) -> None:
            settings = path.settings()
            settings.shortcut = shortcut
            settings.engine = self.options.engine
            settings.max_methods = self.options.max_methods
            settings.flow_sampling = self.options.flow_sampling
            path.write_settings(settings)
            self._apply(path, compiled, policies, wanted)

        self.path, origin = lifecycle.obtain(self.instance, prepare)
        self._stack.callback(self.path.close)
        self._resets = Resets(self.path)
        self._stack.callback(self._resets.close)
        self._adopt(configuration, compiled, wanted)
        return origin

    def close(self) -> None:
        """Lets go of everything in this process; the kernel keeps working."""
        self._stack.close()

    def _catch_signals(self) -> None:
        """From now on a signal is a byte in a pipe that `serve` reads, also one that comes before it runs."""
        self._wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stack.callback(os.close, self._wakeup)
        self._stack.callback(os.close, wakeup_write)
        signal.set_wakeup_fd(wakeup_write)
        self._stack.callback(signal.set_wakeup_fd, -1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def _resolve(self, compiled: Tables) -> dict[str, str]:
        wanted = tables.wanted_cgroups(self.instance, compiled, units.cgroups_of(compiled.units))
        taken = tables.overlaps(self.instance, wanted)
        if taken:
            mine, its, other = taken[0]
            raise ZerohopError(
                f"the cgroup {mine} is managed by instance {other!r} already (its {its})",
                hint=f"remove it from one of the two, or run zerohop --instance {other} clean",
            )
        return wanted

    def _apply(self, path: DataPath, compiled: Tables, policies: PolicyTables, wanted: dict[str, str]) -> None:
        def apply_policies(workloads: dict[str, int]) -> None:
            self._policies.apply(path, policies, workloads)

        tables.apply(path, compiled, wanted, path.settings().generation + 1, apply_policies)

    def _adopt(self, configuration: Configuration, compiled: Tables, wanted: dict[str, str]) -> None:
        """What the kernel's tables say from now on."""
        self._tables, self._wanted, self._digest = compiled, wanted, configuration.digest
        self.labels = {each.key: each.labels for each in configuration.workloads}
        self.attach()
        self.judge_again()
        if configuration.policies:
            self._tolerate(self.reset_existing)

    def reload(self) -> bool:
        """Applies the files if they changed. A configuration that is not valid changes nothing; False then."""
        seen = digest(self.config)
        if seen in (self._digest, self._refused):
            return seen == self._digest
        self._refused = seen
        try:
            configuration = load(self.config)
            compiled = compile_tables(configuration)
            policies = compile_policies(configuration, compiled)
            wanted = self._resolve(compiled)
            self._apply(self.path, compiled, policies, wanted)
            self._adopt(configuration, compiled, wanted)
        except ConfigurationError as error:
            for each in error.errors:
                log.error("configuration not applied, the running one stays: %s", each)
            return False
        except ZerohopError as error:
            log.error("configuration not applied, the running one stays: %s", error)
            return False
        self._refused = ""
        log.info("configuration applied", extra={"generation": self.path.settings().generation})
        return True

    def attach(self) -> None:
        """Attaches to every cgroup that is wanted and there; lets go of those that are wanted no more or have gone."""
        for name in self._tables.workloads:
            cgroup.ensure(cgroup.exec_path(self.instance, *name.split("/", 1)))
        present: set[int] = set()
        for where in sorted({cgroup.attach_path(each, self.instance) for each in self._wanted}):
            identifier = cgroup.identifier(cgroup.absolute(where))
            if identifier is not None:
                present.add(identifier)
                self.path.attach(where, policies=bool(self.path.settings().policies))
        gone = self.path.attached() - present
        # The hook closes the accounts of a removed workload's connections: it stays until the last has closed.
        if gone and not tables.has_removed_with_connections(self.path):
            for identifier in gone:
                self.path.detach(identifier)

    def judge_again(self) -> None:
        """Ends open connections that the policies forbid."""
        self.path.judge_all()
        self._resets.carry_out()

    def reset_existing(self) -> None:
        """Ends connections that are older than the hooks, where policies forbid them or would judge their calls."""
        count = reset_existing(self.path, tables.cgroup_paths(self.path))
        if count:
            log.info("%d connections from before were reset: policies forbid them, or judge their calls", count)

    def warn_unread(self) -> None:
        """Logs, once each, the members whose queue nobody reads: programs that a short-cut cannot serve."""
        current = {(each.namespace, each.workload, each.port): each for each in read_status(self.path).unread}
        for key in current.keys() - self._warned:
            each = current[key]
            log.warning(
                "workload %s/%s has not read a connection's data for %.0f s; if it uses splice(2) or its own polling,"
                " start it with zerohop exec, add SystemCallFilter=~splice:EINVAL to its unit, or exclude port %d",
                each.namespace,
                each.workload,
                each.seconds,
                each.port,
            )
        self._warned = set(current)

    def follow_flows(self, access_log: AccessLog) -> None:
        """The access log is written while `serve` runs, and closed with the agent."""
        self.access_log = access_log
        self._stack.callback(access_log.close)

    def serve(self) -> None:
        """Runs until SIGTERM or SIGINT; SIGHUP reloads. Raises `ZerohopError` when its data path is taken away."""
        watcher = ConfigWatcher(self.config)
        self._stack.callback(watcher.close)
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        poll.register(watcher.fileno(), select.POLLIN)
        poll.register(self._resets.fileno(), select.POLLIN)
        next_inspection = time.monotonic() + INSPECT_SECONDS
        if self.access_log is not None:
            self.access_log.start()
        while True:
            changed = False
            pause = self._resets.pause()
            for fd, _ in poll.poll(1000 * min(CGROUP_SECONDS, pause)):
                if fd == self._wakeup:
                    numbers = os.read(self._wakeup, 64)
                    if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                        notify("STOPPING=1")
                        return
                    changed = True
                    if self.access_log is not None and signal.SIGHUP in numbers:
                        self.access_log.reopen()
                elif fd == self._resets.fileno():
                    self._tolerate(self._resets.carry_out)
                else:
                    changed = watcher.drain() or changed
            if self._resets.is_due():
                self._tolerate(self.judge_again)
            self._require_own()
            if changed:
                self.reload()
            self._tolerate(self.attach)
            self._tolerate(lambda: self._policies.forget(self.path))
            if time.monotonic() >= next_inspection:
                next_inspection = time.monotonic() + INSPECT_SECONDS
                self._tolerate(self.warn_unread)
                if not changed:
                    self.reload()

    def _require_own(self) -> None:
        """Raises `ZerohopError` when the pins or the lock are not this agent's any more: it would manage nothing."""
        lost = self.path.lost_pins()
        if lost:
            raise ZerohopError(
                f"the data path of instance {self.instance!r} was removed while its agent ran: {lost[0]} is gone",
                hint="start zerohop run again, it makes what is missing; zerohop clean removes agent and data path",
            )
        if not self._lock.holds():
            raise ZerohopError(
                f"the lock of instance {self.instance!r} was removed while its agent ran: {self._lock.file} is gone",
                hint="start zerohop run again, once no other agent of the instance runs",
            )

    @staticmethod
    def _tolerate(step: object) -> None:
        """A cgroup may vanish between a look and a touch: the next round sees it."""
        assert callable(step)
        try:
            step()
        except (ZerohopError, OSError) as error:
            log.warning("will try again: %s", error)
