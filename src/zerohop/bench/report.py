"""The result, as one JSON object for programs and as tables of at most 80 columns for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerohop.bench.account import HOOKS, HookCost
from zerohop.bench.counters import TcpCounters
from zerohop.bench.figures import Figures, interquartile_range, medians, round_ratios
from zerohop.bench.modes import BASELINE, WITHOUT_ENGINE
from zerohop.bench.modes.base import Carried
from zerohop.bench.runner import CellResult, Result, Run
from zerohop.bench.workloads import WORKLOADS

COLUMNS: Final = {
    "p50_us": "p50 us",
    "p99_us": "p99 us",
    "per_second": "per second",
    "cpu_us_per_op": "CPU us/op",
}
WIDTH: Final = 80


def to_json(result: Result) -> dict[str, Any]:
    """The object that `zerohop bench --json` prints; its shape is documented in docs/benchmarks.md."""
    return {
        "workload": ",".join(result.plan.workloads),
        "rounds": result.plan.rounds,
        "environment": asdict(result.environment),
        "seconds": result.plan.timing.measured,
        "cases": [_case_to_json(cell) for cell in result.cells],
    }


def _case_to_json(result: CellResult) -> dict[str, Any]:
    ratios = cell_ratios(result)
    shape = {
        "workload": result.cell.workload,
        "case": result.cell.case,
        "topology": result.cell.topology,
        "placement": result.cell.placement,
        "modes": {mode: _mode_to_json(runs) for mode, runs in result.runs.items()},
        "ratio": {mode: summarise_ratios(by_key)[0] for mode, by_key in ratios.items()},
        "spread": {mode: summarise_ratios(by_key)[1] for mode, by_key in ratios.items()},
        "samples": {mode: [dict(run.figures) for run in runs] for mode, runs in result.runs.items()},
    }
    if result.hook_costs:
        shape["hooks"] = {mode: _cost_to_json(cost) for mode, cost in result.hook_costs.items()}
    if result.load_seconds:
        shape["load_seconds"] = dict(result.load_seconds)
    if result.too_much:
        shape["too_much"] = dict(result.too_much)
    return shape


def _cost_to_json(cost: HookCost) -> dict[str, Any]:
    return {
        "calls": cost.calls,
        "frames_per_call": cost.frames,
        "ns_per_call": cost.ns_per_call,
        "programs": {
            name: {
                "runs_per_call": hook.runs / cost.calls,
                "ns_per_run": hook.ns_per_run,
                "ns_per_call": hook.ns / cost.calls,
            }
            for name, hook in cost.hooks.items()
        },
    }


def _mode_to_json(runs: Sequence[Run]) -> dict[str, Any]:
    shape: dict[str, Any] = dict(medians(_figures(runs)))
    shape["tcp"] = asdict(total_tcp(runs))
    carried = total_carried(runs)
    if carried is not None:
        shape["shortcut_share"] = carried.shortcut_share
    return shape


def cell_ratios(result: CellResult) -> dict[str, dict[str, list[float]]]:
    """For each mode but the baseline, each figure's ratio to the baseline, round by round."""
    baseline = result.runs.get(BASELINE)
    if baseline is None:
        return {}
    return {
        mode: round_ratios(_figures(runs), _figures(baseline)) for mode, runs in result.runs.items() if mode != BASELINE
    }


