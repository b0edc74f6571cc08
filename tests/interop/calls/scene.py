"""A scene: a server and its clients, each in the mesh or not, on one host or two, and the account of their calls."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from interop.calls import ledger
from interop.calls.ledger import Count, Leg
from interop.stage import RUN_SECONDS, Stage
from support import network
from support.mesh import Mesh, workload
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.status import read_status
from zerohop.kernel.telemetry import Calls, Reading, Streams

CLIENT: Final = "calls/client"
SERVER: Final = "calls/server"
PROXY: Final = "calls/proxy"
OUTSIDE: Final = "calls/outside"

# Of servers in the mesh, of proxies in the mesh, of programs outside that a Service names by their addresses.
SERVER_PORT: Final = 18200
PROXY_PORT: Final = 18201
OUTSIDE_PORT: Final = 18202

# Where servers are: with their clients, or at the other end of a veth.
ADDRESSES: Final = {"loopback": "127.0.0.1", "veth": "10.77.1.2"}


def _service(key: str, port: int, **spec: Any) -> dict[str, Any]:
    namespace, _, name = key.partition("/")
    ports = [{"name": "calls", "port": port, "appProtocol": "grpc"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": ports, **spec},
    }


CONFIGURATION: Final[list[Mapping[str, Any]]] = [
    workload(CLIENT),
    workload(SERVER),
    workload(PROXY),
    _service(SERVER, SERVER_PORT, selector={"app": "server"}),
    _service(PROXY, PROXY_PORT, selector={"app": "proxy"}),
    _service(OUTSIDE, OUTSIDE_PORT),
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "outside-1", "namespace": "calls", "labels": {"kubernetes.io/service-name": "outside"}},
        "addressType": "IPv4",
        "ports": [{"name": "calls", "port": OUTSIDE_PORT}],
        "endpoints": [{"addresses": [address]} for address in ADDRESSES.values()],
    },
]


@dataclass(frozen=True)
class Placement:
    """Which hooks read a connection, by what is in the mesh.

    `hooks`: `both`, client and server are and each one's sender hook reads what it sends; `server`, only the server is
    and its receiver hook reads requests; `client`, only the client is and its receiver hook reads responses.
    `topology`: `loopback` or `veth`.
    `proxy`: where one in the path of the calls runs: beside the `client` or the `server`; `outside`, beside the server
    but not in the mesh.
    """

    hooks: str
    topology: str
    proxy: str = ""

    @property
    def leg(self) -> Leg:
        """What the kernel says of a call from the client to the server."""
        return {
            "both": Leg(CLIENT, SERVER, SERVER),
            "server": Leg("", SERVER, SERVER),
            "client": Leg(CLIENT, "", OUTSIDE),
        }[self.hooks]

    @property
    def legs(self) -> tuple[Leg, Leg]:
        """The same from the client to the proxy, and from the proxy to the server, both of which are in the mesh."""
        if self.proxy == "outside":
            return Leg(CLIENT, "", OUTSIDE), Leg("", SERVER, SERVER)
        return Leg(CLIENT, PROXY, PROXY), Leg(PROXY, SERVER, SERVER)

    def __str__(self) -> str:
        return "-".join(filter(None, (self.hooks, self.topology, self.proxy)))


PLACEMENTS: Final = [
    Placement(hooks, topology) for hooks in ("both", "server", "client") for topology in ADDRESSES
]  # fmt: skip


class Scene:
    """Programs of one test and what the kernel counts from the scene's beginning. `folder`: theirs, to write to."""

    def __init__(
        self, placement: Placement, mesh: Mesh, client: Stage, server: Stage, proxy: Stage | None, folder: Path
    ) -> None:
        self.placement = placement
        self.mesh = mesh
        self.folder = folder
        self.address = ADDRESSES[placement.topology]
        self.port = OUTSIDE_PORT if placement.hooks == "client" else SERVER_PORT
        # Where clients find the proxy.
        self.proxy_address = ADDRESSES["loopback"] if placement.proxy == "client" else self.address
        self.proxy_port = OUTSIDE_PORT if placement.proxy == "outside" else PROXY_PORT
        self._client = client
        self._server = server
        self._proxy = proxy
        self._path = DataPath.open(mesh.instance)
        self._before = ledger.moment(self._path)
        self._errors = read_status(self._path).totals.errors
        self._recorder = ledger.FlowRecorder(self._path)
        self._after: ledger.Moment | None = None

    def widen_send_buffers(self, size: int) -> None:
        """So much of what clients send from now on, the kernel takes at once."""
        self._client.space.run("sysctl", "-qw", f"net.ipv4.tcp_wmem=4096 {size} {size}")

    # Programs

    def serve(self, argv: Sequence[str]) -> subprocess.Popen[Any]:
        """A server where servers are; it listens on the scene's port when this returns."""
        return self._server.serve(SERVER, argv, self.port)

    def serve_proxy(self, argv: Sequence[str]) -> subprocess.Popen[Any]:
        """A proxy where the placement has it; it listens on `proxy_port` when this returns."""
        assert self._proxy is not None
        return self._proxy.serve(PROXY, argv, self.proxy_port)

    def stop_proxy(self, proxy: subprocess.Popen[Any], number: signal.Signals = signal.SIGTERM) -> str:
        """Ends it in its own way: what it printed."""
        assert self._proxy is not None
        status = self._proxy.stop(proxy, number)
        printed = self._proxy.log_of(proxy).read_text(errors="replace")
        assert status == 0, f"exit status {status}: {printed}"
        return printed

    def run(self, argv: Sequence[str], *, seconds: float = RUN_SECONDS) -> str:
        """A client where clients are, to its end, which must be good: what it printed."""
        return self._client.run(CLIENT, argv, seconds=seconds)

    def call(self, argv: Sequence[str], *, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """A client that prints an object of JSON as its last line."""
        return _last_object(self.run(argv, seconds=seconds))

    def start_client(self, argv: Sequence[str]) -> subprocess.Popen[Any]:
        """A client in the background."""
        return self._client.start(CLIENT, argv)

    def finish_client(self, program: subprocess.Popen[Any], *, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """Waits for a client in the background, which must end well: the object that it printed last."""
        assert program.wait(seconds) == 0, self._client.log_of(program).read_text()
        return _last_object(self._client.log_of(program).read_text())

    def stop(self, server: subprocess.Popen[Any], number: signal.Signals = signal.SIGTERM) -> dict[str, Any]:
        """Ends a server in its own way: the object that it printed last, if any."""
        status = self._server.stop(server, number)
        printed = self._server.log_of(server).read_text(errors="replace")
        assert status == 0, f"exit status {status}: {printed}"
        return _last_object(printed)

    # The account

    def rows(self, calls: int = 0) -> list[Calls]:
        """What the kernel has counted since the beginning, once so many calls have ended and none is in flight."""
        self._after, rows = ledger.settle(self._path, self._before, calls)
        return rows

    def check(self, expected: Iterable[Count] | Mapping[Leg, Iterable[Count]]) -> list[Calls]:
        """The kernel has counted just what the programs have, read every connection to its end, and had no trouble.

        `expected`: of the client's calls to the server, or of several legs. Returns the kernel's rows of ended calls.
        """
        legs = expected if isinstance(expected, Mapping) else {self.placement.leg: list(expected)}
        lines = ledger.expected_lines(legs)
        rows = self.rows(sum(line["calls"] or 0 for line in lines.values()))
        said = ledger.differences(lines, ledger.found_lines(rows))
        assert not said, "\n".join(["programs and kernel differ", *said, str(self.reading())])
        assert ledger.in_flight(rows) == 0, rows
        ledger.check_histograms(rows)
        ledger.check_flows(self._path, rows, self._recorder)
        reading = self.reading()
        assert reading.unread == {}, reading
        assert set(reading.recognised) <= {"http2"}, reading
        assert reading.overflows == 0, reading
        self.check_errors()
        return [row for row in rows if row.ending != "open"]

    def check_errors(self) -> None:
        """No helper has failed."""
        assert read_status(self._path).totals.errors == self._errors

    def reading(self) -> Reading:
        """What became of the connections since the beginning, by the last look (`rows`, `check`)."""
        assert self._after is not None
        before, after = self._before.reading, self._after.reading
        return Reading(
            recognised=_grown(before.recognised, after.recognised),
            unread=_grown(before.unread, after.unread),
            resets=after.resets - before.resets,
            goaways=after.goaways - before.goaways,
            overflows=after.overflows - before.overflows,
        )

    def streams(self, closed: int) -> Streams:
        """Of so many connections from client to server that are not read, once they have closed."""
        deadline = time.monotonic() + ledger.SETTLE_SECONDS
        while True:
            grown = ledger.streams_since(self._before, ledger.moment(self._path)).get(self.placement.leg)
            if grown is not None and grown.closed >= closed:
                return grown
            assert time.monotonic() < deadline, grown
            time.sleep(0.02)

    def close(self) -> None:
        self._recorder.finish()
        self._path.close()


def _last_object(printed: str) -> dict[str, Any]:
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return found


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


@contextlib.contextmanager
def scene(placement: Placement, mesh: Mesh, folder: Path) -> Iterator[Scene]:
    """A scene in namespaces of its own; its programs have ended when the block does."""
    with contextlib.ExitStack() as stack:
        if placement.topology == "veth":
            pair = stack.enter_context(network.veth_pair())
            client_space, server_space = pair.client, pair.server
        else:
            client_space = server_space = stack.enter_context(network.namespace("l"))

        def stage(role: str, space: network.Namespace, managed: bool) -> Stage:
            (folder / role).mkdir()
            made = Stage(space, folder / role, mesh if managed else None)
            stack.callback(made.close)
            return made

        client = stage("client", client_space, placement.hooks != "server")
        server = stage("server", server_space, placement.hooks != "client")
        proxy = None
        if placement.proxy:
            space = client_space if placement.proxy == "client" else server_space
            proxy = stage("proxy", space, placement.proxy != "outside")
        play = Scene(placement, mesh, client, server, proxy, folder)
        stack.callback(play.close)
        yield play
