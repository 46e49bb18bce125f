"""The closed forms of the census against enumeration, by hand, and in their limits."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import poisson

from darkvocab.numerics.cells import Distribution
from darkvocab.snowballs.bases import qwen3_4b, qwen3_4b_centred, random
from darkvocab.snowballs.snowball import SnowballLaw
from darkvocab.snowballs.theory import Occupancy, occupancy
from darkvocab.snowballs.theory.occupancy import likeliest

STATISTICS = ("n_unique", "n_black_holes", "black_hole_population", "n_singletons", "coincident_pairs")


def row_probabilities(cells):
    """Return every whole row's probability, by multiplying out all columns."""
    each = [cells.p[start:end] for start, end in itertools.pairwise(cells.starts)]
    return np.array([math.prod(p) for p in itertools.product(*each)])


def by_enumeration(rows, n_tokens):
    """Mean and standard deviation of every statistic, and the expected spectrum, over all ways to draw the tokens."""
    first, second, spectrum = Counter(), Counter(), Counter()
    for cells in itertools.product(range(len(rows)), repeat=n_tokens):
        chance = math.prod(rows[cell] for cell in cells)
        populations = Counter(cells).values()
        shared = [m for m in populations if m > 1]
        values = {
            "n_unique": len(populations),
            "n_black_holes": len(shared),
            "black_hole_population": sum(shared),
            "n_singletons": len(populations) - len(shared),
            "coincident_pairs": sum(math.comb(m, 2) for m in populations),
        }
        for name, value in values.items():
            first[name] += chance * value
            second[name] += chance * value**2
        for m in populations:
            spectrum[m] += chance
    return {name: (first[name], math.sqrt(max(second[name] - first[name] ** 2, 0))) for name in first}, spectrum


TINY = {  # base, sigma, settings: few rows of any probability to speak of
    "one column, two cells": ([1.00390625], 2e-4, {"arithmetic": "exact"}),
    "one column, at home nearly always": ([1.0], 4e-4, {"arithmetic": "float32"}),
    "two columns, float16": ([1.0, 0.5004], 2e-4, {"grid": "float16"}),
    "float8, across a power of two": ([1.0], 0.02, {"grid": "float8_e4m3fn"}),
    "laplace": ([2.007], 4e-4, {"distribution": "laplace"}),
    "uniform": ([2.007, -1.001], 4e-3, {"distribution": "uniform"}),
    "no column moves": ([1.5], 1e-6, {}),
}


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5])
@pytest.mark.parametrize("case", TINY)
def test_every_moment_is_that_of_all_draws_enumerated(case, n_tokens):
    base, sigma, settings = TINY[case]
    cells = SnowballLaw(base=np.array(base), sigma=sigma, **settings).cells(n_tokens)
    rows = row_probabilities(cells)
    assert rows.sum() == pytest.approx(1, abs=1e-14)
    rows = rows[rows > 1e-15] if n_tokens > 3 else rows
    if len(rows) ** n_tokens > 300_000:
        pytest.skip("too many to enumerate")
    expected, spectrum = by_enumeration(rows, n_tokens)
    result = Occupancy(cells, n_tokens)
    for name in STATISTICS:
        moments = getattr(result, name)
        assert moments.mean == pytest.approx(expected[name][0], abs=1e-12), name
        # A variance of 1e-12 is as much as sums of 1 can show: a standard deviation of 1e-6.
        assert moments.std**2 == pytest.approx(expected[name][1] ** 2, abs=1e-12), name
    populations = np.arange(1.0, n_tokens + 1)
    assert result.spectrum(populations) == pytest.approx([spectrum[m] for m in populations], abs=1e-12)


def test_two_tokens_between_two_cells_by_hand():
    # Even chances: one black hole of two, or two singletons, each with probability 1/2.
    result = Occupancy(SnowballLaw(base=np.array([1.00390625]), sigma=1e-4, arithmetic="exact").cells(2), 2)
    for name, value in {"n_unique": 1.5, "n_black_holes": 0.5, "black_hole_population": 1, "n_singletons": 1}.items():
        assert getattr(result, name).mean == pytest.approx(value, abs=1e-14)
    assert result.black_hole_population.std == pytest.approx(1)
    assert result.coincident_pairs.std == pytest.approx(0.5)


