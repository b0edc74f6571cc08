"""What is common to all commands: their help, usage errors, and an output that takes nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from zerohop.cli.main import COMMANDS, cli


def zerohop(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zerohop", *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60
    )


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal(name: str) -> None:
    command = importlib.import_module(COMMANDS[name]).command if name else cli
    with click.Context(cli, info_name="zerohop") as parent:
        context = click.Context(command, info_name=name, parent=parent) if name else parent
        context.terminal_width = 80
        assert [line for line in command.get_help(context).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", ["flows", "top"])
def test_filters_want_a_namespace_and_a_name(command: str) -> None:
    module = importlib.import_module(COMMANDS[command])
    options = {"--workload", "--from", "--to", "--service"} | ({"--policy"} if command == "flows" else set())
    for option in options:
        for value in ("x", "a/b/c", "/x", "x/", "*"):
            with pytest.raises(click.BadParameter, match="is not NS/NAME, as in shop/cart") as refused:
                module.command.make_context(command, [option, value])
            assert refused.value.exit_code == 2
            assert f"Invalid value for '{option}'" in refused.value.format_message()
        for value in ("shop/cart", "shop/*", "*/cart", "*/*"):
            assert value in module.command.make_context(command, [option, value]).params.values()


@pytest.mark.parametrize("arguments", [["validate", "a.yaml"], ["validate", "--json", "a.yaml"], ["status", "--help"]])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("apiVersion: zerohop.io/v1alpha1\nkind: Workload\nmetadata: {name: cart}\n")
    with Path("/dev/full").open("wb") as full:
        result = zerohop(*arguments, stdout=full.fileno())
    assert (result.returncode, result.stderr) == (1, "zerohop: cannot write the output: No space left on device\n")
