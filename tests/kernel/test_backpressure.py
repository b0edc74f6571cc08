"""A reader that stands still stops its writer as over TCP, and a thousand of them cost no more memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import machine, network
from support.mesh import Direct, Launcher, Mesh, MeshFactory, workload

pytestmark = pytest.mark.usefixtures("kernel")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "stall.py"
WORKLOAD = "t/both"
CONNECTIONS = 1000

# A writer that was stopped asks less and less often whether it may go on (after 0.2, 0.6, 1.4, 3, 6.2 s), so who reads
# must tell it. Not when it just asks: then TCP can leave a writer waiting, with zerohop or without (seen without it,
# once among some 1,000 connections that were drained just then).
STANDSTILL = 4.0
LONGEST_WAIT = 1.0


def tcp_memory() -> int:
    """Bytes that sockets of the whole machine hold in TCP buffers."""
    found = re.search(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 4096


@dataclass
class Stalled:
    """A `stall.py` that has filled its connections."""

    program: subprocess.Popen[str]
    queued: list[int]
    errors: dict[str, int]

    @classmethod
    def start(
        cls, launcher: Launcher, space: network.Namespace, connections: int, piece: int, buffered: str
    ) -> Stalled:
        program = launcher.exec_popen(
            WORKLOAD,
            [sys.executable, str(PROGRAM), str(connections), str(piece), buffered],
            space.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        report: dict[str, Any] = json.loads(program.stdout.readline())
        return cls(program, report["queued"], report["errors"])

    def drain(self) -> None:
        """Reads everything: what was written, without standing still."""
        output, _ = self.program.communicate("\n", timeout=90)
        report = json.loads(output)
        assert report["wrong"] == [], report
        assert report["longest_wait"] < LONGEST_WAIT


@pytest.mark.parametrize("buffered", ["small", "default"])
@pytest.mark.parametrize("piece", [100, 262144])
def test_a_stalled_reader_stops_its_writer(
    direct: Direct, mesh_factory: MeshFactory, netns: network.Namespace, piece: int, buffered: str
) -> None:
    mesh = mesh_factory([workload(WORKLOAD, "Always")])
    plain = Stalled.start(direct, netns, 3, piece, buffered)
    plain.drain()
    meshed = Stalled.start(mesh, netns, 3, piece, buffered)
    assert mesh.totals()["shortcut_bytes"] > 0
    print(f"\nqueued, direct {plain.queued}, zerohop {meshed.queued}")
    assert set(meshed.errors) == {"EAGAIN"}
    time.sleep(STANDSTILL)
    meshed.drain()
    # Both move with the kernel's tuning of buffers; without a limit it would be a thousand times as much.
    assert max(meshed.queued) <= 1.5 * max(plain.queued) + 65536


@dataclass(frozen=True)
class Memory:
    """In bytes: TCP's buffers at first and a while later, the agent at first and then."""

    sockets: int
    sockets_later: int
    agent: int = 0
    agent_later: int = 0
    queued: int = 0


def memory_of_a_thousand(launcher: Launcher, space: network.Namespace) -> Memory:
    before = tcp_memory()
    agent = launcher.agent if isinstance(launcher, Mesh) else None
    agent_before = machine.resident_bytes(agent.pid) if agent else 0
    stalled = Stalled.start(launcher, space, CONNECTIONS, 4096, "small")
    first = tcp_memory() - before
    time.sleep(6)  # the agent looks at connections every five seconds
    later = tcp_memory() - before
    agent_later = machine.resident_bytes(agent.pid) if agent else 0
    assert set(stalled.errors) == {"EAGAIN"}
    stalled.drain()
    return Memory(first, later, agent_before, agent_later, sum(stalled.queued))


def test_a_thousand_stalled_connections(direct: Direct, mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    mesh = mesh_factory([workload(WORKLOAD, "Always")])
    plain = memory_of_a_thousand(direct, netns)
    meshed = memory_of_a_thousand(mesh, netns)
    map_bytes = mesh.status()["kernel"]["map_bytes"]
    print(f"\ndirect {plain}\nzerohop {meshed}, maps {map_bytes}")
    assert mesh.totals()["shortcut_bytes"] > 0
    slack = 8 << 20
    assert meshed.sockets_later <= meshed.sockets + slack, "grows while nothing happens"
    assert meshed.sockets <= 1.25 * plain.sockets + slack
    assert meshed.agent_later <= meshed.agent + (3 << 20)
    assert meshed.agent_later <= 45 << 20
