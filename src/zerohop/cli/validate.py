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
    from zerohop.compiler import compile_tables
    from zerohop.compiler.policies import TooComplexError, compile_policies
    from zerohop.config import ConfigError, ConfigurationError, load
    from zerohop.config.errors import counted

    errors: list[ConfigError] = []
    try:
        configuration = load(path)
        compile_policies(configuration, compile_tables(configuration))
        kinds = (configuration.workloads, configuration.services, configuration.endpoint_slices, configuration.policies)
        objects = sum(map(len, kinds))
    except ConfigurationError as error:
        errors, objects = error.errors, error.objects
    except TooComplexError as error:
        errors, objects = [error.as_config_error()], 0
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
