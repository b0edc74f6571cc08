"""`zerohop doctor`: whether this kernel does what zerohop rests on."""

from __future__ import annotations

import platform
import textwrap
from typing import TYPE_CHECKING

import click

from zerohop.cli.main import print_json
from zerohop.errors import EXIT_FAILED, EXIT_UNSUPPORTED

if TYPE_CHECKING:
    from zerohop.doctor import Check

_WIDTH = 80
_COLOURS = {"ok": "green", "broken": "red", "unknown": "yellow"}


@click.command(
    epilog="""\b
Examples:
  sudo zerohop doctor
  sudo zerohop doctor --quick
  sudo zerohop doctor --json | jq '.checks[] | select(.result != "ok")'

\b
Exit status: 0 nothing is broken that matters, 1 something is,
77 a prerequisite is missing, so zerohop cannot run on this machine."""
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quick", is_flag=True, help="Only what `run` looks at when it starts.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, quick: bool) -> None:
    """Probe this kernel, and try on it everything that the short-cut rests on.

    Works in cgroups and network namespaces of its own, with a private data
    path; nothing of it stays, and what runs already is not touched.
    """
    from zerohop.doctor import Result, examination, is_ok, verdict

    told = (lambda check: None) if as_json else _print
    checks = examination.quick(told) if quick else examination.whole(told)
    ok = is_ok(checks)
    if as_json:
        print_json({"ok": ok, "checks": [each.as_json() for each in checks]})
    else:
        _print_summary(checks, verdict(checks))
    missing = [each.name for each in checks if each.name in _MACHINE and each.result is Result.BROKEN]
    if missing:
        click.echo(f"zerohop: cannot run on this machine: {', '.join(missing)} missing", err=True)
        ctx.exit(EXIT_UNSUPPORTED)
    if not ok:
        ctx.exit(EXIT_FAILED)


# Without these nothing can be tried; `root` is the caller's to change, not the machine's.
_MACHINE = frozenset({"cgroup2", "bpffs", "btf", "libbpf"})


def _print(check: Check) -> None:
    """One check: its answer and what was seen; below it what follows, when it is not ok."""
    click.echo(f"{check.name:<17}" + click.style(f"{check.result.value:<8}", fg=_COLOURS[check.result.value]), nl=False)
    click.echo(_wrapped(check.detail, 25).lstrip())
    if check.consequence:
        click.echo(_wrapped(f"-> {check.consequence}", 25))


def _wrapped(text: str, indent: int) -> str:
    lines = [
        textwrap.fill(line, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False)
        for line in text.splitlines()
    ]
    return "\n".join(line for line in lines if line)


def _print_summary(checks: list[Check], verdict: str) -> None:
    counts = {name: sum(each.result.value == name for each in checks) for name in _COLOURS}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    meaning = {
        "ok": "run uses the short-cut here",
        "no-shortcut": "run works here without the short-cut",
        "refuse": "run cannot work here",
    }[verdict]
    click.echo(f"\nLinux {platform.release()}: {said}; {meaning}")
