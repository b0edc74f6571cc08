"""Connections for which the tables have no room: nobody could judge their calls, so nothing of them passes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.builds import compile_variant
from support.mesh import MeshFactory, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
PORT = 18588
ROOM, CONNECTIONS = 4, 7
SERVICE = service("server", PORT)
OF_CALLS = policy("secret", {"to": [{"operation": {"paths": ["/secret.Svc/Get"]}}]}, action="DENY", app="server")
OF_CONNECTIONS = policy("blocks", {"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}, action="DENY", app="server")

# Opens connections, a request on each, and keeps them; then tells how many ended by a reset.
CLIENT = """
import select, socket, sys
sys.path.insert(0, sys.argv[1])
from attempts import ALLOWED, OPENING, block, connect, headers
kept = []
for _ in range(int(sys.argv[3])):
    kept.append(connect(('127.0.0.1', int(sys.argv[2]))))
    kept[-1].send(OPENING + headers(block(ALLOWED)))
    select.select([kept[-1]], [], [], 1)
ends = 0
for each in kept:
    each.settimeout(1)
    try:
        while each.recv(65536):
            pass
    except ConnectionResetError:
        ends += 1
    except TimeoutError:
        pass
print(ends)
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("small") / "small.bpf.o"
    edits = (("shared/bounds.h", "#define MAX_CONNECTIONS 131072", f"#define MAX_CONNECTIONS {ROOM}"),)
    return str(compile_variant(output, edits=edits))


@pytest.mark.parametrize("managed", [True, False], ids=["workload", "outside"])
@pytest.mark.parametrize(
    ("rules", "served"), [(OF_CALLS, ROOM), (OF_CONNECTIONS, CONNECTIONS)], ids=["calls", "blocks"]
)
def test_no_room(
    mesh_factory: MeshFactory, netns: network.Namespace, small: str, managed: bool, rules: dict[str, Any], served: int
) -> None:
    """What needs no judging of calls is served all the same."""
    mesh = mesh_factory([workload("t/server"), workload("t/client"), SERVICE, rules], start=False)
    mesh.environment["ZEROHOP_OBJECT"] = small
    mesh.start()
    witness = mesh.exec_popen(
        "t/server", [sys.executable, str(FOLDER / "witness.py"), "127.0.0.1", str(PORT)], netns.name,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert witness.stdout is not None
    assert witness.stdout.readline() == "ready\n"
    argv = [sys.executable, "-c", CLIENT, str(FOLDER), str(PORT), str(CONNECTIONS)]
    prefix = ["ip", "netns", "exec", netns.name]
    if managed:
        client = mesh.exec_popen("t/client", argv, netns.name, stdout=subprocess.PIPE, text=True)
    else:
        client = subprocess.Popen([*prefix, *argv], stdout=subprocess.PIPE, text=True)
    reset = int(client.communicate(timeout=60)[0])
    time.sleep(0.2)
    witness.kill()
    given = [json.loads(line)["path"] for line in witness.communicate(timeout=10)[0].splitlines()]
    assert (given, reset) == (["/open.Svc/Get"] * served, CONNECTIONS - served)
    assert mesh.totals()["denied_connections"] == CONNECTIONS - served
