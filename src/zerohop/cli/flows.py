"""`zerohop flows`: one line for each call, and for each connection that the engine does not read."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from zerohop.cli.main import Context, pair_option, require_root

if TYPE_CHECKING:
    from zerohop.telemetry.filters import Filter
    from zerohop.telemetry.flows import Flow

POLL_SECONDS = 0.1
NARROW = 80


@click.command(
    epilog="""\b
Examples:
  sudo zerohop flows                                  the last 20
  sudo zerohop flows --follow --status '!OK'          errors as they happen
  sudo zerohop flows --follow --to shop/cart --method '/shop.Cart/*'
  sudo zerohop flows --follow --verdict deny          what policies forbid
  sudo zerohop flows --follow --dry-run deny          what they would forbid
  sudo zerohop flows --last 1000 --json | jq .latency_us
Records are kept in the kernel, some thousands for each CPU, whether somebody
looks or not; what was overwritten before it was read is counted on stderr."""
)
@click.option("-f", "--follow", is_flag=True, help="Go on as calls end, until interrupted.")
@click.option(
    "--last", type=click.IntRange(min=0), default=None, help="How many of the past.  [default: 20, 0 with -f]"
)
@pair_option("--workload", text="Either end; NS/* for a namespace.")
@pair_option("--from", "source", text="The client's workload.")
@pair_option("--to", "destination", text="The server's workload.")
@pair_option("--service")
@click.option("--method", default="", metavar="GLOB", help="As in '/shop.Cart/*'.")
@click.option("--status", default=None, metavar="STATUS", help="Name or number of a gRPC status; !OK: any other.")
@click.option("--reason", default="", metavar="REASON", help="As in status: why not short-cut, or denied.")
@click.option("--protocol", default="", metavar="NAME", help="grpc, http2, tcp, ...")
@click.option("--kind", type=click.Choice(["call", "connection"]), default=None)
@click.option("--verdict", type=click.Choice(["ALLOW", "DENY"], case_sensitive=False), default=None)
@pair_option("--policy", text="What decided; NS/* for a namespace.")
@click.option(
    "--dry-run",
    type=click.Choice(["ALLOW", "DENY"], case_sensitive=False),
    default=None,
    help="The verdict if dry-run policies were in force.",
)
@click.option("--audited", is_flag=True, help="What AUDIT policies match.")
@click.option("--sample", type=click.IntRange(min=1), default=1, metavar="N", help="One of N, by chance.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def command(
    context: Context,
    /,
    follow: bool,
    last: int | None,
    status: str | None,
    kind: str | None,
    verdict: str | None,
    dry_run: str | None,
    audited: bool,
    sample: int,
    as_json: bool,
    **fields: str,
) -> None:
    """Show calls and connections, one a line."""
    require_root("flows")
    from zerohop.kernel.datapath import DataPath
    from zerohop.telemetry.filters import Filter, parse_status

    wanted = Filter(
        **fields, status=parse_status(status) if status else None, kind=kind or "", verdict=verdict or "",
        dry_run=dry_run or "", audited=audited,
    )  # fmt: skip
    if last is None:
        last = 0 if follow else 20
    show = _print_json if as_json else _Lines().print
    with DataPath.open(context.instance) as path:
        _show(path, wanted, show, follow=follow, last=last, sample=sample)


def _show(path: Any, wanted: Filter, show: Any, *, follow: bool, last: int, sample: int) -> None:
    from zerohop.kernel.telemetry import FlowReader, Names
    from zerohop.telemetry.flows import flow_of, is_known

    names = Names(path)
    wanted.require_known(names)
    # All that is kept is looked at, since the filters come after; at the beginning nothing is lost by that.
    reader = FlowReader(path, last=sys.maxsize if last else 0)
    reader.lost = 0

    def flows() -> list[Flow]:
        nonlocal names
        records = reader.read()
        if not all(is_known(each, names) for each in records):
            names = Names(path)
        found = (flow_of(each, names) for each in records if sample == 1 or not random.randrange(sample))
        return [each for each in found if wanted.flow(each)]

    reported = 0
    try:
        past = flows() if last else []
        reader.lost = 0
        for flow in past[-last:] if last else []:
            show(flow)
        sys.stdout.flush()
        while follow:
            time.sleep(POLL_SECONDS)
            try:
                path.require_pinned()
            finally:  # what was recorded until then is shown all the same
                for flow in flows():
                    show(flow)
                sys.stdout.flush()
            if reader.lost > reported:
                click.echo(
                    f"zerohop: {reader.lost - reported} records were overwritten before they were read", err=True
                )
                reported = reader.lost
    finally:
        reader.close()
        if follow:
            click.echo(f"zerohop: {reader.lost} records lost in all", err=True)


def _print_json(flow: Flow) -> None:
    sys.stdout.write(json.dumps(flow.as_json(), separators=(",", ":")) + "\n")


class _Lines:
    """Columns of a fixed width, so that lines stay under each other as they come."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and not _no_colour()
        self._wide = shutil.get_terminal_size((NARROW, 24)).columns - NARROW if sys.stdout.isatty() else 40
        self._begun = False

    def print(self, flow: Flow) -> None:
        from zerohop.telemetry.flows import status_name

        more = max(0, self._wide) // 3
        widths = (14 + more, 14 + more, 22 + more)
        if not self._begun:
            self._begun = True
            self._line("TIME", "FROM", "TO", "METHOD", "STATUS", "LATENCY", widths)
        if flow.kind == "call":
            status = status_name(flow.grpc_status) if flow.grpc_status is not None else str(flow.http_status or "-")
            what = flow.method or ("other" if flow.protocol == "grpc" else f"({flow.protocol})")
            latency = _duration(flow.latency_us or 0)
        else:
            status = flow.reason or "-"
            what = f"({flow.protocol}, {_size(flow.request_bytes)} there, {_size(flow.response_bytes)} back)"
            if flow.verdict == "DENY":
                status, what = "DENIED", f"({flow.policy or 'no policy allows it'})"
            latency = "-"
        line = self._line(
            flow.time.astimezone().strftime("%H:%M:%S"), flow.source.name, flow.destination.name, what, status, latency,
            widths, show=False,
        )  # fmt: skip
        bad = flow.verdict == "DENY" or (flow.kind == "call" and flow.grpc_status not in (0, None))
        sys.stdout.write(f"\x1b[31m{line}\x1b[0m\n" if self._colour and bad else f"{line}\n")

    def _line(
        self, when: str, source: str, destination: str, method: str, status: str, latency: str,
        widths: tuple[int, int, int], *, show: bool = True,
    ) -> str:  # fmt: skip
        columns = [_fit(each, width) for each, width in zip((source, destination, method), widths, strict=True)]
        line = f"{when:8} {columns[0]} {columns[1]} {columns[2]} {_cut(status, 9):9} {latency:>7}"
        if show:
            sys.stdout.write(f"{line}\n")
        return line


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}~"


def _fit(text: str, width: int) -> str:
    """The end of a name tells more than its beginning."""
    return f"{text:{width}}" if len(text) <= width else f"~{text[-(width - 1) :]}"


def _duration(microseconds: float) -> str:
    for unit, scale in (("us", 1), ("ms", 1e3), ("s", 1e6)):
        if microseconds < 1000 * scale or unit == "s":
            value = microseconds / scale
            return f"{value:.0f}{unit}" if unit == "us" or value >= 100 else f"{value:.3g}{unit}"
    raise AssertionError


def _size(count: int) -> str:
    for unit, scale in (("B", 1), ("K", 1e3), ("M", 1e6)):
        if count < 1000 * scale:
            return f"{count / scale:.3g}{unit}"
    return f"{count / 1e9:.3g}G"


def _no_colour() -> bool:
    import os

    return bool(os.environ.get("NO_COLOR"))
