"""What another configuration means for connections that are open: they go on, by TCP if it no longer wants them."""

from __future__ import annotations

from typing import Any

import pytest

from support import network
from support.holding import idle
from support.mesh import MeshFactory, workload

pytestmark = pytest.mark.usefixtures("kernel")

CONNECTIONS = 8
ALWAYS = [workload("t/both", "Always")]

CHANGES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "switched off": ([workload("t/both", "Disabled")], "disabled"),
    "not declared": ([workload("t/both", "Auto")], "port_not_declared"),
    "workload removed": ([workload("t/other", "Always")], "disabled"),
    "unchanged": ([*ALWAYS, workload("t/other", "Always")], ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_open_connections(mesh_factory: MeshFactory, netns: network.Namespace, change: str) -> None:
    documents, reason = CHANGES[change]
    mesh = mesh_factory(documents=ALWAYS)
    with idle(mesh, netns, CONNECTIONS, "t/both"):
        before = mesh.totals()
        generation = mesh.generation()
        mesh.write_config(documents)
        mesh.wait_for_generation(generation + 1)
    totals = mesh.totals()
    if reason:
        assert totals["shortcut_bytes"] == before["shortcut_bytes"]
        assert totals["not_shortcut"][reason] == CONNECTIONS
    else:
        assert totals["shortcut_bytes"] > before["shortcut_bytes"]
    assert totals["errors"] == {}
