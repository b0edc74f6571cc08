"""The verifier is a budget: every program loads, built by either compiler, within its recorded instruction count."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from support import network
from support.mesh import MeshFactory
from support.torture import Side, run_torture

ROOT = Path(__file__).resolve().parents[2]
BUDGET = json.loads((ROOT / "bpf" / "budget.json").read_text())

sys.path.insert(0, str(ROOT))


def load_counts(object_file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Loads an object under pins of its own; returns what the verifier walked, per program."""
    from zerohop.kernel import libbpf, pins
    from zerohop.kernel.datapath import DataPath

    monkeypatch.setenv("ZEROHOP_OBJECT", str(object_file))
    folder = pins.folder(f"t-verifier-{object_file.stem.split('.')[0]}")
    try:
        with DataPath.load(folder) as path:
            return {name: libbpf.program_info(fd).verified_insns for name, fd in path.programs.items()}
    finally:
        pins.remove(folder)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("compiler", ["zig", "clang-19"])
def test_instruction_budget(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hatch_build import compile_object

    if compiler == "clang-19" and shutil.which("clang-19") is None:
        pytest.skip("clang-19 is not installed (the cross-check compiler)")
    output = tmp_path / f"{compiler}.bpf.o"
    compile_object(output, compiler=None if compiler == "zig" else [compiler])
    counts = load_counts(output, monkeypatch)
    assert counts.keys() == BUDGET["instructions"].keys()
    for name, count in counts.items():
        recorded = BUDGET["instructions"][name]
        limit = recorded * (100 + BUDGET["tolerance_percent"]) // 100
        assert count <= limit, (
            f"{name}: {count} instructions verified, recorded {recorded}; explain, then update budget"
        )


@pytest.mark.usefixtures("kernel")
def test_a_refused_object_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hatch_build import compile_object

    from zerohop.kernel import pins
    from zerohop.kernel.libbpf import BpfError

    output = tmp_path / "endless.bpf.o"
    compile_object(output, defines=("ZH_BREAK_VERIFIER=1",))
    with pytest.raises(BpfError, match="the kernel said") as caught:
        load_counts(output, monkeypatch)
    assert "infinite loop" in str(caught.value)
    assert not pins.folder("t-verifier-endless").exists()


@pytest.mark.usefixtures("torture_peer")
def test_the_other_compilers_object_carries_every_byte(
    mesh_factory: MeshFactory, netns: network.Namespace, tmp_path: Path
) -> None:
    from hatch_build import compile_object

    if shutil.which("clang-19") is None:
        pytest.skip("clang-19 is not installed (the cross-check compiler)")
    output = tmp_path / "clang-19.bpf.o"
    compile_object(output, compiler=["clang-19"])
    mesh = mesh_factory(environment={"ZEROHOP_OBJECT": str(output)})
    side = Side(netns.name, "127.0.0.1", {"streams": 32, "threads": 2, "seed": 19, "slow_percent": 25})
    assert run_torture(mesh, side, side).problems() == []
    totals = mesh.totals()
    assert totals["shortcut_bytes"] > 0
    assert totals["errors"] == {}
