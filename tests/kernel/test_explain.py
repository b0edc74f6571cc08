"""`zerohop explain` says what the kernel does, and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Mesh, MeshFactory, workload
from support.policies import policy, service

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
PORT = 18578
SERVICE = service("server", PORT)
POLICIES = [
    policy(
        "callers",
        {"from": [{"source": {"namespaces": ["elsewhere"]}}]},
        {"to": [{"operation": {"paths": ["/test.Echo/One", "/test.Echo/T*"]}}]},
        app="server",
    ),
    policy("users", {"when": [{"key": "request.headers[x-user]", "values": ["eve"]}]}, action="DENY", app="server"),
    policy("blocks", {"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}, action="DENY", namespace="istio-system"),
]


def explain(mesh: Mesh, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = mesh.run("explain", "--to", f"t/server:{PORT}", "--json", *arguments, check=False)
    return result.returncode, json.loads(result.stdout)


@pytest.fixture
def mesh(mesh_factory: MeshFactory) -> Mesh:
    return mesh_factory([workload("t/server"), workload("t/client", serviceAccount="web"), SERVICE, *POLICIES])


def test_verdicts_and_reasons(mesh: Mesh) -> None:
    status, found = explain(mesh, "--from", "t/web", "--method", "/test.Echo/One")
    assert status == 0
    assert (found["verdict"], found["policy"], found["rule"]) == ("ALLOW", "t/callers", 1)
    assert found["file"] == str(mesh.config)
    written = mesh.config.read_text().splitlines()
    assert "/test.Echo/One" in written[found["line"] - 1]

    assert explain(mesh, "--from", "t/web", "--method", "/test.Echo/Two")[0] == 0
    status, found = explain(mesh, "--from", "t/web", "--method", "/test.Echo/Five")
    assert (status, found["verdict"], found["policy"], found["rule"]) == (1, "DENY", None, None)
    assert "no rule of an ALLOW policy" in found["reason"]

    status, found = explain(mesh, "--from", "t/web", "--method", "/test.Echo/One", "--header", "X-User=eve")
    assert (status, found["policy"], found["rule"]) == (1, "t/users", 0)
    assert explain(mesh, "--from", "t/web", "--method", "/test.Echo/One", "--header", "x-user=ann")[0] == 0
    status, found = explain(mesh, "--from", "outside", "--method", "/test.Echo/One", "--source-ip", "10.1.2.3")
    assert (status, found["policy"]) == (1, "istio-system/blocks")

    # What a connection is told without a call.
    status, found = explain(mesh, "--from", "t/web")
    assert (status, found["policy"]) == (0, None)
    assert "one by one" in found["reason"]
    assert explain(mesh, "--from", "t/web", "--source-ip", "10.1.2.3")[1]["policy"] == "istio-system/blocks"


def test_it_is_what_the_kernel_does(mesh: Mesh, netns: network.Namespace) -> None:
    import subprocess

    program = [sys.executable, str(FOLDER / "grpc_calls.py"), "serve", str(PORT)]
    server = mesh.exec_popen("t/server", program, netns.name, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    ask = (
        "import grpc, sys\n"
        f"channel = grpc.insecure_channel('127.0.0.1:{PORT}')\n"
        "metadata = [('x-user', sys.argv[2])] if len(sys.argv) > 2 else []\n"
        "try:\n"
        "    channel.unary_unary(sys.argv[1])(b'a', timeout=20, metadata=metadata)\n"
        "    print('OK')\n"
        "except grpc.RpcError as error:\n"
        "    print(error.code().name)\n"
    )
    for method, user in (("One", "ann"), ("One", "eve"), ("None", "ann"), ("Two", "ann"), ("One", "")):
        words = [f"/test.Echo/{method}", *filter(None, [user])]
        client = mesh.exec_popen(
            "t/client", [sys.executable, "-c", ask, *words], netns.name, stdout=subprocess.PIPE, text=True
        )
        answer = client.communicate(timeout=60)[0].strip()
        headers = ["--header", f"x-user={user}"] if user else []
        status, _ = explain(mesh, "--from", "t/web", "--method", words[0], *headers)
        assert (answer == "PERMISSION_DENIED") == (status == 1), (words, answer)


def test_mistakes(mesh: Mesh) -> None:
    for arguments, said in (
        (["--from", "t/wep", "--to", "t/server"], "did you mean 't/web'?"),
        (["--from", "t/web", "--to", "t/sever"], "did you mean 't/server'?"),
        (["--from", "t/web", "--to", "t/server:x"], "is not a port"),
        (["--from", "t/web", "--to", "t/client"], "say which"),
        (["--from", "t/web", "--to", "t/server", "--header", "x"], "name a --method"),
        (["--from", "t/web", "--to", "t/server", "--method", "/a/b", "--header", "x"], "is not NAME=VALUE"),
        (["--from", "t/web", "--to", "t/server", "--source-ip", "a"], "is not an IP address"),
    ):
        result = mesh.run("explain", *arguments, check=False)
        assert result.returncode in (1, 2)
        assert said in result.stderr, result.stderr
    text = mesh.run("explain", "--from", "t/web", "--to", "t/server", "--method", "/a/B", check=False).stdout
    assert text.startswith("DENY: no rule of an ALLOW policy")
    assert "principals: ['*/ns/t/sa/web']" in text
    assert "paths: ['/a/B']" in text
