"""Test builds of the BPF object: with a condition removed, or with another receiver hook."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOKS = Path(__file__).resolve().parent / "bpf"


def compile_variant(output: Path, *, define: str = "", receiver: str = "") -> Path:
    """The object with `define` set and, if named, another receiver hook (a file in tests/support/bpf)."""
    sys.path.insert(0, str(ROOT))
    import hatch_build

    with pytest.MonkeyPatch.context() as patch:
        # What only a removed condition used is unused then.
        patch.setattr(hatch_build, "FLAGS", [*hatch_build.FLAGS, "-Wno-unused-variable", "-Wno-unused-function"])
        if receiver:
            tree = output.parent / f"{output.stem}-tree"
            shutil.copytree(ROOT / "bpf", tree / "bpf")
            shutil.copy(HOOKS / receiver, tree / "bpf" / "hooks" / "receiver.bpf.c")
            patch.setattr(hatch_build, "ROOT", tree)
        hatch_build.compile_object(output, defines=(f"{define}=1",) if define else ())
    return output
