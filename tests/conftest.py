"""Fixtures of all tests, and the check that a run leaves nothing behind.

Tests in tests/unit need none of it. A test that uses one of these fixtures is skipped, with the reason, where the
machine cannot run it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support import leaks, machine, network, peers
from support.builds import compile_variant
from support.mesh import ALWAYS, Direct, Mesh, MeshFactory, workload

# What runs in the background ignores SIGINT, and programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_before: leaks.Listing | None = None
_machine = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    # Inherited by whatever the tests start: by this it is found again when its parents have gone.
    os.environ.setdefault(machine.MARK, uuid.uuid4().hex)


def _is_worker(session: pytest.Session) -> bool:
    """Whether it runs some of another session's tests (pytest-xdist), which looks after the machine for all."""
    return hasattr(session.config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    global _before
    if _is_worker(session):
        return
    _machine.enter_context(machine.bpffs())
    if machine.why_no_kernel_tests() is None:
        _before = leaks.listing()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _is_worker(session):
        return
    with _machine:
        left = [] if _before is None else leaks.left_behind(_before)
    if left:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.section("left behind by the tests", red=True)
            for line in left:
                reporter.line(line)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def kernel() -> None:
    """Skips where the machine cannot run kernel tests."""
    reason = machine.why_no_kernel_tests()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles a build with one define, which breaks one rule, once."""
    folder = tmp_path_factory.mktemp("objects")

    def make(define: str) -> Path:
        output = folder / f"{define}.bpf.o"
        return output if output.exists() else compile_variant(output, define=define)

    return make


@pytest.fixture
def mesh_factory(kernel: None, tmp_path: Path) -> Iterator[MeshFactory]:
    """Makes meshes; started unless `start=False`; each is removed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(documents: Sequence[Mapping[str, Any]] | None = None, *, start: bool = True, **options: Any) -> Mesh:
            if documents is None:
                documents = [workload(key, mode) for key, mode in ALWAYS.items()]
            mesh = Mesh(tmp_path, documents, **options)
            stack.callback(mesh.close)
            if start:
                mesh.start()
            return mesh

        yield make


@pytest.fixture
def mesh(mesh_factory: MeshFactory) -> Mesh:
    """Two workloads, t/server and t/client, both `shortcut: Always`."""
    return mesh_factory()


@pytest.fixture
def direct(kernel: None) -> Iterator[Direct]:
    """Runs programs as a mesh does, outside any mesh."""
    launcher = Direct()
    yield launcher
    launcher.close()


@pytest.fixture
def netns(kernel: None) -> Iterator[network.Namespace]:
    """A network namespace with its loopback up."""
    with network.namespace() as space:
        yield space


@pytest.fixture
def twin_netns(kernel: None) -> Iterator[tuple[network.Namespace, network.Namespace]]:
    """Two network namespaces that know nothing of each other: the same addresses and ports exist in both."""
    with network.namespace("a") as one, network.namespace("b") as other:
        yield one, other


@pytest.fixture
def veth(kernel: None) -> Iterator[network.Pair]:
    """A client's and a server's namespace with a veth between them."""
    with network.veth_pair() as pair:
        yield pair


@pytest.fixture
def dnat(kernel: None) -> Iterator[network.DnatFactory]:
    """`dnat(target_port, through_node=…)`: a server that is reached by virtual addresses (support/network.py)."""
    if shutil.which("nft") is None:
        pytest.skip("needs nft: install nftables")
    with contextlib.ExitStack() as stack:
        yield lambda target, through_node: stack.enter_context(network.dnat_pair(target, through_node=through_node))


@pytest.fixture(scope="session")
def torture_peer() -> Path:
    """The compiled stream torture."""
    if peers.compiler() is None:
        pytest.skip("needs a C compiler: pip install ziglang")
    return peers.torture()
