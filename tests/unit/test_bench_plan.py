"""Which runs the options choose, in which order, and how wrong options are answered."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from zerohop.bench import compile as bench_compile
from zerohop.bench import plan as plan_module
from zerohop.bench.placement import choose_placement
from zerohop.bench.plan import make_plan
from zerohop.bench.workloads import WORKLOADS
from zerohop.cli.bench import command
from zerohop.errors import UnsupportedError, ZerohopError


def test_a_default_run_covers_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "find_envoy", lambda: "/usr/bin/envoy")
    plan = make_plan()
    cells = {(cell.workload, cell.case, cell.topology) for cell in plan.cells}
    assert cells == {
        (name, case, topology)
        for name, workload in WORKLOADS.items()
        for case in workload.cases
        for topology in ("loopback", "veth")
    }
    assert {name: plan.modes(name) for name in plan.workloads} == {
        "pingecho": ("direct", "zerohop"),
        "http2": ("direct", "zerohop"),
        "grpc": ("direct", "shortcut", "engine"),
        "policy": ("direct", "policy", "envoy"),
        "bulk": ("direct", "zerohop"),
    }
    assert not plan.bpf_stats
    assert plan.rounds == 5
    assert {cell.placement for cell in plan.cells} <= {"same", "split"}


def test_envoy_is_compared_with_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "find_envoy", lambda: None)
    assert make_plan().modes("policy") == ("direct", "policy")
    assert make_plan(modes=["envoy"]).modes("policy") == ("envoy",)


def test_each_mode_comes_first_in_turn() -> None:
    plan = make_plan(workloads=["http2", "grpc"], cases=["1x1", "50"], topologies=["veth"], placements=["same"])
    assert plan.order("http2", 0) == ("direct", "zerohop")
    assert plan.order("http2", 1) == ("zerohop", "direct")
    assert plan.order("http2", 2) == plan.order("http2", 0)
    assert plan.order("grpc", 1) == ("shortcut", "engine", "direct")
    assert plan.runs == (2 + 3) * plan.rounds


def test_chosen_modes_are_those_of_every_workload() -> None:
    plan = make_plan(modes=["engine", "direct"])
    assert {plan.modes(name) for name in plan.workloads} == {("engine", "direct")}


def test_a_case_chooses_only_its_workload() -> None:
    plan = make_plan(cases=["8x1", "1M"], topologies=["veth"], placements=["same"])
    assert [(cell.workload, cell.case) for cell in plan.cells] == [("http2", "8x1"), ("bulk", "1M")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["htpp2"], "no such workload: 'htpp2'"),
        (["http2", "--case", "4K"], "no such case of http2: '4K'"),
        (["--topology", "ring"], "no such topology"),
        (["--placement", "same,everywhere"], "no such placement: 'everywhere'"),
        (["--modes", "direct,"], "no such mode: ''"),
        (["pingecho", "--bpf-stats"], "--bpf-stats has nothing to measure"),
        (["grpc", "--modes", "direct", "--bpf-stats"], "--bpf-stats has nothing to measure"),
        (["--json", "/nowhere/file.json"], "cannot write /nowhere/file.json"),
    ],
)
def test_wrong_options_are_usage_errors(options: list[str], message: str) -> None:
    answer = CliRunner().invoke(command, options)
    assert isinstance(answer.exception, ZerohopError)
    assert message in answer.exception.message
    assert answer.exception.exit_code == 2
    assert answer.exception.hint


@pytest.mark.parametrize("options", [["--rounds", "0"], ["--seconds", "0"], ["--rounds", "many"]])
def test_numbers_out_of_range_are_usage_errors(options: list[str]) -> None:
    assert CliRunner().invoke(command, options).exit_code == 2


def test_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    answer = CliRunner().invoke(command, ["http2"])
    assert isinstance(answer.exception, ZerohopError)
    assert str(answer.exception) == "needs root (run sudo zerohop bench http2)"


def test_help_fits_80_columns_and_has_examples() -> None:
    text = CliRunner().invoke(command, ["--help"], terminal_width=80).output
    assert "Examples:" in text
    assert all(case in text for workload in WORKLOADS.values() for case in workload.cases)
    assert max(map(len, text.splitlines())) <= 80


def test_missing_load_generator_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="apt-get install nghttp2-client nghttp2-server") as caught:
        WORKLOADS["http2"].prepare(tmp_path)
    assert caught.value.exit_code == 77


def test_missing_compiler_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"pip install 'zerohop\[bench\]'"):
        WORKLOADS["bulk"].prepare(tmp_path)


def test_programs_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, _ = bench_compile.compile_peer("pingecho", tmp_path)
    made = first.stat().st_mtime_ns
    again, _ = bench_compile.compile_peer("pingecho", tmp_path)
    assert (again, again.stat().st_mtime_ns) == (first, made)
    assert first.is_relative_to(tmp_path / "cache")
    assert os.access(first, os.X_OK)


def test_a_cache_that_others_may_write_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    program, _ = bench_compile.compile_peer("pingecho", scratch)
    assert program.parent == scratch


def test_split_needs_two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert choose_placement("same").server == frozenset([3])
    assert choose_placement("free").server is None
    with pytest.raises(UnsupportedError, match="two CPUs"):
        choose_placement("split")
    assert {cell.placement for cell in make_plan().cells} == {"same"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_configuration_makes_the_workload_eligible(name: str) -> None:
    text = WORKLOADS[name].configuration(12345)
    protocol = {"http2": "http2", "grpc": "grpc", "policy": "grpc"}.get(name)
    declared = protocol is not None
    assert (f"appProtocol: {protocol}" in text) == declared
    assert text.count("shortcut: Always") == (0 if declared else 2)
    if declared:
        assert "targetPort: 12345" in text
