"""Builds the bench's gRPC server in Go, where there is Go, and keeps it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

from zerohop.bench.compile import cache_folder
from zerohop.errors import UnsupportedError

_FILES: Final = ("server.go", "go.mod", "go.sum")
_BUILD_SECONDS: Final = 300

# No other toolchain, no C compiler, no module but those whose hashes go.sum has.
_ENVIRONMENT: Final = {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}


def find_go() -> str | None:
    """The `go` command, also where its own installer puts it, often outside of PATH."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def build_go_server(scratch: Path) -> tuple[Path, str]:
    """The server of `peers/grpc`, and its version; fetches its modules when they are not there yet.

    Kept like other programs of the bench. Raises `UnsupportedError` where it cannot be built.
    """
    go = find_go()
    if go is None:
        raise UnsupportedError("no Go for the gRPC server", hint="install Go 1.24 or later")
    peers = resources.files("zerohop.bench").joinpath("peers", "grpc")
    sources = {file: peers.joinpath(file).read_bytes() for file in _FILES}
    release = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True).stdout.strip()
    version = f"{_module_version(sources['go.mod'].decode())} ({release})"
    key = hashlib.sha256("\0".join([version, os.uname().machine, *_ENVIRONMENT.values()]).encode())
    for file, content in sources.items():
        key.update(f"\0{file}\0{len(content)}\0".encode() + content)
    program = (cache_folder() or scratch) / f"grpc-{key.hexdigest()[:16]}"
    if not program.exists():
        with tempfile.TemporaryDirectory(prefix="zerohop-compile-") as folder:
            for file, content in sources.items():
                Path(folder, file).write_bytes(content)
            _build(go, Path(folder), program)
    return program, version


def _build(go: str, folder: Path, program: Path) -> None:
    partial = program.with_suffix(f".{os.getpid()}")
    try:
        result = subprocess.run(
            [go, "build", "-buildvcs=false", "-trimpath", "-o", str(partial), "."],
            cwd=folder,
            env=os.environ | _ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UnsupportedError(f"go build took more than {_BUILD_SECONDS} s") from None
    if result.returncode != 0:
        raise UnsupportedError(
            f"go build failed: {first_complaint(result.stderr)}", hint="it needs Go 1.24 or later, and to fetch modules"
        )
    partial.rename(program)


def first_complaint(output: str) -> str:
    """The first line of what `go build` said that is not about its progress."""
    lines = [line for line in output.splitlines() if line and not line.startswith(("go: downloading", "#"))]
    return lines[0] if lines else "it does not say why"


def _module_version(go_mod: str) -> str:
    match = re.search(r"google\.golang\.org/grpc v(\S+)", go_mod)
    return match[1] if match else "unknown"
