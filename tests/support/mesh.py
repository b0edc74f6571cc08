"""A private zerohop: its own instance, configuration, agent; everything is removed at the end, however it comes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.machine import zerohop_script
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import read_reading

READY_SECONDS = 30
COMMAND_SECONDS = 60

# The workloads of most tests: everything that may be short-cut is.
ALWAYS = {"t/server": "Always", "t/client": "Always"}


def workload(key: str, shortcut: str = "Auto", **spec: Any) -> dict[str, Any]:
    """A Workload document; `key` is NS/NAME."""
    namespace, _, name = key.partition("/")
    return {
        "apiVersion": "zerohop.io/v1alpha1",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"shortcut": shortcut, **spec},
    }


def network_prefix(namespace: str | None) -> list[str]:
    return ["ip", "netns", "exec", namespace] if namespace else []


class Mesh:
    """`start` returns when the agent is ready. `documents` are the configuration (JSON is YAML).

    The session's first agent examines the kernel (zerohop doctor); once it has found the short-cut safe the others
    take that from it, which saves each of them four seconds.
    """

    _examined = False

    def __init__(
        self,
        folder: Path,
        documents: Sequence[Mapping[str, Any]],
        *,
        instance: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.instance = instance or f"t-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.config = folder / f"{self.instance}.yaml"
        self.log = folder / f"{self.instance}.log"
        known = {"ZEROHOP_SKIP_DOCTOR": "1"} if Mesh._examined else {}
        self.environment = {**os.environ, **known, **(environment or {})}
        self.agent: subprocess.Popen[bytes] | None = None
        self.programs: list[subprocess.Popen[Any]] = []
        self.write_config(documents)

    def write_config(self, documents: Sequence[Mapping[str, Any]] | str) -> None:
        text = documents if isinstance(documents, str) else "".join(f"---\n{json.dumps(each)}\n" for each in documents)
        partial = self.config.with_suffix(".partial")
        partial.write_text(text)
        partial.rename(self.config)

    def command(self, *arguments: str) -> list[str]:
        return [str(zerohop_script()), "--instance", self.instance, *arguments]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=COMMAND_SECONDS,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"zerohop {' '.join(arguments)}: exit status {result.returncode}: {result.stderr}")
        return result

    # The agent

    def launch(self) -> None:
        """Starts the agent; `log` holds everything that it prints from now on."""
        with self.log.open("wb") as output:
            self.agent = subprocess.Popen(
                self.command("run", "-c", str(self.config), "--metrics", "off"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )

    def start(self) -> None:
        self.launch()
        self.wait_for_log(r"\bready\b", READY_SECONDS)
        if "ZEROHOP_SKIP_DOCTOR" not in self.environment:
            Mesh._examined = "no short-cut on this kernel" not in self.log.read_text()

    def wait_for_log(self, pattern: str, seconds: float, *, start: int = 0) -> None:
        """Until the agent has said so, after the first `start` characters of its log."""
        assert self.agent is not None
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.log.read_text()[start:]):
            status = self.agent.poll()
            if status is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} from the agent (status {status}):\n{self.log.read_text()}")
            time.sleep(0.02)

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()
        self.agent = None

    def stop_agent(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.agent is not None
        self.agent.terminate()
        status = self.agent.wait(COMMAND_SECONDS)
        self.agent = None
        return status

    # What it manages

    def exec_popen(
        self,
        workload: str,
        argv: Sequence[str],
        netns: str | None = None,
        allow_splice: bool = False,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """A program inside a workload, with a process group of its own; ended with the mesh if it still runs."""
        options.setdefault("env", self.environment)
        splice = ["--allow-splice"] if allow_splice else []
        command = [
            *network_prefix(netns),
            *self.command("exec", "--workload", workload, *splice, "--", *argv),
        ]
        program = subprocess.Popen(command, start_new_session=True, **options)
        self.programs.append(program)
        return program

    def status(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return result

    def generation(self) -> int:
        number: int = self.status()["generation"]
        return number

    def wait_for_generation(self, number: int) -> None:
        """Until the agent has applied so many configurations."""
        deadline = time.monotonic() + 10
        while self.generation() < number:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def totals(self) -> dict[str, Any]:
        totals: dict[str, Any] = self.status()["totals"]
        return totals

    def unread(self) -> dict[str, int]:
        """Connections on layer-7 ports that are not read, or no further, by reason."""
        with DataPath.open(self.instance) as path:
            return read_reading(path).unread

    # The end

    def close(self) -> None:
        """Ends the programs and the agent, removes every trace of the instance."""
        for program in self.programs:
            end_program(program)
        try:
            if self.agent is not None:
                self.stop_agent()
        finally:
            if self.agent is not None:
                self.kill_agent()
            self.run("clean")


class Direct:
    """What a mesh does for programs, without one."""

    def __init__(self) -> None:
        self.programs: list[subprocess.Popen[Any]] = []

    def exec_popen(
        self,
        workload: str,
        argv: Sequence[str],
        netns: str | None = None,
        allow_splice: bool = False,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        program = subprocess.Popen([*network_prefix(netns), *argv], start_new_session=True, **options)
        self.programs.append(program)
        return program

    def close(self) -> None:
        for program in self.programs:
            end_program(program)


Launcher = Mesh | Direct
MeshFactory = Callable[..., Mesh]


def end_program(program: subprocess.Popen[Any]) -> None:
    """Kills the program's process group (it leads a session of its own) and waits for it."""
    if program.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    program.wait()
    for stream in (program.stdin, program.stdout, program.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()
