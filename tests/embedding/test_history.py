"""Histories: what is read of a run folder and of a foreign file, rows in turn, a run that goes on."""

import json

import numpy as np
import pytest
from histories import write_words

from darkvocab.embedding.history import History, parse_tokens
from darkvocab.errors import CorruptFile

WORDS = np.arange(5 * 3 * 2, dtype=np.uint16).reshape(5, 3, 2)


def write(path, words=WORDS, *, dtype="BF16", **metadata):
    return write_words(path, words, dtype, **metadata)


def read(history, rows):
    return {row: words.tolist() for row, words in history.words(rows)}


def test_a_foreign_file_has_all_its_rows_a_step_apart(tmp_path):
    h = History.open(write(tmp_path / "h.safetensors"))
    assert (h.n_rows, h.n_planned, h.record_every, h.n_tokens, h.dim, h.grid.name) == (5, 5, 1, 3, 2, "bfloat16")
    assert (h.unseen, h.parameters, h.folder) == (None, {}, None)
    assert read(h, h.rows()) == dict(enumerate(WORDS.tolist()))


def test_a_run_folder_says_more(tmp_path):
    write(tmp_path / "embedding_evolution.safetensors", recorded="00003", record_every="10")
    (tmp_path / "corpus.json").write_text(json.dumps({"name": "x", "unseen": [2, 0]}))
    (tmp_path / "manifest.json").write_text(json.dumps({"parameters": {"init_sigma": 1e-5}}))
    h = History.open(tmp_path)
    assert (h.n_rows, h.n_planned, h.unseen, h.parameters) == (3, 5, (0, 2), {"init_sigma": 1e-5})
    assert [h.step(row) for row in h.rows()] == [0, 10, 20]
    assert h.folder == tmp_path
    assert History.open(tmp_path / "embedding_evolution.safetensors").unseen == (0, 2)


@pytest.mark.parametrize(("every", "rows"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3, 4]), (9, [0, 4])])
def test_the_last_row_is_always_among_those_taken(tmp_path, every, rows):
    h = History.open(write(tmp_path / "h.safetensors"))
    assert h.rows(every) == rows
    assert read(h, rows) == {row: WORDS[row].tolist() for row in rows}


def test_every_row_that_is_read_is_counted(tmp_path):
    h = History.open(write(tmp_path / "h.safetensors"))
    reports = []
    assert {row: words.tolist() for row, words in h.words([0, 1, 3, 4], reports.append)} == {
        row: WORDS[row].tolist() for row in (0, 1, 3, 4)
    }
    assert sum(reports) == 4


def test_a_run_that_goes_on_is_read_as_far_as_it_was(tmp_path):
    path = write(tmp_path / "h.safetensors", recorded="2")
    h = History.open(path)
    write(path, recorded="4")
    assert sorted(read(h, h.rows())) == [0, 1]
    assert History.open(path).rows() == [0, 1, 2, 3]


def test_another_key_can_be_asked_for(tmp_path):
    assert History.open(write(tmp_path / "h.safetensors", key="states"), tensor="states").n_rows == 5


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_words_are_those_of_the_file(tmp_path, dtype):
    h = History.open(write(tmp_path / "h.safetensors", dtype=dtype))
    assert h.grid.name == {"F16": "float16", "BF16": "bfloat16"}[dtype]
    single = History.open(write(tmp_path / "s.safetensors", WORDS.astype(np.uint32) << 16, dtype="F32"))
    assert read(single, [4])[4] == (WORDS[4].astype(np.uint32) << 16).tolist()


@pytest.mark.parametrize(
    ("text", "tokens"), [("3", (3,)), ("0-2,7", (0, 1, 2, 7)), (" 7, 0 - 1 ,1", (0, 1, 7)), ("9", (9,))]
)
def test_unseen_tokens_are_named_by_ids_and_ranges(text, tokens):
    assert parse_tokens(text, 10) == tokens


@pytest.mark.parametrize("content", ["[3, 1]", '{"unseen": [3, 1], "name": "x"}', ' {\n "unseen": [1, 3, 3]}'])
def test_unseen_tokens_are_read_from_a_file(tmp_path, content):
    (tmp_path / "unseen.json").write_text(content)
    assert parse_tokens(str(tmp_path / "unseen.json"), 4) == (1, 3)


@pytest.mark.parametrize("text", ["", ",", "3-1", "1-", "-1", "1--2", "0-99999999999999", "10", "9" * 400])
def test_ids_that_are_none_are_refused_before_they_take_memory(text):
    with pytest.raises(ValueError, match="unseen token"):
        parse_tokens(text, 10)


@pytest.mark.parametrize("content", ["3", "[1.5]", "[true]", '["1"]', "{}", '{"unseen": null}', "nothing", "[" * 9999])
def test_a_file_that_names_no_tokens_is_refused(tmp_path, content):
    (tmp_path / "unseen.json").write_text(content)
    with pytest.raises(CorruptFile, match=r"unseen\.json"):
        parse_tokens(str(tmp_path / "unseen.json"), 4)
