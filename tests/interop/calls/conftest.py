"""The mesh in which all scenes play, and a scene for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.calls.scene import CONFIGURATION, PLACEMENTS, Scene, scene
from support.mesh import Mesh


@pytest.fixture(scope="package")
def calls_mesh(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One mesh for all: what it has counted before is nobody's business (`Scene` takes differences)."""
    mesh = Mesh(tmp_path_factory.mktemp("calls"), CONFIGURATION)
    try:
        mesh.start()
        yield mesh
        # What `Scene` reads of the errors is what people are shown.
        assert mesh.totals()["errors"] == {}
    finally:
        mesh.close()


@pytest.fixture(params=PLACEMENTS, ids=str)
def play(request: pytest.FixtureRequest, calls_mesh: Mesh, tmp_path: Path) -> Iterator[Scene]:
    """Every test that takes it runs in every placement; `indirect` parameters choose some."""
    with scene(request.param, calls_mesh, tmp_path) as made:
        yield made
