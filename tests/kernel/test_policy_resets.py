"""Callers reset what is denied while they send, and so do servers: no server takes that for an attack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from support import network
from support.mesh import MeshFactory, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "resets.py"
PORT = 18590
DENIED = {"when": [{"key": "request.headers[x-deny]", "values": ["yes"]}]}
BATCH, BATCHES = 100, 5
# Longer than it takes the client to reset what was refused.
LATER_MS = 200


@pytest.mark.parametrize("caller", ["t/client", None], ids=["workload", "outside"])
def test_resets_that_cross(mesh_factory: MeshFactory, netns: network.Namespace, caller: str | None) -> None:
    """A server that resets what it refused only after its client has: of one batch it sees resets, of no other."""
    mesh = mesh_factory(
        [
            workload("t/server"),
            workload("t/client"),
            service("server", PORT),
            policy("no", DENIED, action="DENY", app="server"),
        ]
    )

    def finish(program: subprocess.Popen[str]) -> dict[str, Any]:
        output = program.communicate(timeout=60)[0]
        assert program.returncode == 0
        found: dict[str, Any] = json.loads(output)
        return found

    argv = [sys.executable, str(SCRIPT)]
    server = mesh.exec_popen(
        "t/server", [*argv, "serve", str(PORT), str(LATER_MS)], netns.name, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    calling = [*argv, "call", str(PORT), str(BATCHES)]
    if caller is None:
        client = subprocess.Popen(["ip", "netns", "exec", netns.name, *calling], stdout=subprocess.PIPE, text=True)
    else:
        client = mesh.exec_popen(caller, calling, netns.name, stdout=subprocess.PIPE, text=True)
    denial = str(grpc.StatusCode.PERMISSION_DENIED.value[0])
    assert finish(client) == {"statuses": {denial: BATCH * BATCHES}, "resets": BATCH * BATCHES}
    assert finish(server) == {"resets": BATCH, "ignored": BATCH * (BATCHES - 1)}
    assert mesh.totals()["denied_calls"] == BATCH * BATCHES