@pytest.fixture(params=["qwen", "wide", "many narrow", "one fine column"])
def middling(request):
    """Columns with a few thousand rows that count, and all their rows."""
    base, sigma = {
        "qwen": (qwen3_4b_centred()[:120], 2e-8),
        "wide": (np.array([1.003, -0.7], np.float32), 0.02),
        "many narrow": (random(40, 5) * np.float32(3e-3), 2e-7),
        "one fine column": (np.array([2e-4, 0.9], np.float32), 2e-5),
    }[request.param]
    return SnowballLaw(base=base, sigma=sigma).cells(500)


def binned(cells, n_tokens, monkeypatch):
    monkeypatch.setattr(occupancy, "MOST_LISTED", 1)
    result = Occupancy(cells, n_tokens)
    assert not result.levels.is_exact
    return result


@pytest.mark.slow
@pytest.mark.parametrize("n_tokens", [2, 30, 500, 100_000, 10**9, 10**12])
def test_bins_agree_with_listed_cells(middling, n_tokens, monkeypatch):
    # What the docs state: a part in 10,000 of the mean, of standard deviations a thousandth, where they say anything.
    monkeypatch.setattr(occupancy, "MOST_LISTED", 1 << 23)
    listed = Occupancy(middling, n_tokens)
    assert listed.levels.is_exact
    bins = binned(middling, n_tokens, monkeypatch)
    for name in STATISTICS:
        exact, result = getattr(listed, name), getattr(bins, name)
        assert result.mean == pytest.approx(exact.mean, rel=1e-4, abs=1e-7), name
        assert result.std == pytest.approx(exact.std, rel=2e-3, abs=1e-4), name


@pytest.mark.slow
def test_spectrum_sums_to_the_tokens_and_the_unique_rows():
    result = Occupancy(SnowballLaw(base=qwen3_4b_centred(), sigma=1.5e-9).cells(2100), 2100)
    m = np.arange(1.0, 2101)
    spectrum = result.spectrum(m)
    assert spectrum @ m == pytest.approx(2100, rel=2e-5)
    assert spectrum.sum() == pytest.approx(result.n_unique.mean, rel=2e-5)
    assert spectrum[0] == pytest.approx(result.n_singletons.mean, rel=2e-5)


def test_a_snowball_without_noise_is_one_black_hole():
    result = Occupancy(SnowballLaw(base=random(50, 1), sigma=0.0).cells(10**12), 10**12)
    assert (result.n_unique.mean, result.n_black_holes.mean, result.n_singletons.mean) == (1, 1, 0)
    assert result.black_hole_population.mean == 10**12
    assert result.n_unique.std == result.black_hole_population.std == 0


def test_dispersed_tokens_meet_in_pairs():
    # Just above and just below the limit where black holes count as pairs, both ways agree, and with the pairs.
    cells = SnowballLaw(base=random(20, 2) * np.float32(3e-3), sigma=3e-5).cells(2)
    edge = occupancy.DISPERSED - cells.log_likeliest.sum()
    few, many = Occupancy(cells, int(np.exp(edge - 1e-3))), Occupancy(cells, int(np.exp(edge + 1e-3)))
    assert few.is_dispersed
    assert not many.is_dispersed
    assert few.n_tokens > 1e6
    for name in ("n_black_holes", "black_hole_population"):
        assert getattr(many, name).mean / getattr(few, name).mean == pytest.approx(math.exp(0.004), rel=1e-4)
        assert getattr(many, name).std / getattr(few, name).std == pytest.approx(math.exp(0.002), rel=1e-4)
    assert many.n_black_holes.mean == pytest.approx(many.coincident_pairs.mean, rel=1e-4)
    assert many.n_tokens - many.n_unique.mean == pytest.approx(many.n_black_holes.mean, abs=1e-8)  # float64 of 1e7


def test_likeliest_cells_are_the_most_probable_of_all():
    result = SnowballLaw(base=np.array([1.0, 1.0039, 1.0021, -0.499], np.float32), sigma=0.0007).cells(100)
    rows = np.sort(row_probabilities(result))[::-1]
    log_p = likeliest(result, 40)
    assert np.exp(log_p) == pytest.approx(rows[:40], rel=1e-12)
    assert (np.diff(log_p) <= 0).all()
    assert Occupancy(result, 1000).largest(3) == pytest.approx(1000 * rows[:3])


