"""The torture can fail: each of the four conditions of a redirect, removed on purpose, must show.

Every scenario also runs against the intact build, so that what shows is the missing condition and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import network
from support.builds import compile_variant
from support.mesh import MeshFactory
from support.torture import Outcome, Side, run_torture

pytestmark = pytest.mark.usefixtures("kernel", "torture_peer")

SEEDS = range(1, 7)
RECEIVE_BUFFER = 8192

LOAD = {
    "streams": 48,
    "threads": 3,
    "max_bytes": 300_000,
    "write_pause_percent": 40,
    "write_pause_us": 800,
    "read_pause_percent": 10,
    "read_pause_us": 1500,
    "stall_seconds": 5,
}
SLOW = {"slow_percent": 50, "slow_pause_us": 15_000}


def wrong_bytes(outcome: Outcome) -> list[str]:
    """Bytes that came out of order. A stream that ended early or stood still does not count."""
    return [
        note
        for report in (outcome.server, outcome.client)
        for note in report["mismatches"]["first"]
        if "wrong length" not in note
    ]


def too_much_queued(outcome: Outcome) -> list[str]:
    """More unread bytes at one socket than four times its buffer; the kernel doubles what SO_RCVBUF asks for."""
    limit = 4 * 2 * RECEIVE_BUFFER
    return [f"{outcome.max_unread} bytes unread at one socket"] if outcome.max_unread > limit else []


@dataclass(frozen=True)
class Scenario:
    """What makes the absence of one condition show."""

    define: str
    server: dict[str, int]
    client: dict[str, int]
    shows: Callable[[Outcome], list[str]] = wrong_bytes
    receiver: str = ""


SCENARIOS = {
    # Nagle's algorithm and full windows hold bytes back in the sender; what comes next must not pass them.
    "acked": Scenario("ZH_BREAK_ACKED", LOAD | SLOW, LOAD | SLOW),
    # The request comes with the handshake's last segment and nobody tells the verdict program of it.
    "queued": Scenario(
        "ZH_BREAK_QUEUED",
        LOAD | {"defer_accept": 2, "first_read_us": 5000, "accept_us": 500},
        LOAD | {"write_pause_percent": 60, "write_pause_us": 2000},
    ),
    # See tests/support/bpf/parking_receiver.bpf.c. The end of a stream would overtake what is parked: it waits.
    "parked": Scenario(
        "ZH_BREAK_PARKED",
        LOAD | {"end_us": 300_000},
        LOAD | {"end_us": 300_000},
        receiver="parking_receiver.bpf.c",
    ),
    # Readers that sleep, with small buffers.
    "room": Scenario(
        "ZH_BREAK_ROOM",
        LOAD | SLOW | {"receive_buffer": RECEIVE_BUFFER},
        LOAD | SLOW | {"receive_buffer": RECEIVE_BUFFER},
        shows=too_much_queued,
    ),
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Compiles each variant once."""
    folder = tmp_path_factory.mktemp("objects")
    made: dict[tuple[str, str], Path] = {}

    def variant(define: str, receiver: str) -> Path:
        if (define, receiver) not in made:
            output = folder / f"variant{len(made)}.bpf.o"
            made[define, receiver] = compile_variant(output, define=define, receiver=receiver)
        return made[define, receiver]

    return variant


def findings(make: MeshFactory, space: network.Namespace, object_: Path, scenario: Scenario, seeds: range) -> list[str]:
    """What the scenario shows with the first seed that shows anything."""
    mesh = make(environment={"ZEROHOP_OBJECT": str(object_), "ZEROHOP_SKIP_DOCTOR": "1"})
    for seed in seeds:
        outcome = run_torture(
            mesh,
            Side(space.name, "127.0.0.1", scenario.server | {"seed": seed}),
            Side(space.name, "127.0.0.1", scenario.client | {"seed": seed}),
        )
        found = scenario.shows(outcome)
        if found:
            return found
    assert mesh.totals()["shortcut_bytes"] > 0
    return []


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_removed_condition_shows(
    mesh_factory: MeshFactory, netns: network.Namespace, objects: Callable[[str, str], Path], name: str
) -> None:
    scenario = SCENARIOS[name]
    broken = objects(scenario.define, scenario.receiver)
    assert findings(mesh_factory, netns, broken, scenario, SEEDS), (
        f"{scenario.define} went unnoticed in {len(SEEDS)} runs"
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_scenario_with_all_conditions(
    mesh_factory: MeshFactory, netns: network.Namespace, objects: Callable[[str, str], Path], name: str
) -> None:
    scenario = SCENARIOS[name]
    intact = objects("", scenario.receiver)
    assert findings(mesh_factory, netns, intact, scenario, SEEDS[:2]) == []
