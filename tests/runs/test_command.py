"""The command that repeats a run: options as a shell reads them, defaults left out, a reason where there is none."""

import shlex
from pathlib import Path

import pytest

from darkvocab.runs.folder import repeating


def words(options, defaults=None):
    return shlex.split(repeating("train", options, defaults or {})["command"])[2:]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": 5}, ["--tokens", "5"]),
        ({"learning_rate": 1e-3}, ["--learning-rate", "0.001"]),
        ({"sigma": 3.281911e-3 / 3}, ["--sigma", repr(3.281911e-3 / 3)]),
        ({"init_unit": True}, ["--init-unit"]),
        ({"init_unit": False}, ["--no-init-unit"]),
        ({"record": ("gradients", "moments")}, ["--record", "gradients", "--record", "moments"]),
        ({"record": []}, []),
        ({"dim": None}, []),
        ({"corpus": Path("a text's.txt")}, ["--corpus", "a text's.txt"]),
        ({"name": "-x; rm *"}, ["--name", "-x; rm *"]),
    ],
)
def test_an_option_is_said_as_the_command_line_reads_it(options, said):
    assert words(options) == said


def test_what_is_at_its_default_is_left_out_and_nothing_else():
    defaults = {"tokens": 2100, "strict": False, "base": "qwen3-4b", "epsilon": None}
    assert words({"tokens": 2100, "strict": False, "base": "qwen3-4b", "epsilon": None, "seed": 42}, defaults) == [
        "--seed",
        "42",
    ]
    assert words({"tokens": 2101, "strict": True}, defaults) == ["--tokens", "2101", "--strict"]


def test_what_hinders_is_said_in_place_of_a_command():
    assert repeating("sweep", {"tokens": 5}, {}, "its base is an array") == {
        "command": None,
        "no_command": "its base is an array",
    }


@pytest.mark.parametrize("name", ["two\nlines.npy", "red \x1b[31m.npy", "not UTF-8 \udcff.npy"])
def test_a_name_that_cannot_be_shown_has_no_command(name):
    reports = repeating("sweep", {"base": name}, {})
    assert reports["command"] is None
    assert repr(name) in reports["no_command"]
    assert reports["no_command"].isprintable()
