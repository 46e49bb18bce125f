"""Check how well a fit explains a census: by snowballs drawn from it, and by a bound on the chance of the census."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from scipy.optimize import minimize_scalar
from scipy.special import ndtri

from ..theory import Partition
from .likelihood import ERRORS, Estimate, Uncertainty, drawn_partitions

SIGMAS = 25  # of the snowballs drawn from a fit
RANKS = 24  # largest groups that are held against their bounds
NAMED = 6  # largest groups whose populations are statistics


@dataclass(frozen=True, kw_only=True)
class Check:
    """One statistic: observed, and in snowballs drawn from the fit; `p` is twice the smaller tail."""

    statistic: str
    observed: float
    mean: float
    p5: float
    p95: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One of the largest groups: its population, observed and in snowballs drawn from the fit."""

    rank: int
    observed: int
    mean: float
    p5: float
    p95: float


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least likely group at one sigma, and a bound on the chance of populations so far out."""

    log10_p: float
    sigma: float
    rank: int
    population: int
    or_more: bool  # so many tokens or more; else or fewer


def ranked(partition: Partition, count: int) -> Int64[np.ndarray, " ranks"]:
    """Return the largest groups' tokens, singletons as groups of one; 0 where there are no more."""
    tokens = np.zeros(count, np.int64)
    largest = partition.populations[:count]
    tokens[: len(largest)] = largest
    tokens[len(largest) : len(largest) + (partition.n_singletons or 0)] = 1
    return tokens


def statistics(partition: Partition) -> dict[str, float]:
    """Return the statistics of a partition that are checked: counts, and its largest populations."""
    populations, n_singletons = partition.populations, partition.n_singletons
    rows: dict[str, float] = {}
    if n_singletons is not None:
        rows = {"n_unique": len(populations) + n_singletons, "n_singletons": n_singletons}
    rows |= {"n_black_holes": len(populations), "black_hole_population": int(populations.sum())}
    largest = ranked(Partition(populations, 0), NAMED).tolist()
    return rows | {f"population_{rank}": population for rank, population in enumerate(largest, 1)}


def predicted(uncertainty: Uncertainty, draws: int) -> list[Partition]:
    """Draw partitions from a fit: sigma lognormal around the estimate with its error.

    That is the posterior predictive law with a flat prior of log sigma. Where the target bounds
    sigma on one side only, sigma is the end of its interval.
    """
    estimate, (low, high) = uncertainty.estimate, uncertainty.interval
    if estimate.sigma is None:
        counted = [(high if low == 0 else low, draws)]
    else:
        counted = []
        deviates = ndtri((np.arange(SIGMAS) + 0.5) / SIGMAS) / ndtri(0.5 + uncertainty.level / 2)
        for i, share in enumerate(deviates.tolist()):
            end = high if share > 0 else low
            near = min(max(estimate.sigma * (end / estimate.sigma) ** abs(share), estimate.range[0]), estimate.range[1])
            counted.append((near, (draws * (i + 1)) // SIGMAS - (draws * i) // SIGMAS))
    like = uncertainty.likelihood.partition
    drawn: list[Partition] = []
    for sigma, count in counted:
        snowball = estimate.hypothesis.law(sigma).snowball(estimate.n_tokens)
        first = ERRORS + len(drawn)  # trials that no error was taken from
        drawn += drawn_partitions(snowball, range(first, first + count), seed=uncertainty.seed, like=like)
    return drawn


def checks(partition: Partition, drawn: list[Partition]) -> list[Check]:
    """Hold each statistic against those of drawn partitions; the observed one is counted into the tails."""
    rows = [statistics(one) for one in drawn]
    results = []
    for name, value in statistics(partition).items():
        values = np.array([row[name] for row in rows])
        tail = min(int((values <= value).sum()), int((values >= value).sum()))
        p = min(1.0, 2 * (1 + tail) / (1 + len(values)))
        results.append(Check(statistic=name, observed=value, p=p, **_spread(values)))
    return results


def _spread(values: np.ndarray) -> dict[str, float]:
    """Return the mean and two quantiles, as `Check` and `Rank` name them."""
    low, high = np.quantile(values, [0.05, 0.95]).tolist()
    return {"mean": float(values.mean()), "p5": low, "p95": high}


def ranks(partition: Partition, drawn: list[Partition]) -> list[Rank]:
    """Return the largest groups' populations beside those of drawn partitions."""
    count = min(RANKS, max(len(partition.populations) + 6, 10))
    predicted = np.array([ranked(one, count) for one in drawn]).T
    pairs = zip(ranked(partition, count).tolist(), predicted, strict=True)
    return [Rank(rank=rank, observed=observed, **_spread(values)) for rank, (observed, values) in enumerate(pairs, 1)]


def bound(estimate: Estimate, partition: Partition) -> Bound:
    """Bound the chance of populations so far out, at the sigma where it is largest.

    At each sigma, of the bounds on the chance that one of the 24 largest groups is as large or
    larger, as small or smaller (`Occupancy.at_least`, `at_most`), and that there are no more, the
    least, times their number (Bonferroni), is a p-value.
    """
    low, high = (math.log(end) for end in estimate.range)
    around = np.linspace(low, high, max(16, math.ceil(8 * (high - low)))).tolist()
    best = int(np.argmax([_rarest(estimate, partition, math.exp(x)).log10_p for x in around]))
    refined = minimize_scalar(
        lambda x: -max(_rarest(estimate, partition, math.exp(x)).log10_p, -1e6),
        bounds=(around[max(best - 1, 0)], around[min(best + 1, len(around) - 1)]),
        method="bounded",
    )
    sigmas = [math.exp(around[best]), math.exp(float(refined.x))] + ([estimate.sigma] if estimate.sigma else [])
    return max((_rarest(estimate, partition, sigma) for sigma in sigmas), key=lambda rarest: rarest.log10_p)


def _rarest(estimate: Estimate, partition: Partition, sigma: float) -> Bound:
    """The p-value of `bound` at one sigma."""
    populations = partition.populations.tolist()[:RANKS]
    groups = [(rank, m, or_more) for or_more in (True, False) for rank, m in enumerate(populations, 1)]
    if partition.n_singletons is not None:
        groups.append((len(partition.populations) + 1, 1, False))  # no more black holes
    try:
        occupancy = estimate.hypothesis.law(sigma).occupancy(estimate.n_tokens)
    except ValueError:  # overflows the grid
        return Bound(log10_p=-math.inf, sigma=sigma, rank=0, population=0, or_more=True)
    log_p, rank, population, or_more = min(
        (occupancy.at_least(rank, m) if or_more else occupancy.at_most(rank, m), rank, m, or_more)
        for rank, m, or_more in groups
    )
    log10_p = min(0.0, (log_p + math.log(len(groups))) / math.log(10))
    return Bound(log10_p=log10_p, sigma=sigma, rank=rank, population=population, or_more=or_more)
