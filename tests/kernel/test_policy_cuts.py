"""A denied call's header block may come in parts, cut anywhere: its caller is told so, and nobody else notices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from support import network
from support.mesh import Mesh, end_program, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "cuts.py"
PORT, PARTING_PORT = 18579, 18580
DENIED = {"when": [{"key": "request.headers[x-deny]", "values": ["yes"]}]}
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED.value[0]
EXPECTED = [[0, True], [PERMISSION_DENIED, False]] * 3


class Scene:
    def __init__(self, mesh: Mesh, space: network.Namespace) -> None:
        self.mesh, self.space = mesh, space
        self.handled = 0

    def start(self, argument: list[str], workload: str | None) -> subprocess.Popen[str]:
        argv = [sys.executable, str(SCRIPT), *argument]
        if workload is None:
            argv = ["ip", "netns", "exec", self.space.name, *argv]
            return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        return self.mesh.exec_popen(workload, argv, self.space.name, stdout=subprocess.PIPE, text=True)

    def serve(self, role: str, port: int) -> None:
        server = self.start([role, str(port)], "t/server")
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def outcomes(self, port: int, how: str, workload: str | None) -> list[Any]:
        """What came of each burst; at the end how many calls the handlers have been given so far."""
        with self.start(["call", str(port), how], workload) as program:
            output = program.communicate(timeout=300)[0]
        assert program.returncode == 0
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def scene(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    documents = [
        workload("t/server"),
        workload("t/client"),
        service("server", PORT),
        {**service("server", PARTING_PORT), "metadata": {"name": "parting", "namespace": "t"}},
        policy("no", DENIED, action="DENY", app="server"),
    ]
    mesh = Mesh(tmp_path_factory.mktemp("cuts"), documents)
    with network.namespace("c") as space:
        try:
            mesh.start()
            scene = Scene(mesh, space)
            scene.serve("serve", PORT)
            scene.serve("part", PARTING_PORT)
            yield scene
        finally:
            for program in mesh.programs:
                end_program(program)
            mesh.close()


@pytest.mark.parametrize("caller", ["t/client", None], ids=["workload", "outside"])
@pytest.mark.parametrize("how", ["whole", "continuation", "bytes"])
def test_every_cut(scene: Scene, how: str, caller: str | None) -> None:
    before = scene.mesh.totals()
    handled = scene.handled
    *found, scene.handled = scene.outcomes(PORT, how, caller)
    assert found
    wrong = [each for each in found if each["calls"] != EXPECTED]
    assert not wrong, (len(wrong), len(found), wrong[:5], scene.mesh.totals())
    assert scene.handled - handled == 3 * len(found)
    after = scene.mesh.totals()
    assert after["denied_calls"] - before["denied_calls"] == 3 * len(found)
    assert after["denied_connections"] == before["denied_connections"]


@pytest.mark.parametrize("caller", ["t/client", None], ids=["workload", "outside"])
def test_answers_in_two_writes(scene: Scene, caller: str | None) -> None:
    """Wherever a server parts its answers, a refusal among them becomes the denial."""
    before = scene.mesh.totals()
    found = scene.outcomes(PARTING_PORT, "400", caller)
    wrong = [each for each in found if each["calls"] != EXPECTED]
    assert len(found) == 400
    assert not wrong, (len(wrong), wrong[:5], scene.mesh.totals())
    assert scene.mesh.totals()["denied_connections"] == before["denied_connections"]
