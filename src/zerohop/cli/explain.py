"""`zerohop explain`: what policies say of a call, by the tables that the kernel judges by."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import click

from zerohop.cli.main import Context, print_json, require_root
from zerohop.errors import EXIT_FAILED, ZerohopError

if TYPE_CHECKING:
    from zerohop.kernel.datapath import DataPath
    from zerohop.kernel.policies import Verdict

OUTSIDE = "outside"

# Why nobody can tell what the kernel would compare.
DOUBTS = {
    "header_repeated": "a field that policies ask for is there twice",
    "header_too_long": "a field that policies ask for is longer than 1,024 bytes",
    "path_not_normal": "servers may read the path otherwise than it is written, so no pattern tells which one is meant",
    "host_not_normal": "servers may leave out what stands before the '@', or not",
}


@click.command(
    epilog="""\b
Examples:
  sudo zerohop explain --from shop/web --to shop/cart --method /shop.Cart/Add
  sudo zerohop explain --from shop/web --to shop/cart:50051 \\
    --method /shop.Cart/Add --header x-user=ann
  sudo zerohop explain --from outside --to shop/cart:5432 --source-ip 10.1.2.3

\b
Exit status: 0 allowed, 1 denied, 2 usage."""
)
@click.option(
    "--from", "source", required=True, metavar="NS/SA", help="Namespace and service account; 'outside': no workload."
)
@click.option("--to", "destination", required=True, metavar="NS/WORKLOAD[:PORT]")
@click.option("--method", default=None, metavar="/PKG.SVC/M", help="A gRPC method, or the path of a request.")
@click.option("--verb", default="POST", show_default=True, metavar="VERB", help="The request's :method.")
@click.option("--host", default=None, metavar="NAME", help="The request's :authority.")
@click.option("--header", "headers", multiple=True, metavar="K=V")
@click.option("--source-ip", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option("--destination-ip", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: str,
    destination: str,
    method: str | None,
    verb: str,
    host: str | None,
    headers: tuple[str, ...],
    source_ip: str,
    destination_ip: str,
    as_json: bool,
) -> None:
    """Say whether a call is allowed, by which rule of which policy, and what would have to change."""
    require_root("explain")
    from zerohop.kernel.datapath import DataPath
    from zerohop.kernel.policies import Judge

    context: Context = ctx.obj
    addresses = (_address(source_ip, "--source-ip"), _address(destination_ip, "--destination-ip"))
    fields: list[tuple[str, str]] = []
    if method is not None:
        fields += [(":method", verb), (":path", method)]
        if host is not None:
            fields.append((":authority", host))
        fields += map(_header, headers)
    elif host is not None or headers:
        raise click.UsageError("--host and --header are of calls: name a --method, too")
    with DataPath.open(context.instance) as path:
        client = _client(path, source)
        server, port = _server(path, destination)
        with Judge(path) as judge:
            judgement = judge.judge(client, server, port, addresses, tuple(fields))
    verdict, audit, dry_run = judgement.verdict, judgement.audit, judgement.dry_run
    reason = _reason(verdict, destination)
    if verdict.doubt:
        reason += "; the connection ends"
    if as_json:
        print_json(
            {
                "verdict": _word(verdict),
                "policy": verdict.policy,
                "rule": verdict.rule,
                "file": verdict.file,
                "line": verdict.line,
                "reason": reason,
                "audit": _decider(audit) if audit else None,
                "dry_run": {"verdict": _word(dry_run), **_decider(dry_run)} if dry_run else None,
            }
        )
    else:
        click.echo(f"{_word(verdict)}: {reason}")
        for line in _change(verdict, source, method):
            click.echo(f"  {line}")
        if audit:
            click.echo(f"AUDIT: {_reason(audit, destination)}")
        if dry_run:
            click.echo(f"dry run: {_word(dry_run)}: {_reason(dry_run, destination)}")
    if not verdict.allowed:
        ctx.exit(EXIT_FAILED)


def _word(verdict: Verdict) -> str:
    return "ALLOW" if verdict.allowed else "DENY"


def _decider(verdict: Verdict) -> dict[str, Any]:
    return {"policy": verdict.policy, "rule": verdict.rule, "file": verdict.file, "line": verdict.line}


def _reason(verdict: Verdict, destination: str) -> str:
    if verdict.open:
        return "the connection is allowed, its calls are judged one by one: name a --method"
    if verdict.doubt:
        return f"{verdict.doubt}: {DOUBTS[verdict.doubt]}"
    if verdict.policy is None:
        if verdict.allowed:
            return f"no policy denies it, and none says who may call {destination}"
        return f"no rule of an ALLOW policy for {destination} matches"
    return f"rule {verdict.rule} of {verdict.policy} matches ({verdict.file}:{verdict.line})"


def _change(verdict: Verdict, source: str, method: str | None) -> list[str]:
    """What would turn the verdict."""
    from zerohop.compiler.policies.walk import plain_path

    if verdict.doubt or (verdict.allowed and verdict.policy is None):
        return []
    if verdict.policy is not None:
        return [f"to change that, change {verdict.file} from line {verdict.line} on"]
    namespace, _, account = source.partition("/")
    path = plain_path(method.encode(errors="surrogateescape")) if method else None
    lines = ["to allow it, a rule such as this one has to be in an ALLOW policy for the workload:"]
    if source == OUTSIDE:
        lines += ["- to:" if path else "- {}"]
    else:
        lines += [f"- from: [{{source: {{principals: ['*/ns/{namespace}/sa/{account}']}}}}]"]
        lines += ["  to:"] if path else []
    if path:
        lines += [f"    - operation: {{paths: ['{path.decode()}']}}"]
    return lines


def _address(value: str, option: str) -> bytes:
    try:
        parsed = ipaddress.ip_address(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an IP address", param_hint=option) from None
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def _header(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{given!r} is not NAME=VALUE", param_hint="--header")
    return name.lower(), value


def _client(path: DataPath, source: str) -> int:
    """The number of a workload with that service account; 0: nobody."""
    from zerohop.config.errors import suggest
    from zerohop.kernel.tables import text

    if source == OUTSIDE:
        return 0
    accounts: dict[str, int] = {}
    for key, value in path.maps["workloads"].items():
        if not value.removed:
            accounts.setdefault(f"{text(value.namespace_name)}/{text(value.service_account)}", key.value)
    if source not in accounts:
        raise ZerohopError(
            f"no workload has the service account {source}", hint=suggest(source, accounts, "service account")
        )
    return accounts[source]


def _server(path: DataPath, destination: str) -> tuple[int, int]:
    """The number of the workload, and the port."""
    from zerohop.config.errors import suggest
    from zerohop.kernel.tables import workload_ids

    name, colon, number = destination.partition(":")
    known = workload_ids(path, removed=False)
    if name not in known:
        raise ZerohopError(f"no workload {name}", hint=suggest(name, known, "workload"))
    if colon:
        if not number.isdecimal() or not 0 < int(number) < 65536:
            raise click.BadParameter(f"{number!r} is not a port", param_hint="--to")
        return known[name], int(number)
    ports = sorted(key.port for key in path.maps["ports"].keys() if key.workload == known[name])  # noqa: SIM118
    if len(ports) == 1:
        return known[name], ports[0]
    listed: Any = ", ".join(map(str, ports)) or "none is declared"
    raise ZerohopError(f"{name} has not just one port: {listed}", hint=f"say which, as in {name}:{(*ports, 8080)[0]}")
