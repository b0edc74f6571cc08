"""The `zerohop` command: wires the sub-commands together and turns errors into messages and exit statuses."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import click

from zerohop import __version__
from zerohop.errors import EXIT_FAILED, ZerohopError

# Sub-command name to module; a module is imported only when its command runs, so that `zerohop exec` and
# the agent carry nothing they do not use. Each module defines `command: click.Command`.
COMMANDS: Final[dict[str, str]] = {
    "run": "zerohop.cli.run",
    "exec": "zerohop.cli.exec",
    "status": "zerohop.cli.status",
    "top": "zerohop.cli.top",
    "flows": "zerohop.cli.flows",
    "validate": "zerohop.cli.validate",
    "explain": "zerohop.cli.explain",
    "doctor": "zerohop.cli.doctor",
    "demo": "zerohop.cli.demo",
    "bench": "zerohop.cli.bench",
    "clean": "zerohop.cli.clean",
}

# What writing fails with where there is no room, or no more of the medium.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@dataclass(frozen=True)
class Context:
    """What every sub-command shares: the instance name (`click.Context.obj`)."""

    instance: str


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            nearest = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if nearest:
                raise click.UsageError(f"no such command {args[0]!r}; did you mean {nearest[0]!r}?", ctx) from error
            raise


def validate_instance(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Accepts a DNS label, since the name becomes a folder under bpffs, cgroupfs and /run."""
    import re

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise click.BadParameter("use lower-case letters, digits and '-', at most 63, as in 'default'")
    return value


def _validate_pair(ctx: click.Context, param: click.Parameter, value: str) -> str:
    namespace, _, name = value.partition("/")
    if value and (not namespace or not name or "/" in name):
        raise click.BadParameter(f"{value!r} is not NS/NAME, as in shop/cart, or shop/* for a namespace")
    return value


def pair_option(*names: str, text: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that names are compared with: NS/NAME, on both sides of the slash also with wildcards."""
    return click.option(*names, default="", metavar="NS/NAME", callback=_validate_pair, help=text)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zerohop")
@click.option(
    "--instance",
    default="default",
    show_default=True,
    callback=validate_instance,
    help="Which data path to work on; each has its own pins, cgroups and control socket.",
)
@click.pass_context
def cli(ctx: click.Context, instance: str) -> None:
    """A service mesh with no proxy hop.

    \b
    Examples:
      sudo zerohop run -c /etc/zerohop            manage what the files describe
      sudo zerohop exec --workload shop/cart -- ./cart-server
      sudo zerohop status
    """
    ctx.obj = Context(instance)


def print_json(value: Any) -> None:
    """Prints one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def require_root(command: str) -> None:
    """Raises `ZerohopError` unless the caller is root."""
    if os.geteuid() != 0:
        raise ZerohopError("needs root", hint=f"run sudo zerohop {command}")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with a documented status."""
    try:
        code = _run(argv)
        print(end="", flush=True)  # here, and not where the interpreter ends, a full disk can be reported
    except OSError as error:
        # Without a word where the reader of our output went away (`zerohop flows | head`).
        if error.errno != errno.EPIPE:
            if error.errno not in _UNWRITABLE or error.filename is not None:
                raise
            click.echo(f"zerohop: cannot write the output: {error.strerror}", err=True)
        # What is still in the buffer must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = EXIT_FAILED
    sys.exit(code)


def _run(argv: Sequence[str] | None) -> int:
    """Runs the command line; returns its exit status, errors reported."""
    try:
        result = cli.main(args=list(argv) if argv is not None else None, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ZerohopError as error:
        click.echo(f"zerohop: {error.message}", err=True)
        if error.hint:
            click.echo(f"  fix: {error.hint}", err=True)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("zerohop: interrupted", err=True)
        return 130
