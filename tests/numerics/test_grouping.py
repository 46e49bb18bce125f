"""Identical-row grouping against numpy's sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab.numerics import decode, grouping, identical_rows
from darkvocab.numerics._backends import grouping as kernels

WORDS = st.sampled_from(["u1", "u2", "u4", "u8"])


def sorted_groups(rows):
    """Labels in order of appearance, by sorting rows."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]


@pytest.mark.slow
@given(dtype=WORDS, data=st.data())
def test_groups_equal_those_of_a_sort(dtype, data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 6)))
    rows = data.draw(hnp.arrays(dtype, shape, elements=st.integers(0, 2)))
    groups = identical_rows(rows, bitwise=True)
    assert np.array_equal(groups.labels, sorted_groups(rows))
    assert np.array_equal(groups.counts, np.bincount(groups.labels))
    assert np.array_equal(groups.labels[groups.first], np.arange(len(groups.first)))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_minus_zero_equals_zero_unless_bitwise(bits):
    sign = 1 << (bits - 1)
    rows = np.array([[0, 5], [sign, 5], [sign, sign | 5], [0, sign | 5]], f"u{bits // 8}")
    assert identical_rows(rows).labels.tolist() == [0, 0, 1, 1]
    assert identical_rows(rows, bitwise=True).labels.tolist() == [0, 1, 2, 3]


@given(rows=hnp.arrays("u2", (12, 4), elements=st.sampled_from([0x0000, 0x8000, 0x0001, 0x8001, 0x3F80])))
def test_value_equality_is_equality_of_values(rows):
    assert np.array_equal(identical_rows(rows).labels, sorted_groups(decode(rows, "bfloat16") + 0.0))


def test_rows_whose_hashes_collide_are_told_apart(monkeypatch):
    # With all keys zero every hash is zero: only the comparison of words is left.
    monkeypatch.setattr(grouping, "row_keys", lambda dim: np.zeros(dim + 1, np.uint64))
    rows = np.random.default_rng(0).integers(0, 3, (300, 3)).astype("u2")
    assert np.array_equal(identical_rows(rows).labels, sorted_groups(rows))
    assert np.array_equal(
        identical_rows(rows, rounded=lambda at: (rows[at] // 2).astype("u1")).labels, sorted_groups(rows // 2)
    )


def test_hash_is_the_multilinear_one():
    rng = np.random.default_rng(3)
    rows, keys = rng.integers(0, 2**16, (5, 7)).astype("u2"), rng.integers(0, 2**64, 7, dtype=np.uint64)
    hashes, largest = np.empty(5, np.uint64), np.empty(5, np.uint16)
    kernels.hash_rows(rows, keys, np.uint16(0x8000), np.uint16(0x8000), hashes, largest)
    folded = np.where(rows == 0x8000, 0, rows).astype(object)
    assert hashes.tolist() == [
        int(sum(k * w for k, w in zip(keys.tolist(), row, strict=True))) % 2**64 for row in folded
    ]
    assert np.array_equal(largest, (rows & 0x7FFF).max(axis=1))


def test_a_memory_mapped_matrix_groups_as_one_in_memory(tmp_path):
    rows = np.random.default_rng(1).integers(0, 2, (5000, 600)).astype("u2")
    rows[::7] = rows[3]
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert mapped.nbytes > 2 * grouping.CHUNK_BYTES  # several chunks, on threads
    seen = []
    groups = identical_rows(mapped, progress=seen.append)
    assert np.array_equal(groups.labels, sorted_groups(rows))
    assert sum(seen) == rows.nbytes


def test_rounding_may_change_how_many_columns_there_are(monkeypatch):
    """A key for each column that is hashed: fewer, and the kernel reads behind them, which need not show."""
    keys, asked = grouping.row_keys, []
    monkeypatch.setattr(grouping, "row_keys", lambda dim: asked.append(dim) or keys(dim))
    rows = np.random.default_rng(0).integers(0, 9, (3000, 2), dtype=np.uint16)
    wide = identical_rows(rows, rounded=lambda at: np.repeat(rows[at].astype("u4"), 300, axis=1))
    assert np.array_equal(wide.labels, sorted_groups(rows))
    assert asked == [600]


def test_rounding_first_groups_the_rounded_rows():
    rows = np.random.default_rng(2).integers(0, 9, (400, 3)).astype("u2")
    halves = identical_rows(rows, rounded=lambda at: (rows[at] // 4).astype("u1"))
    assert np.array_equal(halves.labels, sorted_groups(rows // 4))


def test_no_columns_make_one_group():
    assert identical_rows(np.empty((5, 0), "u2")).counts.tolist() == [5]


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros(3, "u2"), np.zeros((2, 2), "i2")])
def test_what_is_no_matrix_of_words_is_refused(bad):
    with pytest.raises(ValueError, match="2-D array of unsigned words"):
        identical_rows(bad)
