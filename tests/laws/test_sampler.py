"""The sparse sampler draws from the law that it claims, and so does the dense one.

Seeds are fixed, so a run never fails by chance. What a bound says is how often a correct sampler would have failed when
the seed was chosen: each test states it.
"""

import math

import numpy as np
import pytest
from scipy import stats
from twin import chances

from darkvocab.measures.census import Census
from darkvocab.numerics import boundaries, encode, index_values, to_index
from darkvocab.numerics.cells import DRAWN
from darkvocab.snowballs.bases import qwen3_4b_centred, random
from darkvocab.snowballs.snowball import Snowball, draw

ALARM = 1e-6  # false alarms of a whole test, divided among its comparisons
SAMPLERS = ("sparse", "dense")
INDEPENDENT = ("gaussian", "laplace")  # distributions whose components are


def snowball(**changes):
    settings = {"base": random(2560, 11) * np.float32(3.28e-3), "n_tokens": 2100, "sigma": 3e-9}
    return Snowball(**{**settings, **changes})


@pytest.mark.parametrize("distribution", INDEPENDENT)
@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_column_leaves_home_as_often_as_its_cells_say(sampler, arithmetic, distribution):
    # Binomial, exact, two-sided, Bonferroni over columns: a false alarm has probability below 1e-6.
    base = random(300, 3) * np.float32(3e-3)
    ball = snowball(n_tokens=4000, sigma=2e-7, base=base, arithmetic=arithmetic, distribution=distribution)
    cells = ball.single_cells()
    away = np.zeros(ball.dim, int)
    for trial in range(10):
        cloud = draw(ball, seed=7, trial=trial, sampler=sampler)
        index = np.tile(cloud.home, (len(cloud.codes), 1))
        index[:, cloud.columns] = cloud.index()
        away += (index != cells.home).sum(axis=0)
    moved = 0
    for j, column in enumerate(cells.columns):
        p = 1 - chances(cells, j)[cells.home[column] - cells.low[j]]
        test = stats.binomtest(int(away[column]), 40_000, p)
        assert test.pvalue > ALARM / len(cells.columns), (column, p, away[column])
        moved += away[column] > 0
        away[column] = 0
    away[cells.unlisted] = 0
    assert moved > 20
    assert not away.any()  # no other column moves


@pytest.mark.parametrize("distribution", INDEPENDENT)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_cell_is_as_full_as_its_probability_says(sampler, distribution):
    # A column with many cells, by chi-square over cells expected 20 times or more: a false alarm 1e-6 a column.
    base = np.array([0.9951, 1.0037, -0.00093], np.float32)
    ball = Snowball(base=base, n_tokens=60_000, sigma=0.013, distribution=distribution)
    cells = ball.single_cells()
    cloud = draw(ball, seed=3, sampler=sampler)
    index = np.tile(cloud.home, (len(cloud.codes), 1))
    index[:, cloud.columns] = cloud.index()
    assert len(cells.columns) == 2
    for j, column in enumerate(cells.columns):
        p = chances(cells, j)
        seen = np.bincount(index[:, column] - cells.low[j], minlength=len(p))
        often = p * ball.n_tokens >= 20
        assert often.sum() >= 8
        seen = [*seen[often], seen[~often].sum()]
        expected = [*(p[often] * ball.n_tokens), p[~often].sum() * ball.n_tokens]
        assert stats.chisquare(seen, expected, sum_check=False).pvalue > ALARM


