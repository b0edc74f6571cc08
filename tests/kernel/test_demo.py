"""The demo, for real and short."""

from __future__ import annotations

import json
import subprocess

import pytest

from support.machine import zerohop_script

pytestmark = pytest.mark.usefixtures("kernel")


def test_demo_compares_both_modes_over_both_topologies() -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    result = subprocess.run(
        [str(zerohop_script()), "demo", "--seconds", "4", "--json"], capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    rows = {(row["topology"], row["mode"]): row for row in json.loads(result.stdout)["rows"]}
    assert rows.keys() == {(t, m) for t in ("loopback", "veth") for m in ("direct", "zerohop")}
    for (_, mode), row in rows.items():
        assert row["calls"] > 10
        assert row["failures"] == 0
        assert 0 < row["p50_us"] <= row["p99_us"]
        if mode == "zerohop":
            assert row["shortcut_bytes"] > row["tcp_bytes"]
        else:
            assert row["shortcut_bytes"] == row["tcp_bytes"] == 0


def test_demo_interrupted_leaves_nothing() -> None:
    """The leak check at the end of the session sees what stays."""
    pytest.importorskip("grpc", reason="grpcio is not installed")
    program = subprocess.Popen(
        [str(zerohop_script()), "demo", "--seconds", "30"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert "round 1" in program.stdout.readline()
    program.terminate()
    program.communicate(timeout=60)
    assert program.returncode == 143
