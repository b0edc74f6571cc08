"""The agent comes and goes, is killed, replaced, cleaned away, reconfigured: no connection notices."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support import machine, network
from support.builds import compile_variant
from support.holding import idle
from support.mesh import Mesh, MeshFactory, workload
from support.torture import Outcome, Run, Side, run_torture, started
from zerohop.kernel import pins, tables
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.status import read_status

pytestmark = pytest.mark.usefixtures("kernel", "torture_peer")

PINS = Path("/sys/fs/bpf/zerohop")

# Small writes with pauses, both ways, until they are told to stop; at least so much each way of each stream.
STEADY = {
    "until_stopped": 1,
    "seed": 7,
    "min_bytes": 100_000,
    "max_bytes": 100_000,
    "streams": 24,
    "threads": 2,
    "max_write": 16_384,
    "write_pause_percent": 100,
    "write_pause_us": 1500,
    "slow_percent": 20,
    "stall_seconds": 10,
}
HEADER_BYTES = 16  # `struct header` in tests/support/peers/torture.h
SHORT = {"streams": 8, "threads": 1, "max_bytes": 50_000, "write_pause_percent": 50, "write_pause_us": 1000}


@contextlib.contextmanager
def steady(mesh: Mesh, space: network.Namespace) -> Iterator[Run]:
    """Long connections, all under way when the block begins.

    They outlast the block, whatever it takes, carry more after it, and then end without a wrong byte or an error.
    """
    side = Side(space.name, "127.0.0.1", STEADY)
    with started(mesh, side, side) as run:
        wait_until_open(mesh, STEADY["streams"])
        yield run
        time.sleep(0.3)
        assert run.client.poll() is None, "the load has ended before it was told to"
        run.stop()
        assert_well(run.finish())


def wait_until_open(mesh: Mesh, connections: int) -> None:
    deadline = time.monotonic() + 20
    while mesh.status()["open_connections"] < connections or not shortcut_bytes(mesh):
        assert time.monotonic() < deadline, mesh.status()
        time.sleep(0.05)


@contextlib.contextmanager
def churn(mesh: Mesh, space: network.Namespace) -> Iterator[None]:
    """Short runs, one after the other, until the block ends: new programs and new connections all the time."""
    outcomes: list[Outcome] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        side = Side(space.name, "127.0.0.1", SHORT)
        try:
            while not stop.is_set():
                outcomes.append(run_torture(mesh, side, side))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert outcomes
    for outcome in outcomes:
        assert_well(outcome)


def assert_well(outcome: Outcome) -> None:
    assert outcome.problems() == []


def shortcut_bytes(mesh: Mesh) -> int:
    count: int = mesh.totals()["shortcut_bytes"]
    return count


def test_killed_under_load_and_adopted(mesh: Mesh, netns: network.Namespace) -> None:
    with steady(mesh, netns), churn(mesh, netns):
        mesh.kill_agent()
        assert mesh.status()["agent"] is None
        before = mesh.totals()
        time.sleep(0.8)
        after = mesh.totals()
        assert after["shortcut_bytes"] > before["shortcut_bytes"], "the short-cut stopped with the agent"
        assert after["shortcut_connections_opened"] > before["shortcut_connections_opened"]
        mesh.start()
        assert "data path adopted" in mesh.log.read_text()
        adopted = mesh.totals()
        assert adopted["shortcut_bytes"] >= after["shortcut_bytes"]
        time.sleep(0.3)
        assert shortcut_bytes(mesh) > adopted["shortcut_bytes"]
    assert mesh.totals()["errors"] == {}


def test_a_signal_ends_the_agent_and_nothing_else(mesh: Mesh, netns: network.Namespace) -> None:
    with steady(mesh, netns):
        assert mesh.stop_agent() == 0
        before = shortcut_bytes(mesh)
        time.sleep(0.3)
        assert shortcut_bytes(mesh) > before


def test_cleaned_under_load(mesh: Mesh, netns: network.Namespace) -> None:
    with steady(mesh, netns):
        assert shortcut_bytes(mesh) > 0
        mesh.run("clean")
        mesh.agent.wait(10)
        mesh.agent = None
        assert not (PINS / mesh.instance).exists()
        assert "not set up" in mesh.run("status", check=False).stderr


# The last two may not hold a descriptor of each of 40 sockets at a time.
@pytest.mark.parametrize("descriptors", ["", "20:4096", "64:64", "40:40"])
def test_idle_connections_survive_cleaning(mesh: Mesh, netns: network.Namespace, descriptors: str) -> None:
    with idle(mesh, netns, 20):
        limited = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
        result = subprocess.run(
            [*limited, *mesh.command("clean")], capture_output=True, text=True, env=mesh.environment, timeout=60
        )
        assert result.returncode == 0, result.stderr
        # Those with data unread stay, and no other.
        assert "removed; 10 sockets" in result.stderr
        mesh.agent.wait(10)
        mesh.agent = None


def test_cleaning_says_when_it_may_open_too_little(mesh: Mesh, netns: network.Namespace) -> None:
    with idle(mesh, netns, 4):
        result = subprocess.run(
            ["prlimit", "--nofile=22:22", *mesh.command("clean")], capture_output=True, text=True, env=mesh.environment
        )
        assert result.returncode == 1
        assert "too few file descriptors (the limit is 22)" in result.stderr
        assert "ulimit -n" in result.stderr
        mesh.agent.wait(10)
        mesh.agent = None
        mesh.run("clean")


def test_cleaning_nothing_is_fine(mesh_factory: MeshFactory) -> None:
    mesh = mesh_factory(start=False)
    for _ in range(2):
        assert mesh.run("clean").returncode == 0


def test_replaced_by_another_build_under_load(
    mesh_factory: MeshFactory, netns: network.Namespace, tmp_path: Path
) -> None:
    older = compile_variant(tmp_path / "older.bpf.o", define="ZH_BREAK_PARKED")
    mesh = mesh_factory(start=False)
    current = dict(mesh.environment)
    mesh.environment["ZEROHOP_OBJECT"] = str(older)
    mesh.start()
    with steady(mesh, netns):
        assert mesh.stop_agent() == 0
        mesh.environment.clear()
        mesh.environment.update(current)
        mesh.start()
        assert "data path replaced" in mesh.log.read_text()
        assert sorted(path.name for path in PINS.glob(f"*{mesh.instance}*")) == [mesh.instance]
        with churn(mesh, netns):
            time.sleep(0.3)
        assert mesh.totals()["shortcut_connections_opened"] > 0


def test_totals_never_fall(mesh: Mesh, netns: network.Namespace) -> None:
    """Connections that close all the time, while the totals are read by two kinds of readers; exact at the end."""
    readings: list[dict[str, int]] = []
    side = Side(netns.name, "127.0.0.1", SHORT | {"streams": 100, "max_bytes": 30_000})
    outcomes = []
    with DataPath.open(mesh.instance) as path:
        before = asdict(read_status(path).totals)
        while len(readings) < 200:
            with started(mesh, side, side) as run:
                while run.client.poll() is None:
                    readings.append(asdict(read_status(path).totals))
                    if len(readings) % 50 == 0:
                        readings.append(mesh.totals())
                outcomes.append(run.finish())
    for outcome in outcomes:
        assert_well(outcome)
    for earlier, later in pairwise([before, *readings]):
        for name in ("shortcut_bytes", "tcp_bytes", "carrier_switches"):
            assert later[name] >= earlier[name], f"{name} fell from {earlier[name]} to {later[name]}"
    sent = sum(report["bytes_sent"] for each in outcomes for report in (each.client, each.server))
    headers = HEADER_BYTES * side.options["streams"] * len(outcomes)
    deadline = time.monotonic() + 10
    while mesh.status()["open_connections"] and time.monotonic() < deadline:
        time.sleep(0.05)
    after = mesh.totals()
    assert after["shortcut_bytes"] + after["tcp_bytes"] == sent + headers


# What another version may have: more settings, fields in other places, or tables that this one does not know.
SETTINGS_GROWN = (
    "shared/types.h",
    "there are none */\n};\n\n/* Closed",
    "there are none */\n\t__u64 later[3];\n};\n\n/* Closed",
)
FIELDS_MOVED = (
    ("shared/types.h", "\tstruct end_key key;\n", ""),
    ("shared/types.h", "\t__u64 cookie;\t", "\tstruct end_key key;\n\t__u64 cookie;\t"),
)
FIELD_RENAMED = (("shared/types.h", "struct end {\n", "#define cookie number\nstruct end {\n"),)


@pytest.mark.parametrize(
    ("edits", "older"),
    [(FIELDS_MOVED, "other"), (FIELDS_MOVED, "this"), (FIELD_RENAMED, "other")],
    ids=["fields moved", "fields moved, the way back", "field unknown"],
)
def test_idle_connections_survive_another_build(
    mesh_factory: MeshFactory,
    netns: network.Namespace,
    tmp_path: Path,
    edits: tuple[tuple[str, str, str], ...],
    older: str,
) -> None:
    """Idle connections leave another build's data path too, unless it does not tell which they are."""
    other = {"ZEROHOP_OBJECT": str(compile_variant(tmp_path / "other.bpf.o", edits=(SETTINGS_GROWN, *edits)))}
    mesh = mesh_factory(start=False)
    builds = {"this": dict(mesh.environment), "other": mesh.environment | other}

    def start(build: str) -> None:
        mesh.environment.clear()
        mesh.environment.update(builds.pop(build))
        mesh.start()

    start(older)
    with idle(mesh, netns, 12):
        assert mesh.stop_agent() == 0
        start(next(iter(builds)))
        said = mesh.log.read_text()
        assert "data path replaced" in said
        if edits is FIELDS_MOVED:
            assert "6 sockets keep the replaced programs" in said
        else:
            assert "does not understand (struct end has no cookie): idle connections are not looked for" in said
        side = Side(netns.name, "127.0.0.1", SHORT)
        assert_well(run_torture(mesh, side, side))
        assert mesh.totals()["shortcut_connections_opened"] == SHORT["streams"]


