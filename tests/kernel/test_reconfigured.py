"""What another configuration means for connections that are open: they go on, by TCP if it no longer wants them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import MeshFactory, workload

pytestmark = pytest.mark.usefixtures("kernel")

IDLE = Path(__file__).resolve().parents[1] / "support" / "idle.py"
CONNECTIONS = 8
ALWAYS = [workload("t/both", "Always")]

CHANGES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "switched off": ([workload("t/both", "Disabled")], "disabled"),
    "not declared": ([workload("t/both", "Auto")], "port_not_declared"),
    "workload removed": ([workload("t/other", "Always")], "disabled"),
    "unchanged": ([*ALWAYS, workload("t/other", "Always")], ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_open_connections(mesh_factory: MeshFactory, netns: network.Namespace, change: str) -> None:
    documents, reason = CHANGES[change]
    mesh = mesh_factory(documents=ALWAYS)
    program = mesh.exec_popen(
        "t/both",
        [sys.executable, str(IDLE), str(CONNECTIONS)],
        netns.name,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "ready\n"
    before = mesh.status()
    assert before["totals"]["shortcut_bytes"] > 0
    mesh.write_config(documents)
    deadline = time.monotonic() + 10
    while mesh.status()["generation"] == before["generation"]:
        assert time.monotonic() < deadline, mesh.log.read_text()
        time.sleep(0.05)
    output, _ = program.communicate("\n", timeout=30)
    assert json.loads(output) == {"wrong": []}
    totals = mesh.totals()
    if reason:
        assert totals["shortcut_bytes"] == before["totals"]["shortcut_bytes"]
        assert totals["not_shortcut"][reason] == CONNECTIONS
    else:
        assert totals["shortcut_bytes"] > before["totals"]["shortcut_bytes"]
    assert totals["errors"] == {}
