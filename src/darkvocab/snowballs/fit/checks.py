"""Test a fit: against drawn snowballs, by a bound on the probability of the census, and against rival explanations.

Two tests on the rows of black holes reject snowballs of any sigma and base. They assume only that
tokens are independent, and of the noise that its columns are independent (`association`) or that it
has one peak (`gap`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from scipy.optimize import minimize_scalar
from scipy.special import betaln, gammaln, logsumexp, ndtri

from ...errors import NoFit
from ...numerics import as_grid, index_values, round_to, ulp
from ...numerics.cells import INDEPENDENT
from ...progress import Report
from ...runs.randomness import BASE, generator
from ...runs.records import record_types
from ..theory import Partition
from .likelihood import ERROR_DRAWS, Estimate, Hypothesis, Likelihood, Uncertainty, drawn_partitions

SIGMAS = 25  # different sigmas of the snowballs drawn from a fit
RANKS = 24  # largest groups that are compared with their bounds
NAMED_GROUPS = 6  # largest groups whose populations are among the statistics

Check, Rank, Bound, Gap, Association, Column = record_types(Path(__file__).with_suffix(".toml"), __name__)


def ranked(partition: Partition, count: int) -> Int64[np.ndarray, " ranks"]:
    """Return the sizes of the `count` largest groups, with singletons as groups of one; 0 beyond the last group."""
    tokens = np.zeros(count, np.int64)
    largest = partition.populations[:count]
    tokens[: len(largest)] = largest
    tokens[len(largest) : len(largest) + (partition.n_singletons or 0)] = 1
    return tokens


def statistics(partition: Partition) -> dict[str, float]:
    """Return the statistics of a partition that are tested: counts and the largest populations."""
    populations = partition.populations
    rows: dict[str, float] = {}
    if (n_singletons := partition.n_singletons) is not None:
        rows = {"n_unique": len(populations) + n_singletons, "n_singletons": n_singletons}
    rows |= {"n_black_holes": len(populations), "black_hole_population": int(populations.sum())}
    largest = ranked(Partition(populations, 0), NAMED_GROUPS).tolist()
    return rows | {f"population_{rank}": population for rank, population in enumerate(largest, 1)}


def predicted(uncertainty: Uncertainty, draws: int) -> list[Partition]:
    """Draw partitions from a fit, with sigma lognormal around the estimate.

    This is the posterior predictive distribution for a flat prior on log sigma. Where the census
    bounds sigma on one side only, sigma is that bound.
    """
    estimate = uncertainty.estimate
    low, high = uncertainty.interval
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
        first = ERROR_DRAWS + len(drawn)  # the trials before these estimate the standard error
        drawn += drawn_partitions(snowball, range(first, first + count), seed=uncertainty.seed, like=like)
    return drawn


def checks(partition: Partition, drawn: list[Partition]) -> list[Any]:
    """Return a `Check` of each statistic against drawn partitions; the observed value counts as one of the tail."""
    rows = [statistics(one) for one in drawn]
    results = []
    for name, value in statistics(partition).items():
        values = np.array([row[name] for row in rows])
        tail = min(int((values <= value).sum()), int((values >= value).sum()))
        p = min(1.0, 2 * (1 + tail) / (1 + len(values)))
        results.append(Check(statistic=name, observed=value, p=p, **_spread(values)))
    return results


def _spread(values: np.ndarray) -> dict[str, float]:
    """Return mean and quantiles as fields of `Check` and `Rank`."""
    low, high = np.quantile(values, [0.05, 0.95]).tolist()
    return {"mean": float(values.mean()), "p5": low, "p95": high}


def ranks(partition: Partition, drawn: list[Partition]) -> list[Any]:
    """Return a `Rank` for each of the largest groups, which compares its population with drawn partitions."""
    count = min(RANKS, max(len(partition.populations) + 6, 10))
    predicted = np.array([ranked(one, count) for one in drawn]).T
    pairs = zip(ranked(partition, count).tolist(), predicted, strict=True)
    return [Rank(rank=rank, observed=observed, **_spread(values)) for rank, (observed, values) in enumerate(pairs, 1)]


def bound(estimate: Estimate, partition: Partition) -> Any:
    """Return the `Bound` on the probability of populations as extreme as the observed ones, largest over sigma.

    At each sigma there are bounds on the probabilities that one of the 24 largest groups is at least
    or at most as large as observed (`Occupancy.at_least`, `at_most`), and that there are no further
    black holes. The smallest of them times their number (Bonferroni) is a p-value.
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


def _rarest(estimate: Estimate, partition: Partition, sigma: float) -> Any:
    """Return the p-value of `bound` at one sigma."""
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


