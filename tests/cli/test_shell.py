"""Exceptions become a sentence and an exit code where a user caused them, and a traceback where they are bugs."""

import os
import subprocess
import sys

import pytest
import typer

import darkvocab.errors as errors
from darkvocab.cli import shell

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DarkvocabError)]
ROOM = "; make room"


def run(error):
    """Return the exit code of a command that raises `error`."""

    @shell.command
    def command():
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    return ended.value.exit_code


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_an_error_of_the_tree_is_one_sentence_and_its_exit_code(kind, capsys):
    assert run(kind("asked, found, next")) == kind.exit_code
    room = ROOM if kind is errors.DiskFull else ""
    assert capsys.readouterr().err == f"darkvocab: asked, found, next{room}\n"


@pytest.mark.parametrize("bug", [ZeroDivisionError("division by zero"), ValueError("too many values"), KeyError("x")])
def test_a_bug_shows_its_traceback_asks_for_a_report_and_is_no_finding(bug, capsys):
    assert run(bug) == 70
    reports = capsys.readouterr().err
    assert "Traceback" in reports
    assert "this is a bug in darkvocab" in reports
    assert "please report it" in reports


def test_what_the_system_refuses_is_named(capsys, tmp_path):
    with pytest.raises(FileNotFoundError) as refused:
        (tmp_path / "none").open()
    assert run(refused.value) == 3
    assert capsys.readouterr().err == f"darkvocab: {tmp_path / 'none'}: No such file or directory\n"
    assert run(MemoryError("12 GB")) == 2
    assert "more memory than there is (12 GB)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("given", "held"), [({}, "4"), ({"OPENBLAS_THREAD_TIMEOUT": "20"}, "20")])
def test_threads_of_blas_are_told_to_sleep_before_numpy_loads_them(given, held):
    code = (
        "import contextlib, os, sys; from darkvocab.cli import main; sys.argv = ['darkvocab', '--version']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(os.environ['OPENBLAS_THREAD_TIMEOUT'], 'numpy' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=clean | given)
    assert ran.stdout.splitlines()[-1] == f"{held} False"
