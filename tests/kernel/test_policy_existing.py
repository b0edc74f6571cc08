"""Connections that are older than the hooks: what policies forbid, or judge call by call, ends when it is managed."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.machine import cgroup_mount
from support.mesh import Mesh, MeshFactory, end_program, workload
from support.policies import callers, policy

pytestmark = pytest.mark.usefixtures("kernel")

PORT = 18579

# Says who it is at once, then every 10 ms, to everybody.
TALKER = """
import socket, sys, threading, time
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('ready', flush=True)
def talk(connection):
    try:
        while True:
            connection.sendall(b'x')
            time.sleep(0.01)
    except OSError:
        pass
while True:
    threading.Thread(target=talk, args=[listener.accept()[0]], daemon=True).start()
"""

# Listens until it hears no more; says how that ended.
LISTENER = """
import socket, sys
connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
connection.recv(1)
print('connected', flush=True)
try:
    while connection.recv(1000):
        pass
    print('end', flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""


@pytest.fixture
def group(kernel: None) -> Iterator[Path]:
    path = cgroup_mount() / f"zht-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    try:
        yield path
    finally:
        for process in (path / "cgroup.procs").read_text().split():
            (cgroup_mount() / "cgroup.procs").write_text(process)
        path.rmdir()


def start(space: network.Namespace, code: str, group: Path | None = None) -> subprocess.Popen[str]:
    enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
    command = ["sh", "-c", enter + 'exec "$@"', "sh", "ip", "netns", "exec", space.name, sys.executable, "-c", code]
    program = subprocess.Popen([*command, str(PORT)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert program.stdout is not None
    assert program.stdout.readline() in ("ready\n", "connected\n")
    return program


def documents(group: Path, *policies: dict[str, Any], protocol: str = "tcp") -> list[dict[str, Any]]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server", "namespace": "t"},
        "spec": {"selector": {"app": "server"}, "ports": [{"name": protocol, "port": PORT, "appProtocol": protocol}]},
    }
    return [workload("t/server", cgroups=[f"/{group.name}"]), service, *policies]


CASES = {
    "denied": ([policy("nobody", app="server")], "tcp", True),
    "denied by address": (
        [policy("here", callers(ipBlocks=["127.0.0.0/8"]), action="DENY", app="server")], "tcp", True,
    ),
    "allowed": ([policy("here", callers(ipBlocks=["127.0.0.0/8"]), app="server")], "tcp", False),
    "judged by call": (
        [policy("calls", {"to": [{"operation": {"paths": ["/a/b"]}}]}, app="server")], "grpc", True,
    ),
    "observed": (
        [
            policy(
                "calls", {"to": [{"operation": {"paths": ["/a/b"]}}]}, app="server",
                annotations={"zerohop.io/existing-connections": "observe"},
            )
        ], "grpc", False,
    ),
    "no policy": ([], "grpc", False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_older_than_the_mesh(mesh_factory: MeshFactory, netns: network.Namespace, group: Path, case: str) -> None:
    policies, protocol, ends = CASES[case]
    programs = [start(netns, TALKER, group)]
    try:
        programs.append(start(netns, LISTENER))
        mesh: Mesh = mesh_factory(documents(group, *policies, protocol=protocol))
        if ends:
            assert programs[1].communicate(timeout=10)[0] == "ConnectionResetError\n"
        else:
            time.sleep(1)
            assert programs[1].poll() is None
            # One that comes with other policies ends all the same.
            mesh.write_config(documents(group, policy("nobody", app="server"), protocol=protocol))
            assert programs[1].communicate(timeout=10)[0] == "ConnectionResetError\n"
    finally:
        for program in programs:
            end_program(program)
