"""`zerohop run`: the agent in the foreground."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from zerohop.cli.main import Context, require_root
from zerohop.errors import ZerohopError

DEFAULT_METRICS = "127.0.0.1:15020"


def parse_address(value: str) -> tuple[str, int] | None:
    """`ADDRESS:PORT`, `[V6]:PORT`, or `off` for none."""
    if value == "off":
        return None
    host, separator, port = value.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not ADDRESS:PORT, as in {DEFAULT_METRICS}", param_hint="--metrics")
    return host.strip("[]") or "127.0.0.1", int(port)


@click.command(
    epilog="""\b
Examples:
  sudo zerohop run -c /etc/zerohop
  sudo zerohop run -c mesh.yaml --log-format json --metrics 127.0.0.1:9100
  sudo zerohop run -c mesh.yaml --no-engine           # short-cut only
  sudo zerohop run -c mesh.yaml --max-methods 50 --flow-sampling 100
  sudo zerohop run -c mesh.yaml --access-log /var/log/zerohop.log
  sudo zerohop run -c mesh.yaml --access-log - --access-log-format envoy
Signals: SIGHUP reads the configuration and opens the access log again,
SIGTERM ends the agent. The data path stays in the kernel and keeps working;
`zerohop clean` removes it."""
)
@click.option(
    "-c",
    "--config",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="A YAML file, or a folder of them. Changes apply without restart.",
)
@click.option(
    "--metrics",
    default=None,
    help=f"ADDRESS:PORT of the Prometheus endpoint, or off.  [default: {DEFAULT_METRICS}]",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--engine/--no-engine",
    default=True,
    help="Read HTTP/2 and gRPC on ports declared grpc, http2 or http, or leave them alone.  [default: engine]",
)
@click.option(
    "--max-methods",
    type=click.IntRange(min=0, max=65_536),
    default=500,
    show_default=True,
    metavar="N",
    help="Methods of one destination that get a row of their own; further ones share the method `other`.",
)
@click.option(
    "--flow-sampling",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="One of N calls and connections, by chance, gets a flow record (zerohop flows, access log); 0: none does.",
)
@click.option(
    "--access-log",
    default=None,
    metavar="FILE",
    help="Append a line for each flow record to FILE; - is stdout.",
)
@click.option("--access-log-format", type=click.Choice(["json", "envoy"]), default="json", show_default=True)
@click.pass_obj
def command(
    context: Context,
    /,
    config: Path,
    metrics: str | None,
    log_format: str,
    engine: bool,
    max_methods: int,
    flow_sampling: int,
    access_log: str | None,
    access_log_format: str,
) -> None:
    """Manage the workloads that the configuration describes, in the foreground."""
    require_root("run")
    # Imported late: other commands should not pay for the agent, nor the agent for theirs.
    from zerohop.agent.agent import Agent, Options
    from zerohop.agent.log import configure
    from zerohop.agent.notify import notify

    log = configure(log_format)
    endpoint = parse_address(metrics or DEFAULT_METRICS)
    agent = Agent(context.instance, config, Options(engine, max_methods, flow_sampling))
    log_file = None
    if access_log is not None:
        from zerohop.telemetry.access_log import AccessLog, LogFile

        log_file = LogFile(access_log)
    try:
        origin = agent.start()
        if endpoint is not None:
            from zerohop.agent.metrics import read_metrics, serve_metrics
            from zerohop.kernel.telemetry import Names

            names = Names(agent.path)

            def read() -> Iterator[str]:
                return read_metrics(agent.path, names, agent.labels, agent.access_log.lost if agent.access_log else 0)

            try:
                port = serve_metrics(*endpoint, read)
                log.info("metrics", extra={"url": f"http://{_host(endpoint[0])}:{port}/metrics"})
            except ZerohopError as error:
                if metrics is not None:
                    raise
                log.warning("no metrics: %s", error)
        if log_file is not None:
            agent.follow_flows(AccessLog(agent.path, log_file, access_log_format))
        log.info("data path %s", origin, extra={"instance": context.instance})
        click.echo(f"zerohop: ready (instance {context.instance}, process {_pid()})")
        notify("READY=1")
        agent.serve()
        log.info("stopped; the data path stays until zerohop clean")
    finally:
        agent.close()


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _pid() -> int:
    import os

    return os.getpid()