def merged(expected, seen, least=20):
    """Neighbouring cells together until each is expected at least so often."""
    groups = np.floor(np.cumsum(expected) / least).astype(int)
    _, groups = np.unique(np.minimum(groups, int(expected.sum() // least) - 1), return_inverse=True)
    expected, seen = np.bincount(groups, expected), np.bincount(groups, seen)
    enough = expected >= least / 2
    return [*expected[enough], expected[~enough].sum() + 1e-9], [*seen[enough], seen[~enough].sum()]


@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("distribution", INDEPENDENT)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_cells_at_a_large_sigma_are_as_full_as_the_distribution_says(sampler, distribution, arithmetic):
    # Hundreds of cells, across zero and powers of two, none of whose thresholds the sampler knows: their probabilities
    # by scipy, from the grid's boundaries. Chi-square over cells merged to 20 expected: a false alarm 1e-6 a column.
    # What the float32 chain shifts, below 1e-5 of a cell, 60,000 tokens cannot show.
    sigma, n = 3.281911e-3, 60_000
    base = np.array([2.0e-3, -6.1e-3, 1e-6], np.float32)
    ball = Snowball(base=base, n_tokens=n, sigma=sigma, distribution=distribution, arithmetic=arithmetic)
    assert len(ball.single_cells().unlisted) == 3
    cloud = draw(ball, seed=12, sampler=sampler)
    index = cloud.index()
    law = stats.norm if distribution == "gaussian" else stats.laplace(scale=math.sqrt(0.5))
    for d, centre in enumerate(base.astype(np.float64)):
        low, high = to_index(encode([centre - 20 * sigma, centre + 20 * sigma], "bfloat16"), "bfloat16")
        edges = boundaries(index_values(np.arange(low, high), "bfloat16"), "bfloat16")[1]
        p = np.diff([0, *law.cdf((edges - centre) / sigma), 1])
        expected, seen = merged(p * n, np.bincount(index[:, d] - low, minlength=len(p)))
        assert len(expected) > 100
        assert stats.chisquare(seen, expected, sum_check=False).pvalue > ALARM


FOURTH_MOMENT = {  # of a component of standard deviation 1, by dimension
    "gaussian": lambda dim: 3,
    "laplace": lambda dim: 6,
    "uniform-ball": lambda dim: 3 * (dim + 2) / (dim + 4),
    "uniform-shell": lambda dim: 3 * dim / (dim + 2),
}


def deviates(distribution, n, dim, seed=21):
    """Rows around 0 on the float32 grid: as good as unrounded."""
    ball = Snowball(base=np.zeros(dim, np.float32), n_tokens=n, sigma=1.0, grid="float32", distribution=distribution)
    cloud = draw(ball, seed=seed, sampler="dense")
    return index_values(cloud.index(), "float32")


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 3, 30])
@pytest.mark.parametrize("distribution", DRAWN)
def test_sigma_is_the_standard_deviation_of_every_component(distribution, dim):
    # The mean of z and of z**2 over 40,000 tokens is nearly normal, with a variance that the second and fourth moment
    # say: Bonferroni over components. A false alarm 1e-6; for laplace, whose z**2 is skewed, below 1e-5.
    n = 40_000
    z = deviates(distribution, n, dim)
    bound = stats.norm.isf(ALARM / 4 / dim)
    assert np.abs(z.mean(axis=0)).max() < bound / math.sqrt(n)
    error = math.sqrt((FOURTH_MOMENT[distribution](dim) - 1) / n)
    assert np.abs((z**2).mean(axis=0) - 1).max() < bound * error + 1e-6
    products = (z.T @ z / n)[np.triu_indices(dim, 1)]  # components are uncorrelated, in every distribution
    bound = stats.norm.isf(ALARM / 2 / max(1, len(products)))
    assert np.abs(products).max(initial=0) < bound * math.sqrt(FOURTH_MOMENT[distribution](dim) / n)


def test_rows_of_a_shell_have_all_the_same_norm():
    # Up to the rounding of each component to float32. No sampling.
    for dim in (1, 2, 50, 2560):
        norms = np.linalg.norm(deviates("uniform-shell", 200, dim), axis=1)
        assert norms == pytest.approx(np.full(200, math.sqrt(dim)), rel=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 50, 2560])
def test_rows_of_a_ball_fill_it_evenly(dim):
    # The share of the volume within a row's norm is uniform: Kolmogorov-Smirnov, a false alarm 1e-6.
    norms = np.linalg.norm(deviates("uniform-ball", 3000, dim), axis=1)
    share = (norms / math.sqrt(dim + 2)) ** dim
    assert share.max() <= 1 + 1e-3  # float32's rounding to the power of the dimension
    assert stats.kstest(np.minimum(share, 1), "uniform").pvalue > ALARM


@pytest.mark.parametrize("distribution", ["uniform-ball", "uniform-shell"])
@pytest.mark.parametrize("dim", [2, 3, 50])
def test_rows_of_a_ball_or_shell_point_everywhere_alike(distribution, dim):
    # The cosine to any direction, here to the first and last axis and the diagonal: (1 + cosine) / 2 is Beta with both
    # parameters (dim - 1) / 2. Kolmogorov-Smirnov, Bonferroni over three: a false alarm 1e-6.
    z = deviates(distribution, 4000, dim, seed=22)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    law = stats.beta((dim - 1) / 2, (dim - 1) / 2)
    for cosine in (z[:, 0], z[:, -1], z.sum(axis=1) / math.sqrt(dim)):
        assert stats.kstest((1 + cosine) / 2, law.cdf).pvalue > ALARM / 3


@pytest.mark.parametrize("distribution", INDEPENDENT)
def test_dense_deviates_follow_their_distribution(distribution):
    # 400,000 deviates of all columns together, and the largest of each row: Kolmogorov-Smirnov; and their variance, to
    # a hundredth, by its nearly normal error. A false alarm 3e-6.
    z = deviates(distribution, 4000, 100, seed=23)
    law = stats.norm if distribution == "gaussian" else stats.laplace(scale=math.sqrt(0.5))
    assert stats.kstest(z.ravel(), law.cdf).pvalue > ALARM
    error = math.sqrt((FOURTH_MOMENT[distribution](100) - 1) / z.size)
    assert abs((z**2).mean() - 1) < stats.norm.isf(ALARM / 2) * error
    assert stats.kstest(z.max(axis=1), lambda x: law.cdf(x) ** 100).pvalue > ALARM


