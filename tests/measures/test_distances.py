"""Distances of rows from one matrix to another, and to the nearest of some: by hand, and against plain numpy."""

import numpy as np
import pytest

from darkvocab import EmbeddingMatrix
from darkvocab.measures.distances import displacements, steps_to_nearest
from darkvocab.numerics import GRIDS, decode, to_index


def matrix(words, grid="bfloat16"):
    return EmbeddingMatrix(words=np.asarray(words, GRIDS[grid].word_dtype), grid=GRIDS[grid])


@pytest.mark.slow
def test_lengths_by_hand():
    a = matrix([[0x3F80, 0x4000], [0x3F80, 0x4000], [0x0000, 0x0001], [0x8000, 0x4040]])
    b = matrix([[0x3F80, 0x4000], [0x3F82, 0x4001], [0x8000, 0x8001], [0x0000, 0x4080]])
    result = displacements(a, b)
    assert result.same.tolist() == [True, False, False, False]
    assert result.l_inf_steps.tolist() == [0, 2, 2, 64]  # -0.0 and 0.0 are no step apart
    assert result.l_inf.tolist() == [0, 2**-6, 2 * 2.0**-133, 1]
    assert result.euclidean.tolist() == [0, 2**-6 * 2**0.5, 2 * 2.0**-133, 1]


def test_zeros_of_either_sign_are_other_bits_and_no_way_apart():
    result = displacements(matrix([[0x0000]]), matrix([[0x8000]]))
    assert (result.same[0], result.l_inf_steps[0], result.euclidean[0]) == (False, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dim", [1, 7, 8, 30])
def test_compiled_equals_plain(grid, dim):
    g, rng = GRIDS[grid], np.random.default_rng(dim)
    codes = rng.integers(0, g.max_code + 1, (2, 3000, dim)) | rng.choice([0, g.sign], (2, 3000, dim))
    a, b = codes.astype(g.word_dtype)
    b[::3] = a[::3]
    result = displacements(matrix(a, grid), matrix(b[:2500], grid), threads=3)
    x, y = (decode(words[:2500], g).astype(np.float64) for words in (a, b))
    assert np.array_equal(result.same, (a == b)[:2500].all(axis=1))
    assert np.array_equal(result.l_inf_steps, np.abs(to_index(a, g) - to_index(b, g))[:2500].max(axis=1))
    assert np.array_equal(result.l_inf, np.abs(x - y).max(axis=1))
    assert result.euclidean == pytest.approx(np.linalg.norm(x - y, axis=1), rel=1e-12)


def test_rows_are_rounded_to_the_grid_that_is_asked_for():
    a, b = matrix([[0x3F800000, 0]], "float32"), matrix([[0x3F80, 0x3C00]])
    assert displacements(a, b, "bfloat16").l_inf_steps.tolist() == [0x3C00]
    near = matrix([[0x3F800001]], "float32"), matrix([[0x3F80]])
    assert displacements(*near, "bfloat16").same.tolist() == [True]
    assert displacements(*near).l_inf_steps.tolist() == [1]


def test_rows_of_other_length_are_refused():
    with pytest.raises(ValueError, match="rows of 1 and of 2 columns"):
        displacements(matrix([[1]]), matrix([[1, 2]]))


@pytest.mark.parametrize(("grid", "on"), [("bfloat16", None), ("float32", None), ("float32", "bfloat16")])
def test_steps_to_nearest_equal_those_of_all_pairs(grid, on):
    rng = np.random.default_rng(3)
    matrix = EmbeddingMatrix.from_array(np.round(rng.normal(0, 1, (300, 7)), 1), grid)
    targets = np.array([3, 50, 51, 200, 299])
    index = matrix.index(np.arange(300), on)
    plain = np.abs(index[:, None] - index[targets]).max(2).min(1)
    assert (steps_to_nearest(matrix, targets, on) == plain).all()
    with pytest.raises(ValueError, match="one token or more"):
        steps_to_nearest(matrix, np.array([], np.int64))
