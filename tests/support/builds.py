"""Test builds of the BPF object: with a condition removed, another receiver hook, or other sources."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOKS = Path(__file__).resolve().parent / "bpf"


def compile_variant(
    output: Path, *, define: str = "", receiver: str = "", edits: Sequence[tuple[str, str, str]] = ()
) -> Path:
    """The object with `define` set and, if named, another receiver hook (a file in tests/support/bpf).

    `edits`: file below bpf, a text that it holds once, what stands there instead.
    """
    sys.path.insert(0, str(ROOT))
    import hatch_build

    with pytest.MonkeyPatch.context() as patch:
        # What only a removed condition used is unused then.
        patch.setattr(hatch_build, "FLAGS", [*hatch_build.FLAGS, "-Wno-unused-variable", "-Wno-unused-function"])
        if receiver or edits:
            tree = output.parent / f"{output.stem}-tree"
            shutil.copytree(ROOT / "bpf", tree / "bpf")
            if receiver:
                shutil.copy(HOOKS / receiver, tree / "bpf" / "hooks" / "receiver.bpf.c")
            for name, old, new in edits:
                file = tree / "bpf" / name
                text = file.read_text()
                assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
                file.write_text(text.replace(old, new))
            patch.setattr(hatch_build, "ROOT", tree)
        hatch_build.compile_object(output, defines=(f"{define}=1",) if define else ())
    return output
