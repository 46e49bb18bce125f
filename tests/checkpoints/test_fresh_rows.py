"""Fresh rows: what is learned from trained ones, how far from a mean they are, and what they depend on."""

import numpy as np
import pytest

from darkvocab import EmbeddingMatrix
from darkvocab.checkpoints.fresh_rows import FreshRows, trained
from darkvocab.errors import CorruptFile
from darkvocab.numerics import decode, encode, from_index, index_values, to_index
from darkvocab.numerics._backends.deviates import GAUSSIAN, draw_dense, token_normals

RNG = np.random.default_rng(3)
MIX, CENTRE = RNG.standard_normal((24, 24)), 3 * RNG.standard_normal(24)
ROWS = (RNG.standard_normal((5000, 24)) @ MIX + CENTRE).astype(np.float32)
MATRIX = EmbeddingMatrix.from_array(ROWS)
KEPT = np.arange(5000) % 7 != 0


def fresh(matrix=MATRIX, kept=KEPT, **settings):
    law = trained(matrix, kept, covariance=settings.get("gaussian", False))
    return FreshRows(
        **{"matrix": matrix, "trained": law, "gaussian": False, "pieces": {}, "seed": 5, "jitter": 1, "stream": 0}
        | settings
    )


def covariance(law):
    half = law.factor * law.scale[:, None]
    return half @ half.T


@pytest.mark.slow
def test_mean_and_covariance_are_those_of_the_rows_that_are_kept():
    law = trained(MATRIX, KEPT, covariance=True)
    kept = ROWS[KEPT].astype(np.float64)
    assert law.n == len(kept)
    assert law.mean == pytest.approx(kept.mean(axis=0), rel=1e-12)
    assert law.rms == pytest.approx((np.linalg.norm(kept, axis=1) ** 2).mean() ** 0.5, rel=1e-12)
    spread = np.outer(kept.std(axis=0), kept.std(axis=0))
    assert np.abs((covariance(law) - np.cov(kept, rowvar=False)) / spread).max() < 1e-6


def test_covariance_of_columns_that_are_constant_equal_or_of_other_size():
    rows = ROWS.copy()
    rows[:, 3], rows[:, 4], rows[:, 5] = 0.25, rows[:, 0], rows[:, 0] * 1e-20
    law = trained(EmbeddingMatrix.from_array(rows), KEPT, covariance=True)
    result, expected = covariance(law), np.cov(rows[KEPT].astype(np.float64), rowvar=False)
    assert law.factor.shape[1] < 24
    assert not result[3].any()
    assert result[0, 4] == pytest.approx(expected[0, 0], rel=1e-5)
    assert result[5, 5] == pytest.approx(expected[5, 5], rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_fewer_rows_than_columns_span_less(n):
    kept = np.arange(5000) < n
    law = trained(MATRIX, kept, covariance=True)
    assert law.factor.shape == (24, n - 1)
    if n > 1:
        assert covariance(law) == pytest.approx(np.cov(ROWS[:n].astype(float), rowvar=False), rel=1e-4, abs=1e-4)


def test_rows_that_are_not_kept_may_be_no_numbers_others_may_not():
    rows = ROWS.copy()
    rows[0, 0], rows[7] = np.nan, np.inf
    assert trained(EmbeddingMatrix.from_array(rows), KEPT).mean == pytest.approx(ROWS[KEPT].astype(float).mean(axis=0))
    rows[4, 1] = np.inf
    with pytest.raises(CorruptFile, match="are to be kept hold NaN or infinity: tokens 4; choose them, too"):
        trained(EmbeddingMatrix.from_array(rows), KEPT)
    with pytest.raises(ValueError, match="all 5,000 rows of array are chosen"):
        trained(MATRIX, np.zeros(5000, bool))


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float32", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("jitter", [1, 5])
def test_every_component_leaves_the_mean_by_one_to_so_many_steps(grid, jitter):
    matrix = EmbeddingMatrix.from_array(ROWS, grid)
    rows = fresh(matrix, jitter=jitter)
    tokens = np.arange(0, 5000, 7)
    words = rows.draw(tokens, np.zeros(len(tokens), np.int64))
    mean = to_index(encode(matrix.rows(slice(None)).astype(float)[KEPT].mean(axis=0), grid), grid)
    away, counts = np.unique(to_index(words, grid) - mean, return_counts=True)
    assert away.tolist() == [*range(-jitter, 0), *range(1, jitter + 1)]
    # All as likely: 715 x 24 components, binomial, 7 standard deviations.
    assert np.abs(counts - counts.mean()).max() < 7 * counts.mean() ** 0.5


def test_pieces_are_averaged_in_float64():
    rows = fresh(pieces={7: [1, 2, 2], 14: [4999]})
    index = to_index(rows.draw(np.array([0, 7, 14]), np.zeros(3, np.int64)), "float32")
    means = [ROWS[KEPT].astype(float).mean(axis=0), ROWS[[1, 2, 2]].astype(float).mean(axis=0), ROWS[4999]]
    assert (np.abs(index - to_index(encode(means, "float32"), "float32")) == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"gaussian": True}, {"jitter": 9}, {"pieces": {7: [1], 21: [2, 3]}}])
def test_a_row_depends_on_its_token_and_attempt_and_seed_and_on_no_other_row_that_is_drawn(settings):
    rows = fresh(**settings)
    tokens, attempts = np.array([0, 7, 14, 21, 70]), np.array([0, 1, 0, 3, 0])
    together = rows.draw(tokens, attempts)
    for i in range(len(tokens)):
        assert np.array_equal(rows.draw(tokens[i : i + 1], attempts[i : i + 1])[0], together[i])
    assert (rows.draw(tokens, attempts + 1) != together).any(axis=1).all()
    for other in ({"seed": 6}, {"stream": 1}, {"seed": 5 + 2**40}):
        assert (fresh(**settings, **other).draw(tokens, attempts) != together).any(axis=1).all()


@pytest.mark.slow
def test_deviates_are_those_of_the_dense_sampler():
    index = np.empty((9, 10), np.int32)
    seed, shape = np.uint64(12345678901), (23, -126, 0x7F7FFFFF)
    draw_dense(np.zeros(10), 1.0, GAUSSIAN, False, 0, seed, 2, 1, shape, index)
    z = np.empty((3, 10))
    token_normals(np.array([3, 8, 0]), np.full(3, 2), seed, 1, z)
    assert np.array_equal(z.astype(np.float32), index_values(index[[3, 8, 0]], "float32", np.float32))


def test_a_gaussian_that_was_like_another_is_jittered_too():
    rows = fresh(EmbeddingMatrix.from_array(np.ones((20, 6), np.float32)), np.arange(20) > 4, gaussian=True)
    tokens = np.arange(5)
    assert (decode(rows.draw(tokens, np.zeros(5, np.int64)), "float32") == 1).all()
    assert (np.abs(to_index(rows.draw(tokens, np.ones(5, np.int64)), "float32") - 0x3F800000) == 1).all()


def test_nothing_leaves_the_grid():
    words = from_index(np.full((50, 8), 0x7B), "float8_e5m2")
    words[25:] |= 0x80
    words[:, :4] = from_index(0x7B, "float8_e5m2")
    matrix = EmbeddingMatrix(words=words, grid=EmbeddingMatrix.from_array(ROWS, "float8_e5m2").grid)
    for gaussian in (False, True):
        rows = fresh(matrix, np.arange(50) >= 10, gaussian=gaussian, jitter=3)
        assert np.abs(to_index(rows.draw(np.arange(10), np.arange(10)), "float8_e5m2")).max() <= 0x7B
