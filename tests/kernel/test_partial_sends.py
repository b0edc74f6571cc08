"""What a program sends is read once, whatever part of it the kernel takes at a time."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.mesh import Mesh, MeshFactory, workload
from support.policies import policy
from zerohop.kernel.datapath import DataPath

PORT = 18391
FRAMES = Path(__file__).resolve().parents[1] / "support" / "frames.py"
SEEDS = range(40) if os.environ.get("ZEROHOP_LONG") else range(1)

# Of a build that must fail now and then.
TRIES = 8

BUFFERS = [(4_096, 0), (60_000, 0), (0, 0), (0, 40_000)]

# What is called is another path.
OTHERS = policy("secret", {"to": [{"operation": {"paths": ["/secret.Svc/Get"]}}]}, action="DENY", app="server")

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "server", "namespace": "t"},
    "spec": {"selector": {"app": "server"}, "ports": [{"name": "grpc", "port": PORT, "appProtocol": "grpc"}]},
}


def run(mesh: Mesh, workloads: tuple[str | None, str | None], arguments: list[str]) -> dict[str, int]:
    """The sender's own counts. `workloads`: the client's and the server's; None: outside the mesh."""

    def start(key: str | None, *argv: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(FRAMES), *argv]
        if key is None:
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return mesh.exec_popen(key, command, stdout=subprocess.PIPE, text=True)

    with start(workloads[1], "serve", str(PORT)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        with start(workloads[0], "send", str(PORT), *arguments) as client:
            output, _ = client.communicate(timeout=120)
            assert client.returncode == 0
        assert server.wait(60) == 0
    counts: dict[str, int] = json.loads(output)
    return counts


def wait_for_calls(path: DataPath, calls: int) -> list[tuple[Any, list[Any]]]:
    """The rows of telemetry once that many calls have ended."""
    deadline = time.monotonic() + 10
    while True:
        rows = [(key, values) for key, values in path.maps["series"].items() if key.ending]
        if sum(value.calls for _, values in rows for value in values) >= calls:
            return rows
        assert time.monotonic() < deadline, f"{calls} calls were made"
        time.sleep(0.05)


def unread(path: DataPath) -> int:
    return sum(count for each in path.maps["counters"].get(ctypes.c_uint32(0)) or () for count in each.unread)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("sndbuf", "unsent"), BUFFERS)
@pytest.mark.parametrize("shortcut", ["Auto", "Disabled"])
def test_each_byte_is_read_once(mesh_factory: MeshFactory, shortcut: str, sndbuf: int, unsent: int, seed: int) -> None:
    check_counts(mesh_factory, [SERVICE], shortcut, sndbuf, unsent, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("sndbuf", "unsent"), BUFFERS if len(SEEDS) > 1 else BUFFERS[:2])
def test_where_calls_are_judged(mesh_factory: MeshFactory, sndbuf: int, unsent: int, seed: int) -> None:
    """By one hook or the other, which is the more certain of what arrives."""
    check_counts(mesh_factory, [SERVICE, OTHERS], "Disabled", sndbuf, unsent, seed)


def check_counts(
    factory: MeshFactory, documents: list[dict[str, Any]], shortcut: str, sndbuf: int, unsent: int, seed: int
) -> None:
    mesh = factory([workload("t/server", shortcut), workload("t/client", shortcut), *documents])
    sent = run(mesh, ("t/client", "t/server"), [str(seed), "20000000", str(sndbuf), str(unsent)])
    with DataPath.open(mesh.instance) as path:
        rows = wait_for_calls(path, sent["requests"])
        assert unread(path) == 0

    def total(name: str, **wanted: int) -> int:
        return sum(
            getattr(value, name)
            for key, values in rows
            if all(getattr(key, field) == number for field, number in wanted.items())
            for value in values
        )

    client_reset, closed = 2, 4
    assert total("calls") == sent["requests"]
    assert total("calls", ending=client_reset) == sent["resets"]
    assert total("calls", ending=closed) == sent["requests"] - sent["resets"]
    assert total("request_bytes") == sent["bytes"]
    assert total("request_messages") == sent["messages"]
    if shortcut == "Disabled" and (sndbuf or unsent):
        assert sent["partial"] > 3, "the kernel has always taken everything: this has tried nothing"


def test_reading_whole_messages_would_lose_count(mesh_factory: MeshFactory, variant: Callable[[str], Path]) -> None:
    """A build without the care that the tests above are about: the write sequence number tells."""
    environment = {"ZEROHOP_OBJECT": str(variant("ZH_BREAK_PIECES")), "ZEROHOP_SKIP_DOCTOR": "1"}
    mesh = mesh_factory(
        [workload("t/server", "Disabled"), workload("t/client", "Disabled"), SERVICE], environment=environment
    )
    with DataPath.open(mesh.instance) as path:
        # Whether the kernel takes only a part of a message that matters is a question of the reader's speed, too.
        for seed in range(1, TRIES + 1):
            run(mesh, ("t/client", "t/server"), [str(seed), "20000000", "60000", "0"])
            if unread(path):
                assert unread(path) == 1
                return
    pytest.fail(f"nothing was lost in {TRIES} runs: the tests above may have tried nothing")
