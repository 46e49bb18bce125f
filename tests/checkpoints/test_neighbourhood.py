"""Neighbourhoods: a small vocabulary by hand, as a report, as CSV and as a table."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkvocab import neighbourhood
from darkvocab.errors import CorruptFile
from darkvocab.numerics import Touching, from_index
from darkvocab.reports.checkpoints import print_neighbourhood
from darkvocab.reports.console import console

# One column in steps of float16: three tokens at 0 (a black hole), one at 1, one at 2; two at 9 (another), one at 10;
# one at 20, one at 21; one at 30, alone.
STEPS = [0, 9, 0, 1, 2, 9, 0, 10, 20, 21, 30]


@pytest.fixture
def folder(tmp_path):
    rows = from_index(np.array(STEPS)[:, None], "float16").view(np.float16)
    save_file({"wte.weight": np.concatenate([rows, np.ones_like(rows)], 1)}, tmp_path / "model.safetensors")
    texts = {"unk" if n == 0 else "=t\x1b" if n == 3 else f"t{n}": n for n in range(10)}
    model = {"type": "WordLevel", "vocab": texts, "unk_token": "unk"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    return tmp_path


def test_a_neighbourhood_by_hand(folder):
    seen = []
    result = neighbourhood(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (44, 44)
    assert result.report == {
        "schema_version": 1,
        "source": {"asked": str(folder), "path": str(folder / "model.safetensors")},
        "tensor": "wte.weight",
        "chosen": "by name",
        "grid": "float16",
        "stored_grid": "float16",
        "touching": "<= 1 steps",
        "n_tokens": 11,
        "hidden_dim": 2,
        "n_unique": 8,
        "n_black_holes": 2,
        "black_hole_population": 5,
        "n_pairs": 4,
        "n_token_pairs": 3 + 3 + 1 + 1 + 2 + 1,
        "n_isolated": 1,
        "n_components": 4,
        "degrees": [[0, 1, 1], [1, 6, 9], [2, 1, 1]],
        "cluster": {"component": 1, "core": [0, 2, 3, 6], "outliers": [4]},
        "components": [
            {
                "number": 1,
                "n_rows": 3,
                "n_tokens": 5,
                "n_black_holes": 1,
                "token_ids": [0, 2, 3, 4, 6],
                "tokens": ["unk", "t2", "=t\x1b", "t4", "t6"],
            },
            {
                "number": 2,
                "n_rows": 2,
                "n_tokens": 3,
                "n_black_holes": 1,
                "token_ids": [1, 5, 7],
                "tokens": ["t1", "t5", "t7"],
            },
            {
                "number": 3,
                "n_rows": 2,
                "n_tokens": 2,
                "n_black_holes": 0,
                "token_ids": [8, 9],
                "tokens": ["t8", "t9"],
            },
        ],
    }


def test_every_token_goes_into_the_csv_harmless(folder):
    neighbourhood(folder).write_tokens(folder.parent / "tokens.csv")
    header, *rows = csv.reader((folder.parent / "tokens.csv").read_text("utf-8").splitlines())
    assert ",".join(header) == "token_id,token,black_hole,component,component_tokens,degree,token_degree,cluster"
    assert rows == [
        ["0", "unk", "1", "1", "5", "1", "3", "core"],
        ["1", "t1", "2", "2", "3", "1", "2", ""],
        ["2", "t2", "1", "1", "5", "1", "3", "core"],
        ["3", "'=t\\x1b", "", "1", "5", "2", "4", "core"],
        ["4", "t4", "", "1", "5", "1", "1", "outlier"],
        ["5", "t5", "2", "2", "3", "1", "2", ""],
        ["6", "t6", "1", "1", "5", "1", "3", "core"],
        ["7", "t7", "", "2", "3", "1", "2", ""],
        ["8", "t8", "", "3", "2", "1", "1", ""],
        ["9", "t9", "", "3", "2", "1", "1", ""],
        ["10", "", "", "4", "1", "0", "0", ""],
    ]
    with pytest.raises(ValueError, match="is part of the source"):
        neighbourhood(folder).write_tokens(folder / "model.safetensors")


@pytest.mark.slow
def test_the_threshold_the_grid_and_the_tensor_can_be_chosen(folder):
    far = neighbourhood(folder, Touching(7, "steps"), tokenizer="none")
    assert (far.report["touching"], far.report["components"][0]["token_ids"]) == (
        "<= 7 steps",
        [0, 1, 2, 3, 4, 5, 6, 7],
    )
    assert far.report["components"][0]["tokens"] == [None] * 8
    assert neighbourhood(folder, Touching(1, "steps", strict=True)).report["n_pairs"] == 0
    assert neighbourhood(folder, Touching(2.0**-24)).report["n_pairs"] == 4  # the step of float16 at zero
    coarse = neighbourhood(folder, grid="bfloat16", tensor="wte.weight").report
    assert (coarse["grid"], coarse["stored_grid"], coarse["chosen"]) == ("bfloat16", "float16", "as asked")


def test_the_table_says_what_was_found(folder, capsys):
    print_neighbourhood(neighbourhood(folder).report, console(), 2)
    reports = capsys.readouterr().out
    assert "touching      <= 1 steps in every column, on float16\n" in reports
    assert "pairs         4 of rows, 11 of tokens (equal rows included)\n" in reports
    assert "(component 1): core 4, in a black hole or touching one; outliers 1, by way of others\n" in reports
    assert "degree  rows  tokens\n     0     1       1\n     1     6       9\n     2     1       1\n" in reports
    assert "1       5     3            1  unk  t2  and 3 more\n" in reports
    assert reports.endswith("3       2     2            0  t8  t9\n")


def test_long_tables_are_cut_and_say_so(folder, capsys):
    report = neighbourhood(folder).report
    report["degrees"] = [[degree, 2, 3] for degree in range(25)]
    report["components"] = report["components"][:1] * 22
    print_neighbourhood(report, console())
    reports = capsys.readouterr().out
    assert "\n    19     2       3\nand 5 more degrees up to 24, of 10 rows with 15 tokens; --json" in reports
    assert reports.endswith("\nand 2 more components with 10 tokens; --json lists them all\n")


def test_where_nothing_touches_there_are_facts_alone(tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.eye(3, dtype=np.float32))
    result = neighbourhood(tmp_path / "rows.npy")
    assert (result.report["cluster"], result.report["components"]) == (
        {"component": None, "core": [], "outliers": []},
        [],
    )
    print_neighbourhood(result.report, console())
    assert capsys.readouterr().out.endswith("frozen smoke  none: there are no black holes\n")


def test_rows_that_are_no_numbers_are_refused(tmp_path):
    np.save(tmp_path / "rows.npy", np.full((3, 2), np.nan, np.float32))
    with pytest.raises(CorruptFile, match="hold NaN or infinity"):
        neighbourhood(tmp_path / "rows.npy")
