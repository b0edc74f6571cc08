"""An end that closes while the other one writes: an ordinary end for the writer, and nobody's fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Direct, Launcher, MeshFactory, workload

pytestmark = pytest.mark.usefixtures("kernel")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "closing.py"
WORKLOAD = "t/both"
CONNECTIONS = 4000


def run(launcher: Launcher, space: network.Namespace) -> dict[str, Any]:
    program = launcher.exec_popen(
        WORKLOAD, [sys.executable, str(PROGRAM), str(CONNECTIONS)], space.name, stdout=subprocess.PIPE, text=True
    )
    output, _ = program.communicate(timeout=120)
    assert program.returncode == 0
    printed: dict[str, Any] = json.loads(output)
    return printed


def test_the_writer_is_told_as_over_tcp(direct: Direct, mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    plain = run(direct, netns)
    mesh = mesh_factory([workload(WORKLOAD, "Always")])
    meshed = run(mesh, netns)
    print(f"\nwhat ended the writers: direct {plain}, zerohop {meshed}")
    totals = mesh.totals()
    assert totals["shortcut_connections_opened"] == CONNECTIONS
    assert totals["errors"] == {}
    assert set(meshed["refused"]) <= {"EPIPE", "ECONNRESET"}, meshed
