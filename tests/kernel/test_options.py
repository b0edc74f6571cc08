"""Socket options pass the hook that keeps members from kernel TLS as if it were not there.

That it refuses kTLS shows where a kernel has it: tests/kernels/ktls.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import network
from support.mesh import Direct, Launcher, Mesh

pytestmark = pytest.mark.usefixtures("kernel")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "options.py"


def answers(launcher: Launcher, space: network.Namespace) -> dict[str, object]:
    program = launcher.exec_popen(
        "t/client", [sys.executable, str(PROGRAM)], space.name, stdout=subprocess.PIPE, text=True
    )
    output, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    found: dict[str, object] = json.loads(output)
    return found


def test_options(mesh: Mesh, direct: Direct, netns: network.Namespace) -> None:
    with_zerohop, without = answers(mesh, netns), answers(direct, netns)
    assert with_zerohop == without
    assert len(without) == 8
    assert mesh.totals()["shortcut_bytes"] > 0
