"""A program that splices: answered with EINVAL it copies; started without that, `status` and the agent tell of it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable

from interop.conftest import PEERS
from interop.stage import CLIENT, PORT, Stage

SPLICER = [sys.executable, str(PEERS / "splicer.py"), str(PORT)]
WORDS = "anybody there?"
SPEAKER = [
    sys.executable,
    "-c",
    f"""
import socket, sys, time
sock = socket.socket()
sock.setblocking(False)
sock.connect_ex(("127.0.0.1", {PORT}))
time.sleep(0.5)  # until the other end has been accepted
sock.send(b"{WORDS}")
sys.stdin.read()
""",
]
WARNING_SECONDS = 20


def until(what: str, found: Callable[[], object]) -> None:
    deadline = time.monotonic() + WARNING_SECONDS
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_splice_is_refused_under_exec(managed_play: Stage) -> None:
    splicer = managed_play.serve("interop/splicer", SPLICER, PORT)
    managed_play.start(CLIENT, SPEAKER, stdin=subprocess.PIPE)
    until("the splicer ends", lambda: splicer.poll() is not None)
    assert "Invalid argument" in managed_play.log_of(splicer).read_text()


def test_status_warns_of_a_reader_that_splices(managed_play: Stage) -> None:
    mesh = managed_play.mesh
    assert mesh is not None
    splicer = managed_play.serve("interop/splicer", SPLICER, PORT, allow_splice=True)
    managed_play.start(CLIENT, SPEAKER, stdin=subprocess.PIPE)
    until("a warning", lambda: mesh.status()["unread"])
    (found,) = mesh.status()["unread"]
    assert (found["namespace"], found["workload"], found["port"]) == ("interop", "splicer", PORT)
    assert found["seconds"] >= 3

    words = " ".join(mesh.run("status").stdout.split())
    warning = re.search(r"warning.*", words)
    assert warning, words
    assert "interop/splicer" in warning[0]
    assert "fix: " in warning[0]
    assert "zerohop exec" in warning[0]
    assert "SystemCallFilter=~splice:EINVAL" in warning[0]
    until("the agent's log names it", lambda: "interop/splicer" in mesh.log.read_text())
    # It was a splice that does not see it, not a lost message.
    assert WORDS not in managed_play.log_of(splicer).read_text()

    managed_play.end(splicer)
    until("no warning once it has gone", lambda: not mesh.status()["unread"])