def summarise_ratios(by_key: dict[str, list[float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Median and interquartile range of each figure's ratios."""
    rows = {key: [{key: value} for value in values] for key, values in by_key.items()}
    return (
        {key: medians(values)[key] for key, values in rows.items()},
        {key: interquartile_range(values) for key, values in by_key.items()},
    )


def total_tcp(runs: Iterable[Run]) -> TcpCounters:
    return sum((run.tcp for run in runs), TcpCounters())


def total_carried(runs: Iterable[Run]) -> Carried | None:
    counted = [run.carried for run in runs if run.carried is not None]
    return sum(counted, Carried()) if counted else None


def _figures(runs: Iterable[Run]) -> list[Figures]:
    return [run.figures for run in runs]


def print_tables(result: Result, console: Console) -> None:
    """One table per workload, and what the kernel counted."""
    for name in result.plan.workloads:
        cells = [cell for cell in result.cells if cell.cell.workload == name]
        console.print(_table(name, cells))
        for line in _notes(cells):
            console.print(line)
        console.print()
        if any(cell.hook_costs for cell in cells):
            console.print(hook_table(name, cells))
            console.print()
        if any(cell.load_seconds for cell in cells):
            console.print(load_table(name, cells))
            console.print()
    environment = result.environment
    console.print(
        f"figures: median of {result.plan.rounds} rounds of {result.plan.timing.measured:g} s\n"
        f"ratio: median of the rounds' ratios to {BASELINE} (interquartile range)",
        style="dim",
    )
    console.print(f"Linux {environment.kernel}, {environment.cpus} x {environment.cpu_model}", style="dim")
    programs = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    console.print(programs, style="dim", markup=False)


def _table(name: str, cells: Sequence[CellResult]) -> Table:
    present = {key for cell in cells for runs in cell.runs.values() for run in runs for key in run.figures}
    columns = {key: title for key, title in COLUMNS.items() if key in present}
    table = Table(
        title=f"{name} (operation: {WORKLOADS[name].unit})",
        box=None,
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    for title in ("case", "topology", "place", "mode"):
        table.add_column(title, no_wrap=True)
    for title in columns.values():
        table.add_column(title, justify="right", no_wrap=True)
    for cell in cells:
        place: tuple[str, ...] = (cell.cell.case, cell.cell.topology, cell.cell.placement)
        ratios = cell_ratios(cell)
        for mode, runs in cell.runs.items():
            values = medians(_figures(runs))
            table.add_row(*place, mode, *(_number(values[key]) if key in values else "" for key in columns))
            place = ("", "", "")
            if mode in ratios:
                ratio, spread = summarise_ratios(ratios[mode])
                table.add_row(*place, "ratio", *(_ratio(key, ratio, spread, len(runs)) for key in columns))
    return table


def hook_table(name: str, cells: Sequence[CellResult]) -> Table:
    """What a call takes in the hooks, and what the engine adds where a mode without it ran, too."""
    table = Table(
        title=f"{name}: time in the hooks, ns a run and runs a call (kernel bpf_stats)",
        box=None,
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    for title in ("case", "topology", "place", "mode"):
        table.add_column(title, no_wrap=True)
    for hook in HOOKS:
        table.add_column(hook.removeprefix("zerohop_"), justify="right", no_wrap=True)
        table.add_column("runs", justify="right", no_wrap=True)
    for title in ("ns a call", "a frame"):
        table.add_column(title, justify="right", no_wrap=True)
    for cell in cells:
        place: tuple[str, ...] = (cell.cell.case, cell.cell.topology, cell.cell.placement)
        without = cell.hook_costs.get(WITHOUT_ENGINE)
        for mode, cost in cell.hook_costs.items():
            row = []
            for hook in HOOKS:
                time = cost.hooks[hook]
                row += [_number(time.ns_per_run), _number(time.runs / cost.calls)]
            table.add_row(*place, mode, *row, _number(cost.ns_per_call))
            place = ("", "", "")
            if without is not None and mode != WITHOUT_ENGINE:
                more = cost.ns_per_call - without.ns_per_call
                added = (Text(f"{value:+,.0f}", style="bold") for value in (more, more / cost.frames))
                table.add_row(*place, "added", *[""] * len(row), *added)
    return table


def load_table(name: str, cells: Sequence[CellResult]) -> Table:
    """How long the policies of a case took to be in force; they stay loaded from one place to the next."""
    table = Table(
        title=f"{name}: loading rules",
        box=None,
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    for title in ("case", "mode"):
        table.add_column(title, no_wrap=True)
    table.add_column("seconds until calls are judged by them", justify="right", no_wrap=True)
    rows = {(cell.cell.case, mode): seconds for cell in cells for mode, seconds in cell.load_seconds.items()}
    for (case, mode), seconds in rows.items():
        table.add_row(case, mode, _number(seconds))
    return table


def _notes(cells: Sequence[CellResult]) -> Iterable[str]:
    for mode in dict.fromkeys(mode for cell in cells for mode in cell.runs):
        runs = [run for cell in cells for run in cell.runs.get(mode, [])]
        tcp, carried = total_tcp(runs), total_carried(runs)
        note = f"  {mode}: TCP time-outs {tcp.timeouts:,}, resent {tcp.retransmits:,}, pruned {tcp.pruned:,}"
        if carried is not None:
            note += f"; {carried.shortcut_share:.1%} short-cut"
        yield note
    for mode, reason in dict.fromkeys(each for cell in cells for each in cell.too_much.items()):
        yield f"  {mode} left out: {reason}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ratio(key: str, ratio: dict[str, float], spread: dict[str, float], rounds: int) -> Text | str:
    if key not in ratio:
        return ""
    better = ratio[key] > 1 if key == "per_second" else ratio[key] < 1
    text = Text(f"{ratio[key]:.2f} ({spread[key]:.2f})", style="bold")
    # Coloured only where the difference is larger than the noise, which fewer than three rounds cannot tell.
    if rounds >= 3 and abs(ratio[key] - 1) > spread[key]:
        text.stylize("green" if better else "red")
    return text
