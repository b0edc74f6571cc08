"""Peers in other languages than Python: what they need is fetched once, into the environment that runs the tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from interop.calls.scene import Scene
from interop.stage import located, need

PEERS: Final = Path(__file__).parent / "peers"
BUILD_SECONDS: Final = 600

# What npm says when there is no way to its registry, go when there is none to its modules, cargo when to crates.
UNREACHABLE_NPM: Final = (
    "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ENOTCACHED", "ENOTFOUND", "ETIMEDOUT",
)  # fmt: skip

UNREACHABLE_GO: Final = (
    "connection refused", "Could not resolve host", "GOPROXY=off", "i/o timeout", "network is unreachable",
    "no such host", "TLS handshake timeout",
)  # fmt: skip

UNREACHABLE_CARGO: Final = (
    "--offline", "Could not connect", "Could not resolve", "Connection refused", "Failed to connect",
    "failed to download", "spurious network error", "Timeout was reached",
)  # fmt: skip

UNREACHABLE_MAVEN: Final = (
    "Connection refused", "Could not transfer", "Network is unreachable", "Unknown host", "timed out",
)  # fmt: skip

# What an older one says of a manifest, of a package.
OLD_CARGO: Final = ("requires the Cargo feature", "is not supported by the")


@dataclass(frozen=True)
class Peers:
    """Who calls and who answers: their kinds, and the beginnings of their command lines (peers/README.md)."""

    kinds: tuple[str, str]
    client: Sequence[str]
    server: Sequence[str]

    def serve(self, play: Scene, *options: str) -> list[str]:
        return [*self.server, "serve", play.address, str(play.port), *options]

    def call(self, play: Scene, story: str, *arguments: str) -> list[str]:
        return [*self.client, "call", story, play.address, str(play.port), *arguments]


def aio() -> list[str]:
    pytest.importorskip("grpc", reason="needs grpcio")
    return [sys.executable, str(PEERS / "grpcio_aio.py")]


def js() -> list[str]:
    need("node", "npm")
    names = ("package.json", "package-lock.json")
    folder = _made("js", [PEERS / "js" / name for name in names], _install)
    return ["env", f"NODE_PATH={folder / 'node_modules'}", located("node"), str(PEERS / "js" / "peer.js")]


def _install(folder: Path) -> None:
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    result = _run([located("npm"), "ci", *quiet, "--fetch-retries=1", "--fetch-retry-mintimeout=1000"], folder)
    if result.returncode != 0:
        code = next((code for code in UNREACHABLE_NPM if f"code {code}" in result.stderr), None)
        if code:
            pytest.skip(f"needs npm's registry: {code}")
        pytest.fail(f"npm: exit status {result.returncode}\n{result.stderr}")


def go() -> list[str]:
    need("go")
    sources = sorted(each for each in (PEERS / "go").iterdir() if each.suffix in (".go", ".mod", ".sum"))
    return [str(_made("go", sources, _build) / "peer")]


def _build(folder: Path) -> None:
    # Neither another toolchain from somewhere nor the state of whatever repository this is.
    settings = ["GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false -mod=readonly"]
    result = _run(["env", *settings, located("go"), "build", "-trimpath", "-o", "peer", "."], folder)
    if result.returncode != 0:
        why = next((text for text in UNREACHABLE_GO if text in result.stderr), None)
        if why:
            pytest.skip(f"needs Go's modules: {why}")
        if "requires go >=" in result.stderr:
            pytest.skip(f"needs a newer go: {result.stderr.strip()}")
        pytest.fail(f"go: exit status {result.returncode}\n{result.stderr}")


def go_http() -> list[str]:
    """grpc-go behind Go's own HTTP/2."""
    return [*go(), "http"]


def connect() -> list[str]:
    """connect-go."""
    return [*go(), "connect"]


def rust() -> list[str]:
    return [str(_of_cargo() / "peer")]


def tonic() -> list[str]:
    return [str(_of_cargo() / "tonic")]


def _of_cargo() -> Path:
    need("cargo", "cc")
    folder = PEERS / "rust"
    return _made("rust", [folder / "Cargo.toml", *sorted(folder.glob("src/**/*.rs"))], _compile)


def java() -> list[str]:
    need("java", "javac", "mvn")
    folder = _made("java", [PEERS / "java" / name for name in ("pom.xml", "Peer.java")], _gather)
    return [located("java"), "-cp", f"{folder / 'classes'}:{folder / 'lib'}/*", "Peer"]


def _gather(folder: Path) -> None:
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
    result = _run([located("mvn"), "-q", "-B", goal, "-DoutputDirectory=lib"], folder)
    if result.returncode != 0:
        why = next((text for text in UNREACHABLE_MAVEN if text in result.stdout), None)
        if why:
            pytest.skip(f"needs Maven's packages: {why}")
        pytest.fail(f"mvn: exit status {result.returncode}\n{result.stdout}")
    result = _run([located("javac"), "-cp", "lib/*", "-d", "classes", "Peer.java"], folder)
    assert result.returncode == 0, result.stderr


def _compile(folder: Path) -> None:
    (folder / "src" / "bin").mkdir(parents=True)
    for each in folder.glob("*.rs"):
        each.rename(folder / "src" / ("bin" if each.name == "tonic.rs" else "") / each.name)
    target = folder / "target"
    result = _run([located("cargo"), "build", "--release", "--target-dir", str(target)], folder)
    if result.returncode != 0:
        if any(text in result.stderr for text in OLD_CARGO):
            pytest.skip(f"needs a newer cargo: {result.stderr.strip()}")
        why = next((text for text in UNREACHABLE_CARGO if text in result.stderr), None)
        if why:
            pytest.skip(f"needs Rust's crates: {why}")
        pytest.fail(f"cargo: exit status {result.returncode}\n{result.stderr}")
    for name in ("peer", "tonic"):
        (target / "release" / name).rename(folder / name)
    shutil.rmtree(target)


def _run(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_SECONDS
    )  # fmt: skip


def _made(name: str, sources: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """The folder that `make` made of a copy of these files, once for their content."""
    key = hashlib.sha256()
    for each in sources:
        key.update(each.name.encode() + b"\0" + each.read_bytes() + b"\0")
    # Outside the sources, and gone with the environment.
    store = Path(sys.prefix if sys.prefix != sys.base_prefix else tempfile.gettempdir()) / ".peers"
    store.mkdir(exist_ok=True)
    folder = store / f"{name}-{key.hexdigest()[:16]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=store, prefix=f"{name}-") as scratch:
            partial = Path(scratch) / name
            partial.mkdir()
            for each in sources:
                shutil.copy(each, partial)
            make(partial)
            try:
                os.rename(partial, folder)
            except OSError:  # another run was faster
                if not folder.exists():
                    raise
    return folder
