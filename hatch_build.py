"""Build hook: compiles the BPF object into the package, with the clang that the `ziglang` wheel carries."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
OBJECT = ROOT / "src" / "zerohop" / "kernel" / "objects" / "zerohop.bpf.o"

WARNINGS = ["-Wall", "-Wextra", "-Wpadded", "-Werror", "-Wno-unused-parameter"]
FLAGS = ["-O2", "-g", "-mcpu=v3", "-std=gnu11", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", *WARNINGS]


def compile_object(output: Path, *, compiler: list[str] | None = None, defines: tuple[str, ...] = ()) -> None:
    """Compiles `bpf/zerohop.bpf.c` to `output`.

    `compiler` names another clang (the cross-check with clang-19); `defines` are `NAME=VALUE` macros, which
    test builds use to break one rule on purpose. Raises `RuntimeError` with the compiler's own words.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    command = compiler or [sys.executable, "-m", "ziglang", "cc", "-target", "bpfel-freestanding"]
    # zig switches the undefined-behaviour sanitizer on by default; the kernel has no runtime for it.
    extra = ["-fno-sanitize=undefined"] if compiler is None else ["-target", "bpfel"]
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="zerohop-zig-") as cache:
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", cache)
        environment.setdefault("ZIG_LOCAL_CACHE_DIR", cache)
        result = subprocess.run(
            [
                *command,
                *extra,
                *FLAGS,
                *(f"-D{define}" for define in defines),
                f"-ffile-prefix-map={ROOT}=.",
                f"-I{ROOT / 'bpf'}",
                "-c",
                str(ROOT / "bpf" / "zerohop.bpf.c"),
                "-o",
                str(output),
            ],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    if result.returncode != 0:
        raise RuntimeError(f"compiling {output.name} failed:\n{result.stderr}")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        compile_object(OBJECT)


if __name__ == "__main__":
    compile_object(OBJECT)
