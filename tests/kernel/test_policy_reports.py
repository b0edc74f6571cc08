"""AUDIT policies and dry runs: what they say of calls and connections is reported, exactly, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Mesh, MeshFactory, workload
from support.policies import callers, policy, service

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
CALLS_PORT, BYTES_PORT = 18586, 18587
DRY_RUN = {"istio.io/dry-run": "true"}


def header(*values: str) -> dict[str, Any]:
    return {"when": [{"key": "request.headers[x-user]", "values": list(values)}]}


def path(*values: str) -> dict[str, Any]:
    return {"to": [{"operation": {"paths": list(values)}}]}


SERVICES = [service("server", CALLS_PORT, "grpc"), service("database", BYTES_PORT, "tcp")]
WORKLOADS = [workload("t/server"), workload("t/database"), workload("t/client", serviceAccount="client")]
OF_CALLS = [
    policy("watched", header("nobody"), path("/test.Echo/One"), action="AUDIT", app="server"),
    policy("not-eve", header("eve"), action="DENY", app="server", annotations=DRY_RUN),
    policy("known", header("ann", "eve"), path("/test.Echo/Five"), app="server", annotations=DRY_RUN),
]
CLIENT = ["cluster.local/ns/t/sa/client"]
OF_CONNECTIONS = [
    policy("everybody", {}, action="AUDIT", app="database"),
    policy("no-client", callers(principals=CLIENT), action="DENY", app="database", annotations=DRY_RUN),
]

# Makes calls, each with its metadata: {"status": number} on stdout for each.
CALLER = """
import json, sys
import grpc
with grpc.insecure_channel(f'127.0.0.1:{sys.argv[1]}') as channel:
    for method, users in json.loads(sys.argv[2]):
        try:
            answers = channel.unary_stream(f'/test.Echo/{method}')(
                b'a', timeout=20, metadata=[('x-user', each) for each in users])
            list(answers)
            print(0)
        except grpc.RpcError as error:
            print(error.code().value[0])
