"""Pieces of a file: what is here, what is missing, and what a record may say."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkvocab.sources.hub.pieces import Pieces, merged, without

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)))


def bytes_of(found):
    return {at for begin, end in found for at in range(begin, end)}


@given(spans, st.integers(0, 40), st.integers(0, 40))
def test_what_is_missing_is_all_that_is_not_here(here, begin, end):
    kept, missing = merged(here), without((begin, end), merged(here))
    assert bytes_of(kept) == bytes_of(here)
    assert bytes_of(missing) == bytes_of([(begin, end)]) - bytes_of(here)
    for found in (kept, missing):
        assert all(first[1] < second[0] for first, second in pairwise(found))
        assert all(first < last for first, last in found)


def test_pieces_are_found_again_by_another_process(tmp_path):
    one = Pieces(tmp_path / "file", 100)
    other = Pieces(tmp_path / "file", 100)
    one.add(0, 10)
    other.add(50, 60)
    other.add(7, 7)
    assert Pieces(tmp_path / "file", 100).missing(0, 100) == [(10, 50), (60, 100)]
    assert (tmp_path / "file").stat().st_size == 100


def test_opening_a_file_takes_nothing_from_it(tmp_path):
    pieces = Pieces(tmp_path / "file", 4)
    pieces.path.write_bytes(b"abcd")
    pieces.add(0, 4)
    assert Pieces(tmp_path / "file", 4).path.read_bytes() == b"abcd"


@pytest.mark.parametrize(
    "record", ["", "[", "{}", "5", "[[0]]", '[["a", 4]]', "[[0, 101]]", "[[-1, 4]]", "[[0, 1.5]]", "[" * 100_000, "\0"]
)
def test_record_that_cannot_be_true_counts_for_nothing(tmp_path, record):
    Pieces(tmp_path / "file", 100).add(0, 50)
    (tmp_path / "file.json").write_text(record)
    assert Pieces(tmp_path / "file", 100).missing(0, 100) == [(0, 100)]


def test_file_that_was_cut_is_begun_anew(tmp_path):
    Pieces(tmp_path / "file", 100).add(0, 50)
    (tmp_path / "file").write_bytes(b"short")
    assert Pieces(tmp_path / "file", 100).missing(0, 100) == [(0, 100)]
    assert not (tmp_path / "file.json").exists()


def test_forgotten_pieces_are_read_again(tmp_path):
    pieces = Pieces(tmp_path / "file", 100)
    pieces.add(0, 100)
    pieces.forget()
    assert pieces.missing(0, 100) == Pieces(tmp_path / "file", 100).missing(0, 100) == [(0, 100)]
    pieces.add(0, 3)
    assert json.loads((tmp_path / "file.json").read_text()) == [[0, 3]]
