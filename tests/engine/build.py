"""Builds of the engine: the native library, the harness in the kernel, and the fuzzer."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

FUZZER = "fuzzer"
REPLAYER = "replayer"

ZIG = [sys.executable, "-m", "ziglang", "cc"]
INCLUDES = [f"-I{ROOT / 'bpf'}", f"-I{HERE}"]
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]

# Undefined behaviour stops the process; the address sanitizer is no part of the ziglang wheel.
TRAPS = ["-O1", "-g", "-fsanitize=undefined", "-fsanitize-trap=undefined"]


def has_zig() -> bool:
    return importlib.util.find_spec("ziglang") is not None


def compile_source(output: Path, arguments: Sequence[str]) -> Path:
    """Runs a compiler, `arguments` and the output; raises `RuntimeError` with its own words."""
    with tempfile.TemporaryDirectory(prefix="zerohop-zig-") as cache:
        environment = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache} | os.environ
        result = subprocess.run([*arguments, "-o", str(output)], env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"compiling {output.name} failed:\n{result.stderr}")
    return output


def native_library(folder: Path) -> Path:
    """The library that `engine.Native` drives, with the undefined-behaviour sanitizer."""
    # Without a C library of its own: it needs memcpy only, which the interpreter brings.
    flags = [*TRAPS, *WARNINGS, "-fPIC", "-shared", "-nostdlib", *INCLUDES]
    return compile_source(folder / "engine.so", [*ZIG, *flags, str(HERE / "native.c")])


def harness_object(folder: Path, *, compiler: str = "zig") -> Path:
    """The BPF object that `engine.Kernel` loads, compiled as the package's own object is."""
    sys.path.insert(0, str(ROOT))
    from hatch_build import FLAGS

    command = [compiler, "-target", "bpfel"]
    if compiler == "zig":
        command = [*ZIG, "-target", "bpfel-freestanding", "-fno-sanitize=undefined"]
    flags = [flag for flag in FLAGS if flag != "-Wpadded"]  # the tests' own structures have no layout to keep
    return compile_source(
        folder / f"harness-{compiler}.bpf.o", [*command, *flags, *INCLUDES, "-c", str(HERE / "harness.bpf.c")]
    )


def fuzzer(folder: Path) -> tuple[Path, str]:
    """The fuzzer, and what it is. Named FUZZER it has libFuzzer; named REPLAYER it runs the inputs that it is given."""
    source = str(HERE / "fuzz.c")
    clang = shutil.which("clang-19") or shutil.which("clang")
    if clang is not None:
        flags = ["-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
        # A clang without its compiler-rt fails here.
        with contextlib.suppress(RuntimeError):
            program = compile_source(folder / FUZZER, [clang, *flags, *WARNINGS, *INCLUDES, source])
            return program, "libFuzzer with the address and undefined-behaviour sanitizers"
    program = compile_source(folder / REPLAYER, [*ZIG, *TRAPS, *WARNINGS, "-DREPLAY", *INCLUDES, source])
    return program, "no clang with libFuzzer: replays only, with the undefined-behaviour sanitizer"
