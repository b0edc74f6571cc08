"""What is shipped: the unit file and the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "zerohop.service"
    # The command need not be installed where it is tested; everything else is checked as shipped.
    unit.write_text((ROOT / "packaging" / "zerohop.service").read_text().replace("/usr/bin/zerohop", "/bin/true"))
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment into which `pip install .` has put zerohop, without extras and without a compiler."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(".venv", ".git", "*.bpf.o", "*_cache"))
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    tools = folder / "tools"
    tools.mkdir()
    for name in ("sh", "env", "uname"):
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    result = subprocess.run(
        [str(folder / "venv" / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "."],
        cwd=folder / "source",
        env={**os.environ, "PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_install_without_a_compiler_carries_the_object(bare: Path) -> None:
    (site,) = (bare / "venv" / "lib").glob("python3*/site-packages")
    assert (site / "zerohop" / "kernel" / "objects" / "zerohop.bpf.o").read_bytes().startswith(b"\x7fELF")
    assert list((site / "zerohop" / "bench" / "peers").glob("*.c"))


def test_installed_command_answers(bare: Path) -> None:
    command = str(bare / "venv" / "bin" / "zerohop")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("zerohop, version ")
    for name in ("run", "exec", "status", "doctor", "validate", "clean", "demo", "bench"):
        shown = subprocess.run([command, name, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "Example" in shown.stdout, f"zerohop {name} --help has no example"


def test_wheel_is_for_any_machine(bare: Path) -> None:
    wheels = bare / "wheels"
    subprocess.run(
        [str(bare / "venv" / "bin" / "pip"), "wheel", "--quiet", "--no-deps", "-w", str(wheels), "."],
        cwd=bare / "source",
        check=True,
    )
    (wheel,) = wheels.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "zerohop/kernel/objects/zerohop.bpf.o" in zipfile.ZipFile(wheel).namelist()


def test_readme_shows_a_valid_configuration(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "shop.yaml").write_text(block)
    result = subprocess.run(
        [sys.executable, "-m", "zerohop", "validate", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_unknown_command_names_the_nearest() -> None:
    result = subprocess.run([sys.executable, "-m", "zerohop", "statsu"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2
    assert "did you mean 'status'" in result.stderr
