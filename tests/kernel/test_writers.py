"""Threads that write to one socket at once: no message is queued before one that the hook has read before it."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Mesh, MeshFactory, workload
from support.policies import policy, service
from support.writers import OPENING, TURNS, ping

pytestmark = pytest.mark.usefixtures("kernel")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "writers.py"
PORT = 18611
READ = [workload("t/server"), workload("t/client"), service("server", PORT)]
JUDGED = [*READ, policy("secret", {"to": [{"operation": {"paths": ["/no"]}}]}, action="DENY", app="server")]

Play = Callable[[str], subprocess.Popen[str]]
Variant = Callable[[str], Path]


def play(mesh: Mesh, space: network.Namespace) -> Play:
    def start(role: str) -> subprocess.Popen[str]:
        # On one CPU: the short-cut does not carry what outruns a reader on another one.
        argv = ["taskset", "-c", "0", sys.executable, str(PROGRAM), role, "127.0.0.1", str(PORT)]
        name = "t/server" if role in ("holder", "reader") else "t/client"
        return mesh.exec_popen(
            name, argv, space.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def said(program: subprocess.Popen[str]) -> Any:
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line, program.communicate(timeout=10)[1]
    return json.loads(line)


def go_on(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    program.stdin.write("\n")
    program.stdin.flush()


def overlap(start: Play) -> tuple[list[int], bytes]:
    """Two writes, the second before the first is queued: what has come of the second by then, and what arrives."""
    server = start("holder")
    assert said(server) == "ready"
    client = start("overlap")
    assert said(client) == "sent"
    assert said(server) == "holding"
    go_on(client)
    outcome: list[int] = said(client)
    go_on(server)
    go_on(client)
    client.wait(10)
    received = bytes.fromhex(said(server))
    assert received.startswith(OPENING)
    return outcome, received.removeprefix(OPENING)


def test_where_calls_are_judged_the_second_is_refused(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    mesh = mesh_factory(JUDGED)
    outcome, received = overlap(play(mesh, netns))
    assert outcome == [errno.EACCES]
    # The connection is reset, so what came before may be lost; what comes after must be.
    assert (ping(0) + ping(1)).startswith(received)
    assert mesh.totals()["not_shortcut"] == {"writers_overlap": 1}


def test_elsewhere_both_arrive_and_nothing_is_read_any_more(
    mesh_factory: MeshFactory, netns: network.Namespace
) -> None:
    mesh = mesh_factory(READ)
    outcome, received = overlap(play(mesh, netns))
    assert outcome == []
    assert received == ping(0) + ping(1) + ping(2)
    assert mesh.unread() == {"writers_overlap": 1}


def test_without_the_check_it_would_be_taken(
    mesh_factory: MeshFactory, netns: network.Namespace, variant: Variant
) -> None:
    """So the first test means something."""
    mesh = mesh_factory(JUDGED, environment={"ZEROHOP_OBJECT": str(variant("ZH_BREAK_WRITERS"))})
    outcome, received = overlap(play(mesh, netns))
    assert outcome == []
    assert received == ping(0) + ping(1) + ping(2)


def test_threads_that_write_by_turns_are_carried(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    mesh = mesh_factory(JUDGED)
    start = play(mesh, netns)
    server = start("reader")
    assert said(server) == "ready"
    client = start("turns")
    received = bytes.fromhex(said(server))
    assert received == OPENING + b"".join(ping(number) for number in range(1, TURNS + 1))
    assert client.wait(10) == 0
    totals = mesh.totals()
    assert totals["shortcut_bytes"] > len(received) // 2
    assert totals["not_shortcut"] == {}
    assert mesh.unread() == {}
