"""Bytes that TCP sends again are not read again, and a transfer that leaves the sockhash amid them loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Mesh, MeshFactory
from support.torture import Side, run_torture
from zerohop.bench.compile import compile_peer

pytestmark = pytest.mark.usefixtures("kernel", "torture_peer")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "overlap.py"
TRANSFERS = 12
TRANSFER_BYTES = 48_000_000


def broken_mesh(mesh_factory: MeshFactory, object_: Path) -> Mesh:
    return mesh_factory(environment={"ZEROHOP_OBJECT": str(object_), "ZEROHOP_SKIP_DOCTOR": "1"})


def repeated(mesh: Mesh, space: network.Namespace, family: str) -> list[dict[str, Any]]:
    """What was read of segments that begin with old bytes (tests/support/overlap.py)."""
    program = mesh.exec_popen(
        "t/client", [sys.executable, str(PROGRAM), family], space.name, stdout=subprocess.PIPE, text=True
    )
    output, _ = program.communicate(timeout=60)
    assert program.returncode == 0
    rounds: list[dict[str, Any]] = json.loads(output)
    assert len(rounds) >= 10
    return rounds


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_old_bytes_in_a_new_segment(mesh: Mesh, netns: network.Namespace, family: str) -> None:
    for each in repeated(mesh, netns, family):
        assert each["read"] == "exact", each
    totals = mesh.totals()
    assert totals["shortcut_bytes"] > 0
    assert totals["errors"] == {}


def test_without_the_cut_they_are_read_twice(
    mesh_factory: MeshFactory, netns: network.Namespace, variant: Callable[[str], Path]
) -> None:
    mesh = broken_mesh(mesh_factory, variant("ZH_BREAK_OVERLAP"))
    read = [each["read"] for each in repeated(mesh, netns, "ipv4") if each["old"]]
    assert set(read) == {"twice"}


def test_no_memory_for_the_cut(
    mesh_factory: MeshFactory, netns: network.Namespace, variant: Callable[[str], Path]
) -> None:
    """The stream ends before its first wrong byte, and whoever writes is told."""
    mesh = broken_mesh(mesh_factory, variant("ZH_FAIL_CUT"))
    for each in repeated(mesh, netns, "ipv4"):
        if each["old"]:
            assert (each["read"], each["send"]) == ("nothing", ["EACCES", "EACCES"]), each
        else:
            assert (each["read"], each["send"]) == ("exact", ["taken", "taken"]), each
    assert mesh.totals()["errors"].keys() == {"skb_adjust_room"}
    assert mesh.totals()["not_shortcut"]["overlap"] > 0


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sender and receiver of `zerohop bench bulk`, which count what they send and receive."""
    if os.cpu_count() == 1:
        pytest.skip("needs two CPUs: a sender and a receiver that run at the same time")
    return compile_peer("bulk", tmp_path_factory.mktemp("bulk"))[0]


def transfer(mesh: Mesh, space: network.Namespace, program: Path, write: int) -> int:
    """How many bytes more than were sent a transfer of 0.2 s at full speed received."""
    receiver, sender = (["taskset", "-c", cpu, str(program)] for cpu in ("0", "1"))
    port = "7100"
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    server = mesh.exec_popen("t/server", [*receiver, "server", "127.0.0.1", port, "50", "150"], space.name, **pipe)
    assert server.stdout.readline() == "listening\n"
    client = mesh.exec_popen("t/client", [*sender, "client", "127.0.0.1", port, str(write)], space.name, **pipe)
    received, sent = (json.loads(each.communicate(timeout=30)[0])["total_bytes"] for each in (server, client))
    return int(received - sent)


@pytest.mark.parametrize("write", [16_384, 1_048_576])
def test_transfers_that_leave(mesh: Mesh, netns: network.Namespace, bulk: Path, write: int) -> None:
    assert [transfer(mesh, netns, bulk, write) for _ in range(TRANSFERS)] == [0] * TRANSFERS
    assert mesh.totals()["not_shortcut"]["bulk"] == TRANSFERS
    assert mesh.totals()["errors"] == {}


def test_transfers_without_the_cut(
    mesh_factory: MeshFactory, netns: network.Namespace, bulk: Path, variant: Callable[[str], Path]
) -> None:
    """That these transfers retransmit at all: every other one read a segment twice here."""
    mesh = broken_mesh(mesh_factory, variant("ZH_BREAK_OVERLAP"))
    for _ in range(TRANSFERS):
        if transfer(mesh, netns, bulk, 1_048_576):
            return
    pytest.skip("TCP sent nothing twice on this machine, so transfers show nothing here")


@pytest.mark.parametrize("write", [16_384, 1_048_576])
def test_every_byte_of_what_leaves(mesh: Mesh, netns: network.Namespace, write: int) -> None:
    options = {
        "streams": TRANSFERS,
        "threads": 2,
        "min_bytes": TRANSFER_BYTES,
        "max_bytes": TRANSFER_BYTES,
        "max_write": write,
        "one_way": 1,
        "seed": write,
    }
    outcome = run_torture(mesh, Side(netns.name, "127.0.0.1", options), Side(netns.name, "127.0.0.1", options))
    assert outcome.problems() == []
    assert mesh.totals()["not_shortcut"]["bulk"] > 0
