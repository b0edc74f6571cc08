"""Sockets that get no memory: what they hear is what TCP would have them hear."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.memory import limited_memory
from support.mesh import MeshFactory

pytestmark = pytest.mark.usefixtures("kernel")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "tight.py"
PORT = 18618
LIMIT, UNLIMITED = 6 << 20, 1 << 40

# When memory is short meets the messages by chance. Mostly more than 1 MB of 8 goes by TCP then, 180 KB if it never is;
# without the condition, two writers of three hear of it.
TRIES = 8

Variant = Callable[[str], Path]


def play(mesh_factory: MeshFactory, space: network.Namespace, **options: Any) -> tuple[dict[str, Any], str, Any]:
    """What the sender prints, what the server does, and what the kernel has counted."""
    mesh = mesh_factory(**options)

    def start(workload: str, *argv: str) -> subprocess.Popen[str]:
        # On one CPU: the short-cut does not carry what outruns a reader on another one.
        command = ["taskset", "-c", "0", sys.executable, str(PROGRAM), *argv]
        return mesh.exec_popen(workload, command, space.name, stdout=subprocess.PIPE, text=True)

    with limited_memory(LIMIT):
        server = start("t/server", "serve", str(PORT), str(LIMIT))
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with limited_memory(UNLIMITED):
            sent = json.loads(start("t/client", "send", str(PORT), "0").communicate(timeout=60)[0])
        received = server.communicate(timeout=20)[0].strip()
    return sent, received, mesh.totals()


def test_nobody_hears_of_a_receiver_without_memory(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    for _ in range(TRIES):
        sent, received, totals = play(mesh_factory, netns)
        assert sent == {"digest": received, "failed": 0}
        assert totals["shortcut_bytes"] > 0
        if totals["tcp_bytes"] > 1 << 20:
            return
    pytest.fail("there was always enough memory: this has tried nothing")


def test_without_the_condition_writers_do(
    mesh_factory: MeshFactory, netns: network.Namespace, variant: Variant
) -> None:
    environment = {"ZEROHOP_OBJECT": str(variant("ZH_BREAK_MEMORY"))}
    for _ in range(TRIES):
        sent, received, _ = play(mesh_factory, netns, environment=environment)
        assert sent["digest"] == received
        if sent["failed"] > 0:
            return
    pytest.fail("no writer heard of it")
