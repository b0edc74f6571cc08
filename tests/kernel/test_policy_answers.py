"""What the caller of a denied call is told, in whatever way its server refuses what it does not know."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from support import network
from support.mesh import Mesh, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

SCRIPT: Final = Path(__file__).resolve().parents[1] / "support" / "answers.py"
PORT: Final = 18593
DENIED: Final = {"when": [{"key": "request.headers[x-deny]", "values": ["yes"]}]}
GRPC: Final = {"content-type": "application/grpc"}
VERDICT: Final = {"grpc-status": "7", "grpc-message": "RBAC: access denied"}
TEXT: Final = {"content-type": "text/plain"}
PAGE: Final = ["data", "404 page not found\n"]
END: Final = ["end"]

# What comes of denied calls, by what their server answers.
TOLD: Final[dict[str, list[Any]]] = {
    "lone": [["headers", {":status": "200", **GRPC, **VERDICT}], END],
    "trailers": [["headers", {":status": "200", **GRPC, "trailer": "Grpc-Status"}], ["headers", VERDICT], END],
    "interim": [["headers", {":status": "103", "link": "a"}], ["headers", {":status": "200", **GRPC, **VERDICT}], END],
    "early": [["headers", {":status": "200", **GRPC, **VERDICT}], ["data", ""], END],
    "error": [
        ["headers", {":status": "403", **TEXT, "content-length": "19"}], PAGE, END,
    ],
    "bare": [["headers", {":status": "403", "content-length": "0", **VERDICT}], END],
    "odd": [["headers", {":status": "403", **TEXT}], PAGE, END],
}  # fmt: skip

OK: Final[list[Any]] = [["headers", {":status": "200", **GRPC}], ["data", "\0\0\0\0\x02hi"],
                        ["headers", {"grpc-status": "0"}], END]  # fmt: skip
ODD: Final[list[Any]] = [["headers", {":status": "405", **TEXT}], PAGE, END]

BEYOND: Final = ("message", "page", "elsewhere", "empty")


@pytest.fixture(scope="module")
def mesh(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    documents = [
        workload("t/server"),
        workload("t/client"),
        service("server", PORT),
        policy("no", DENIED, action="DENY", app="server"),
    ]
    made = Mesh(tmp_path_factory.mktemp("answers"), documents)
    try:
        made.start()
        yield made
        assert made.totals()["errors"] == {}
    finally:
        made.close()


def conversation(mesh: Mesh, netns: network.Namespace, managed: bool, how: str, *calls: str) -> list[Any]:
    """What came of calls, as `answers.py` prints it, without what the client's table has in place of the server's."""
    argv = [sys.executable, str(SCRIPT)]
    server = mesh.exec_popen(
        "t/server", [*argv, "serve", str(PORT), how], netns.name, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    calling = [*argv, "call", str(PORT), *calls]
    if managed:
        client = mesh.exec_popen("t/client", calling, netns.name, stdout=subprocess.PIPE, text=True)
    else:
        client = subprocess.Popen(["ip", "netns", "exec", netns.name, *calling], stdout=subprocess.PIPE, text=True)
    said = client.communicate(timeout=60)[0]
    assert client.returncode == 0
    assert server.wait(timeout=60) == 0
    found = [json.loads(line) for line in said.splitlines()]
    for headers in (part[1] for each in found for part in each if part[0] == "headers"):
        headers.pop("grpc-statut", None)
        headers.pop("grpc-messaga", None)
    return found


def status(name: str) -> tuple[int, int]:
    """gRPC's and HTTP's, as the caller sees them. What is no gRPC is UNKNOWN but for some errors."""
    if name[0] == "+":
        return (2, 405) if name == "+odd" else (0, 200)
    return (7, 403) if name[1:] in ("error", "bare", "odd") else (7, 200)


# Who calls, and how the server writes.
ways = pytest.mark.parametrize(
    ("managed", "how"),
    [(True, "whole"), (True, "halves"), (False, "frames")],
    ids=["workload-whole", "workload-halves", "outside-frames"],
)


@ways
def test_refusals(mesh: Mesh, netns: network.Namespace, managed: bool, how: str) -> None:
    """All on one connection, with neighbours that are let through, twice: tables have what came first."""
    order = [f"-{name}" for name in TOLD for _ in range(2)]
    calls = [each for name in order for each in (name, "+ok")] * 2
    found = conversation(mesh, netns, managed, how, *calls, "+odd", "-odd", "+odd")
    for name, what in zip(calls, found, strict=False):
        assert what == (TOLD[name[1:]] if name[0] == "-" else OK), name
    # What the table has under another name than its server thinks.
    calls += ["+odd", "-odd", "+odd"]
    assert found[len(calls) - 3 :] == [ODD, TOLD["odd"], ODD]
    # The kernel knows of each what its caller does.
    flows = mesh.run("flows", "--json", "--kind", "call", "--last", str(len(calls))).stdout.splitlines()
    assert [(each["method"], each["grpc_status"], each["http_status"]) for each in map(json.loads, flows)] == [
        (f"/t.Answers/{name[1:]}", *status(name)) for name in calls
    ]


@ways
@pytest.mark.parametrize("name", BEYOND)
def test_more_than_a_refusal(mesh: Mesh, netns: network.Namespace, managed: bool, name: str, how: str) -> None:
    """Something has been done: its caller learns nothing of it, and the connection ends."""
    found = conversation(mesh, netns, managed, how, "+ok", f"-{name}", "+ok")
    # A message may be no refusal where its headers might have begun one.
    begun = [["headers", {":status": "200", **GRPC}]] if name == "message" and how != "whole" else []
    assert found == [OK, [*begun, ["closed"]]]
