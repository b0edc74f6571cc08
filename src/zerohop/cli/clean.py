"""`zerohop clean`: remove every trace."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import click

from zerohop.agent import lock
from zerohop.cli.main import Context, require_root
from zerohop.errors import ZerohopError


def stop_agent(instance: str, *, timeout: float = 10.0) -> None:
    """Ends an instance's agent with SIGTERM and waits for it (seconds: `timeout`)."""
    agent = lock.find(instance)
    if agent is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while lock.find(instance) is not None:
        if time.monotonic() > deadline:
            raise ZerohopError(f"the agent (process {agent.pid}) does not stop", hint=f"kill -9 {agent.pid}")
        time.sleep(0.05)


@click.command(
    epilog="""\b
Examples:
  sudo zerohop clean
  sudo zerohop clean --all-instances"""
)
@click.option("--all-instances", is_flag=True, help="Every instance on this machine.")
@click.pass_obj
def command(context: Context, all_instances: bool) -> None:
    """Remove programs, maps, pins and cgroups; open connections live on as plain TCP.

    An agent that still runs is stopped first. Exit status 0 also when nothing was there.
    """
    require_root("clean")
    from zerohop.doctor import cache
    from zerohop.kernel import lifecycle, pins

    names = pins.instances() if all_instances else [context.instance]
    for name in names:
        stop_agent(name)
        held = lock.AgentLock(name)  # no agent may start on what is being removed
        try:
            found, staying = lifecycle.remove(name)
            cache.forget(name)
            lock.forget(name)
        finally:
            held.release()
        if staying:
            click.echo(
                f"zerohop: instance {name} removed; {staying} sockets that are in use or hold unread data keep"
                " their programs until they close",
                err=True,
            )
        elif found:
            click.echo(f"zerohop: instance {name} removed", err=True)
    if not names:
        click.echo("zerohop: nothing to remove", err=True)
