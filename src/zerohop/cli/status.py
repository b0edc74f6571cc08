"""`zerohop status`: what the kernel is doing, with or without an agent."""

from __future__ import annotations

from dataclasses import asdict

import click

from zerohop.agent import lock
from zerohop.cli.main import Context, print_json, require_root


@click.command(
    epilog="""\b
Examples:
  sudo zerohop status
  sudo zerohop status --json | jq .totals"""
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_obj
def command(context: Context, as_json: bool) -> None:
    """Show workloads, connections, bytes by carrier, and why connections are not short-cut."""
    require_root("status")
    from zerohop.kernel.datapath import DataPath
    from zerohop.kernel.status import read_status, wait_for_unread

    agent = lock.find(context.instance)
    with DataPath.open(context.instance) as path:
        if agent is None:
            wait_for_unread(path)
        status = read_status(path)
    if as_json:
        print_json(
            {
                "agent": asdict(agent) if agent else None,
                "generation": status.generation,
                "workloads": [asdict(each) for each in status.workloads],
                "totals": asdict(status.totals),
                "kernel": {
                    "map_bytes": status.map_bytes,
                    "programs": {name: asdict(each) for name, each in status.programs.items()},
                },
                "open_connections": status.open_connections,
                "draining": status.draining,
                "unread": [asdict(each) for each in status.unread],
            }
        )
        return
    from zerohop.cli.status_table import print_status

    print_status(context.instance, agent, status)
