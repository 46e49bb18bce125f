"""Gaussian fresh rows have the mean and covariance of the trained rows, and are normal and independent.

Seeds are fixed. False alarms, when the seed was chosen: 1e-6 for the whole test, divided among its comparisons.
"""

import numpy as np
import pytest
from scipy import stats

from darkvocab import EmbeddingMatrix
from darkvocab.checkpoints.fresh_rows import FreshRows, trained

ALARM = 1e-6
N, DIM = 20_000, 9


@pytest.mark.parametrize("skewed", [False, True])
def test_gaussian_rows_have_the_trained_rows_law(skewed):
    rng = np.random.default_rng(1)
    mixed = rng.standard_normal((DIM, DIM)) * np.geomspace(1e-3, 1e2, DIM)  # columns of very different size
    noise = rng.exponential(size=(4000, DIM)) if skewed else rng.standard_normal((4000, DIM))
    rows = np.zeros((N + 4000, DIM), np.float32)
    rows[N:] = noise @ mixed + 5 * mixed[0]
    kept = np.arange(len(rows)) >= N
    matrix = EmbeddingMatrix.from_array(rows)
    law = trained(matrix, kept, covariance=True)
    fresh = FreshRows(matrix=matrix, trained=law, gaussian=True, pieces={}, seed=1, jitter=1, stream=0)
    drawn = EmbeddingMatrix(words=fresh.draw(np.arange(N), np.zeros(N, np.int64)), grid=matrix.grid)
    # By the trained rows' own moments, in float64, every component of these is standard normal and on its own.
    learned = rows[N:].astype(np.float64)
    lower = np.linalg.cholesky(np.cov(learned, rowvar=False))
    white = np.linalg.solve(lower, (drawn.rows(slice(None)).astype(np.float64) - learned.mean(axis=0)).T).T
    pvalues = [stats.kstest(column, "norm").pvalue for column in white.T]
    pvalues.append(stats.kstest((white**2).sum(axis=1), stats.chi2(DIM).cdf).pvalue)
    pvalues += [2 * stats.norm.sf(abs(total) / N**0.5) for total in white.sum(axis=0)]
    squares = [stats.chi2(N).cdf(total) for total in (white**2).sum(axis=0)]
    pvalues += [2 * min(p, 1 - p) for p in squares]
    pairs = np.triu_indices(DIM, 1)
    pvalues += [2 * stats.norm.sf(abs(total) / N**0.5) for total in (white.T @ white)[pairs]]
    # A row says nothing about the next one.
    pvalues += [2 * stats.norm.sf(abs(total) / (N - 1) ** 0.5) for total in (white[1:] * white[:-1]).sum(axis=0)]
    assert min(pvalues) > ALARM / len(pvalues)
