"""The mesh in which all scenes play, and a scene for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.calls import languages
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


@pytest.fixture(scope="session")
def peer_aio() -> list[str]:
    return languages.aio()


@pytest.fixture(scope="session")
def peer_js() -> list[str]:
    return languages.js()


@pytest.fixture(scope="session")
def peer_go() -> list[str]:
    return languages.go()


@pytest.fixture(scope="session")
def peer_go_http() -> list[str]:
    return languages.go_http()


@pytest.fixture(scope="session")
def peer_connect() -> list[str]:
    return languages.connect()


@pytest.fixture(scope="session")
def peer_rust() -> list[str]:
    return languages.rust()


@pytest.fixture(scope="session")
def peer_tonic() -> list[str]:
    return languages.tonic()


@pytest.fixture(scope="session")
def peer_java() -> list[str]:
    return languages.java()


@pytest.fixture
def peers(request: pytest.FixtureRequest) -> languages.Peers:
    """By `indirect` parameters: the client's kind and the server's."""
    client, server = (request.getfixturevalue(f"peer_{kind}") for kind in request.param)
    return languages.Peers(request.param, client, server)
