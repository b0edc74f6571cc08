"""The tables of `zerohop status`, at most 80 columns wide."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from zerohop.agent.lock import AgentInfo
from zerohop.kernel.status import Status


def human_bytes(count: float) -> str:
    """Bytes with a binary unit, as in `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def print_status(instance: str, agent: AgentInfo | None, status: Status) -> None:
    console = Console(highlight=False)
    state = (
        f"agent {agent.pid}, {human_bytes(agent.resident_bytes)} resident" if agent else "no agent; the kernel works on"
    )
    console.print(f"instance {instance}: {state}; configuration {status.generation}")
    if status.draining:
        console.print("[yellow]draining: the short-cut is being left[/yellow]")
    _print_workloads(console, status)
    totals = status.totals
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_column()
    summary.add_column(justify="right")
    summary.add_row("connections opened", str(totals.connections_opened))
    summary.add_row("  of them short-cut", str(totals.shortcut_connections_opened))
    summary.add_row("bytes by short-cut", human_bytes(totals.shortcut_bytes))
    summary.add_row("bytes by TCP", human_bytes(totals.tcp_bytes))
    for reason, count in sorted(totals.not_shortcut.items(), key=lambda each: -each[1]):
        summary.add_row(f"not short-cut: {reason}", str(count))
    for what, count in (
        ("refused by policy at connect", totals.refused_connections),
        ("connections denied by policy", totals.denied_connections),
        ("calls denied by policy", totals.denied_calls),
        ("connections audited", totals.audited_connections),
        ("calls audited", totals.audited_calls),
        ("connections denied in a dry run", totals.dry_run_denied_connections),
        ("calls denied in a dry run", totals.dry_run_denied_calls),
        ("packets kept from listeners", totals.openings_dropped),
    ):
        if count:
            summary.add_row(what, str(count))
    for helper, count in totals.errors.items():
        summary.add_row(f"[red]failed helper: {helper}[/red]", str(count))
    summary.add_row("kernel memory of the maps", human_bytes(status.map_bytes))
    console.print(summary)
    for each in status.unread:
        console.print(
            f"[yellow]warning[/yellow]: {each.namespace}/{each.workload} has not read a connection on port"
            f" {each.port} for {each.seconds:.0f} s.\n  fix: if it uses splice(2), start it with zerohop exec or add"
            f" SystemCallFilter=~splice:EINVAL\n  to its unit; else add {each.port} to its excludePorts",
            soft_wrap=True,
        )


def _print_workloads(console: Console, status: Status) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("WORKLOAD", overflow="fold")
    table.add_column("SERVICE ACCOUNT", overflow="fold")
    table.add_column("CONNECTIONS", justify="right")
    table.add_column("SHORT-CUT", justify="right")
    for each in status.workloads:
        table.add_row(
            f"{each.namespace}/{each.name}",
            each.service_account,
            str(each.connections),
            str(each.shortcut_connections),
        )
    console.print(table)
