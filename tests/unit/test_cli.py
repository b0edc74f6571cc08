"""What is common to all commands: their help."""

from __future__ import annotations

import importlib

import click
import pytest

from zerohop.cli.main import COMMANDS, cli


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal(name: str) -> None:
    command = importlib.import_module(COMMANDS[name]).command if name else cli
    with click.Context(cli, info_name="zerohop") as parent:
        context = click.Context(command, info_name=name, parent=parent) if name else parent
        context.terminal_width = 80
        assert [line for line in command.get_help(context).splitlines() if len(line) > 80] == []
