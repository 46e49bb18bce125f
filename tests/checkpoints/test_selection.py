"""Tokens that a text of `--tokens` means."""

import json

import numpy as np
import pytest

from darkvocab import EmbeddingMatrix, scan
from darkvocab.checkpoints import selection
from darkvocab.errors import CorruptFile

ROWS = np.arange(40, dtype=np.float32).reshape(20, 2)
ROWS[[3, 9, 12]] = ROWS[3]
MATRIX = EmbeddingMatrix.from_array(ROWS)


def select(asked, *matrix):
    return selection.select(asked, matrix[0], ["either"], *matrix[1:])["either"]


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ("5", [5]),
        ("5, 7 ,5", [5, 7]),
        ("0-2,19", [0, 1, 2, 19]),
        ("4-4", [4]),
        ("black-holes", [3, 9, 12]),
        ("black-holes,3-4", [3, 4, 9, 12]),
        ([7, np.int32(2), 7], [2, 7]),
        (range(3), [0, 1, 2]),
    ],
)
def test_ids_ranges_and_names(asked, tokens):
    assert select(asked, MATRIX).tolist() == tokens


@pytest.mark.parametrize(
    "held", [[4, 2], [[4], [2]], [{"id": 4, "text": "a"}, {"id": 2}], {"tokens": [{"id": 4}, {"id": 2}], "n": 3}]
)
def test_files_of_ids(held, tmp_path):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(held))
    assert select(f"@{path},7", MATRIX).tolist() == [2, 4, 7]


def test_rows_beyond_the_tokenizer():
    matrix = EmbeddingMatrix(words=MATRIX.words, grid=MATRIX.grid, texts={i: str(i) for i in range(18) if i != 4})
    assert select("beyond-tokenizer", matrix).tolist() == [4, 18, 19]
    assert select("beyond-tokenizer", matrix, 22).tolist() == [4, 18, 19, 20, 21]
    with pytest.raises(ValueError, match="needs a tokenizer"):
        select("beyond-tokenizer", MATRIX)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("", "cannot read ''"),
        ("1,,2", "cannot read ''"),
        ("-3", "cannot read '-3'"),
        ("1.5", "cannot read '1.5'"),
        ("dark matter", "cannot read 'dark matter' as tokens; choose ids, ranges like 10-20"),
        ("1-2-3", "cannot read '1-2-3'"),
        ("9" * 40, "cannot read"),
        ("7-5", "the range 7-5 ends before it starts; write 5-7"),
        ("20", "there is no token 20; there are 20, 0 to 19"),
        ("0-999999999999999999", "there is no token 999999999999999999"),
        ([-1], "there is no token -1"),
        ([1, 20], "there is no token 20"),
        ([1.0], "a token is a whole number, got 1.0"),
        ([0.0], "a token is a whole number, got 0.0"),
        ([True], "a token is a whole number, got True"),
        (["1"], "a token is a whole number, got '1'"),
    ],
)
def test_what_is_no_token_is_refused(asked, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        select(asked, MATRIX)


@pytest.mark.parametrize(
    "held",
    ["", "{", "5", '"5"', "{}", '{"tokens": 5}', "[1.0]", "[true]", "[null]", '[{"id": "1"}]', "[[1, 2]]", "[" * 99999],
)
def test_file_that_holds_no_ids_is_refused(held, tmp_path):
    path = tmp_path / "ids.json"
    path.write_text(held)
    with pytest.raises(CorruptFile, match=r"ids\.json"):
        select(f"@{path}", MATRIX)


def test_file_of_ids_beyond_the_matrix_or_missing_is_refused(tmp_path):
    path = tmp_path / "ids.json"
    path.write_text("[3, 400]")
    with pytest.raises(ValueError, match=r"ids\.json: there is no token 400"):
        select(f"@{path}", MATRIX)
    with pytest.raises(FileNotFoundError):
        select("@nothing.json", MATRIX)


@pytest.mark.slow
def test_dark_tokens_are_those_of_a_scan(tmp_path):
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 0.05, (3_000, 32)).astype(np.float32)
    rows[[7, 9, 400]] = rows[7]
    rows[500:520] = rows[7] + rng.normal(0, 1e-4, (20, 32)).astype(np.float32)
    rows[2_000] = rows[7] + np.float32(1e-5)
    matrix = EmbeddingMatrix.from_array(rows)
    np.save(tmp_path / "rows.npy", rows)
    dark = scan(tmp_path / "rows.npy").tokens.filter("dark")["id"].to_list()
    assert select("dark", matrix).tolist() == dark
    assert {7, 9, 400} <= set(select("dark,3", matrix).tolist()) < set(range(3_000))


def test_dark_tokens_are_judged_without_comparing_rows(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("what no judgement needs is measured")

    for name in ("neighbours.near_rows", "geometry.Distances"):
        monkeypatch.setattr(f"darkvocab.measures.{name}", refuse)
    monkeypatch.setattr("darkvocab.numerics._backends.neighbours.nearest", refuse)
    select("dark", MATRIX)
