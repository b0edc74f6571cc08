"""SIGKILL of a reader with unread data: its writer learns of it as fast as over TCP."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Direct, Launcher, MeshFactory, workload

pytestmark = pytest.mark.usefixtures("kernel")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "death.py"
WORKLOAD = "t/both"

# A writer that polls must know within this time, in seconds; over TCP it is less than a millisecond.
BOUND = 1.0


def measure(launcher: Launcher, space: network.Namespace, unread: str, watched: str) -> dict[str, Any]:
    program = launcher.exec_popen(
        WORKLOAD, [sys.executable, str(PROGRAM), unread, watched], space.name, stdout=subprocess.PIPE, text=True
    )
    output, _ = program.communicate(timeout=100)
    assert program.returncode == 0
    measured: dict[str, Any] = json.loads(output)
    return measured


@pytest.mark.parametrize("watched", ["all", "out"])
@pytest.mark.parametrize("unread", ["little", "full", "huge"])
def test_the_writer_learns_of_it(
    direct: Direct, mesh_factory: MeshFactory, netns: network.Namespace, unread: str, watched: str
) -> None:
    mesh = mesh_factory([workload(WORKLOAD, "Always")])
    plain = measure(direct, netns, unread, watched)
    meshed = measure(mesh, netns, unread, watched)
    print(f"\nseconds until the writer knows, {unread} unread, {watched} watched: direct {plain}, zerohop {meshed}")
    assert mesh.totals()["shortcut_connections_opened"] > 0
    assert plain["worst"] < BOUND
    assert meshed["worst"] < BOUND
