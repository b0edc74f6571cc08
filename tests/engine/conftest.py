"""The engine's builds, once for the session: `native` runs everywhere, `in_kernel` where BPF programs load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import build
from engine.engine import Constants, Engine, Kernel, Native
from engine.engine import kernel as loaded
from support import machine
from zerohop.errors import ZerohopError


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not build.has_zig():
        pytest.skip("needs a C compiler: pip install ziglang")
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def harness(builds: Path) -> Path:
    return build.harness_object(builds)


@pytest.fixture(scope="session")
def native(builds: Path, harness: Path) -> Native:
    try:
        return Native(build.native_library(builds), Constants.of_object(harness))
    except ZerohopError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def in_kernel(harness: Path) -> Iterator[Kernel]:
    reason = machine.why_no_kernel_tests()
    if reason:
        pytest.skip(reason)
    with loaded(harness) as engine:
        yield engine


@pytest.fixture(scope="session", params=["native", "kernel"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each build in turn."""
    chosen: Engine = request.getfixturevalue("native" if request.param == "native" else "in_kernel")
    return chosen


@pytest.fixture(scope="session")
def two_natives(native: Native, builds: Path) -> tuple[Native, Native]:
    """One for each direction of a connection."""
    return native, Native(builds / "engine.so", native.constants)


@pytest.fixture(scope="session")
def two_kernels(in_kernel: Kernel, harness: Path) -> Iterator[tuple[Kernel, Kernel]]:
    with loaded(harness) as other:
        yield in_kernel, other
