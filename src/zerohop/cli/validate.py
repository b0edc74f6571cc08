"""`zerohop validate`: check configuration files, without root and without a kernel."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from zerohop.cli.main import print_json
from zerohop.errors import EXIT_FAILED


@click.command(
    epilog="""\b
Examples:
  zerohop validate shop.yaml
  zerohop validate /etc/zerohop
  zerohop validate /etc/zerohop --json | jq .errors

\b
Exit status: 0 valid, 1 not valid, 2 no such path."""
)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def command(ctx: click.Context, path: Path, as_json: bool) -> None:
    """Check a configuration file, or the *.yaml and *.yml of a directory.

    Prints every error of every file as FILE:LINE:COLUMN: MESSAGE, and how to fix it.
    """
    from zerohop.config import ConfigError, ConfigurationError, load
    from zerohop.config.errors import counted

    errors: list[ConfigError] = []
    try:
        configuration = load(path)
        objects = len(configuration.workloads) + len(configuration.services) + len(configuration.endpoint_slices)
    except ConfigurationError as error:
        errors, objects = error.errors, error.objects
    if as_json:
        print_json({"ok": not errors, "errors": [asdict(each) for each in errors], "objects": objects})
    else:
        for each in errors:
            click.echo(f"{each.file}:{each.line}:{each.column}: {each.message}")
            if each.hint:
                click.echo(f"  fix: {each.hint}")
        verdict = counted(len(errors), "error") if errors else "valid"
        click.echo(f"{verdict}: {path}, {counted(objects, 'object')}")
    if errors:
        ctx.exit(EXIT_FAILED)