"""


def serve(mesh: Mesh, space: network.Namespace) -> None:
    program = [sys.executable, str(FOLDER / "grpc_calls.py"), "serve", str(CALLS_PORT)]
    server = mesh.exec_popen("t/server", program, space.name, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"


def call(mesh: Mesh, space: network.Namespace, calls: list[tuple[str, list[str]]]) -> list[int]:
    program = [sys.executable, "-c", CALLER, str(CALLS_PORT), json.dumps(calls)]
    client = mesh.exec_popen("t/client", program, space.name, stdout=subprocess.PIPE, text=True)
    return [int(line) for line in client.communicate(timeout=60)[0].split()]


def flows(mesh: Mesh, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in mesh.run("flows", "--json", "--last", "1000", *arguments).stdout.splitlines()]


def decider(name: str | None, rule: int | None, verdict: str | None = None) -> dict[str, Any]:
    said = {"policy": name and f"t/{name}", "rule": rule}
    return said if verdict is None else {"verdict": verdict, **said}


# Who calls what, what the audit says, and what the dry run.
CALLS: list[tuple[str, list[str], dict[str, Any] | None, dict[str, Any]]] = [
    ("One", ["ann"], decider("watched", 1), decider("known", 0, "ALLOW")),
    ("One", ["eve"], decider("watched", 1), decider("not-eve", 0, "DENY")),
    ("Five", ["bob"], None, decider("known", 1, "ALLOW")),
    ("One", ["bob"], decider("watched", 1), decider(None, None, "DENY")),
    ("One", [], decider("watched", 1), decider(None, None, "DENY")),
    # Nobody can tell who it is: what would be in force would end the connection.
    ("Five", ["ann", "ann"], decider(None, None), decider(None, None, "DENY")),
]


def test_calls(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    mesh = mesh_factory([*WORKLOADS, *SERVICES, *OF_CALLS])
    serve(mesh, netns)
    times = 4
    asked = [(method, users) for method, users, *_ in CALLS for _ in range(times)]
    assert call(mesh, netns, asked) == [0] * len(asked)
    found = flows(mesh, "--kind", "call")
    wanted = [(f"/test.Echo/{method}", audit, dry) for method, _, audit, dry in CALLS for _ in range(times)]
    assert [(each["method"], each["audit"], each["dry_run"]) for each in found] == wanted
    assert {(each["verdict"], each["policy"], each["reason"]) for each in found} == {("ALLOW", None, None)}

    audited = sum(audit is not None for _, audit, _ in wanted)
    denied = sum(dry["verdict"] == "DENY" for _, _, dry in wanted)
    assert len(flows(mesh, "--audited")) == audited
    assert len(flows(mesh, "--dry-run", "deny")) == denied
    totals = mesh.totals()
    assert (totals["audited_calls"], totals["dry_run_denied_calls"]) == (audited, denied)
    assert (totals["denied_calls"], totals["denied_connections"]) == (0, 0)


def test_connections(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    mesh = mesh_factory([*WORKLOADS, *SERVICES, *OF_CONNECTIONS])
    program = [sys.executable, str(FOLDER / "dialling.py"), "serve", "database", "127.0.0.1", str(BYTES_PORT)]
    server = mesh.exec_popen("t/database", program, netns.name, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    dial = [sys.executable, str(FOLDER / "dialling.py"), "dial", "127.0.0.1", str(BYTES_PORT), "3"]
    client = mesh.exec_popen("t/client", dial, netns.name, stdout=subprocess.PIPE, text=True)
    assert json.loads(client.communicate(timeout=60)[0])["answers"] == {"database": 3}
    outside = subprocess.run(
        ["ip", "netns", "exec", netns.name, *dial], check=True, capture_output=True, text=True, timeout=60
    )
    assert json.loads(outside.stdout)["answers"] == {"database": 3}
    found = flows(mesh, "--kind", "connection")
    assert [(each["audit"], each["dry_run"]) for each in found] == [
        *[(decider("everybody", 0), decider("no-client", 0, "DENY"))] * 3,
        *[(decider("everybody", 0), decider(None, None, "ALLOW"))] * 3,
    ]
    totals = mesh.totals()
    assert (totals["audited_connections"], totals["dry_run_denied_connections"]) == (6, 3)
    assert (totals["refused_connections"], totals["denied_connections"]) == (0, 0)


def test_what_cannot_be_read_may_pass(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    """Nothing in force asks for calls, so a connection that cannot be read is not denied."""
    mesh = mesh_factory([*WORKLOADS, *SERVICES, *OF_CALLS])
    program = [sys.executable, str(FOLDER / "dialling.py"), "serve", "server", "127.0.0.1", str(CALLS_PORT)]
    server = mesh.exec_popen("t/server", program, netns.name, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    dial = [sys.executable, str(FOLDER / "dialling.py"), "dial", "127.0.0.1", str(CALLS_PORT), "2"]
    client = mesh.exec_popen("t/client", dial, netns.name, stdout=subprocess.PIPE, text=True)
    assert json.loads(client.communicate(timeout=60)[0])["answers"] == {"server": 2}


def test_enforced_ones_beside_them(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    """A dry run asks for a header; twice there, it still costs nothing where what is in force does not ask for it."""
    enforced = policy("one", path("/test.Echo/One"), app="server")
    mesh = mesh_factory([*WORKLOADS, *SERVICES, *OF_CALLS, enforced])
    serve(mesh, netns)
    asked = [("One", ["ann", "ann"]), ("Five", ["ann"]), ("One", ["ann"])]
    assert call(mesh, netns, asked) == [0, 7, 0]
    found = flows(mesh, "--kind", "call")
    assert [(each["verdict"], each["dry_run"]["verdict"]) for each in found] == [
        ("ALLOW", "DENY"),
        ("DENY", "ALLOW"),
        ("ALLOW", "ALLOW"),
    ]


def test_explain(mesh_factory: MeshFactory) -> None:
    mesh = mesh_factory([*WORKLOADS, *SERVICES, *OF_CALLS])
    words = [
        "explain",
        "--from",
        "t/client",
        "--to",
        "t/server",
        "--method",
        "/test.Echo/One",
        "--header",
        "x-user=eve",
    ]
    found = json.loads(mesh.run(*words, "--json").stdout)
    assert (found["verdict"], found["policy"]) == ("ALLOW", None)
    assert (found["audit"]["policy"], found["audit"]["rule"]) == ("t/watched", 1)
    assert (found["dry_run"]["verdict"], found["dry_run"]["policy"], found["dry_run"]["rule"]) == (
        "DENY",
        "t/not-eve",
        0,
    )
    text = mesh.run(*words).stdout
    assert "AUDIT: rule 1 of t/watched" in text
    assert "dry run: DENY: rule 0 of t/not-eve" in text

    # As the kernel reports it: nobody can tell, so no rule is named, and the dry run denies.
    words[-3:] = ["/test.Echo/Five", "--header", "x-user=ann", "--header", "x-user=ann"]
    found = json.loads(mesh.run(*words, "--json").stdout)
    nobody = {**decider(None, None), "file": None, "line": None}
    assert (found["verdict"], found["audit"], found["dry_run"]) == ("ALLOW", nobody, {"verdict": "DENY", **nobody})
    text = mesh.run(*words).stdout
    assert "AUDIT: header_repeated: " in text
    assert "dry run: DENY: header_repeated: " in text
