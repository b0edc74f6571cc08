"""What the demo shows: a table that grows while it runs, and the comparison at the end. At most 80 columns."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from zerohop.cli.status_table import human_bytes
from zerohop.demo.runner import Row


def live_table(rows: list[Row], what: str) -> Group:
    table = Table(box=None, pad_edge=False)
    table.add_column("TOPOLOGY")
    table.add_column("MODE")
    for heading in ("CALLS/S", "P50 us", "P99 us", "SHORT-CUT", "TCP"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.topology,
            row.mode,
            f"{row.calls_per_second:,.0f}",
            _microseconds(row.percentile(50)),
            _microseconds(row.percentile(99)),
            human_bytes(row.carried.shortcut_bytes) if row.mode != "direct" else "",
            human_bytes(row.carried.tcp_bytes) if row.mode != "direct" else "",
        )
    return Group(table, Text(what))


def summary(row: Row) -> str:
    """What all runs of a row have shown so far, as one line."""
    figures = (
        f"{row.calls_per_second:,.0f} calls/s, p50 {_microseconds(row.percentile(50))} us, "
        f"p99 {_microseconds(row.percentile(99))} us"
    )
    if row.mode == "direct":
        return figures
    carried = row.carried
    return f"{figures}, {human_bytes(carried.shortcut_bytes)} short-cut, {human_bytes(carried.tcp_bytes)} TCP"


def comparison(rows: list[Row]) -> list[str]:
    """One line a topology: zerohop against direct."""
    lines = []
    for topology in dict.fromkeys(row.topology for row in rows):
        direct, zerohop = (
            next(r for r in rows if (r.topology, r.mode) == (topology, m)) for m in ("direct", "zerohop")
        )
        before, after = direct.percentile(50), zerohop.percentile(50)
        if before and after:
            change = (after / before - 1) * 100
            share = zerohop.carried.shortcut_share * 100
            lines.append(
                f"{topology}: p50 {before:.0f} us without, {after:.0f} us with ({change:+.0f}%), "
                f"{share:.1f}% of bytes past TCP"
            )
    return lines


def _microseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