def test_another_builds_settings_keep_what_is_not_known(
    mesh_factory: MeshFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = mesh_factory(start=False)
    grown = compile_variant(tmp_path / "grown.bpf.o", edits=(SETTINGS_GROWN,))
    for made_by, read_by, later in ((str(grown), "", 3), ("", str(grown), 0)):
        monkeypatch.setenv("ZEROHOP_OBJECT", made_by)
        with DataPath.load(PINS / mesh.instance) as path:
            size = path.maps["settings"].value_size
            if later:
                content = path.settings()
                content.later[:] = [1, 2, later]
                path.write_settings(content)
            build = bytes(path.settings().build)
            monkeypatch.setenv("ZEROHOP_OBJECT", read_by)
            with DataPath.open_any(mesh.instance) as other:
                assert other.unknown == {}
                settings = other.settings()
                assert (settings.shortcut, bytes(settings.build)) == (1, build)
                settings.draining = 7
                other.write_settings(settings)
            assert path.maps["settings"].value_size == size
            assert (path.settings().draining, bytes(path.settings().build)) == (7, build)
            if later:
                assert list(path.settings().later) == [1, 2, later]
        pins.remove(PINS / mesh.instance)


def documents(shortcut: str, *more: str) -> list[dict[str, Any]]:
    return [workload(key, shortcut) for key in ("t/server", "t/client", *more)]


def test_configured_anew_under_load(mesh: Mesh, netns: network.Namespace) -> None:
    with steady(mesh, netns), churn(mesh, netns):
        for shortcut, more in (("Disabled", ()), ("Always", ("t/extra",)), ("Auto", ()), ("Always", ())):
            before = mesh.generation()
            mesh.write_config(documents(shortcut, *more))
            mesh.wait_for_generation(before + 1)
        names = {each["name"] for each in mesh.status()["workloads"]}
        assert names == {"server", "client"}


def test_a_removed_workload_keeps_its_number_while_connections_are_open(
    mesh_factory: MeshFactory, netns: network.Namespace
) -> None:
    """Its open connections go on by TCP under its name; no other workload takes its number meanwhile."""

    def reconfigure(*keys: str) -> None:
        before = mesh.generation()
        mesh.write_config([workload(key, "Always") for key in keys])
        mesh.wait_for_generation(before + 1)

    def numbers() -> dict[str, int]:
        with DataPath.open(mesh.instance) as path:
            return tables.workload_ids(path)

    mesh = mesh_factory([workload("t/client", "Always")])
    number = numbers()["t/client"]
    with idle(mesh, netns, 4):
        reconfigure("t/one")
        reconfigure("t/one", "t/two")
        assert numbers()["t/client"] == number
        assert sorted(numbers().values()) == sorted(set(numbers().values()))
        kept = {each["name"]: each["connections"] for each in mesh.status()["workloads"]}
        assert kept == {"client": 8, "one": 0, "two": 0}
        carried = shortcut_bytes(mesh)
    assert shortcut_bytes(mesh) == carried
    reconfigure("t/two")
    reconfigure("t/three")
    assert set(numbers()) == {"t/two", "t/three"}, "long gone, and no connection left"


def test_what_is_not_valid_is_not_applied(mesh: Mesh, netns: network.Namespace) -> None:
    before = mesh.generation()
    broken = documents("Always")
    broken[0]["spec"]["shortcutt"] = "Always"
    mesh.write_config(broken)
    mesh.wait_for_log(r"configuration not applied.*shortcutt", 10)
    mesh.write_config("{{ not yaml")
    mesh.wait_for_log(r"configuration not applied.*not valid YAML", 10)
    assert mesh.generation() == before
    side = Side(netns.name, "127.0.0.1", SHORT)
    assert_well(run_torture(mesh, side, side))
    assert mesh.totals()["shortcut_connections_opened"] == SHORT["streams"]
    mesh.write_config(documents("Always", "t/extra"))
    mesh.wait_for_generation(before + 1)


def test_it_does_not_start_with_what_is_not_valid(mesh_factory: MeshFactory) -> None:
    mesh = mesh_factory([{**workload("t/x"), "kind": "Workloadd"}], start=False)
    mesh.launch()
    assert mesh.agent.wait(20) == 1
    mesh.agent = None
    assert "Workloadd" in mesh.log.read_text()
    assert not (PINS / mesh.instance).exists()


def test_two_agents_refuse_each_other(mesh: Mesh, mesh_factory: MeshFactory, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    result = mesh.run("run", "-c", str(mesh.config), "--metrics", "off", check=False)
    assert result.returncode == 1
    assert re.search(rf"runs already \(process {mesh.agent.pid}\)", result.stderr)
    assert mesh.agent.poll() is None
    assert mesh.status()["agent"]["pid"] == mesh.agent.pid


PIN = "/sys/fs/bpf/zerohop/{}"


@pytest.mark.parametrize(
    "removed",
    [PIN, PIN + "/links", PIN + "/maps/connections", PIN + "/programs/zerohop_sockops", "/run/zerohop/{}"],
)
def test_an_agent_ends_when_its_data_path_is_taken_away(mesh: Mesh, netns: network.Namespace, removed: str) -> None:
    path = Path(removed.format(mesh.instance))
    result = mesh.run("run", "-c", str(mesh.config), "--metrics", "off", check=False)
    assert "runs already" in result.stderr
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert mesh.agent.wait(10) == 1
    mesh.agent = None
    said = mesh.log.read_text()
    assert f"was removed while its agent ran: {path}" in said
    assert "fix: start zerohop run again" in said
    mesh.start()
    side = Side(netns.name, "127.0.0.1", SHORT)
    assert_well(run_torture(mesh, side, side))
    assert mesh.totals()["shortcut_connections_opened"] == SHORT["streams"]


def test_an_agent_leaves_another_data_path_alone(mesh: Mesh) -> None:
    """Somebody removed its pins and made others: they are not its own."""
    path = PINS / mesh.instance
    shutil.rmtree(path)
    DataPath.load(path).close()
    assert mesh.agent.wait(10) == 1
    mesh.agent = None
    assert "was removed while its agent ran" in mesh.log.read_text()


def test_an_inspection_that_does_not_end_keeps_nobody_waiting_for_ever(mesh: Mesh) -> None:
    lock = os.open(PINS / mesh.instance, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        result = mesh.run("status", check=False)
        assert time.monotonic() - began < 10
    finally:
        os.close(lock)
    assert result.returncode == 1
    assert f"another process has been inspecting {PINS / mesh.instance} for 5 s" in result.stderr
    assert mesh.run("status").returncode == 0
    assert mesh.stop_agent() == 0


@pytest.fixture
def group() -> Iterator[str]:
    """A cgroup of the test's own, relative to the mount."""
    path = machine.cgroup_mount() / f"zhtest-{time.monotonic_ns()}"
    inner = path / "inner"
    inner.mkdir(parents=True)
    yield f"/{path.name}"
    inner.rmdir()
    path.rmdir()


@pytest.mark.parametrize("below", ["", "/inner"], ids=["the same", "one below"])
def test_instances_share_no_cgroup(mesh_factory: MeshFactory, group: str, below: str) -> None:
    first = mesh_factory([workload("t/one", cgroups=[group])])
    other = mesh_factory([workload("t/other", cgroups=[group + below])], start=False)
    other.launch()
    assert other.agent.wait(20) == 1
    other.agent = None
    assert first.instance in other.log.read_text()
    assert not (PINS / other.instance).exists()
    first.close()
    other.start()
