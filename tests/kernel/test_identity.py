"""A socket belongs to the workload of the cgroup in which it was made, whoever holds it later."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.mesh import Mesh, workload

pytestmark = pytest.mark.usefixtures("kernel")

# Listens without blocking on a port of the kernel's choice and says which, then echoes one message.
SERVER = """
import select, socket, sys
listener = socket.socket(); listener.setblocking(False)
listener.bind(("127.0.0.1", 0)); listener.listen()
print(listener.getsockname()[1], flush=True)
while True:
    select.select([listener], [], [])
    peer, _ = listener.accept(); peer.setblocking(False)
    select.select([peer], [], []); peer.send(peer.recv(64))
    select.select([peer], [], []); peer.close()
"""

# Connects and exchanges one message; keeps the connection until its standard input ends.
CLIENT = """
import select, socket, sys
peer = socket.socket(); peer.setblocking(False)
try: peer.connect(("127.0.0.1", int(sys.argv[1])))
except BlockingIOError: pass
select.select([], [peer], []); peer.send(b"hello")
select.select([peer], [], []); assert peer.recv(64) == b"hello"
print("connected", flush=True)
sys.stdin.read()
"""


def cgroup_mount() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    raise AssertionError("no cgroup v2 mount")


@pytest.fixture
def group() -> Iterator[Path]:
    """A top-level cgroup of this test's own, removed with what is below."""
    path = cgroup_mount() / f"zht-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    try:
        yield path
    finally:
        for folder, _, _ in os.walk(path, topdown=False):
            for pid in (Path(folder) / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
                    break
                time.sleep(0.02)


def start_in(folder: Path, *argv: str, **options: Any) -> subprocess.Popen[str]:
    """A program that is in the cgroup before its first instruction."""
    enter = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", enter, "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def line_of(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


@contextlib.contextmanager
def running(program: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


def open_connections(mesh: Mesh) -> dict[str, tuple[int, int]]:
    return {each["name"]: (each["connections"], each["shortcut_connections"]) for each in mesh.status()["workloads"]}


def relative(path: Path) -> str:
    return "/" + str(path.relative_to(cgroup_mount()))


def test_deepest_configured_cgroup_wins(mesh_factory: Any, group: Path) -> None:
    inner = group / "inner"
    deeper = inner / "not-configured"
    deeper.mkdir(parents=True)
    mesh = mesh_factory(
        [
            workload("t/outer", "Always", cgroups=[relative(group)]),
            workload("t/inner", "Always", cgroups=[relative(inner)]),
        ]
    )
    with running(start_in(deeper, *python(SERVER))) as server:
        port = line_of(server)
        with running(start_in(group, *python(CLIENT, port))) as client:
            assert line_of(client) == "connected"
            assert open_connections(mesh) == {"outer": (1, 1), "inner": (1, 1)}


def test_a_cgroup_that_comes_back_is_managed_without_an_agent(mesh_factory: Any, group: Path) -> None:
    unit = group / "unit"
    unit.mkdir()
    mesh = mesh_factory(
        [
            workload("t/unit", "Always", cgroups=[relative(unit)]),
            workload("t/rest", "Always", cgroups=[relative(group)]),
        ]
    )
    mesh.kill_agent()
    for _ in range(2):
        unit.rmdir()
        unit.mkdir()
        with running(start_in(unit, *python(SERVER))) as server:
            port = line_of(server)
            with running(start_in(group, *python(CLIENT, port))) as client:
                assert line_of(client) == "connected"
                assert open_connections(mesh) == {"unit": (1, 1), "rest": (1, 1)}
        deadline = time.monotonic() + 5
        while (unit / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.02)


def test_a_cgroup_that_appears_later_is_followed(mesh_factory: Any, group: Path) -> None:
    late = cgroup_mount() / f"{group.name}-late"
    mesh = mesh_factory(
        [
            workload("t/late", "Always", cgroups=[relative(late)]),
            workload("t/rest", "Always", cgroups=[relative(group)]),
        ]
    )
    late.mkdir()
    try:
        time.sleep(2.5)  # a new top-level cgroup is looked for every second
        with running(start_in(late, *python(SERVER))) as server:
            port = line_of(server)
            with running(start_in(group, *python(CLIENT, port))) as client:
                assert line_of(client) == "connected"
                assert open_connections(mesh) == {"late": (1, 1), "rest": (1, 1)}
    finally:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                late.rmdir()
                break
            time.sleep(0.02)


def test_who_is_not_managed_never_enters_the_map(mesh_factory: Any, group: Path) -> None:
    mesh = mesh_factory([workload("t/only", "Always", cgroups=[relative(group)])])
    with running(start_in(group, *python(SERVER))) as server:
        port = line_of(server)
        outside = subprocess.Popen(python(CLIENT, port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with running(outside) as client:
            assert line_of(client) == "connected"
            assert open_connections(mesh) == {"only": (1, 0)}
            assert mesh.totals()["not_shortcut"] == {"peer_unmanaged": 1}


# Makes a socket, hands it through a Unix socket and ends; the other side connects it and says hello.
GIVER = """
import socket, sys
channel = socket.socket(socket.AF_UNIX); channel.connect(sys.argv[1])
gift = socket.socket(); gift.setblocking(False)
socket.send_fds(channel, [b"x"], [gift.fileno()])
"""
TAKER = """
import select, socket, sys
listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen()
print("listening", flush=True)
channel, _ = listener.accept()
_, (fd,), _, _ = socket.recv_fds(channel, 1, 1)
peer = socket.socket(fileno=fd)
try: peer.connect(("127.0.0.1", int(sys.argv[2])))
except BlockingIOError: pass
select.select([], [peer], []); peer.send(b"hello")
select.select([peer], [], []); assert peer.recv(64) == b"hello"
print("connected", flush=True)
sys.stdin.read()
"""


def test_a_descriptor_keeps_its_makers_identity(mesh_factory: Any, group: Path, tmp_path: Path) -> None:
    """What another workload hands over stays that workload's: receiving it gives nobody else's identity, nor takes."""
    names = ("server", "maker", "taker")
    for name in names:
        (group / name).mkdir()
    mesh = mesh_factory([workload(f"t/{name}", "Always", cgroups=[relative(group / name)]) for name in names])
    channel = str(tmp_path / "channel")
    with running(start_in(group / "server", *python(SERVER))) as server:
        port = line_of(server)
        with running(start_in(group / "taker", *python(TAKER, channel, port))) as taker:
            assert line_of(taker) == "listening"
            with running(start_in(group / "maker", *python(GIVER, channel))):
                assert line_of(taker) == "connected"
            assert open_connections(mesh) == {"server": (1, 1), "maker": (1, 1), "taker": (0, 0)}


# As nobody: tries to enter the other workload's cgroup, then to move its shell there.
INTRUDER = """
import json, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
answers = []
for target in sys.argv[1:]:
    try:
        with open(target + "/cgroup.procs", "w") as file: file.write(str(os.getpid()))
        answers.append("entered")
    except PermissionError:
        answers.append("refused")
    try:
        os.mkdir(target + "/mine"); answers.append("made")
    except PermissionError:
        answers.append("refused")
print(json.dumps(answers), flush=True)
"""


def test_without_root_nobody_enters_a_workload(mesh: Mesh) -> None:
    base = cgroup_mount() / "zerohop" / mesh.instance / "t"
    inside = start_in(base / "client", *python(INTRUDER, str(base / "server"), str(base)))
    with running(inside) as program:
        assert json.loads(line_of(program)) == ["refused"] * 4