def columns(index: Int64[np.ndarray, "rows dim"], populations: Int64[np.ndarray, " rows"], grid: str) -> list[Any]:
    """Return a `Column` for each column in which rows differ."""
    rows = []
    for column, cells, tokens in _differing(index, populations):
        spacing = float(ulp(index_values(cells[:1], grid), grid)[0])
        rows.append(Column(column=column, spacing=spacing, cells=cells.tolist(), tokens=tokens.tolist()))
    return rows


def _differing(index: np.ndarray, populations: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each column in which rows differ, the values in it, ascending, and the number of tokens at each."""
    for column in np.flatnonzero((index != index[0]).any(axis=0)).tolist():
        cells, place = np.unique(index[:, column], return_inverse=True)
        yield column, cells, np.bincount(place, populations).astype(np.int64)


def gap(index: Int64[np.ndarray, "rows dim"], populations: Int64[np.ndarray, " rows"], grid: str) -> Any:
    """Return the least probable `Gap` between two values of a column; None if there is none.

    If noise has one peak, a cell between two others of the same width is at least as probable as the
    less probable one. For a, b, c tokens in three such cells
    ``p <= P(Bin(a + b, 1/2) <= b) + P(Bin(b + c, 1/2) <= b)``, times the number of cells tested
    (Bonferroni).
    """
    mantissa = as_grid(grid).mantissa_bits
    gaps: list[Any] = []
    n_places = 0
    for column, cells, tokens in _differing(index, populations):
        low, high = int(cells[0]), int(cells[-1])
        if low * high <= 0 or abs(low) >> mantissa != abs(high) >> mantissa or high - low > 4096:
            continue  # across zero or a power of two cells are not equally wide
        full = np.zeros(high - low + 1, np.int64)
        full[cells - low] = tokens
        n_places += max(0, full.size - 2)
        before, after = np.maximum.accumulate(full), np.maximum.accumulate(full[::-1])[::-1]
        for between in range(1, full.size - 1):
            a, b, c = int(before[between - 1]), int(full[between]), int(after[between + 1])
            if b < min(a, c):
                sides = int(full[:between].argmax()), between + 1 + int(full[between + 1 :].argmax())
                p = float(np.logaddexp(_at_most(b, a + b), _at_most(b, b + c)))
                where = (low + sides[0], low + between, low + sides[1])
                gaps.append(Gap(column=column, cells=where, tokens=(a, b, c), log10_p=p / math.log(10)))
    if not gaps:
        return None
    best = min(gaps, key=lambda one: one.log10_p)
    return replace(best, log10_p=min(0.0, best.log10_p + math.log10(n_places)))


def association(index: Int64[np.ndarray, "rows dim"], populations: Int64[np.ndarray, " rows"]) -> Any:
    """Return the strongest `Association` of two columns, by Fisher's exact test; None if fewer than two columns differ.

    Tokens differ from a column's commonest value or do not. If columns are independent, the number of
    tokens that differ in both is hypergeometric; p is the upper tail times the number of pairs of
    columns (Bonferroni).
    """
    commonest = {column: cells[tokens.argmax()] for column, cells, tokens in _differing(index, populations)}
    columns = list(commonest)
    if len(columns) < 2:
        return None
    away = (index[:, columns] != np.array(list(commonest.values()))).astype(np.float64)
    both = (away * populations[:, None]).T @ away
    n = int(populations.sum())
    alone = np.diag(both)
    p, i, j = min(
        (_shared(int(both[i, j]), int(alone[i]), int(alone[j]), n), j, i) for i in range(len(columns)) for j in range(i)
    )
    pairs = len(columns) * (len(columns) - 1) / 2
    return Association(
        columns=(columns[i], columns[j]),
        away=(int(alone[i]), int(alone[j])),
        both=int(both[i, j]),
        log10_p=min(0.0, (p + math.log(pairs)) / math.log(10)),
    )


def _at_most(k: int, n: int) -> float:
    """Return log P(Bin(n, 1/2) <= k)."""
    i = np.arange(k + 1.0)
    return float(logsumexp(-betaln(i + 1, n - i + 1) - math.log(n + 1)) - n * math.log(2))


def _shared(both: int, first: int, second: int, n: int) -> float:
    """Return log P(X >= both) for the hypergeometric number X of `first` tokens, of n, that are among `second`."""
    i = np.arange(both, min(first, second) + 1.0)
    terms = _log_choose(first, i) + _log_choose(n - first, second - i) - _log_choose(n, second)
    return float(min(0.0, logsumexp(terms)))


def _log_choose(n: float, k: Any) -> Any:
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


OFF_LATTICE = 10  # bases drawn off the grid
DEPENDENT = ("uniform-ball", "uniform-shell")  # noise whose components depend on each other
DEPENDENT_TRIALS = range(10_000, 10_040)
SURVIVAL = "the same law: which tokens survive does not depend on their rows"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A hypothesis with its best sigma and log-likelihood; None where the census is impossible at every sigma."""

    hypothesis: str
    sigma: float | None
    log_likelihood: float | None
    likelihood: str | None  # "partition", "composite", or "drawn" without a closed form
    note: str | None = None


def alternatives(
    estimate: Estimate, base: Float[np.ndarray, " dim"], *, seed: int, progress: Report | None = None
) -> list[Explanation]:
    """Fit each of the explanations that the notebooks discuss.

    `base` is neither rounded nor moved; `progress` receives the numbers of hypotheses done and in all.
    """
    likelihood = estimate.likelihood
    ours = likelihood.hypothesis
    lattice = round_to(base, ours.grid).astype(np.float64)
    spacing = ulp(lattice, ours.grid)
    named = _named(ours, lattice)
    shifts = [generator(seed, number, 0, purpose=BASE).random(base.size) - 0.5 for number in range(OFF_LATTICE)]
    moved = [replace(ours, base=lattice + shift * spacing, offset=0.0) for shift in shifts]
    total = len(named) + len(moved) + len(DEPENDENT)

    def explained(done: int, name: str, hypothesis: Hypothesis) -> Explanation:
        if progress:
            progress(done, total)
        its = Likelihood(likelihood.partition, hypothesis, likelihood.free)
        try:
            best = its.maximum()
        except NoFit:
            return Explanation(hypothesis=name, sigma=None, log_likelihood=None, likelihood=None)
        return Explanation(hypothesis=name, sigma=best.sigma, log_likelihood=best.log_likelihood, likelihood=its.kind)

    rows = [explained(done, name, hypothesis) for done, (name, hypothesis) in enumerate(named.items())]
    survival = replace(rows[0], hypothesis="uniform survival from the vocabulary", note=SURVIVAL)
    off = [explained(done, "off the lattice", hypothesis) for done, hypothesis in enumerate(moved, len(named))]
    rows += _summed_up(off)
    rows.append(survival)
    rows += [_dependent(name, estimate, seed) for name in DEPENDENT]
    if progress:
        progress(total, total)
    return rows


def _named(ours: Hypothesis, lattice: np.ndarray) -> dict[str, Hypothesis]:
    """Return our hypothesis and those that differ from it in one setting, by name."""
    other = "exact" if ours.arithmetic == "float32" else "float32"
    noises = {f"{name} noise": replace(ours, distribution=name) for name in INDEPENDENT if name != ours.distribution}
    named = {"direct snowball": ours, f"{other} arithmetic": replace(ours, arithmetic=other), **noises}
    if ours.offset or (lattice != ours.base).any():
        named["base on the lattice"] = replace(ours, base=lattice, offset=0.0)
    return named


def _summed_up(off: list[Explanation]) -> list[Explanation]:
    """Return the mean likelihood over the bases off the lattice, and the best of them; empty if all are impossible."""
    logs = [row.log_likelihood for row in off if row.log_likelihood is not None]
    if not logs:
        return []
    best = next(row for row in off if row.log_likelihood == max(logs))
    mean = float(np.logaddexp.reduce(np.array(logs)) - math.log(OFF_LATTICE))
    return [
        replace(best, hypothesis=f"off the lattice (mean of {OFF_LATTICE})", log_likelihood=mean),
        replace(best, hypothesis=f"off the lattice (best of {OFF_LATTICE})"),
    ]


def _dependent(distribution: str, estimate: Estimate, seed: int) -> Explanation:
    """Draw noise without a closed form at the estimate and compare its number of unique rows with independent noise."""
    row = Explanation(hypothesis=distribution, sigma=estimate.sigma, log_likelihood=None, likelihood=None)
    if estimate.sigma is None:
        return row
    partition = estimate.likelihood.partition
    law = replace(estimate.hypothesis, distribution=distribution).law(estimate.sigma)
    drawn = drawn_partitions(law.snowball(estimate.n_tokens), DEPENDENT_TRIALS, seed=seed, like=partition)
    rows = [len(one.populations) + (one.n_singletons or 0) for one in drawn]
    occupancy = estimate.hypothesis.law(estimate.sigma).occupancy(estimate.n_tokens)
    expected = occupancy.n_black_holes if partition.n_singletons is None else occupancy.n_unique
    z = (np.mean(rows) - expected.mean) / (max(expected.std, 1e-9) / math.sqrt(len(rows)))
    note = f"drawn {len(rows)} times: its unique rows lie {z:+.1f} standard errors from those of independent noise"
    return replace(row, likelihood="drawn", note=note)
