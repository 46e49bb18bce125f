"""The help groups commands by question and options by purpose, and cuts nothing off."""

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from darkvocab.cli import app
from darkvocab.cli import options as texts

NAMES = [name for rows in texts.COMMANDS.values() for name in rows]


def shown(*words):
    """The lines of a help as an 80-column terminal shows them."""
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    return result.output.splitlines()


def test_every_command_stands_under_one_question_with_a_whole_line():
    assert sorted(NAMES) == sorted(get_command(app).commands)
    lines = shown()
    for heading, rows in texts.COMMANDS.items():
        at = lines.index(heading)
        for place, (name, short) in enumerate(rows.items(), at + 1):
            assert lines[place].split(maxsplit=1) == [name, short]
    assert not any(line.endswith("...") for line in lines[1:])


@pytest.mark.parametrize("name", NAMES)
def test_the_common_options_come_first_and_none_is_missing(name):
    lines = shown(name)
    command = get_command(app).commands[name]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    text = "\n".join(lines)
    assert all(max(option.opts, key=len) in text for option in options)
    headings = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [heading for heading in ("Arguments", "Options", *texts.OPTIONS) if heading in headings]


def test_every_option_that_a_section_names_exists():
    known = {p.name for command in get_command(app).commands.values() for p in command.params}
    assert {name for names in texts.OPTIONS.values() for name in names.split()} <= known


def test_a_grid_is_read_in_a_checkpoint_and_rounded_to_in_a_snowball():
    assert texts.section_of("scan", "grid") == "What is read"
    assert texts.section_of("sweep", "grid") == "The snowball"
    assert texts.section_of("sweep", "sigma") is None
