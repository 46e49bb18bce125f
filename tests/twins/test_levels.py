"""Sums over levels and over cells: compiled, against plain forms in decimals, SciPy and NumPy."""

import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy.stats import binom

from darkvocab.numerics._backends import levels

WIDTH = 1 / 128


def columns(seed, n_columns=9):
    """Starts, costs and probabilities of the runs of columns, each with a cost of zero and some with none at all."""
    rng = np.random.default_rng(seed)
    costs, shares = [], []
    for n_runs in rng.integers(1, 6, n_columns):
        cost = np.round(rng.exponential(3.0, n_runs) * 64) / 64 if rng.random() < 0.3 else rng.exponential(3.0, n_runs)
        cost[rng.integers(n_runs)] = 0
        share = np.exp(-cost) * (rng.random(n_runs) < 0.9)
        costs.append(cost)
        shares.append(share / max(share.sum(), 1e-300))
    return np.cumsum([0, *map(len, costs)]), np.concatenate(costs), np.concatenate(shares)


def plain_add_columns(starts, cost, p, n):
    mass, spread, beyond = np.eye(1, n)[0], np.zeros(n), 0.0
    for start, end in itertools.pairwise(starts):
        old, old_spread = mass.copy(), spread.copy()
        mass[:], spread[:] = 0, 0
        for run in range(start, end):
            low = min(int(cost[run] / WIDTH), n)
            share = cost[run] / WIDTH - low if low < n else 0.0
            for to, part in ((low, p[run] * (1 - share)), (low + 1, p[run] * share)):
                inside = max(n - to, 0)
                mass[to:] += part * old[:inside]
                spread[to:] += part * (old_spread + share * (1 - share) * old)[:inside]
                beyond += part * old[inside:].sum()
    return mass, spread, beyond


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [3, 400, 3000])
def test_columns_add_up_as_by_slices(seed, n):
    starts, cost, p = columns(seed)
    mass, spread = np.empty((2, n))
    beyond = levels.add_columns(starts, cost, p, WIDTH, mass, spread)
    for ours, plain in zip((mass, spread, beyond), plain_add_columns(starts, cost, p, n), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-13, atol=1e-300)


def in_decimals(p, n):
    """Return what `occupied_sums` adds up of one cell, over p: to 60 digits but for p, a float."""
    with localcontext(prec=400):
        p, n = Decimal(p), Decimal(n)
        q = 1 - p
        none = q**n if n or q else Decimal(1)
        single = n * p * (q ** (n - 1) if n > 1 else 1)
        double = n * (n - 1) / 2 * p**2 * (q ** (n - 2) if n > 2 else 1)
        tokens = n * p
        pairs, in_pairs, squares = 1 - none - single, tokens - single, tokens * q + tokens**2 - single
        x = [value / p for value in (pairs, in_pairs, squares, 1 - none, single, double)]
        return np.array([(float(a), float(a * a * p), float(a * b * p)) for a, b in zip(x, [*x[1:], 0], strict=True)])


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 40, 2100, 10**6])
def test_sums_over_levels_are_those_of_decimals(n_tokens):
    p = np.array([1.0, 1 - 2.0**-53, 0.9, 0.5, 1e-2, 0.11 / n_tokens, 0.09 / n_tokens, 1e-5, 1e-9, 1e-17, 1e-100])
    mass = np.random.default_rng(1).random(p.size)
    with np.errstate(divide="ignore"):
        log_q = np.log1p(-p)
    total = np.zeros((6, 3))
    for one in range(p.size):  # each by itself, too: large cells do not hide small ones
        sums = np.empty((6, 3))
        levels.occupied_sums(p[[one]], log_q[[one]], mass[[one]], float(n_tokens), 0.1, sums)
        exact = mass[one] * in_decimals(p[one], n_tokens)
        rounding = 1e-15 * n_tokens**2 * (p[one] > 0.05)  # of differences of what is all but certain
        np.testing.assert_allclose(sums, exact, rtol=2e-12, atol=1e-300 + rounding)
        total += sums
    levels.occupied_sums(p, log_q, mass, float(n_tokens), 0.1, sums)
    np.testing.assert_allclose(sums, total, rtol=1e-13)


@pytest.mark.parametrize("n_tokens", [2, 5, 41, 2100, 10**12])
def test_power_sums_are_sums_of_powers(n_tokens):
    rng = np.random.default_rng(2)
    p, mass = np.append(1.0, np.exp(-rng.uniform(0, 40, 500))), rng.random(501)
    with np.errstate(divide="ignore"):
        log_q = np.log1p(-p)
    sums = np.empty((2, 3, 11))
    levels.power_sums(p, log_q, mass, float(n_tokens), sums)
    for c, d, k in itertools.product(range(2), range(3), range(1, 11)):
        exponent = (c + 1) * n_tokens - d - k
        plain = 0.0
        if exponent >= 0 and d < c + 2:
            plain = mass[1:] @ (p[1:] ** (k - 1.0) * np.exp(exponent * log_q[1:])) + mass[0] * (exponent == 0)
        assert sums[c, d, k] == pytest.approx(plain, rel=1e-12), (c, d, k)


@pytest.mark.parametrize("n_tokens", [1, 2, 30, 2100, 10**9])
@pytest.mark.parametrize("least", [1, 20])
def test_cells_beyond_are_those_of_binomial_laws(n_tokens, least):
    rng = np.random.default_rng(3)
    p = np.sort(np.minimum(np.exp(rng.uniform(-20, 4, 300)) / n_tokens, 1 - 1e-9))[::-1].copy()
    cells = rng.exponential(1.0, 300) * np.minimum(1, 1 / p)
    if least > n_tokens:
        return
    ends = np.unique(np.linspace(least, min(n_tokens, 200), 60).astype(np.int64))
    k = np.arange(min(int(ends[-1]) + 1, n_tokens))
    log_ways = np.cumsum(np.log((n_tokens - k) / (k + 1)))[least - 1 :]
    log_none, expected = np.zeros((2, ends.size))
    levels.cells_beyond(ends, p, cells, float(n_tokens), log_ways, log_none, expected)
    over = binom.sf(ends[:, None], n_tokens, p)
    np.testing.assert_allclose(np.minimum(expected, 1), np.minimum(over @ cells, 1), rtol=1e-9, atol=1e-16)
    plain = np.log1p(-np.minimum(over, 1 - 2.0**-53)) @ cells
    np.testing.assert_allclose(-np.expm1(log_none), -np.expm1(plain), rtol=1e-9, atol=1e-16)
    assert math.isfinite(expected.sum())
