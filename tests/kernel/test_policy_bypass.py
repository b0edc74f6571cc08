"""Ways round a policy: whatever a client does, the server is not given the request that is forbidden."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import machine, network
from support.mesh import Mesh, end_program, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
sys.path.insert(0, str(FOLDER))

from attempts import ALLOWED, ATTEMPTS, FORBIDDEN, TURNS  # noqa: E402

PORT = 18577
POLICY = policy(
    "secret",
    {"to": [{"operation": {"paths": [FORBIDDEN.decode()]}}]},
    {
        "to": [{"operation": {"paths": [TURNS.decode()]}}],
        "when": [{"key": "request.headers[x-ok]", "notValues": ["yes"]}],
    },
    action="DENY",
    app="server",
)
SERVICE = service("server", PORT)
AT_ONCE = 4


def pause_for(name: str) -> str:
    """Seconds that a connection waits until it is accepted."""
    return "0.3" if name.endswith("at once") else "0"


class Trial:
    def __init__(self, mesh: Mesh, space: network.Namespace, port: int = PORT) -> None:
        self.mesh, self.space, self.port = mesh, space, port
        self.pause = "0"
        self.witness: subprocess.Popen[str] | None = None

    def serve(self) -> subprocess.Popen[str]:
        """The witness, which stays for all attempts that want it to pause as long."""
        argv = [sys.executable, str(FOLDER / "witness.py"), "127.0.0.1", str(self.port), self.pause]
        if self.witness is not None:
            if self.witness.args[-1] == self.pause:
                return self.witness
            self.leave()
        self.witness = self.mesh.exec_popen("t/server", argv, self.space.name, stdout=subprocess.PIPE, text=True)
        assert self.witness.stdout.readline() == "ready\n"
        os.set_blocking(self.witness.stdout.fileno(), False)
        return self.witness

    def leave(self) -> None:
        """Makes room for another server."""
        if self.witness is not None:
            end_program(self.witness)
            self.witness = None

    def start(self, name: str, *, managed: bool) -> subprocess.Popen[str]:
        argv = [sys.executable, str(FOLDER / "attempts.py"), name, "127.0.0.1", str(self.port)]
        with (machine.cgroup_mount() / "cgroup.procs").open("w") as root:
            inherited: dict[str, Any] = {
                "pass_fds": [root.fileno()],
                "env": {**self.mesh.environment, "ROOT_CGROUP": str(root.fileno())},
            }
            if managed:
                return self.mesh.exec_popen(
                    "t/client", argv, self.space.name, stdout=subprocess.PIPE, text=True, **inherited
                )
            return subprocess.Popen(
                ["ip", "netns", "exec", self.space.name, *argv], stdout=subprocess.PIPE, text=True, **inherited
            )

    def make(self, name: str, *, managed: bool) -> list[str]:
        """What the server was given."""
        witness = self.serve()
        program = self.start(name, managed=managed)
        assert program.communicate(timeout=60)[0] == "done\n"
        time.sleep(0.1 + 2 * float(self.pause))
        assert witness.poll() is None
        output = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(witness.stdout.fileno(), 65536):
                output += part
        return told(output.decode())

    def make_to_grpc(self, names: Iterable[str], *, managed: bool) -> list[str]:
        """For which paths handlers of a gRPC server ran."""
        self.leave()
        argv = [sys.executable, str(FOLDER / "grpc_witness.py"), str(self.port)]
        witness = self.mesh.exec_popen("t/server", argv, self.space.name, stdout=subprocess.PIPE, text=True)
        assert witness.stdout.readline() == "ready\n"

        def make(name: str) -> None:
            assert self.start(name, managed=managed).communicate(timeout=60)[0] == "done\n"

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(make, names))
        witness.kill()
        return told(witness.communicate(timeout=10)[0])


def told(output: str) -> list[str]:
    """Of what requests a witness has told."""
    return [next(iter(json.loads(line).values())) for line in output.splitlines()]


@pytest.fixture(scope="module")
def trial(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    mesh = Mesh(tmp_path_factory.mktemp("bypass"), [workload("t/server"), workload("t/client"), SERVICE, POLICY])
    with network.namespace("b") as space:
        # TCP fast open for both sides, without cookies, and for listeners that have not asked for it.
        space.run("sysctl", "-qw", "net.ipv4.tcp_fastopen=0x607")
        try:
            mesh.start()
            yield Trial(mesh, space)
        finally:
            for program in mesh.programs:
                end_program(program)
            mesh.close()


# Requests for a method that may be called: what the server is given of them.
ALLOWED_REQUESTS = {
    "inserted by a trailer": [ALLOWED.decode()],
    "padding that is read": [],
    "flags without a meaning": [],
    "continuation with padding": [],
    "late host": [],
    "stream that depends on itself": [],
    "priority of itself": [],
}


@pytest.mark.parametrize("managed", [True, False], ids=["workload", "outside"])
@pytest.mark.parametrize("name", ATTEMPTS)
def test_no_way_round(trial: Trial, name: str, managed: bool) -> None:
    trial.pause = pause_for(name)
    given = trial.make(name, managed=managed)
    forbidden = FORBIDDEN.decode()
    normal = [each.split(" ")[1] if " " in each else each for each in given]
    normal = ["/" + re.split("[?;]", each)[0].replace("%2f", "/").replace("//", "/").lstrip("/") for each in normal]
    assert forbidden not in normal, given
    assert not any(".." in each for each in given), given
    if name in ALLOWED_REQUESTS:
        assert given == ALLOWED_REQUESTS[name]


@pytest.mark.parametrize("managed", [True, False], ids=["workload", "outside"])
def test_no_handler_runs(trial: Trial, managed: bool) -> None:
    """gRPC's C core reads some frames in ways of its own."""
    assert set(trial.make_to_grpc(ATTEMPTS, managed=managed)) == {ALLOWED.decode()}


def test_the_witnesses_see(trial: Trial) -> None:
    """Without the policy they are given what is attempted, so that the tests above mean something."""
    generation = trial.mesh.generation()
    trial.mesh.write_config([workload("t/server"), workload("t/client"), SERVICE])
    trial.mesh.wait_for_generation(generation + 1)
    names = [name for name in ATTEMPTS if name not in ("splice", "urgent")]

    def unseen(number: int) -> list[str]:
        other = Trial(trial.mesh, trial.space, PORT + 1 + number)
        found = []
        for name in names[number::AT_ONCE]:
            other.pause = pause_for(name)
            if not other.make(name, managed=False):
                found.append(name)
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert list(pool.map(unseen, range(AT_ONCE))) == [[]] * AT_ONCE
    assert trial.make_to_grpc(["plain"], managed=False) == [FORBIDDEN.decode()]
    assert trial.make_to_grpc(["padding that is read"], managed=False) == [FORBIDDEN.decode()]