def test_the_largest_group_lies_between_its_bounds():
    # By enumeration over two and three cells; and where one cell holds nearly all, both bounds are its population.
    for n_tokens in (1, 2, 5, 40):
        result = SnowballLaw(base=np.array([1.00390625]), sigma=0.0011, arithmetic="exact").cells(n_tokens)
        rows = row_probabilities(result)
        rows = rows[rows > 1e-9]
        sizes = [sizes for sizes in itertools.product(range(n_tokens + 1), repeat=len(rows)) if sum(sizes) == n_tokens]
        ways = [math.factorial(n_tokens) / math.prod(map(math.factorial, sizes)) for sizes in sizes]
        chance = [w * math.prod(rows**sizes) for w, sizes in zip(ways, map(np.array, sizes), strict=True)]
        truth = sum(c * max(s) for c, s in zip(chance, sizes, strict=True))
        low, high = Occupancy(result, n_tokens).largest_group
        assert low - 1e-6 <= truth <= high + 1e-6
        assert high - low < 0.3 * truth
    for n_tokens in (300, 10**6, 10**12):
        law = SnowballLaw(base=np.array([1.001]), sigma=0.0011, arithmetic="exact")
        occupancy = Occupancy(law.cells(n_tokens), n_tokens)
        (low, high), likely = occupancy.largest_group, occupancy.largest(1)[0]
        assert low == pytest.approx(likely, rel=1e-4)
        assert high == pytest.approx(likely, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 20, 256])
def test_likeliest_cells_are_those_of_a_sort_of_all(seed, count):
    result = SnowballLaw(base=random(12, seed) * np.float32(0.01), sigma=3e-5).cells(10)
    log_p = np.zeros(1)
    for start, end in itertools.pairwise(result.starts):
        column = np.repeat(result.log_cell[start:end], result.count[start:end])
        log_p = np.sort(np.add.outer(log_p, column).ravel())[::-1][:count]
    assert likeliest(result, count) == pytest.approx(log_p, rel=1e-13)


@pytest.mark.parametrize("sigma", [1e-9, 1.5e-9, 2e-9, 5e-9])
def test_bounds_are_the_same_by_sums_and_by_functions(sigma, monkeypatch):
    result = SnowballLaw(base=qwen3_4b_centred(), sigma=sigma).cells(2100)
    summed = Occupancy(result, 2100).largest_group
    monkeypatch.setattr(occupancy, "SUMMED", 0)
    assert Occupancy(result, 2100).largest_group == pytest.approx(summed, rel=1e-11)


def test_bounds_of_many_tokens_are_those_of_poisson_laws():
    result = Occupancy(SnowballLaw(base=qwen3_4b(), sigma=1.4e-7).cells(10**12), 10**12)
    p, cells = result._weighed
    over = poisson.sf(np.arange(1.0, 200)[:, None], 1e12 * p)
    low = 1 - np.expm1(np.log1p(-np.minimum(over, 1 - 2.0**-53)) @ cells).sum()
    high = 1 + np.minimum(over @ cells, 1).sum()
    assert result.largest_group == pytest.approx((low, high), rel=1e-9)
    assert 30 < low < high < 50


def test_a_distribution_of_ones_own_needs_only_its_function():
    logistic = Distribution("logistic", lambda z: 1 / (1 + np.exp(-z)))
    result = SnowballLaw(base=np.array([1.0]), sigma=0.001, arithmetic="exact", distribution=logistic).cells(10)
    at = np.log(result.p[result.first == 16256])
    assert at == pytest.approx(np.log(1 / (1 + np.exp(-3.90625)) - 1 / (1 + np.exp(1.953125))))


def test_a_tail_without_end_is_refused():
    cauchy = Distribution("cauchy", lambda z: 0.5 + np.arctan(z) / np.pi)
    with pytest.raises(ValueError, match="tails of cauchy are too heavy"):
        SnowballLaw(base=np.array([1.0]), sigma=0.001, distribution=cauchy).cells(10)


def test_components_that_depend_on_one_another_are_refused():
    with pytest.raises(ValueError, match="uniform-shell noise depend"):
        SnowballLaw(base=np.array([1.0]), sigma=0.001, distribution="uniform-shell").cells(10)
