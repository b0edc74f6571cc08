"""`zerohop bench`: compares programs with and without zerohop, on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from zerohop.bench.plan import DEFAULT_ROUNDS, DEFAULT_SECONDS, DEFAULT_TOPOLOGIES, make_plan
from zerohop.bench.progress import BenchProgress
from zerohop.bench.report import WIDTH, print_tables, to_json
from zerohop.bench.runner import Result, UnfinishedError, run_plan
from zerohop.bench.signals import ending_signals_raise
from zerohop.cli.main import print_json, require_root
from zerohop.errors import EXIT_USAGE, ZerohopError


def _split(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",")) if value else ()


def _list_option(name: str, default: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, metavar="A,B", callback=_split, help=f"{text}  [default: {default}]")


@click.command(name="bench")
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@_list_option("--topology", ",".join(DEFAULT_TOPOLOGIES), "loopback: one namespace; veth: two, joined by a pair.")
@_list_option("--placement", "same,split", "free: the scheduler's choice; same: one CPU; split: one CPU each.")
@_list_option("--case", "every case", "Cases of the chosen workloads, as in the table below.")
@_list_option("--modes", "each workload's own", "As in the second table below.")
@click.option("--rounds", type=click.IntRange(1), default=DEFAULT_ROUNDS, show_default=True, help="Runs of each mode.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.05, 3600),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="Measured length of each run; a quarter of it is the warm-up before.",
)
@click.option("--bpf-stats", is_flag=True, help="After the rounds, also measure a call's time in the hooks.")
@click.option("--json", "json_file", metavar="FILE|-", help="Also write one JSON object to FILE; - is only that.")
def command(
    workloads: tuple[str, ...],
    topology: tuple[str, ...],
    placement: tuple[str, ...],
    case: tuple[str, ...],
    modes: tuple[str, ...],
    rounds: int,
    seconds: float,
    bpf_stats: bool,
    json_file: str | None,
) -> None:
    """Measures what zerohop gains or costs on this machine.

    Runs the same programs with and without zerohop, in turns, and compares within the round. Without WORKLOAD,
    all of them: three quarters of an hour. Interrupted, it shows the cases that are done.

    \b
    WORKLOAD  cases                what runs
    pingecho  24B                  24 bytes there and back, one connection
    http2     1x1 8x1 8x10 64x10   h2load (connections x streams), nghttpd
    grpc      1 50 8x32            unary calls at once; ghz if present, or h2load
    policy    1 100 10000 100000   grpc 8x32, judged by so many rules
    bulk      4K 16K 128K 1M       one stream, writes of that size

    \b
    mode      default in      what is switched on
    direct    all             nothing: the baseline
    zerohop   all others      everything
    filtered  none            only the filter of system calls of zerohop exec
    shortcut  grpc            the short-cut, and not the engine
    engine    grpc            the engine, too
    policy    policy          policies, too: everything, and every call is judged
    envoy     policy          none of zerohop, but an Envoy with the same rules

    \b
    Examples:
      sudo zerohop bench
      sudo zerohop bench http2 --case 8x1,8x10 --placement same
      sudo zerohop bench pingecho --rounds 9 --json pingecho.json
      sudo zerohop bench grpc --case 50 --bpf-stats
      sudo zerohop bench policy --placement same --topology loopback
      sudo zerohop bench bulk --seconds 0.3 --rounds 1 --json - | jq .cases
    """
    plan = make_plan(
        workloads=workloads,
        topologies=topology,
        placements=placement,
        cases=case,
        modes=modes,
        rounds=rounds,
        seconds=seconds,
        bpf_stats=bpf_stats,
    )
    if json_file not in (None, "-"):
        _require_writable(Path(json_file))
    require_root(" ".join(["bench", *workloads]))
    with ending_signals_raise():
        try:
            with BenchProgress(plan, Console(stderr=True)) as progress:
                result = run_plan(plan, progress)
        except UnfinishedError as unfinished:
            _show(unfinished.result, json_file)
            raise unfinished.cause from None
    _show(result, json_file)


def _show(result: Result, json_file: str | None) -> None:
    if json_file != "-":
        print_tables(result, Console(width=min(Console().width, WIDTH), highlight=False))
    if json_file == "-":
        print_json(to_json(result))
    elif json_file is not None:
        Path(json_file).write_text(json.dumps(to_json(result), indent=2) + "\n", encoding="utf-8")


def _require_writable(path: Path) -> None:
    """Refuses before ten minutes of work, not after."""
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise ZerohopError(f"cannot write {path}", hint="name a file in a folder that exists", exit_code=EXIT_USAGE)
