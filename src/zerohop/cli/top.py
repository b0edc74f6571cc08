"""`zerohop top`: calls of each method, live."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from zerohop.cli.main import Context, pair_option, require_root

if TYPE_CHECKING:
    from rich.table import Table

    from zerohop.telemetry.filters import Filter
    from zerohop.telemetry.rates import MethodRate

SORTS = ("calls", "errors", "p50", "p90", "p99", "inflight", "method")
NARROW = 80


@click.command(
    epilog="""\b
Examples:
  sudo zerohop top
  sudo zerohop top --sort p99 --to shop/cart
  sudo zerohop top --once --json | jq '.methods[] | select(.errors > 0)'
Rates and quantiles are of the last interval; a call counts when it has ended.
Interrupt ends it."""
)
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS")
@click.option("--sort", type=click.Choice(SORTS), default="calls", show_default=True)
@click.option("--reverse", is_flag=True, help="The least first.")
@click.option("--rows", type=click.IntRange(min=1), default=None, help="At most so many.  [default: what fits]")
@pair_option("--workload", text="Either end; NS/* for a namespace.")
@pair_option("--from", "source", text="The client's workload.")
@pair_option("--to", "destination", text="The server's workload.")
@pair_option("--service")
@click.option("--method", default="", metavar="GLOB", help="As in '/shop.Cart/*'.")
@click.option("--status", default=None, metavar="STATUS", help="Name or number of a gRPC status; !OK: any other.")
@click.option("--iterations", type=click.IntRange(min=1), default=None, metavar="N", help="End after N intervals.")
@click.option("--once", is_flag=True, help="The same as --iterations 1.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each interval, a line each.")
@click.pass_obj
def command(
    context: Context,
    /,
    interval: float,
    sort: str,
    reverse: bool,
    rows: int | None,
    status: str | None,
    iterations: int | None,
    once: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Show calls a second, errors, latency and calls in flight for each method."""
    require_root("top")
    from zerohop.kernel.datapath import DataPath
    from zerohop.telemetry.filters import Filter, parse_status

    wanted = Filter(**fields, status=parse_status(status) if status else None)
    with DataPath.open(context.instance) as path:
        readings = _readings(path, wanted, interval, 1 if once else iterations)
        ordered = (sorted(each, key=_sort_key(sort), reverse=(sort != "method") != reverse) for each in readings)
        if as_json:
            for each in ordered:
                methods = [asdict(method) for method in each[:rows]]
                sys.stdout.write(json.dumps({"interval_seconds": interval, "methods": methods}) + "\n")
                sys.stdout.flush()
        else:
            _draw(ordered, rows, interval)


def _readings(path: Any, wanted: Filter, interval: float, count: int | None) -> Iterator[list[MethodRate]]:
    from zerohop.kernel.telemetry import read_calls
    from zerohop.telemetry.rates import rates, sums_of

    before, then = sums_of(read_calls(path), wanted.calls), time.monotonic()
    while count is None or count > 0:
        time.sleep(interval)
        path.require_pinned()
        after, now = sums_of(read_calls(path), wanted.calls), time.monotonic()
        yield rates(before, after, now - then)
        before, then = after, now
        count = None if count is None else count - 1


def _sort_key(name: str) -> Any:
    attribute = {"inflight": "in_flight", "p50": "p50_us", "p90": "p90_us", "p99": "p99_us"}.get(name, name)
    if name == "method":
        return lambda rate: (rate.method, rate.source, rate.destination)
    return lambda rate: (getattr(rate, attribute) or 0.0, rate.calls, rate.method)


def _draw(readings: Iterator[list[MethodRate]], rows: int | None, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if console.is_terminal and not console.no_color:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            live.update(f"measuring for {interval:g} s ...", refresh=True)
            for each in readings:
                live.update(_table(each, rows or max(1, console.height - 4), console.width), refresh=True)
        return
    width = console.width if console.is_terminal else shutil.get_terminal_size((NARROW, 24)).columns
    plain = Console(highlight=False, no_color=True, width=max(NARROW, width))
    for each in readings:
        plain.print(_table(each, rows or len(each), plain.width))
        sys.stdout.flush()


def _table(methods: list[MethodRate], rows: int, width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, width=width, show_edge=False)
    table.add_column("method", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("from > to", ratio=3, no_wrap=True, overflow="ellipsis")
    for name in ("calls/s", "err/s", "p50", "p90", "p99", "open"):
        table.add_column(name, justify="right", no_wrap=True, min_width=6 if name == "calls/s" else 5)
    for each in methods[:rows]:
        table.add_row(
            each.method.removeprefix("/"),
            f"{each.source} > {each.destination}",
            _number(each.calls),
            Text(_number(each.errors), style="red" if each.errors else ""),
            *(_latency(value) for value in (each.p50_us, each.p90_us, each.p99_us)),
            str(each.in_flight),
        )
    hidden = f", {len(methods) - rows} more not shown" if len(methods) > rows else ""
    calls, errors = (sum(getattr(each, name) for each in methods) for name in ("calls", "errors"))
    table.caption = f"{_number(calls)} calls/s, {_number(errors)} errors/s{hidden}" if methods else "no calls yet"
    table.caption_justify = "left"
    return table


def _number(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.0f}" if value >= 10 or not value else f"{value:.1f}"


def _latency(microseconds: float | None) -> str:
    if microseconds is None:
        return "-"
    if microseconds < 1000:
        return f"{microseconds:.0f}us"
    return f"{microseconds / 1e3:.3g}ms" if microseconds < 1e6 else f"{microseconds / 1e6:.3g}s"
