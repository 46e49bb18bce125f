"""Pieces of a file: which are here, which are missing, and what a record may say."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkvocab.sources.hub.repo import PartialFile

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)))


def bytes_of(spans):
    return {at for begin, end in spans for at in range(begin, end)}


@given(spans, st.integers(0, 40), st.integers(0, 40))
def test_missing_is_every_byte_that_was_not_added(tmp_path_factory, added, begin, end):
    pieces = PartialFile(tmp_path_factory.mktemp("pieces") / "file", 40)
    for span in added:
        pieces.add(*span)
    missing = pieces.missing(begin, end)
    assert bytes_of(missing) == bytes_of([(begin, end)]) - bytes_of(added)
    assert all(first[1] < second[0] for first, second in pairwise(missing))
    assert all(first < last for first, last in missing)


def test_pieces_of_two_processes_are_all_recorded(tmp_path):
    one = PartialFile(tmp_path / "file", 100)
    other = PartialFile(tmp_path / "file", 100)
    one.add(0, 10)
    other.add(50, 60)
    other.add(7, 7)
    for pieces in (one, other, PartialFile(tmp_path / "file", 100)):
        assert pieces.missing(0, 100) == [(10, 50), (60, 100)]
    assert (tmp_path / "file").stat().st_size == 100


def test_opening_a_file_takes_nothing_from_it(tmp_path):
    pieces = PartialFile(tmp_path / "file", 4)
    pieces.path.write_bytes(b"abcd")
    pieces.add(0, 4)
    assert PartialFile(tmp_path / "file", 4).path.read_bytes() == b"abcd"


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{}",
        "5",
        "0\n",
        "0 50",
        "a 4\n",
        "0 101\n",
        "-1 4\n",
        "0 1.5\n",
        "0 5 9\n",
        "\0\n",
        "9" * 5000 + " 4\n",
        "é\n",
    ],
)
def test_record_that_cannot_be_true_counts_for_nothing(tmp_path, record):
    pieces = PartialFile(tmp_path / "file", 100)
    pieces.add(0, 50)
    (tmp_path / "file.spans").write_text(record, "utf-8")
    assert pieces.missing(0, 100) == [(0, 100)]
    pieces.add(60, 70)
    assert bytes_of(pieces.missing(0, 100)) >= bytes_of([(0, 60), (70, 100)])


def test_file_that_was_cut_is_begun_anew(tmp_path):
    PartialFile(tmp_path / "file", 100).add(0, 50)
    (tmp_path / "file").write_bytes(b"short")
    assert PartialFile(tmp_path / "file", 100).missing(0, 100) == [(0, 100)]
    assert not (tmp_path / "file.spans").exists()


def test_forgotten_pieces_are_missing_again(tmp_path):
    pieces = PartialFile(tmp_path / "file", 100)
    pieces.add(0, 100)
    pieces.forget()
    assert pieces.missing(0, 100) == PartialFile(tmp_path / "file", 100).missing(0, 100) == [(0, 100)]
    pieces.add(0, 3)
    assert pieces.missing(0, 100) == [(3, 100)]
