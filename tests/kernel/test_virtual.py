"""Virtual addresses of Services: where connections to them go, and what programs see of that."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support import network
from support.mesh import Mesh, MeshFactory, workload
from zerohop.kernel import cgroup
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.tables import text

pytestmark = pytest.mark.usefixtures("kernel")

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "dialling.py"
VIRTUAL = {4: "240.0.0.10", 6: "fd00:aaaa::10"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PORT, TARGET = 80, 18471
COUNT = 200

Documents = list[dict[str, Any]]


def member(name: str, *addresses: str, **spec: Any) -> dict[str, Any]:
    """A workload that the Service selects."""
    document = workload(f"t/{name}", **spec)
    document["metadata"]["labels"] = {"app": "server"}
    if addresses:
        document["spec"]["addresses"] = list(addresses)
    return document


def service(*addresses: str, protocol: str = "grpc", selector: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server", "namespace": "t"},
        "spec": {
            "clusterIPs": list(addresses or VIRTUAL.values()),
            "selector": {"app": "server"} if selector is None else dict(selector),
            "ports": [{"name": protocol, "port": PORT, "targetPort": TARGET}],
        },
    }


def endpoints(name: str, address: str, *, ready: bool = True) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "t", "labels": {"kubernetes.io/service-name": "server"}},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": TARGET}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
    }


class Scene:
    """A mesh with servers in one network namespace and clients in another, or the same."""

    def __init__(self, mesh: Mesh, client: str, server: str) -> None:
        self.mesh = mesh
        self.client = client
        self.server = server

    def serve(self, name: str, address: str, key: str | None = None, *, port: int = TARGET) -> subprocess.Popen[str]:
        argv = [sys.executable, str(PROGRAM), "serve", name, address, str(port)]
        program: subprocess.Popen[str] = self.mesh.exec_popen(
            key or f"t/{name}", argv, self.server, stdout=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        return program

    def start(self, *words: object, key: str = "t/client") -> subprocess.Popen[str]:
        argv = [sys.executable, str(PROGRAM), *map(str, words)]
        program: subprocess.Popen[str] = self.mesh.exec_popen(key, argv, self.client, stdout=subprocess.PIPE, text=True)
        return program

    def dial(self, address: str, count: int = COUNT, port: int = PORT) -> dict[str, Any]:
        return finish(self.start("dial", address, port, count))


def finish(program: subprocess.Popen[str]) -> Any:
    output, _ = program.communicate(timeout=60)
    assert program.returncode == 0
    return json.loads(output)


@pytest.fixture
def local(netns: network.Namespace, mesh_factory: MeshFactory) -> Iterator[Any]:
    """Makes scenes within one network namespace that has a route to everywhere, as hosts do."""
    netns.ip("route", "add", "default", "dev", "lo")
    netns.ip("-6", "route", "add", "default", "dev", "lo")

    def make(*documents: dict[str, Any]) -> Scene:
        return Scene(mesh_factory([workload("t/client"), *documents]), netns.name, netns.name)

    return make


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_reaches_the_endpoint_and_shows_the_address(local: Any, family: int) -> None:
    scene = local(member("server"), service())
    scene.serve("server", LOOPBACK[family])
    found = scene.dial(VIRTUAL[family])
    assert found == {"answers": {"server": COUNT}, "errors": {}, "peers": [[VIRTUAL[family], PORT]]}
    # Known as the Service's: the port is gRPC, so both ends are members.
    totals = scene.mesh.totals()
    assert totals["shortcut_connections_opened"] == COUNT
    assert totals["errors"] == {}


def test_an_ipv4_address_from_an_ipv6_socket(local: Any) -> None:
    scene = local(member("server"), service())
    scene.serve("server", LOOPBACK[4])
    found = scene.dial(f"::ffff:{VIRTUAL[4]}")
    assert found == {"answers": {"server": COUNT}, "errors": {}, "peers": [[f"::ffff:{VIRTUAL[4]}", PORT]]}


def test_across_a_veth(veth: network.Pair, mesh_factory: MeshFactory) -> None:
    documents = [workload("t/client"), member("server", veth.ipv4, veth.ipv6), service()]
    scene = Scene(mesh_factory(documents), veth.client.name, veth.server.name)
    veth.client.ip("route", "add", "default", "via", veth.ipv4)
    scene.serve("server", veth.ipv4)
    found = scene.dial(VIRTUAL[4])
    assert found == {"answers": {"server": COUNT}, "errors": {}, "peers": [[VIRTUAL[4], PORT]]}
    assert scene.mesh.totals()["shortcut_connections_opened"] == COUNT


def test_what_is_left_alone(local: Any) -> None:
    """Other ports, other addresses, datagrams, and callers that belong to no workload."""
    scene = local(member("server"), service(VIRTUAL[4]))
    scene.serve("server", "0.0.0.0")
    for address, port in (("127.0.0.1", TARGET), ("127.0.0.7", TARGET)):
        assert scene.dial(address, 1, port)["peers"] == [[address, port]]
    refused = {"answers": {}, "errors": {"ECONNREFUSED": 1}, "peers": []}
    assert scene.dial("127.0.0.1", 1, PORT) == refused
    # The route that this namespace has makes every address its own, but nobody listens there.
    network.sh("ip", "-n", scene.client, "route", "add", "local", "240.0.0.0/8", "dev", "lo")
    assert scene.dial(VIRTUAL[4], 1, PORT + 1) == refused
    assert finish(scene.start("exchange", VIRTUAL[4], TARGET)) == ["server", VIRTUAL[4], TARGET]
    argv = [sys.executable, str(PROGRAM), "dial", VIRTUAL[4], str(PORT), "1"]
    outside = subprocess.run(["ip", "netns", "exec", scene.client, *argv], capture_output=True, text=True, timeout=30)
    assert json.loads(outside.stdout) == refused
    # Under the hooks, but in no workload's cgroup.
    group = cgroup.absolute(cgroup.instance_path(scene.mesh.instance)) / "cgroup.procs"
    argv = ["sh", "-c", f'echo $$ > {group}; exec "$@"', "sh", "ip", "netns", "exec", scene.client, *argv]
    above = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert json.loads(above.stdout) == refused, above.stderr
    assert scene.dial(VIRTUAL[4], 1)["answers"] == {"server": 1}
    # Datagrams to the very address and port; connections to it still go to the endpoint.
    scene.serve("itself", "0.0.0.0", "t/server", port=PORT)
    assert finish(scene.start("exchange", VIRTUAL[4], PORT)) == ["itself", VIRTUAL[4], PORT]
    assert scene.dial(VIRTUAL[4], 1)["answers"] == {"server": 1}


def test_a_socket_that_connects_elsewhere_shows_that(local: Any, tmp_path: Path) -> None:
    scene = local(member("server"), service())
    scene.serve("server", LOOPBACK[4])
    program = tmp_path / "twice.py"
    program.write_text(
        "import socket, json\n"
        "s = socket.socket(); peers = []\n"
        f"for address in (('{VIRTUAL[4]}', {PORT}), ('127.0.0.1', {TARGET}), ('{VIRTUAL[4]}', {PORT})):\n"
        "    s.connect(address); peers.append(s.getpeername())\n"
        # AF_UNSPEC: the socket may connect again.
        "    import ctypes; assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0\n"
        "print(json.dumps(peers))\n"
    )
    client = scene.mesh.exec_popen(
        "t/client", [sys.executable, str(program)], scene.client, stdout=subprocess.PIPE, text=True
    )
    assert finish(client) == [[VIRTUAL[4], PORT], ["127.0.0.1", TARGET], [VIRTUAL[4], PORT]]


WAYS = {
    "MPTCP": "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.settimeout(3); s.connect(address)",
    "fast open": "s = socket.socket(); s.sendto(b'early', 0x20000000, address)",
    "bound": "s = socket.socket(); s.bind(('127.0.0.9', 0)); s.connect(address)",
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_connect(local: Any, way: str) -> None:
    if way == "MPTCP" and not Path("/proc/sys/net/mptcp").exists():
        pytest.skip("this kernel has no MPTCP")
    scene = local(member("server"), service(VIRTUAL[4]))
    scene.serve("server", LOOPBACK[4])
    lines = f"import socket, json\naddress = ('{VIRTUAL[4]}', {PORT})\n{WAYS[way]}\n"
    lines += "print(json.dumps([s.recv(100).decode(), s.getpeername()]))"
    client = scene.mesh.exec_popen(
        "t/client", [sys.executable, "-c", lines], scene.client, stdout=subprocess.PIPE, text=True
    )
    # The kernel connects MPTCP by a socket of its own, and asks another one for its peer.
    peer = [LOOPBACK[4], TARGET] if way == "MPTCP" else [VIRTUAL[4], PORT]
    assert finish(client) == ["server", peer]


def test_weights(local: Any) -> None:
    names = {"one": 1, "two": 2, "seven": 7}
    members = []
    for number, (name, weight) in enumerate(names.items(), 1):
        members.append(member(name, f"127.0.0.{number}"))
        members[-1]["spec"]["weight"] = weight
    scene = local(*members, service(VIRTUAL[4]))
    for number, name in enumerate(names, 1):
        scene.serve(name, f"127.0.0.{number}")
    count = 4_000
    answers = scene.dial(VIRTUAL[4], count)["answers"]
    for name, weight in names.items():
        share = weight / 10
        # Five standard deviations of the binomial distribution.
        assert abs(answers[name] - count * share) < 5 * (count * share * (1 - share)) ** 0.5, answers


def test_an_endpoint_that_does_not_answer_is_left_out(local: Any) -> None:
    names = ("one", "two", "three", "four")
    places = {name: f"127.0.0.{number}" for number, name in enumerate(names, 1)}
    scene = local(*(member(name, place) for name, place in places.items()), service(VIRTUAL[4]))
    for name in ("one", "three", "four"):
        scene.serve(name, places[name])
    found = scene.dial(VIRTUAL[4], 600)
    # The first one that meets it has tried it; it may be tried again when it has been left out for long enough.
    assert found["errors"] == {"ECONNREFUSED": 1}
    # The others share what was its part, by weight.
    assert set(found["answers"]) == {"one", "three", "four"}
    assert all(abs(each - 200) < 5 * (600 * 1 / 3 * 2 / 3) ** 0.5 for each in found["answers"].values()), found
    scene.serve("two", places["two"])
    deadline = time.monotonic() + 20
    while not scene.dial(VIRTUAL[4], 20)["answers"].get("two"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_none_answers_and_one_comes_back(local: Any) -> None:
    scene = local(member("one", "127.0.0.1"), member("two", "127.0.0.2"), service(VIRTUAL[4]))
    found = scene.dial(VIRTUAL[4], 40)
    assert found == {"answers": {}, "errors": {"ECONNREFUSED": 40}, "peers": []}
    # Both are still tried, so that nobody has to wait for one that is back.
    scene.serve("one", "127.0.0.1")
    found = scene.dial(VIRTUAL[4], 40)
    assert found["answers"]["one"] > 0
    assert scene.dial(VIRTUAL[4], 40)["errors"] == {}


def test_endpoints_that_are_not_ready_and_plain_ones(local: Any) -> None:
    scene = local(
        member("one", "127.0.0.1"),
        workload("t/plain"),
        service(VIRTUAL[4]),
        endpoints("ready", "127.0.0.2"),
        endpoints("not", "127.0.0.3", ready=False),
    )
    scene.serve("one", "127.0.0.1")
    scene.serve("two", "127.0.0.2", "t/plain")
    answers = scene.dial(VIRTUAL[4])["answers"]
    assert set(answers) == {"one", "two"}
    assert sum(answers.values()) == COUNT


def test_the_configuration_changes_under_load(local: Any) -> None:
    """Every connection reaches an endpoint of the Service, of the list before or of the one after."""
    one, two = member("one", "127.0.0.1"), member("two", "127.0.0.2")
    other = {**service("240.0.0.11"), "metadata": {"name": "other", "namespace": "t"}}
    other["spec"] = {**other["spec"], "selector": {"app": "other"}}
    stranger = member("stranger", "127.0.0.3")
    stranger["metadata"]["labels"] = {"app": "other"}
    always: Sequence[dict[str, Any]] = [workload("t/client"), service(VIRTUAL[4]), other, stranger]
    scene = local(one, two, *always[1:])
    for number, name in enumerate(("one", "two", "stranger"), 1):
        scene.serve(name, f"127.0.0.{number}")
    dialling = [scene.start("dial", address, PORT, 0, 60_000) for address in (VIRTUAL[4], "240.0.0.11")]
    generation = scene.mesh.generation()
    changes, deadline = 0, time.monotonic() + 6
    while changes < 5 or time.monotonic() < deadline:
        changes += 1
        scene.mesh.write_config([*always, *((one,), (two,), (two, one), (one, two))[changes % 4]])
        scene.mesh.wait_for_generation(generation + changes)
    for program in dialling:
        assert program.poll() is None
        program.terminate()
    found, strangers = map(finish, dialling)
    print(f"\n{changes} configurations, connections: {found['answers']} {strangers['answers']}")
    assert found["errors"] == strangers["errors"] == {}
    assert set(found["answers"]) == {"one", "two"}
    assert set(strangers["answers"]) == {"stranger"}


def test_it_works_without_the_agent(local: Any) -> None:
    scene = local(member("server"), service())
    scene.serve("server", LOOPBACK[4])
    scene.mesh.kill_agent()
    assert scene.dial(VIRTUAL[4], 20)["answers"] == {"server": 20}


def test_another_build_takes_over(local: Any, variant: Callable[[str], Path]) -> None:
    """No connection is made by a table that is not filled yet."""
    other_build = variant("ZH_BREAK_PARKED")
    scene = local(member("server"), service(VIRTUAL[4]))
    scene.serve("server", LOOPBACK[4])
    dialling = scene.start("dial", VIRTUAL[4], PORT, 0, 60_000)
    assert scene.mesh.stop_agent() == 0
    scene.mesh.environment["ZEROHOP_OBJECT"] = str(other_build)
    scene.mesh.start()
    assert "data path replaced" in scene.mesh.log.read_text()
    assert dialling.poll() is None
    dialling.terminate()
    found = finish(dialling)
    assert set(found["answers"]) == {"server"}
    assert (found["errors"], found["peers"]) == ({}, [[VIRTUAL[4], PORT]])


def test_a_connection_counts_for_the_service_that_was_dialled(local: Any) -> None:
    """Two Services have the same endpoints under other ports."""
    twin = service("240.0.0.11", protocol="tcp")
    twin["metadata"]["name"] = "twin"
    twin["spec"]["ports"][0]["port"] = PORT + 1
    scene = local(member("server"), service(VIRTUAL[4], protocol="tcp"), twin)
    scene.serve("server", LOOPBACK[4])
    scene.dial(VIRTUAL[4], 3)
    scene.dial("240.0.0.11", 5, PORT + 1)
    with DataPath.open(scene.mesh.instance) as path:
        names = {key.value: text(value.name) for key, value in path.maps["services"].items()}
        counted = {names[key.service]: row.opened for key, row in path.maps["tcp_series"].items()}
    assert counted == {"server": 3, "twin": 5}


@pytest.mark.parametrize("excluded", [PORT, TARGET])
def test_a_client_may_exclude_the_port_that_it_asks_for(local: Any, excluded: int) -> None:
    scene = local(member("server"), service(VIRTUAL[4]))
    client = workload("t/client")
    client["spec"]["excludePorts"] = [excluded]
    generation = scene.mesh.generation()
    scene.mesh.write_config([client, member("server"), service(VIRTUAL[4])])
    scene.mesh.wait_for_generation(generation + 1)
    scene.serve("server", LOOPBACK[4])
    assert scene.dial(VIRTUAL[4], 4)["answers"] == {"server": 4}
    totals = scene.mesh.totals()
    assert totals["not_shortcut"] == {"excluded_port": 4}
