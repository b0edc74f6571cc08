"""AuthorizationPolicy at layers 3 and 4: who is refused, how, and that no byte of a refused connection passes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.builds import compile_variant
from support.mesh import Mesh, MeshFactory, workload
from support.policies import callers, policy, principal

pytestmark = pytest.mark.usefixtures("kernel")

FOLDER = Path(__file__).resolve().parents[1] / "support"
PORT = 18571
REFUSED = {"EPERM": 1}
# A server that writes first is told so (EACCES) and may close before the reset has come.
ENDED = ({"ECONNRESET": 1}, {"": 1})

FORGETS = ("mesh/connection.h", "if (bpf_map_update_elem(&handshakes, &client, &shake, BPF_ANY))")

# Takes connections and says on stdout what has come on each: a line when it ends.
SINK = """
import select, socket, sys, threading
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
listener.setblocking(sys.argv[3] == 'blocking')
print('ready', flush=True)
def drain(connection):
    count = 0
    try:
        while part := connection.recv(65536):
            count += len(part)
        end = 'end'
    except OSError as error:
        end = type(error).__name__
    print(count, end, flush=True)
while True:
    select.select([listener], [], [])
    connection, _ = listener.accept()
    connection.setblocking(True)
    threading.Thread(target=drain, args=[connection], daemon=True).start()
"""

# Connects, sends for a while, tells how it ended.
SENDER = """
import socket, sys, time
try:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
    if sys.argv[3] == 'nonblocking':
        connection.setblocking(False)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        connection.send(b'x' * 1000)
        time.sleep(0.001)
    print('open')
except OSError as error:
    print(type(error).__name__)
