"""Connections that are open while something happens to the mesh."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support import network
from support.mesh import Mesh

PROGRAM = Path(__file__).resolve().parent / "idle.py"


@contextlib.contextmanager
def idle(mesh: Mesh, space: network.Namespace, connections: int, workload: str = "t/client") -> Iterator[None]:
    """Connections that do nothing, half of them with data unread at the server's end; all must work after the block."""
    program = mesh.exec_popen(
        workload,
        [sys.executable, str(PROGRAM), str(connections)],
        space.name,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "ready\n"
    assert mesh.totals()["shortcut_bytes"] > 0
    yield
    output, _ = program.communicate("\n", timeout=30)
    assert json.loads(output) == {"wrong": []}
