"""A program that sends other bytes again than the kernel has been shown: what it makes of them is judged."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from support import network
from support.builds import compile_variant
from support.memory import limited_memory
from support.mesh import Mesh, MeshFactory, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
PORT = 18617
DOCUMENTS = [
    workload("t/server"),
    workload("t/client"),
    service("server", PORT),
    policy("secret", {"to": [{"operation": {"paths": ["/secret.Svc/Get"]}}]}, action="DENY", app="server"),
]
NEUTRALISED, FORBIDDEN = '{"path": "/secret.Svc-Get"}', '{"path": "/secret.Svc/Get"}'

LIMIT = 1 << 20

# Builds that do not look at what comes again, or take memory for granted.
CARELESS = {
    0: (("mesh/reception.h", "likely(check_leads(skb, reading, seq))", "1"),),
    LIMIT: (
        ("mesh/sent.h", "if (role == ROLE_CLIENT && !has_memory(kern->sk))", "if (0)"),
        ("mesh/sent.h", "if (unlikely(unseen < 0) && reading->judges && role == ROLE_CLIENT)", "if (0)"),
    ),
}
PASSES_ALL = ("mesh/connection.h", "READS_SHOWN : READS_NONE", "READS_NONE : READS_NONE")


def given(mesh: Mesh, space: network.Namespace, argv: list[str]) -> tuple[list[str], str]:
    """What the server was given, and what the client printed."""
    server = [sys.executable, str(FOLDER / "witness.py"), "127.0.0.1", str(PORT)]
    witness = mesh.exec_popen("t/server", server, space.name, stdout=subprocess.PIPE, text=True)
    assert witness.stdout is not None
    assert witness.stdout.readline() == "ready\n"
    client = mesh.exec_popen("t/client", [sys.executable, *argv], space.name, stdout=subprocess.PIPE, text=True)
    said = client.communicate(timeout=60)[0]
    witness.kill()
    return witness.communicate(timeout=10)[0].splitlines(), said


def deceive(mesh: Mesh, space: network.Namespace, limit: int) -> tuple[list[str], int]:
    """What the server was given, and how many requests it would have been given by what was sent."""
    with limited_memory(limit) if limit else contextlib.nullcontext():
        told, said = given(mesh, space, [str(FOLDER / "resent.py"), "127.0.0.1", str(PORT), str(limit)])
    return told, int(said)


KINDS = pytest.mark.parametrize("limit", CARELESS, ids=["buffer", "memory"])


@KINDS
def test_other_bytes_are_judged(mesh_factory: MeshFactory, netns: network.Namespace, limit: int) -> None:
    """Or the connection ends, when they are not what has been judged."""
    mesh = mesh_factory(DOCUMENTS)
    told, times = deceive(mesh, netns, limit)
    assert times > 0 or mesh.unread(), "TCP has always taken everything: this has tried nothing"
    totals = mesh.totals()
    if totals["denied_connections"]:
        assert FORBIDDEN not in told
        assert mesh.unread() == {"unseen": 1}
    else:
        assert (told, totals["denied_calls"]) == ([NEUTRALISED] * times, times)


@KINDS
def test_a_careless_hook_would_be_deceived(
    mesh_factory: MeshFactory, netns: network.Namespace, tmp_path: Path, limit: int
) -> None:
    careless = compile_variant(tmp_path / "careless.bpf.o", edits=CARELESS[limit])
    mesh = mesh_factory(DOCUMENTS, environment={"ZEROHOP_OBJECT": str(careless)})
    # Memory is short where it is to be in some five of a hundred messages.
    assert any(FORBIDDEN in deceive(mesh, netns, limit)[0] for _ in range(8))


# Sends a request that is forbidden in a message of a length, which the edited hook does not look at.
UNSHOWN = """
import sys
sys.path.insert(0, sys.argv[1])
from attempts import OPENING, block, connect, headers, put
from frames import UNKNOWN, frame
connection = connect(("127.0.0.1", int(sys.argv[2])))
put(connection, OPENING)
request = headers(block())
put(connection, request + frame(UNKNOWN, 0, 0, bytes(int(sys.argv[3]) - len(request) - 9)))
try:
    connection.settimeout(2)
    while connection.recv(65536):
        pass
    print("closed")
except OSError as error:
    print(type(error).__name__)
"""
SIZE = 4242
BLIND = ("mesh/shortcut.h", "\tearly = ", f"\tif (size == {SIZE})\n\t\treturn SK_PASS;\n\tearly = ")


@pytest.mark.parametrize(
    ("edits", "expected"),
    [((BLIND,), ([], "ConnectionResetError\n")), ((BLIND, PASSES_ALL), ([FORBIDDEN], "TimeoutError\n"))],
    ids=["checked", "unchecked"],
)
def test_what_no_hook_was_shown_does_not_pass(
    mesh_factory: MeshFactory,
    netns: network.Namespace,
    tmp_path: Path,
    edits: tuple[tuple[str, str, str], ...],
    expected: tuple[list[str], str],
) -> None:
    """Whatever the reason is that no hook was shown it."""
    blind = compile_variant(tmp_path / "blind.bpf.o", edits=edits)
    mesh = mesh_factory(DOCUMENTS, environment={"ZEROHOP_OBJECT": str(blind)})
    found = given(mesh, netns, ["-c", UNSHOWN, str(FOLDER), str(PORT), str(SIZE)])
    assert found == expected


# Keeps for ever what has arrived.
REMEMBERS = ("mesh/sent.h", "if (unlikely(has_leads(reading)) && role == ROLE_CLIENT)", "if (0)")


@pytest.mark.parametrize("edits", [(), (REMEMBERS,)], ids=["forgets", "remembers"])
def test_sequence_numbers_come_round(
    mesh_factory: MeshFactory, netns: network.Namespace, tmp_path: Path, edits: tuple[tuple[str, str, str], ...]
) -> None:
    """What was compared is not compared with other bytes, 4 GB later."""
    environment = {"ZEROHOP_OBJECT": str(compile_variant(tmp_path / "kept.bpf.o", edits=edits))} if edits else {}
    mesh = mesh_factory(DOCUMENTS, environment=environment)
    argv = [sys.executable, str(FOLDER / "rounds.py")]
    server = mesh.exec_popen("t/server", [*argv, "serve", str(PORT)], netns.name, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    client = mesh.exec_popen("t/client", [*argv, "send", str(PORT)], netns.name, stdout=subprocess.PIPE, text=True)
    sent = client.communicate(timeout=100)[0]
    assert mesh.unread() == ({"unseen": 1} if edits else {})
    if not edits:
        assert server.communicate(timeout=20)[0] == sent
