"""Every byte, once, in order: random streams over every topology, with the carrier forced to switch all the time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from support import machine, network
from support.mesh import Mesh, MeshFactory
from support.torture import Outcome, Side, run_torture

pytestmark = pytest.mark.usefixtures("kernel", "torture_peer")

STREAMS = 256 if machine.long_run() else 64
SERVER_PORT = 7000

# Readers that fall behind at times, so that room runs out and TCP carries; writers that pause, so that it empties.
RESTLESS = {
    "streams": STREAMS,
    "threads": 3,
    "max_bytes": 400_000,
    "write_pause_percent": 40,
    "write_pause_us": 800,
    "read_pause_percent": 10,
    "read_pause_us": 1500,
    "slow_percent": 25,
    "slow_pause_us": 15_000,
}
SMALL_BUFFERS = {"receive_buffer": 32_768}
LATE = {"defer_accept": 2, "first_read_us": 3000, "accept_us": 300}


def seeded(seed: int, *parts: dict[str, int]) -> dict[str, int]:
    options = {"seed": seed, **RESTLESS}
    for part in parts:
        options |= part
    return options


@dataclass(frozen=True)
class Route:
    """Where the server listens and where the client finds it."""

    server: network.Namespace
    client: network.Namespace
    listen: str
    connect: str
    port: int = 0
    connect_port: int | None = None


@contextlib.contextmanager
def loopback(listen: str, connect: str) -> Iterator[Route]:
    with network.namespace() as space:
        yield Route(space, space, listen, connect)


@contextlib.contextmanager
def veth(listen: str, family: str) -> Iterator[Route]:
    with network.veth_pair() as pair:
        yield Route(pair.server, pair.client, listen, getattr(pair, family))


@contextlib.contextmanager
def translated(listen: str, family: str, *, through_node: bool) -> Iterator[Route]:
    with network.dnat_pair(SERVER_PORT, through_node=through_node) as pair:
        yield Route(pair.server, pair.client, listen, getattr(pair, family), SERVER_PORT, network.VIRTUAL_PORT)


ROUTES = {
    "loopback-ipv4": lambda: loopback("127.0.0.1", "127.0.0.1"),
    "loopback-ipv6": lambda: loopback("::1", "::1"),
    "loopback-mapped": lambda: loopback("::", "127.0.0.1"),
    "veth-ipv4": lambda: veth("0.0.0.0", "ipv4"),
    "veth-ipv6": lambda: veth("::", "ipv6"),
    "veth-mapped": lambda: veth("::", "ipv4"),
    "dnat-ipv4": lambda: translated("0.0.0.0", "ipv4", through_node=True),
    "dnat-ipv6": lambda: translated("::", "ipv6", through_node=True),
    "dnat-mapped-at-client": lambda: translated("::", "ipv4", through_node=False),
}


switches: list[int] = []  # of every test of this file that has run


@pytest.fixture
def switching_mesh(mesh_factory: MeshFactory) -> Iterator[Mesh]:
    """A mesh of which the test must have used both carriers, and switched between them."""
    mesh = mesh_factory()
    yield mesh
    totals = mesh.totals()
    assert totals["shortcut_bytes"] > 0, totals
    assert totals["tcp_bytes"] > 0, totals
    assert totals["carrier_switches"] > STREAMS, totals
    switches.append(totals["carrier_switches"])
    assert totals["errors"] == {}, totals


def assert_exact(outcome: Outcome) -> None:
    assert outcome.problems() == []
    assert outcome.client["streams"] == outcome.server["streams"]


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "late"])
@pytest.mark.parametrize("route", ROUTES)
def test_streams(switching_mesh: Mesh, route: str, late: bool) -> None:
    if route.startswith("dnat") and shutil.which("nft") is None:
        pytest.skip("needs nft: install nftables")
    seed = sum(route.encode()) + late
    with ROUTES[route]() as way:
        outcome = run_torture(
            switching_mesh,
            Side(way.server.name, way.listen, seeded(seed, LATE if late else {})),
            Side(way.client.name, way.connect, seeded(seed, SMALL_BUFFERS if late else {})),
            port=way.port,
            connect_port=way.connect_port,
        )
    assert_exact(outcome)


def test_two_networks_with_the_same_addresses(
    switching_mesh: Mesh, twin_netns: tuple[network.Namespace, network.Namespace]
) -> None:
    """The same 4-tuples at the same time; a stream names its network by the seed, so a mixed one is told."""

    def run(number: int, space: network.Namespace) -> Outcome:
        options = seeded(1000 + number, {"source_port": 20_000})
        return run_torture(
            switching_mesh,
            Side(space.name, "127.0.0.1", {**options, "source_port": 0}),
            Side(space.name, "127.0.0.1", options),
            port=SERVER_PORT,
        )

    with ThreadPoolExecutor(2) as pool:
        for outcome in pool.map(run, (0, 1), twin_netns):
            assert_exact(outcome)


def test_the_carrier_switched_thousands_of_times() -> None:
    if len(switches) <= len(ROUTES):
        pytest.skip("counts what the other tests of this file have done")
    assert sum(switches) > 3000