"""


def account(key: str, **spec: Any) -> dict[str, Any]:
    """A workload whose service account has its name."""
    return workload(key, serviceAccount=key.partition("/")[2], **spec)


CLIENTS = [account("t/client"), account("t/other")]


class Scene:
    def __init__(self, mesh: Mesh, client: str, server: str) -> None:
        self.mesh, self.client, self.server = mesh, client, server

    def start(self, key: str | None, space: str, argv: Sequence[str]) -> subprocess.Popen[str]:
        """In a workload, or, without a key, outside the mesh."""
        if key is None:
            command = ["ip", "netns", "exec", space, *argv]
            program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
            self.mesh.programs.append(program)
            return program
        return self.mesh.exec_popen(key, argv, space, stdout=subprocess.PIPE, text=True)

    def serve(self, address: str = "127.0.0.1") -> None:
        program = self.start(
            "t/server",
            self.server,
            [sys.executable, str(FOLDER / "dialling.py"), "serve", "server", address, str(PORT)],
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"

    def dial(self, key: str | None, address: str = "127.0.0.1", port: int = PORT) -> dict[str, int]:
        """One connection: {"server": 1}, or {the error: 1}."""
        began = time.monotonic()
        program = self.start(
            key, self.client, [sys.executable, str(FOLDER / "dialling.py"), "dial", address, str(port), "1"]
        )
        output, _ = program.communicate(timeout=60)
        found = json.loads(output)
        assert time.monotonic() - began < 5, "a refusal is not a time-out"
        return {**found["answers"], **found["errors"]}

    def flows(self, *arguments: str) -> list[dict[str, Any]]:
        lines = self.mesh.run("flows", "--json", "--last", "1000", *arguments).stdout.splitlines()
        return [json.loads(line) for line in lines]


def scene(factory: MeshFactory, space: network.Namespace, *documents: dict[str, Any], **spec: Any) -> Scene:
    mesh = factory([account("t/server", **spec), *CLIENTS, *documents])
    return Scene(mesh, space.name, space.name)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_local_caller_is_refused_at_connect(
    mesh_factory: MeshFactory, netns: network.Namespace, address: str
) -> None:
    here = scene(mesh_factory, netns, policy("who", callers(principals=[principal("t/client")]), app="server"))
    here.serve(address)
    assert here.dial("t/client", address) == {"server": 1}
    assert here.dial("t/other", address) == REFUSED
    # Nobody is told to come from elsewhere: a caller of no workload has no identity.
    assert here.dial(None, address) in ENDED
    refused, *others = [each for each in here.flows("--verdict", "deny") if each["source"]["workload"] == "other"]
    assert not others
    assert refused["destination"]["workload"] == "server"
    assert refused["destination"]["port"] == PORT
    assert (refused["reason"], refused["policy"], refused["rule"]) == ("policy", None, None)
    totals = here.mesh.totals()
    assert totals["errors"] == {}
    assert (totals["refused_connections"], totals["denied_connections"]) == (1, 1)


def test_an_ipv4_address_from_an_ipv6_socket(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    here = scene(mesh_factory, netns, policy("who", callers(principals=[principal("t/client")]), app="server"))
    here.serve("::")
    assert here.dial("t/client", "::ffff:127.0.0.1") == {"server": 1}
    assert here.dial("t/other", "::ffff:127.0.0.1") == REFUSED


def test_a_denial_names_its_policy_and_rule(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    rules = [callers(namespaces=["elsewhere"]), callers(serviceAccounts=["other"])]
    here = scene(mesh_factory, netns, policy("not-you", *rules, action="DENY", app="server"))
    here.serve()
    assert here.dial("t/client") == {"server": 1}
    assert here.dial("t/other") == REFUSED
    assert here.dial(None) == {"server": 1}
    (refused,) = here.flows("--policy", "t/not-you")
    assert (refused["verdict"], refused["policy"], refused["rule"]) == ("DENY", "t/not-you", 1)
    assert refused["source"]["principal"] == principal("t/other")


def test_remote_callers_are_reset(mesh_factory: MeshFactory, veth: network.Pair) -> None:
    """By address, across network namespaces; those that connect see a connection that ends at once."""
    documents = [
        account("t/server", addresses=[veth.ipv4, veth.ipv6]),
        *CLIENTS,
        policy("where", callers(ipBlocks=["10.77.1.1", "192.168.0.0/16"]), app="server"),
    ]
    here = Scene(mesh_factory(documents), veth.client.name, veth.server.name)
    here.serve("::")
    assert here.dial(None, veth.ipv4) == {"server": 1}
    assert here.dial("t/other", veth.ipv4) == {"server": 1}
    assert here.dial(None, veth.ipv6) in ENDED
    # The listener is not seen from the client's namespace, so it is the answer that is judged.
    assert here.dial("t/client", veth.ipv6) in ENDED
    (remote, _) = here.flows("--verdict", "deny")
    assert remote["source"]["address"] == "fd77:1::1"
    assert (remote["reason"], remote["policy"]) == ("policy", None)


def test_who_is_forgotten_is_no_stranger(mesh_factory: MeshFactory, veth: network.Pair, tmp_path: Path) -> None:
    """As when the table of handshakes has room for others only: a build that puts none into it, when the SYN comes."""
    forgetful = compile_variant(tmp_path / "forgetful.bpf.o", edits=[(*FORGETS, "if (0)")])
    rules = policy("not-you", callers(serviceAccounts=["other"]), action="DENY", app="server")
    mesh = mesh_factory([account("t/server"), *CLIENTS, rules], environment={"ZEROHOP_OBJECT": str(forgetful)})
    here = Scene(mesh, veth.client.name, veth.server.name)
    here.serve("0.0.0.0")
    assert here.dial("t/client", veth.ipv4) == {"server": 1}
    assert here.dial("t/other", veth.ipv4) in ENDED
    (refused,) = here.flows("--verdict", "deny")
    assert (refused["policy"], refused["source"]["principal"]) == ("t/not-you", principal("t/other"))


def test_ports_and_destinations(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    rules = [
        {"to": [{"operation": {"ports": [str(PORT)]}}], "when": [{"key": "destination.ip", "values": ["127.0.0.1"]}]}
    ]
    here = scene(mesh_factory, netns, policy("there", *rules, app="server"))
    here.serve("0.0.0.0")
    assert here.dial("t/client") == {"server": 1}
    assert here.dial("t/client", "127.0.0.2") == REFUSED
    other = here.start(
        "t/server",
        netns.name,
        [sys.executable, str(FOLDER / "dialling.py"), "serve", "too", "127.0.0.1", str(PORT + 1)],
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    assert here.dial("t/client", "127.0.0.1", PORT + 1) == REFUSED


@pytest.mark.parametrize("reading", ["blocking", "nonblocking"])
@pytest.mark.parametrize("sending", ["blocking", "nonblocking"])
@pytest.mark.parametrize("agent", [True, False], ids=["agent", "no agent"])
def test_no_byte_passes(
    mesh_factory: MeshFactory, netns: network.Namespace, reading: str, sending: str, agent: bool
) -> None:
    """Also while no agent is there to reset what the kernel has judged: then the connection is silent."""
    here = scene(mesh_factory, netns, policy("nobody", app="server"))
    sink = here.start("t/server", netns.name, [sys.executable, "-c", SINK, "127.0.0.1", str(PORT), reading])
    assert sink.stdout is not None
    assert sink.stdout.readline() == "ready\n"
    if not agent:
        here.mesh.kill_agent()
    sender = here.start(None, netns.name, [sys.executable, "-c", SENDER, "127.0.0.1", str(PORT), sending])
    if agent:
        assert sender.communicate(timeout=30)[0] in ("ConnectionResetError\n", "BrokenPipeError\n")
        # A blocking reader that is woken so sees EAGAIN, as every member does (docs/limits.md).
        assert sink.stdout.readline() in ("0 ConnectionAbortedError\n", "0 BlockingIOError\n")
        return
    time.sleep(1)
    assert sender.poll() is None
    here.mesh.start()
    # The agent that comes back finds what is left to do.
    assert sender.communicate(timeout=30)[0] in ("ConnectionResetError\n", "BrokenPipeError\n")
    assert sink.stdout.readline().startswith("0 ")


def test_other_policies_end_what_they_forbid(mesh_factory: MeshFactory, netns: network.Namespace) -> None:
    here = scene(mesh_factory, netns)
    sink = here.start("t/server", netns.name, [sys.executable, "-c", SINK, "127.0.0.1", str(PORT), "nonblocking"])
    assert sink.stdout is not None
    assert sink.stdout.readline() == "ready\n"
    senders = {
        key: here.start(key, netns.name, [sys.executable, "-c", SENDER, "127.0.0.1", str(PORT), "nonblocking"])
        for key in ("t/client", "t/other")
    }
    time.sleep(0.5)
    assert [each.poll() for each in senders.values()] == [None, None]
    generation = here.mesh.generation()
    only = policy("who", callers(principals=[principal("t/client")]), app="server")
    here.mesh.write_config([account("t/server"), *CLIENTS, only])
    here.mesh.wait_for_generation(generation + 1)
    assert senders["t/other"].communicate(timeout=10)[0] in (
        "ConnectionResetError\n",
        "BrokenPipeError\n",
        "ConnectionAbortedError\n",
        "PermissionError\n",
    )
    assert here.dial("t/other") == REFUSED
    assert senders["t/client"].poll() is None
    here.mesh.write_config([account("t/server"), *CLIENTS])
    here.mesh.wait_for_generation(generation + 2)
    assert senders["t/client"].communicate(timeout=20)[0] == "open\n"
