"""`zerohop demo`: see it work in half a minute."""

from __future__ import annotations

import click
from rich.console import Console
from rich.live import Live

from zerohop.bench.signals import ending_signals_raise
from zerohop.cli.main import print_json, require_root
from zerohop.demo.runner import NOTE, Row, run_demo
from zerohop.demo.table import comparison, live_table, summary


@click.command(
    epilog="""\b
Examples:
  sudo zerohop demo
  sudo zerohop demo --seconds 10 --json"""
)
@click.option("--seconds", type=click.FloatRange(2, 600), default=18.0, show_default=True, help="Time spent calling.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(seconds: float, as_json: bool) -> None:
    """Run a gRPC server and a client, with and without zerohop.

    Both are real programs on grpcio, each in a cgroup of its own: over loopback,
    and in two network namespaces. Nothing is left behind. The figures are of one
    short run; for figures to quote there is `zerohop bench`.
    """
    require_root("demo")
    console = Console(stderr=as_json, highlight=False)
    with ending_signals_raise():
        if console.is_terminal and not as_json:
            with Live(console=console, refresh_per_second=8) as live:
                rows = run_demo(seconds, lambda rows, what, _: live.update(live_table(rows, what)))
                live.update(live_table(rows, ""))
        else:
            rows = _run_plain(seconds, console)
            if not as_json:
                console.print(live_table(rows, ""))
    if as_json:
        print_json({"note": NOTE, "rows": [row.to_json() for row in rows]})
        return
    for line in comparison(rows):
        console.print(line)
    console.print(NOTE, style="dim")


def _run_plain(seconds: float, console: Console) -> list[Row]:
    """Without a terminal: a line when a run begins, and one with its row's figures when it has ended."""
    said: set[str] = set()

    def say(rows: list[Row], what: str, finished: Row | None) -> None:
        if what not in said:
            said.add(what)
            console.print(what)
        if finished is not None:
            console.print(f"  {summary(finished)}", soft_wrap=True)

    return run_demo(seconds, say)
