"""What is known of a connection's table entries is known by one generation of policies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import network
from support.mesh import MeshFactory, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
PORT = 18594
SERVICE = service("server", PORT)
PATH = "/open.Svc/Get"

# Inserts as many small entries, 200 in a call, then the path; calls it once more, by reference, when told to.
CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from attempts import ALLOWED, BEGIN, END, OPENING, connect, headers, put
left, stream = int(sys.argv[3]), 1
connection = connect(('127.0.0.1', int(sys.argv[2])))
put(connection, OPENING)
def call(content):
    global stream
    put(connection, headers(BEGIN + content + END, stream=stream))
    stream += 2
while left:
    count = min(200, left)
    call(b'\\x04\\x07/t.A/In' + b'\\x40\\x01a\\x00' * count)
    left -= count
call(b'\\x44' + bytes((len(ALLOWED),)) + ALLOWED)
call(b'\\xbe')
print('inserted', flush=True)
sys.stdin.readline()
try:
    call(b'\\xbe')
except OSError:
    pass
time.sleep(0.5)
"""


@pytest.mark.parametrize("number", [300, 65_536])
def test_an_entry_is_judged_again(mesh_factory: MeshFactory, netns: network.Namespace, number: int) -> None:
    """Whatever its number: the kernel keeps 16 bits of it."""
    base = [workload("t/server"), workload("t/client"), SERVICE]

    def denying(path: str) -> dict[str, object]:
        return policy("paths", {"to": [{"operation": {"paths": [path]}}]}, action="DENY", app="server")

    mesh = mesh_factory([*base, denying("/t.A/Out")])
    argv = [sys.executable, str(FOLDER / "witness.py"), "127.0.0.1", str(PORT)]
    server = mesh.exec_popen("t/server", argv, netns.name, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    argv = [sys.executable, "-c", CLIENT, str(FOLDER), str(PORT), str(number - 1)]
    client = mesh.exec_popen("t/client", argv, netns.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline() == "inserted\n"
    generation = mesh.generation()
    mesh.write_config([*base, denying(PATH)])
    mesh.wait_for_generation(generation + 1)
    client.communicate("\n", timeout=60)
    server.kill()
    told = [json.loads(line)["path"] for line in server.communicate(timeout=10)[0].splitlines()]
    assert told.count(PATH) == 2
    assert "-" in told[-1] or told[-1] == "/", told[-3:]
