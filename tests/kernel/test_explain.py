"""`zerohop explain` says what the kernel does, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

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


class Asked(NamedTuple):
    """`fields`: beside the path; `word`: of explain's reason."""

    path: str
    word: str
    fields: tuple[tuple[str, str], ...] = ()


RULES = [
    {"to": [{"operation": {"paths": ["/t.T/Bad"]}}]},
    {
        "to": [{"operation": {"paths": ["/t.H/*"]}}],
        "when": [{"key": "request.headers[host]", "values": ["Evil.x"]}],
    },
    {
        "to": [{"operation": {"paths": ["/t.U/*"]}}],
        "when": [{"key": "request.headers[x-user]", "values": ["eve"]}],
    },
]
LAST = "/t.T/Last"
AS_WRITTEN = [
    Asked("/t.T/Good", "no"),
    Asked("/t.T/Good?a=%42/../", "no"),
    Asked("/", "no"),
    Asked("/.../..a/", "no"),
    Asked("/" + "a" * 1023, "no"),
    Asked("/t.T/Bad", "rule"),
    Asked("/t.T/Bad?x=1", "rule"),
    Asked("/t.T/Bad#f", "rule"),
    Asked("/" + "a" * 1024, "header_too_long:"),
    Asked("", "path_not_normal:"),
    Asked("t.T/Bad", "path_not_normal:"),
    Asked("/t.T/%42ad", "path_not_normal:"),
    Asked("/t.T/Bad;x", "path_not_normal:"),
    Asked("/t.T//Bad", "path_not_normal:"),
    Asked("/t.T/./Good", "path_not_normal:"),
    Asked("/t.T/..?x", "path_not_normal:"),
    Asked("/t.T\\Good", "path_not_normal:"),
    Asked("/t.T/Good ", "path_not_normal:"),
    Asked("/t.T/G\u00f6d", "path_not_normal:"),
    Asked("/t.H/1", "rule", ((":authority", "evil.x"),)),
    Asked("/t.H/2", "rule", (("host", "EVIL.x"),)),
    Asked("/t.H/3", "no", ((":authority", "good.x"),)),
    Asked("/t.H/5", "host_not_normal:", ((":authority", "good.x@evil.x"),)),
    Asked("/t.H/4", "header_repeated:", ((":authority", "good.x"), ("host", "good.x"))),
    Asked("/t.T/Long", "no", (("host", "a" * 1025), ("x-user", "a" * 1025))),
    Asked("/t.U/1", "header_too_long:", (("x-user", "a" * 1025),)),
    Asked("/t.U/2", "header_repeated:", (("x-user", "ann"), ("x-user", "ann"))),
]

# Makes each call on a connection of its own, as it is written.
WRITER = """
import contextlib, json, sys, time
folder, port, calls = sys.argv[1:]
sys.path.insert(0, folder)
from attempts import OPENING, connect, headers, put
from hpack import Encoder, NeverIndexedHeaderTuple
connections = []
for path, fields in json.loads(calls):
    listed = [(":method", "POST"), (":scheme", "http"), (":path", path), *fields, ("content-type", "application/grpc")]
    written = Encoder().encode([NeverIndexedHeaderTuple(*each) for each in listed], huffman=False)
    connections.append(connect(("127.0.0.1", int(port))))
    with contextlib.suppress(OSError):
        put(connections[-1], OPENING + headers(written))
sys.stdin.read()
"""


def test_calls_as_they_are_written(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    """Queries, paths that servers read in different ways, what is too long or there twice, and names of hosts."""
    denying = policy("bad", *RULES, action="DENY", app="server")
    mesh = mesh_factory([workload("t/server"), workload("t/client", serviceAccount="web"), SERVICE, denying])
    argv = [sys.executable, str(FOLDER / "witness.py"), "127.0.0.1", str(PORT)]
    witness = mesh.exec_popen("t/server", argv, netns.name, stdout=subprocess.PIPE, text=True)
    assert witness.stdout is not None
    assert witness.stdout.readline() == "ready\n"
    calls = json.dumps([*((each.path, each.fields) for each in AS_WRITTEN), (LAST, ())])
    argv = [sys.executable, "-c", WRITER, str(FOLDER), str(PORT), calls]
    client = mesh.exec_popen("t/client", argv, netns.name, stdin=subprocess.PIPE, text=True)
    given = []
    while LAST not in given:
        given.append(json.loads(witness.stdout.readline())["path"].encode("latin-1").decode())
    client.communicate(timeout=10)
    witness.kill()
    given += [json.loads(line)["path"] for line in witness.communicate(timeout=10)[0].splitlines()]

    def ask(call: Asked) -> tuple[int, dict[str, Any]]:
        options = [
            option
            for name, value in call.fields
            for option in (("--host", value) if name == ":authority" else ("--header", f"{name}={value}"))
        ]
        return explain(mesh, "--from", "t/web", "--method", call.path, *options)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, AS_WRITTEN))
    for call, (status, found) in zip(AS_WRITTEN, answers, strict=True):
        assert (call.path in given) == (status == 0) == (found["verdict"] == "ALLOW"), (call, found, given)
        assert found["reason"].split()[0] == call.word, (call, found)
        assert (found["policy"] is None) == (call.word != "rule"), (call, found)
    assert mesh.totals()["denied_calls"] == sum(call.word != "no" for call in AS_WRITTEN)
    denied = mesh.run("flows", "--json", "--last", "1000", "--verdict", "deny").stdout.splitlines()
    reasons = {each["reason"]: each["policy"] for each in map(json.loads, denied)}
    assert reasons == {"policy": "t/bad"} | {call.word[:-1]: None for call in AS_WRITTEN if call.word.endswith(":")}


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
