"""`zerohop validate`: what it prints and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = "apiVersion: zerohop.io/v1alpha1\nkind: Workload\nmetadata: {name: cart}\n"
BAD = GOOD + "spec: {shortcut: always, addresss: []}\n"


def validate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zerohop", "validate", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )


def test_a_valid_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    result = validate("a.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "valid: a.yaml, 1 object\n", "")
    result = validate(".", "--json", cwd=tmp_path)
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"ok": True, "errors": [], "objects": 1}


def test_errors_for_people(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BAD)
    (tmp_path / "b.yaml").write_text("[")
    result = validate(".", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "a.yaml:4:18: spec.shortcut: 'always' is not one of its values",
        "  fix: did you mean 'Always'?",
        "a.yaml:4:26: spec: unknown field 'addresss'",
        "  fix: did you mean 'addresses'?",
        "b.yaml:1:2: not valid YAML: while parsing a flow node, did not find expected node content",
        "  fix: check the indentation, colons and quotes here and in the line above",
        "3 errors: ., 1 object",
    ]


def test_errors_for_programs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BAD)
    result = validate("a.yaml", "--json", cwd=tmp_path)
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert (document["ok"], document["objects"], len(document["errors"])) == (False, 1, 2)
    assert document["errors"][0] == {
        "file": "a.yaml",
        "line": 4,
        "column": 18,
        "message": "spec.shortcut: 'always' is not one of its values",
        "hint": "did you mean 'Always'?",
    }


@pytest.mark.parametrize("arguments", [["missing"], [], ["a", "b"], ["--jsn", "."]])
def test_usage(tmp_path: Path, arguments: list[str]) -> None:
    result = validate(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "Usage:" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_has_examples(tmp_path: Path) -> None:
    result = validate("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "zerohop validate /etc/zerohop --json" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_names_and_values_that_no_terminal_can_print(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml"))
    odd.write_bytes(b'apiVersion: v1\nkind: "\\u202e\\e[31m"\n')
    result = validate(".", cwd=tmp_path)
    assert result.returncode == 1
    assert "\\xff.yaml:2:7: kind: unknown kind '\\u202e\\x1b[31m'" in result.stdout
    assert "\x1b" not in result.stdout


def test_it_needs_neither_root_nor_a_kernel(tmp_path: Path) -> None:
    """Nothing of the kernel package is even imported."""
    (tmp_path / "a.yaml").write_text(GOOD)
    program = (
        "import sys, zerohop.cli.main as m\n"
        "try: m.main(['validate', 'a.yaml'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not [name for name in sys.modules if name.startswith('zerohop.kernel')]\n"
    )
    user = 65534 if os.geteuid() == 0 else None
    for parent in (tmp_path, *tmp_path.parents):
        if user is not None and not parent.stat().st_mode & 1:
            user = None  # pytest's folder is closed to others: run as who we are
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60, user=user)
