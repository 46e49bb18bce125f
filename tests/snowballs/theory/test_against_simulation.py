"""Theory against simulation at thirty random points: means, spreads, and bounds on the largest group.

Seeds are fixed, so that a run never fails by chance. What a bound says is how often a right theory would have failed
when the seed was chosen: 1e-6 for each of the three tests, divided among all its comparisons (Bonferroni).

A mean over T trials is compared with theory's mean by the tail of a Poisson variable with the variance, in steps, that
theory gives the sum of the trials: by Bennett's inequality no sum of such steps has a heavier one, rare or not.
Singletons and the population change by two with a pair. Coincident pairs do not come in steps: there the tail is the
normal one with theory's standard error, three nats to spare for its skewness, and only where the counts are many; where
they are few, pairs are black holes.
"""

import math
from functools import cache

import numpy as np
import pytest
from scipy import stats

from darkvocab.measures.census import Census
from darkvocab.snowballs.expect import STATISTICS, Expect, compared
from darkvocab.snowballs.snowball import Snowball, draw

ALARM = 1e-6
N_POINTS, TRIALS = 30, 200
REGIMES = ("collapsed", "middle", "dispersed")
GRIDS = ("bfloat16", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def setting(number):
    """Base, sigma, grid, arithmetic, distribution and tokens of a point, drawn by its number."""
    rng = np.random.default_rng([11, number])
    grid, regime = GRIDS[number % len(GRIDS)], REGIMES[number % len(REGIMES)]
    arithmetic, distribution = rng.choice(["float32", "exact"]), rng.choice(["gaussian", "laplace"])
    n_tokens, dim = int(rng.integers(20, 1500)), int(rng.integers(3, 400))
    base = (rng.standard_normal(dim) * 10 ** rng.uniform(-2, -0.5)).astype(np.float32)
    options = {"n_tokens": n_tokens, "grid": grid, "arithmetic": str(arithmetic), "distribution": str(distribution)}
    wanted = {"collapsed": (0.93, 0.9999), "middle": (0.1, 0.8), "dispersed": (1e-4, 0.02)}[regime]
    share = rng.uniform(*wanted)
    low, high = -14.0, 1.0  # the share of tokens in black holes falls with sigma: bisection
    for _ in range(25):
        middle = (low + high) / 2
        occupancy = Snowball(base=base, sigma=10**middle, **options).occupancy(n_tokens)
        if occupancy.black_hole_population.mean > share * n_tokens:
            low = middle
        else:
            high = middle
    return base, 10**low, options


@cache
def at(number):
    """Return what is expected at a point, and the censuses of its trials."""
    base, sigma, options = setting(number)
    (point,) = Expect([sigma], base=base, **options)
    snowball = Snowball(base=base, sigma=sigma, **options)
    cells = snowball.single_cells()
    drawn = [Census(draw(snowball, seed=7, point=number, trial=t, cells=cells).groups()) for t in range(TRIALS)]
    values = {
        "unique_vectors": [census.n_unique for census in drawn],
        "n_black_holes": [census.n_black_holes for census in drawn],
        "black_hole_population": [census.black_hole_population for census in drawn],
        "n_singletons": [census.n_singletons for census in drawn],
        "coincident_pairs": [float((c.groups.counts * (c.groups.counts - 1.0)).sum() / 2) for c in drawn],
        "largest_bh": [census.largest_group for census in drawn],
    }
    return point, {name: np.array(value, float) for name, value in values.items()}


@pytest.mark.slow
def test_the_points_cover_every_regime_grid_and_noise():
    points = [at(number)[0] for number in range(N_POINTS)]
    shares = [point.black_hole_population / point.n_tokens for point in points]
    assert sum(share > 0.9 for share in shares) >= 9
    assert sum(0.05 < share < 0.85 for share in shares) >= 9
    assert sum(share < 0.03 for share in shares) >= 9
    assert {point.grid for point in points} == set(GRIDS)
    assert {(p.distribution, p.arithmetic) for p in points} == {
        (d, a) for d in ("gaussian", "laplace") for a in ("float32", "exact")
    }


@pytest.mark.parametrize("number", range(N_POINTS))
def test_means_are_those_expected(number):
    # Bonferroni over 30 points and five statistics.
    point, values = at(number)
    alarm = ALARM / N_POINTS / 5
    for name in STATISTICS:
        result = compared(number, point, name, TRIALS, values[name].mean())
        assert result.p_value > alarm, (name, result)
    z = (values["coincident_pairs"].mean() - point.coincident_pairs) / (point.coincident_pairs_std / math.sqrt(TRIALS))
    if point.n_black_holes_std**2 * TRIALS > 400:
        assert 2 * stats.norm.sf(abs(z)) > alarm * math.exp(-3), z


@pytest.mark.parametrize("number", range(N_POINTS))
def test_standard_deviations_are_those_expected(number):
    # (n - 1) s**2 / std**2 of trials whose excess kurtosis is k has variance about 2 + k over n: its logarithm is taken
    # as normal, k from the sample. Bonferroni over 30 points and four statistics, where a hundred changes are expected.
    point, values = at(number)
    for name, (_, step) in STATISTICS.items():
        std = getattr(point, f"{name}_std")
        if std**2 * TRIALS / step**2 < 100:
            continue
        sample = values[name]
        error = math.sqrt((2 + max(stats.kurtosis(sample), 0)) / TRIALS)
        z = math.log(sample.var(ddof=1) / std**2) / error
        assert 2 * stats.norm.sf(abs(z)) > ALARM / N_POINTS / 4, (name, z, sample.std(ddof=1), std)


@pytest.mark.parametrize("number", range(N_POINTS))
def test_the_largest_group_lies_between_its_bounds(number):
    # Its standard error is the sample's (Student's t), and a trial in 200 may yet have been missed: 1 / T.
    point, sample = at(number)[0], at(number)[1]["largest_bh"]
    bound = stats.t.isf(ALARM / N_POINTS / 2, TRIALS - 1)
    error = sample.std(ddof=1) / math.sqrt(TRIALS) + 1 / TRIALS
    assert point.largest_bh_low - bound * error < sample.mean() < point.largest_bh_high + bound * error


@pytest.mark.slow
def test_a_wrong_sigma_is_seen():
    # The same trials, theory at a sigma 2% off: what the tests above would say of a theory that is wrong.
    seen = 0
    for number in range(N_POINTS):
        base, sigma, options = setting(number)
        (wrong,) = Expect([1.02 * sigma], base=base, **options)
        values = at(number)[1]
        rows = [compared(number, wrong, name, TRIALS, values[name].mean()) for name in STATISTICS]
        seen += min(row.p_value for row in rows) < ALARM / N_POINTS / 5
    assert seen >= 10
