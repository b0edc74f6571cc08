"""Both ends of calls at the same time, on two CPUs: every call is counted once, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel.test_engine import PLACES, PORT, documents, ended, finished
from support.machine import long_run
from support.mesh import Mesh, MeshFactory
from zerohop.kernel import libbpf
from zerohop.kernel.batches import walk
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.maps import Map

PROGRAM = Path(__file__).parents[1] / "support" / "endings.py"
ROUNDS = 2_000 if long_run() else 200

# So many at a time that they need places of every kind: a connection's own, shared ones, and those of the table.
STREAMS = 400

# CALL_SLOTS in bpf/shared/bounds.h.
SLOTS = 16


def start(mesh: Mesh, place: str, role: str, cpu: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), role, *map(str, (PORT, ROUNDS, STREAMS, cpu))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    key = PLACES[place][role == "server"]
    return mesh.exec_popen(key, command, **pipes) if key else subprocess.Popen(command, **pipes)


def content(path: DataPath, name: str, key: Any) -> list[bytes]:
    """All values of one of the programs' own maps."""
    fd = libbpf.obj_get(str(path.folder / "maps" / name))
    table = Map(name, fd, key, ctypes.c_ubyte * libbpf.map_info(fd).value_size)
    try:
        return [bytes(each) for _, each in walk(table, key)]
    finally:
        table.close()


@pytest.mark.parametrize("place", PLACES)
def test_each_is_counted_once_and_leaves_nothing(mesh_factory: MeshFactory, place: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    mesh = mesh_factory(documents(place))
    cpus = sorted(os.sched_getaffinity(0))
    calls = ROUNDS * STREAMS
    with start(mesh, place, "server", cpus[0]) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with start(mesh, place, "client", cpus[1]) as client:
            assert client.stdout is not None
            assert [client.stdout.readline() for _ in range(2)] == ["ready\n", "done\n"]
            assert server.stdout.readline() == "done\n"
            rows = ended(mesh, lambda rows: sum(row.calls for row in finished(rows)) >= calls)
            assert sum(row.calls for row in finished(rows)) == calls
            assert sum(row.calls for row in rows if row.ending == "open") == calls
            by_ending = {row.ending: row.calls for row in finished(rows)}
            assert set(by_ending) == {"complete", "client_reset"}
            # What was reset may have been answered before; what was not has.
            assert by_ending["complete"] >= calls / 2
            with DataPath.open(mesh.instance) as path:
                call, shared = path.layouts.struct("call"), path.layouts.struct("shared_call")
                (reading,) = content(path, "readings", ctypes.c_uint64)
                # They come last.
                slots = (call * SLOTS).from_buffer_copy(reading[-ctypes.sizeof(call) * SLOTS :])
                assert [each.state for each in slots if each.state] == []
                places = [shared.from_buffer_copy(each) for each in content(path, "shared_calls", ctypes.c_uint32)]
                assert [each.connection for each in places if each.connection or each.call.state] == []
                assert content(path, "calls", path.layouts.struct("call_key")) == []
            client.kill()
        server.kill()
