"""The C peers, compiled on demand."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
FLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread"]


def compiler() -> list[str] | None:
    if importlib.util.find_spec("ziglang") is not None:
        # zig switches the undefined-behaviour sanitizer on by default.
        return [sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined"]
    found = shutil.which("cc")
    return [found] if found else None


def build(name: str, sources: tuple[str, ...]) -> Path:
    """The program, compiled once for this content. Raises `AssertionError` with the compiler's words."""
    command = compiler()
    assert command is not None, "needs a C compiler: pip install ziglang"
    key = hashlib.sha256(" ".join([*command, *FLAGS]).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        key.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"zerohop-test-peers-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    assert status.st_uid == os.geteuid(), f"{folder} is somebody else's"
    assert not status.st_mode & 0o022, f"others may write to {folder}"
    program = folder / f"{name}-{key.hexdigest()[:16]}"
    if not program.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            partial = Path(scratch) / name
            result = subprocess.run(
                [*command, *FLAGS, "-o", str(partial), *(str(SOURCES / each) for each in sources)],
                env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": scratch, "ZIG_LOCAL_CACHE_DIR": scratch},
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, result.stderr
            partial.rename(program)
    return program


def torture() -> Path:
    return build("torture", ("torture.c", "worker.c"))
