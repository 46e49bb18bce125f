"""--quiet and --color, before the name of a command and after it; NO_COLOR."""

import re

import numpy as np
import pytest

from darkvocab.cli import shell
from darkvocab.reports.console import console

PLACES = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


@pytest.fixture
def checkpoint(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([[1, 2], [1, 2], [3, 4]], np.float32))
    return tmp_path / "rows.npy"


def line(before, options, *words):
    return [*options, *words] if before else [*words, *options]


@PLACES
def test_quiet_leaves_results_and_no_note(cli, checkpoint, tmp_path, before):
    words = ["scan", checkpoint, "--html", tmp_path / "page.html"]
    loud = cli(*words)
    quiet = cli(*line(before, ["--quiet"], *words))
    assert loud.err == f"open {tmp_path / 'page.html'}\n"
    assert (quiet.code, quiet.out, quiet.err) == (0, loud.out, "")
    assert cli(*words).err == loud.err  # of that one call


@PLACES
def test_quiet_leaves_errors(cli, before):
    result = cli(*line(before, ["-q"], "scan", "none.npy"))
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("darkvocab: ")


def test_quiet_shows_no_progress_and_is_still_interrupted(monkeypatch, capsys):
    monkeypatch.setitem(shell.TERMINAL, "quiet", True)
    monkeypatch.setattr("darkvocab.progress.time.monotonic", iter(range(0, 1000, 11)).__next__)
    with shell.progress_bar("sweeping") as progress:
        for done in range(5):
            progress(done, 5)
        monkeypatch.setattr(shell, "_interrupted", True)
        with pytest.raises(KeyboardInterrupt):
            progress(5, 5)
    assert capsys.readouterr().err == ""


@PLACES
def test_color_always_styles_what_goes_into_a_pipe_and_cuts_nothing(cli, checkpoint, before):
    plain = cli("scan", checkpoint)
    styled = cli(*line(before, ["--color", "always"], "scan", checkpoint))
    assert "\x1b[" not in plain.out
    assert "\x1b[2m" in styled.out
    text = re.sub(r"\x1b\[\d+m", "", styled.out)
    assert [shown.rstrip() for shown in text.splitlines()] == plain.out.splitlines()


@PLACES
def test_color_never_is_obeyed_where_a_terminal_is(cli, checkpoint, monkeypatch, before):
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich this is a terminal
    assert "\x1b[" in cli("scan", checkpoint).out
    assert "\x1b" not in cli(*line(before, ["--color", "never"], "scan", checkpoint)).out


@pytest.mark.parametrize(("color", "coloured"), [(None, False), ("never", False), ("always", True)])
def test_no_color_is_obeyed_unless_color_is_asked_for(color, coloured, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    console(color).print("rows", style="red")
    assert ("\x1b[31m" in capsys.readouterr().out) == coloured


def test_a_color_that_is_none_is_refused(cli, checkpoint):
    result = cli("scan", checkpoint, "--color", "sometimes")
    assert (result.code, result.out) == (2, "")
    assert "'sometimes' is not one of 'auto', 'always', 'never'" in result.err
