"""A large sigma, where a few columns settle the census: the same as of all of them."""

import importlib
import math

import numpy as np
import pytest

from darkvocab.snowballs.bases import qwen3_4b_centred, random
from darkvocab.snowballs.snowball import SnowballLaw
from darkvocab.snowballs.theory import Occupancy

STATISTICS = ("n_unique", "n_black_holes", "black_hole_population", "n_singletons", "coincident_pairs", "largest_group")
BASE = qwen3_4b_centred()


@pytest.mark.parametrize("n_tokens", [1, 2, 2100, 10**12])
@pytest.mark.parametrize("sigma", [0.0, 1e-10, 3e-9, 1e-7, 1e-6, 2e-6, 1e-5])
def test_the_census_is_that_of_all_columns(sigma, n_tokens):
    law = SnowballLaw(base=BASE, sigma=sigma)
    result, whole = law.occupancy(n_tokens), Occupancy(law.cells(n_tokens), n_tokens)
    assert result.cells.n_active == whole.cells.n_active == len(whole.cells.columns)
    for name in STATISTICS:
        assert getattr(result, name) == getattr(whole, name), name


@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "uniform"])
@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float32"])
def test_a_few_columns_settle_a_large_sigma(grid, distribution):
    few = SnowballLaw(base=BASE, sigma=3e-3, grid=grid, distribution=distribution).occupancy(2100)
    assert len(few.cells.columns) < few.cells.n_active / 8
    assert few.n_unique.mean == few.n_singletons.mean == 2100
    zero = [getattr(few, name) for name in ("n_black_holes", "black_hole_population", "coincident_pairs")]
    assert all((moments.mean, moments.std) == (0, 0) for moments in zero)
    assert few.largest_group == (1, 1)


def test_some_columns_keep_fewer_tokens_apart_than_all():
    # The finest are taken, and as many as were asked for; what they are worth is estimated, and near.
    whole = SnowballLaw(base=BASE, sigma=3e-6).cells(2100)
    for nats in (1.0, 50.0, 700.0):
        some = SnowballLaw(base=BASE, sigma=3e-6).cells(2100, nats=nats)
        assert set(some.columns) < set(whole.columns)
        assert whole.log_power_sum(2) < some.log_power_sum(2)
        assert -1.2 * nats - 9 < some.log_power_sum(2) < -0.85 * nats  # the last column can be worth nine
        left = np.setdiff1d(whole.columns, some.columns)
        reached = np.abs(BASE) + 3e-6
        assert reached[some.columns].max() <= 2 * reached[left].min()  # of a binade any


def test_columns_that_keep_too_few_apart_are_not_taken_for_enough(monkeypatch):
    # An estimate that is wrong costs time and changes nothing.
    module = importlib.import_module("darkvocab.snowballs.snowball")
    asked = []

    def finest(base, sigma, grid, nats):
        asked.append(nats)
        return np.arange(3 if nats < math.inf else base.size)

    monkeypatch.setattr(module, "_finest", finest)
    result = SnowballLaw(base=BASE, sigma=1e-7).occupancy(2100)
    assert len(result.cells.columns) == result.cells.n_active > 3
    assert len(asked) == 2


def test_noise_that_overflows_is_refused_whatever_columns_would_settle_it():
    base = np.append(np.full(600, 1e-3), 400.0)
    with pytest.raises(ValueError, match="overflows float8_e4m3fn"):
        SnowballLaw(base=base, sigma=10.0, grid="float8_e4m3fn").occupancy(2100)


@pytest.mark.parametrize("n_tokens", [0, -1, 10**16, 10**400])
def test_tokens_that_cannot_be_counted_are_refused(n_tokens):
    with pytest.raises(ValueError, match="n_tokens must be 1 to 1e15"):
        SnowballLaw(base=BASE, sigma=1e-9).occupancy(n_tokens)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 2100])
def test_no_largest_group_is_smaller_than_one_token(n_tokens):
    for sigma in (0.0, 1e-9, 1e-8, 3e-8, 1e-6):
        low, high = SnowballLaw(base=random(60, 1) * np.float32(1e-3), sigma=sigma).occupancy(n_tokens).largest_group
        assert 1 <= low <= high * (1 + 1e-12) <= n_tokens * (1 + 1e-9)
