"""The stage on which real programs play, once without zerohop and once with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop import payload
from interop.stage import CLIENT, GRPC_PORT, PROXY, SERVER, Stage, need, stage
from support.mesh import Mesh, workload

PEERS = Path(__file__).parent / "peers"

CONFIGURATION = [
    workload(SERVER, "Always"),
    workload(PROXY, "Always"),
    workload(CLIENT, "Always"),
    workload("interop/splicer", "Always"),
    workload("interop/caller"),
    workload("interop/greeter"),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "greeter", "namespace": "interop"},
        "spec": {
            "selector": {"app": "greeter"},
            "ports": [{"name": "calls", "port": 80, "targetPort": GRPC_PORT, "appProtocol": "grpc"}],
        },
    },
]


@pytest.fixture(scope="session")
def one_mesh(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One mesh for all programs: it sees them come and go, as on a real node."""
    mesh = Mesh(tmp_path_factory.mktemp("mesh"), CONFIGURATION)
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.close()


@pytest.fixture(params=["direct", "zerohop"])
def play(request: pytest.FixtureRequest, kernel: None, tmp_path: Path) -> Iterator[Stage]:
    """Every test that takes it runs on both sides."""
    mesh: Mesh | None = request.getfixturevalue("one_mesh") if request.param == "zerohop" else None
    with stage(tmp_path, mesh) as play:
        yield play


@pytest.fixture
def managed_play(one_mesh: Mesh, tmp_path: Path) -> Iterator[Stage]:
    """Only with zerohop."""
    with stage(tmp_path, one_mesh) as play:
        yield play


@dataclass(frozen=True)
class Payload:
    folder: Path
    sums: dict[str, str]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """The files that HTTP servers hand out, with their SHA-256."""
    folder = tmp_path_factory.mktemp("payload")
    return Payload(folder, payload.write(folder))


@pytest.fixture(scope="session")
def go_peer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`go_peer(NAME)`: the program built from peers/NAME.go (standard library only)."""
    folder = tmp_path_factory.mktemp("go")

    def build(name: str) -> str:
        need("go")
        import os
        import subprocess

        from interop.stage import located

        program = folder / name
        if not program.exists():
            subprocess.run(
                [located("go"), "build", "-o", str(program), str(PEERS / f"{name}.go")],
                check=True,
                env={**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOPROXY": "off"},
                timeout=180,
            )
        return str(program)

    return build
