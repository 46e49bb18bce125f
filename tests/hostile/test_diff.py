"""Diffs of files that are bad, or that have nothing to do with each other; and what a diff may write."""

import json

import numpy as np
import pytest

ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.fixture
def pair(checkpoint):
    return checkpoint(ROWS, name="a.safetensors"), checkpoint(ROWS * [[1]] * 5 + [[2]], name="b.safetensors")


def test_exit_code_says_whether_they_differ_only_when_asked(pair, cli):
    a, b = pair
    asked = {(a, b): 1, (a, a): 0}
    for files, code in asked.items():
        assert cli("diff", *files).code == 0
        result = cli("diff", *files, "--exit-code", "--json")
        assert result.code == code
        assert json.loads(result.out)["differs"] is bool(code)


def test_rows_of_other_length_are_refused(checkpoint, pair, refuses):
    wide = checkpoint(np.ones((6, 3)), name="wide.safetensors")
    refuses("diff", pair[0], wide, code=2, says=["rows of 2 columns", "of 3", "--tensor-b"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--matrix", "both sides"], "unknown matrix 'both sides'; choose one of input, output, both"),
        (["--tensor", "nothing"], "no tensor 'nothing'"),
        (["--tensor-b", "nothing"], "no tensor 'nothing'"),
        (["--grid", "bf16"], "unknown grid 'bf16'"),
    ],
)
def test_choice_that_is_none_is_refused(pair, refuses, options, says):
    refuses("diff", *pair, *options, code=2, says=[says])


def test_either_file_may_be_missing_or_corrupt(pair, refuses, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(pair[0].read_bytes()[:-1])
    for files, code, says in (
        ((pair[0], "nothing"), 3, "no file or folder 'nothing'"),
        (("nothing", pair[0]), 3, "no file or folder 'nothing'"),
        ((pair[0], broken), 4, "truncated"),
        ((broken, pair[0]), 4, "truncated"),
    ):
        refuses("diff", *files, code=code, says=[says])


@pytest.mark.parametrize("first", [True, False])
def test_rows_that_are_no_numbers_are_named(checkpoint, pair, refuses, first):
    bad = checkpoint(np.where(ROWS == 5, np.nan, ROWS), name="bad.safetensors")
    files = (bad, pair[0]) if first else (pair[0], bad)
    refuses("diff", *files, code=4, says=["1 of 6 rows", "tokens 2"])


def test_texts_cannot_leave_the_terminal_other_than_it_was(model, cli, tmp_path):
    a = model(ROWS, ["plain", "\x1b[2J", "\u202eback", "c", "d", "e"])
    b = tmp_path / "b"
    a.rename(b)
    a = model(ROWS + 1, ["[red]", "\x1b[3J", "\u202eforth", "c", "d", "e"])
    result = cli("diff", a, b)
    assert result.code == 0
    assert result.out.replace("\n", "").isprintable()
    assert r"1 \x1b[3J | \x1b[2J" in result.out
    assert "0 [red] | plain" in result.out


def test_neither_checkpoint_is_overwritten(pair, refuses, contents, tmp_path):
    before = contents(tmp_path)
    for place in pair:
        refuses("diff", *pair, "--csv", place, code=2, says=[str(place), "part of the source"])
    assert contents(tmp_path) == before
