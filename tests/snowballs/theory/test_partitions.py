"""Probabilities of whole partitions: by enumeration, summing to one, and their composite's score."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from darkvocab.snowballs import theory
from darkvocab.snowballs.bases import qwen3_4b, qwen3_4b_centred
from darkvocab.snowballs.snowball import Snowball, SnowballLaw, draw
from darkvocab.snowballs.theory import Occupancy, Partition, composite_likelihood, partition_likelihood
from darkvocab.snowballs.theory.occupancy import likeliest


def partitions(n, largest=None):
    """All ways to write n as a sum, largest part first."""
    largest = largest or n
    if not n:
        yield ()
    for part in range(min(n, largest), 0, -1):
        for rest in partitions(n - part, part):
            yield (part, *rest)


CASES = {
    "two even cells": (np.array([1.00390625]), 1e-4, "exact"),
    "one cell holds most": (np.array([1.0, 1.001]), 1.2e-3, "float32"),
    "four columns": (np.array([1.0, 1.0037, -0.5, 2.003]), 1e-3, "float32"),
}


def as_partition(sizes):
    sizes = np.array(sizes)
    return Partition(sizes[sizes > 1], int((sizes == 1).sum()))


@pytest.mark.parametrize("listed", [256, 2])
@pytest.mark.parametrize("n_tokens", [1, 2, 4, 6])
@pytest.mark.parametrize("case", CASES)
def test_partitions_have_the_probabilities_that_all_draws_give_them(case, n_tokens, listed, monkeypatch):
    # With only two cells listed the others count by their power sums, to second order.
    monkeypatch.setattr(theory.partitions, "LIKELIEST_CELLS", listed)
    base, sigma, arithmetic = CASES[case]
    built = SnowballLaw(base=base, sigma=sigma, arithmetic=arithmetic).cells(n_tokens)
    each = [built.p[start:end] for start, end in itertools.pairwise(built.starts)]
    rows = np.array([math.prod(p) for p in itertools.product(*each)])
    rows = rows[rows > 1e-9]
    total = 0.0
    for sizes in partitions(n_tokens):
        if math.perm(len(rows), len(sizes)) > 1_000_000:
            continue
        ways = math.factorial(n_tokens) / math.prod(map(math.factorial, sizes))
        ways /= math.prod(math.factorial(m) for m in Counter(sizes).values())
        places = np.array(list(itertools.permutations(range(len(rows)), len(sizes))), np.int64)
        exact = ways * float((rows[places] ** np.array(sizes)).prod(axis=1).sum()) if len(places) else 0.0
        result = math.exp(partition_likelihood(built, as_partition(sizes)))
        assert result == pytest.approx(exact, rel=1e-6 if listed > 2 else 0.02, abs=1e-8 if listed > 2 else 2e-4), sizes
        total += result
    if n_tokens <= 2:
        assert total == pytest.approx(1, abs=1e-6 if listed > 2 else 5e-3)


def test_more_groups_than_cells_are_impossible():
    result = SnowballLaw(base=np.array([1.00390625]), sigma=1e-4, arithmetic="exact").cells(3)
    assert partition_likelihood(result, as_partition([1, 1, 1])) == -math.inf


def test_sizes_far_apart_neither_overflow_nor_vanish():
    # One cell of five can hold 2,055 tokens: p**n spans a thousand orders of magnitude, and one assignment counts.
    built = SnowballLaw(base=qwen3_4b(), sigma=1.5e-9).cells(2100)
    sizes = np.array([2055, 16, 10, 10, 9])
    result = partition_likelihood(built, as_partition(sizes))
    p = np.exp(likeliest(built, 5))
    assert p[1:] == pytest.approx(np.full(4, p[1]), rel=1e-6)  # the other four are equally probable
    by_hand = math.lgamma(2101) - sum(math.lgamma(n + 1) for n in sizes) + sizes @ np.log(p) + math.log(12)
    assert result == pytest.approx(by_hand, abs=1e-6)


def test_many_groups_of_different_sizes_are_refused():
    result = SnowballLaw(base=qwen3_4b(), sigma=5e-9).cells(2100)
    with pytest.raises(ValueError, match="too many groups of different sizes"):
        partition_likelihood(result, as_partition(np.arange(2, 20)))


@pytest.mark.slow
def test_the_score_of_the_composite_likelihood_has_mean_zero():
    # 120 snowballs; the mean score over its standard error is about Student's t: a false alarm 1e-6 (|t| > 5.2).
    base, sigma, n = qwen3_4b_centred()[:700], 4e-9, 400
    at = [Occupancy(SnowballLaw(base=base, sigma=sigma * f).cells(n), n) for f in (0.995, 1.005)]
    scores = []
    for trial in range(120):
        counts = draw(Snowball(base=base, n_tokens=n, sigma=sigma), seed=4, trial=trial).groups().counts
        partition = Partition(np.sort(counts[counts > 1])[::-1], int((counts == 1).sum()))
        low, high = (composite_likelihood(occupancy, partition) for occupancy in at)
        scores.append((high - low) / 0.01)
    assert np.std(scores) > 1
    assert abs(np.mean(scores)) < 5.2 * np.std(scores, ddof=1) / math.sqrt(120)


def test_the_composite_likelihood_is_that_of_independent_poisson_counts():
    occupancy = Occupancy(SnowballLaw(base=qwen3_4b_centred()[:100], sigma=6e-9).cells(60), 60)
    rates = occupancy.spectrum(np.arange(1.0, 61))
    counts = np.zeros(60, int)
    counts[[0, 1, 4, 9]] = 7, 4, 3, 3
    known = Partition(np.array([10] * 3 + [5] * 3 + [2] * 4), 7)
    each = stats.poisson(rates).logpmf(counts)
    assert composite_likelihood(occupancy, known) == pytest.approx(each.sum(), rel=1e-6)
    assert composite_likelihood(occupancy, Partition(known.populations, None)) == pytest.approx(
        each[1:].sum(), rel=1e-6
    )


@pytest.mark.slow
def test_bounds_on_ranked_populations_hold():
    # Against how often 4,000 drawn snowballs have them, of which the bound may be passed by chance: 5 standard errors.
    base, sigma, n = qwen3_4b_centred()[:700], 4e-9, 400
    occupancy = Occupancy(SnowballLaw(base=base, sigma=sigma).cells(n), n)
    ranked = np.zeros((2000, 6), int)
    for trial in range(2000):
        counts = draw(Snowball(base=base, n_tokens=n, sigma=sigma), seed=5, trial=trial).groups().counts
        ranked[trial, : min(6, len(counts))] = np.sort(counts)[::-1][:6]
    reports = 0
    for rank in (1, 2, 3, 6):
        for population in np.quantile(ranked[:, rank - 1], [0.001, 0.01, 0.1, 0.9, 0.99, 0.999]).astype(int).tolist():
            for bound, share in (
                (occupancy.at_least(rank, population), (ranked[:, rank - 1] >= population).mean()),
                (occupancy.at_most(rank, population), (ranked[:, rank - 1] <= population).mean()),
            ):
                assert share <= math.exp(bound) + 5 * math.sqrt(max(share, 1e-3) / 2000)
                reports += math.exp(bound) < 0.5
    assert reports > 8  # the bounds say something
