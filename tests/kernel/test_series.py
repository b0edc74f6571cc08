"""Rows of telemetry that are made many at a time: no call is lost, whatever memory the kernel has at that moment."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import network
from support.builds import compile_variant
from support.mesh import Mesh, workload
from support.policies import service
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import Calls, read_calls

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
PORT = 18593
BURSTS, METHODS = 20, 100
MADE = BURSTS * METHODS

# Each connection is closed with as many calls in flight, of methods that nobody has called before.
CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
from attempts import OPENING, block, connect, headers, put
bursts, methods = int(sys.argv[3]), int(sys.argv[4])
for burst in range(bursts):
    connection = connect(('127.0.0.1', int(sys.argv[2])))
    calls = [headers(block(b'/burst.B%d/M%d' % (burst, n)), stream=2 * n + 1) for n in range(methods)]
    put(connection, OPENING + b''.join(calls))
    connection.settimeout(5)
    connection.recv(100)
    connection.close()
print('done')
"""


class Learning(Mesh):
    """One that learns every method."""

    def command(self, *arguments: str) -> list[str]:
        more = ["--max-methods", "20000"] if arguments[0] == "run" else []
        return super().command(*arguments, *more)


def calls(rows: list[Calls], *, ended: bool) -> int:
    """How many have ended, or have begun."""
    return sum(row.calls for row in rows if (row.ending != "open") == ended)


def few_rows(folder: Path) -> str:
    limits = ("MAX_SERIES", 65536, 64), ("SPARE_SERIES", 4096, 16)
    edits = tuple(("shared/bounds.h", f"#define {name} {many}", f"#define {name} {few}") for name, many, few in limits)
    return str(compile_variant(folder / "few.bpf.o", edits=edits))


@pytest.mark.parametrize("room", ["as usual", "few rows"])
def test_bursts(room: str, netns: network.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if room == "few rows":
        monkeypatch.setenv("ZEROHOP_OBJECT", few_rows(tmp_path))
    mesh = Learning(tmp_path, [workload("t/server"), workload("t/client"), service("server", PORT)])
    try:
        mesh.start()
        script = str(FOLDER / "witness.py")
        server = mesh.exec_popen(
            "t/server", [sys.executable, script, "127.0.0.1", str(PORT)], netns.name, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout.readline() == "ready\n"
        argv = [sys.executable, "-c", CLIENT, str(FOLDER), str(PORT), str(BURSTS), str(METHODS)]
        client = mesh.exec_popen("t/client", argv, netns.name, stdout=subprocess.PIPE, text=True)
        assert client.communicate(timeout=60)[0] == "done\n"
        with DataPath.open(mesh.instance) as path:
            deadline = time.monotonic() + 10
            rows = read_calls(path)
            while calls(rows, ended=True) < MADE and time.monotonic() < deadline:
                time.sleep(0.1)
                rows = read_calls(path)
        assert calls(rows, ended=True) == MADE
        assert calls(rows, ended=False) == MADE, "calls are in flight"
        assert any(row.method is None for row in rows if row.calls) == (room == "few rows")
    finally:
        mesh.close()
