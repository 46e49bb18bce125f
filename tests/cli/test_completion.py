"""Completion in shells: the script that each loads, commands, and values of options."""

import pytest
from typer.testing import CliRunner

from darkvocab.cli import app
from darkvocab.cli.options import TABLES, options_of
from darkvocab.numerics import GRIDS


def completed(*words):
    """Return what bash is offered for the last of these words."""
    typed = {"COMP_WORDS": " ".join(["darkvocab", *words]), "COMP_CWORD": str(len(words))}
    result = CliRunner().invoke(app, prog_name="darkvocab", env={"_DARKVOCAB_COMPLETE": "complete_bash", **typed})
    return result.stdout.split()


@pytest.mark.slow  # bash is asked for its version
@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o default -F _darkvocab_completion darkvocab"),
        ("zsh", "compdef _darkvocab_completion darkvocab"),
        ("fish", "complete --command darkvocab --no-files"),
    ],
)
def test_the_script_of_a_shell_is_printed(shell, line):
    result = CliRunner().invoke(app, prog_name="darkvocab", env={"_DARKVOCAB_COMPLETE": f"source_{shell}"})
    assert result.exit_code == 0
    assert line in result.stdout


def test_commands_options_and_values_are_completed():
    assert completed("ve") == ["verify"]
    assert completed("sweep", "--arith") == ["--arithmetic"]
    assert completed("sweep", "--arithmetic", "ex") == ["exact"]
    assert completed("scan", "--color", "") == ["auto", "always", "never"]
    assert set(completed("scan", "--grid", "")) == set(GRIDS)


def test_a_default_is_among_the_values_that_are_completed():
    for table in TABLES:
        for name, option in options_of(table).items():
            if option.get("values") and option.get("default"):
                assert option["default"] in option["values"].split(), (table, name)
