"""Compiles the bench's own programs on demand, with whatever C compiler there is."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

from zerohop.errors import UnsupportedError, ZerohopError

_FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


def find_compiler() -> list[str]:
    """The command of the first compiler of: the `ziglang` wheel, `cc`, `gcc`, `clang`."""
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-P", "-m", "ziglang", "cc"]
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise UnsupportedError("no C compiler for the benchmark's programs", hint="run pip install 'zerohop[bench]'")


def compile_peer(name: str, scratch: Path) -> tuple[Path, str]:
    """The program compiled from `peers/NAME.c`, and its compiler's name and version.

    Kept in a private cache by content, or in `scratch` where there is no safe place for a cache.
    """
    compiler = find_compiler()
    version = _compiler_version(compiler)
    peers = resources.files("zerohop.bench").joinpath("peers")
    sources = {file: peers.joinpath(file).read_bytes() for file in (f"{name}.c", "common.h")}
    key = hashlib.sha256("\0".join([version, os.uname().machine, *compiler, *_FLAGS]).encode())
    for file, content in sources.items():
        key.update(f"\0{file}\0{len(content)}\0".encode() + content)
    program = (cache_folder() or scratch) / f"{name}-{key.hexdigest()[:16]}"
    if not program.exists():
        with tempfile.TemporaryDirectory(prefix="zerohop-compile-") as folder:
            for file, content in sources.items():
                Path(folder, file).write_bytes(content)
            _compile(compiler, Path(folder), f"{name}.c", program)
    return program, version


def _compile(compiler: list[str], folder: Path, source: str, program: Path) -> None:
    # zig switches the undefined-behaviour sanitizer on by default, and wants a place for its own cache.
    extra = ["-fno-sanitize=undefined"] if "ziglang" in compiler else []
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    partial = program.with_suffix(f".{os.getpid()}")
    result = subprocess.run(
        [*compiler, *_FLAGS, *extra, "-o", str(partial), source],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise ZerohopError(f"compiling {source} with {' '.join(compiler)} failed: {result.stderr.strip()[-2000:]}")
    partial.rename(program)


def _compiler_version(compiler: list[str]) -> str:
    result = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
    return result.stdout.partition("\n")[0].strip() or Path(compiler[0]).name


def cache_folder() -> Path | None:
    """The user's cache folder, if nobody else could have put a program there: the bench runs it as root."""
    base = os.environ.get("XDG_CACHE_HOME")
    home = os.environ.get("HOME")
    if not base and not home:
        return None
    folder = Path(base or f"{home}/.cache").resolve() / "zerohop" / "bench"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        trusted = all(_only_ours(path) for path in (folder, *folder.parents))
    except OSError:
        return None
    return folder if trusted else None


def _only_ours(path: Path) -> bool:
    status = path.stat()
    # Others may write to a sticky folder (/tmp), but not replace what is ours in it.
    closed = not status.st_mode & 0o022 or status.st_mode & 0o1000
    return status.st_uid in (0, os.geteuid()) and bool(closed)