def expected_coincident_pairs(cells, n_tokens):
    """E = C(N, 2) * prod over columns of the sum of squared cell probabilities (columns are independent)."""
    same = math.prod(float((chances(cells, j) ** 2).sum()) for j in range(len(cells.columns)))
    return math.comb(n_tokens, 2) * same


@pytest.mark.parametrize("distribution", INDEPENDENT)
@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_coincident_pairs_match_theory(sampler, arithmetic, distribution):
    # 40 trials; their mean over its standard error is about Student's t with 39 degrees: a false alarm 1e-6.
    ball = snowball(n_tokens=500, arithmetic=arithmetic, distribution=distribution)
    cells = ball.single_cells()
    assert len(cells.unlisted) == 0
    pairs = []
    for trial in range(40):
        counts = draw(ball, seed=5, trial=trial, sampler=sampler).groups().counts
        pairs.append(float((counts * (counts - 1)).sum() / 2))
    expected = expected_coincident_pairs(cells, 500)
    t = (np.mean(pairs) - expected) / (np.std(pairs, ddof=1) / math.sqrt(40))
    assert abs(t) < stats.t.ppf(1 - ALARM / 2, 39), (np.mean(pairs), expected)


def test_float32_arithmetic_loses_coincident_pairs():
    # By how many depends on where the base lies between boundaries; around a base with the published statistics of the
    # notebooks' centroid it is 3% at 3e-9. Exact on both sides, no sampling.
    balls = {a: snowball(base=qwen3_4b_centred(), arithmetic=a) for a in ("float32", "exact")}
    expected = {a: expected_coincident_pairs(ball.single_cells(), 2100) for a, ball in balls.items()}
    assert expected["float32"] / expected["exact"] == pytest.approx(0.97, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", INDEPENDENT)
def test_sparse_and_dense_agree_in_law(distribution):
    # Two-sample Kolmogorov-Smirnov, exact null distribution (conservative for counts): a false alarm below 1e-6 each.
    ball = snowball(n_tokens=400, distribution=distribution)
    drawn = {
        sampler: [Census(draw(ball, seed=9, trial=trial, sampler=sampler).groups()) for trial in range(120)]
        for sampler in SAMPLERS
    }
    for statistic in ("n_unique", "n_black_holes", "black_hole_population", "largest_group"):
        sparse, dense = ([getattr(census, statistic) for census in drawn[sampler]] for sampler in SAMPLERS)
        assert len(set(sparse)) > 5
        assert stats.ks_2samp(sparse, dense, method="exact").pvalue > ALARM


def test_columns_are_independent():
    # Pearson correlations of home/away between the 12 liveliest columns, Fisher's z, Bonferroni
    # over 66: a false alarm 1e-6.
    ball = snowball(n_tokens=50_000, sigma=4e-8, base=random(300, 3) * np.float32(3e-3))
    cloud = draw(ball, seed=2)
    moved = cloud.codes != 0
    liveliest = np.argsort(np.abs(moved.mean(axis=0) - 0.5))[:12]
    correlation = np.corrcoef(moved[:, liveliest].T)[np.triu_indices(12, 1)]
    bound = stats.norm.ppf(1 - ALARM / 66 / 2) / math.sqrt(50_000 - 3)
    assert np.abs(np.arctanh(correlation)).max() < bound


def test_tokens_are_independent_along_a_column():
    # Serial correlation at lags 1 to 16, and across blocks of 1,024, Bonferroni over 18 lags: a false alarm 1e-6.
    ball = Snowball(base=np.array([1.0039, 1.0037, 1.0031], np.float32), n_tokens=200_000, sigma=3e-4)
    cloud = draw(ball, seed=8)
    bound = stats.norm.ppf(1 - ALARM / (18 * 3) / 2) / math.sqrt(200_000 - 2048)
    moved = (cloud.codes != 0).astype(float)
    assert moved.shape[1] == 3
    for column in moved.T:
        centred = (column - column.mean()) / column.std()
        for lag in [*range(1, 17), 1024, 2048]:
            assert abs((centred[lag:] * centred[:-lag]).mean()) < bound


def test_the_neglected_tail_is_bounded():
    for n_tokens in (1, 2100, 151_936):
        cells = snowball(n_tokens=n_tokens).single_cells()
        assert 0 < cells.neglected <= 1e-9
