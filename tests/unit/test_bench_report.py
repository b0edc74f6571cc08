"""The bench's two outputs: the JSON object that scripts read, and the tables that people read."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from zerohop.bench.account import HookCost, HookTime
from zerohop.bench.counters import TcpCounters
from zerohop.bench.modes.base import Carried
from zerohop.bench.plan import make_plan
from zerohop.bench.report import print_tables, to_json
from zerohop.bench.runner import CellResult, Environment, Result, Run

ENVIRONMENT = Environment("6.18.0", 2, "A Processor With A Rather Long Name 9999X @ 2.50GHz", 0.5, {"zerohop": "1"})
ECHO = {"p50_us": 10.0, "p99_us": 20.0, "per_second": 90000.0, "cpu_us_per_op": 12.0}


def result(figures: dict[str, float], *workloads: str, modes: tuple[str, ...] = ("direct", "zerohop")) -> Result:
    plan = make_plan(workloads=workloads, topologies=["veth"], placements=["same"], modes=modes, rounds=3)
    factors = {"direct": 1.0, "zerohop": 0.8, "shortcut": 0.7, "engine": 0.75, "policy": 0.75, "envoy": 5.0}
    cells = []
    for cell in plan.cells:
        runs = {
            mode: [
                Run(
                    # The machine slows down from round to round; the ratio stays.
                    {key: value * factors[mode] * (1 + number) for key, value in figures.items()},
                    TcpCounters(timeouts=1, retransmits=12345, pruned=123),
                    None if mode in ("direct", "envoy") else Carried(shortcut_bytes=3, tcp_bytes=1),
                )
                for number in range(plan.rounds)
            ]
            for mode in modes
        }
        cells.append(CellResult(cell, runs))
    return Result(plan, ENVIRONMENT, tuple(cells))


def test_json_has_the_documented_shape() -> None:
    shape = json.loads(json.dumps(to_json(result(ECHO, "pingecho"))))
    assert shape["workload"] == "pingecho"
    assert shape["rounds"] == 3
    assert {"kernel", "cpus", "versions"} <= shape["environment"].keys()
    (case,) = shape["cases"]
    assert (case["case"], case["topology"], case["placement"]) == ("24B", "veth", "same")
    assert case["modes"]["direct"] == {
        **{key: value * 2 for key, value in ECHO.items()},
        "tcp": {"timeouts": 3, "retransmits": 37035, "pruned": 369},
    }
    assert case["modes"]["zerohop"]["shortcut_share"] == 0.75
    assert case["ratio"] == {"zerohop": pytest.approx(dict.fromkeys(ECHO, 0.8))}
    assert case["spread"] == {"zerohop": pytest.approx(dict.fromkeys(ECHO, 0.0))}
    assert len(case["samples"]["direct"]) == 3


def test_a_figure_that_a_workload_does_not_have_is_left_out() -> None:
    shape = to_json(result({"per_second": 4000.0, "cpu_us_per_op": 250.0}, "bulk"))
    assert [case["case"] for case in shape["cases"]] == ["4K", "16K", "128K", "1M"]
    for case in shape["cases"]:
        assert case["modes"]["direct"].keys() == {"per_second", "cpu_us_per_op", "tcp"}
        assert case["ratio"]["zerohop"].keys() == {"per_second", "cpu_us_per_op"}


COSTS = {
    "shortcut": HookCost(1000, 5, {"zerohop_sender": HookTime(2000, 240000), "zerohop_receiver": HookTime(0, 0)}),
    "engine": HookCost(1000, 5, {"zerohop_sender": HookTime(2000, 990000), "zerohop_receiver": HookTime(10, 30000)}),
}


def grpc_result() -> Result:
    """The longest rows that there are."""
    measured = result(ECHO, "grpc", modes=("direct", "shortcut", "engine"))
    return replace(measured, cells=tuple(replace(cell, hook_costs=COSTS) for cell in measured.cells))


def test_time_in_the_hooks_is_beside_the_figures() -> None:
    for case in to_json(grpc_result())["cases"]:
        assert case["hooks"].keys() == {"shortcut", "engine"}
        assert case["hooks"]["engine"] == {
            "calls": 1000,
            "frames_per_call": 5,
            "ns_per_call": 1020,
            "programs": {
                "zerohop_sender": {"runs_per_call": 2, "ns_per_run": 495, "ns_per_call": 990},
                "zerohop_receiver": {"runs_per_call": 0.01, "ns_per_run": 3000, "ns_per_call": 30},
            },
        }
    assert "hooks" not in to_json(result(ECHO, "grpc"))["cases"][0]


def test_the_engines_share_is_stated_over_the_shortcut() -> None:
    output = io.StringIO()
    print_tables(grpc_result(), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in output.getvalue()
    assert [line.split() for line in lines if "added" in line] == [["added", "+780", "+156"]] * 3
    assert "zerohop 1" in lines


def test_load_seconds_are_stated_once_for_each_case() -> None:
    measured = result(ECHO, "policy", modes=("direct", "policy"))
    seconds = {"1": 0.0123, "100": 0.5, "10000": 1.25, "100000": 12345.6}
    cells = [replace(cell, load_seconds={"policy": seconds[cell.cell.case]}) for cell in measured.cells]
    measured = replace(measured, cells=tuple(cells))
    assert [case["load_seconds"] for case in to_json(measured)["cases"]] == [
        {"policy": each} for each in seconds.values()
    ]
    assert "load_seconds" not in to_json(result(ECHO, "grpc"))["cases"][0]
    output = io.StringIO()
    print_tables(replace(measured, cells=(*measured.cells, *measured.cells)), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in output.getvalue()
    assert [line.split() for line in lines if len(line.split()) == 3 and line.split()[1] == "policy"] == [
        ["1", "policy", "0.0123"],
        ["100", "policy", "0.5"],
        ["10000", "policy", "1.25"],
        ["100000", "policy", "12,346"],
    ]


def test_what_a_mode_could_not_take_is_said() -> None:
    measured = result(ECHO, "policy", modes=("direct", "policy", "envoy"))
    reason = "100,000 rules: 500 calls took 21 s"
    cells = [
        replace(cell, runs={mode: cell.runs[mode] for mode in ("direct", "policy")}, too_much={"envoy": reason})
        if cell.cell.case == "100000"
        else cell
        for cell in measured.cells
    ]
    measured = replace(measured, cells=tuple(cells))
    shapes = {case["case"]: case for case in to_json(measured)["cases"]}
    assert shapes["100000"]["too_much"] == {"envoy": reason}
    assert "envoy" not in shapes["100000"]["modes"] | shapes["100000"]["ratio"]
    assert "too_much" not in shapes["1"]
    output = io.StringIO()
    print_tables(measured, Console(file=output, width=80))
    assert f"  envoy left out: {reason}" in output.getvalue().splitlines()


def test_without_direct_there_is_no_ratio() -> None:
    (case,) = to_json(result(ECHO, "pingecho", modes=("zerohop",)))["cases"]
    assert case["ratio"] == case["spread"] == {}


def test_several_workloads_are_still_one_object() -> None:
    shape = to_json(result(ECHO, "pingecho", "http2"))
    assert shape["workload"] == "pingecho,http2"
    assert [case["workload"] for case in shape["cases"]] == ["pingecho"] + ["http2"] * 4


@pytest.mark.parametrize("scale", [0.001, 1.0, 90.0])
def test_tables_fit_80_columns_without_cutting_anything(scale: float) -> None:
    output = io.StringIO()
    figures = {key: value * scale for key, value in ECHO.items()}
    print_tables(result(figures, "pingecho", "http2", "bulk"), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in output.getvalue()
    ratios = [line for line in lines if line.split()[:1] == ["ratio"]]
    assert len(ratios) == 9
    assert all(line.count("0.80 (0.00)") == 4 for line in ratios)
    assert "75.0% short-cut" in output.getvalue()
