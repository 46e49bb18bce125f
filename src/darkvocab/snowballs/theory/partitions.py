"""Likelihood of a partition: the probability that a snowball's tokens form groups of exactly these sizes."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import gammaln, logsumexp

from ...errors import InvalidInput
from ...numerics.cells import Cells
from .occupancy import Occupancy, likeliest

LIKELIEST_CELLS = 256  # that are summed one by one
MOST_STATES = 1024  # of `partition_likelihood`: how many groups of each size the cells so far hold


@dataclass(frozen=True)
class Partition:
    """Sizes of the groups of tokens with equal rows; `n_singletons` is None if it is not known."""

    populations: Int64[np.ndarray, " black_holes"]  # of groups of two and more, descending
    n_singletons: int | None

    @property
    def n_tokens(self) -> int | None:
        return None if self.n_singletons is None else int(self.populations.sum()) + self.n_singletons

    @property
    def sizes(self) -> tuple[Int64[np.ndarray, " sizes"], Int64[np.ndarray, " sizes"]]:
        """Sizes that occur, ascending, and the number of groups of each size; with singletons if they are known."""
        sizes, counts = np.unique(self.populations, return_counts=True)
        if self.n_singletons:
            sizes, counts = np.append(1, sizes), np.append(self.n_singletons, counts)
        return sizes.astype(np.int64), counts.astype(np.int64)

    @property
    def is_tractable(self) -> bool:
        """True where `partition_likelihood` can handle it: few groups of different sizes."""
        return self.n_singletons is not None and math.prod((self.sizes[1] + 1).tolist()) <= MOST_STATES


def partition_likelihood(cells: Cells, partition: Partition) -> float:
    """Return the log probability that N tokens form groups of exactly these sizes, singletons included.

    ``N! / prod_i n_i! * m(p)`` with the monomial symmetric function m of the cells' probabilities: the
    sum of ``prod p**n`` over all assignments of groups to different cells (the exchangeable partition
    probability function [1]_ times the number of partitions with these sizes). The 256 likeliest cells
    are summed one by one, the others as docs/theory.md says. -inf if there are fewer cells than
    groups; raises InvalidInput for more than 1,024 states (`Partition.is_tractable`).

    References
    ----------
    .. [1] J. Pitman, "Combinatorial stochastic processes", Lecture Notes in Mathematics 1875, 2006, section 2.

    Examples
    --------
    >>> from darkvocab.snowballs.snowball import SnowballLaw
    >>> between_two_cells = SnowballLaw(base=np.array([1.00390625]), sigma=1e-4, arithmetic="exact")
    >>> round(math.exp(partition_likelihood(between_two_cells.cells(3), Partition(np.array([2]), 1))), 12)
    0.75
    """
    if not partition.is_tractable:
        raise InvalidInput("this partition has too many groups of different sizes to go through; see is_tractable")
    sizes, counts = partition.sizes
    listed = likeliest(cells, LIKELIEST_CELLS)
    state = np.full(counts + 1, -np.inf)
    state.flat[0] = 0.0
    before = np.empty_like(state)
    steps = [
        (np.moveaxis(state, axis, 0)[1:], np.moveaxis(before, axis, 0)[:-1], size)
        for axis, size in enumerate(sizes.tolist())
    ]
    for log_p in listed:
        before[:] = state
        for given, taken, size in steps:
            np.logaddexp(given, taken + size * log_p, out=given)
    others = np.array([_left_over(cells, listed, size) for size in sizes.tolist()])
    per_size = -1, *[1] * len(counts)
    left = counts.reshape(per_size) - np.indices(state.shape)  # groups of each size that take other cells
    with np.errstate(invalid="ignore"):
        elsewhere = np.where(left > 0, left * others.reshape(per_size) - gammaln(left + 1.0), 0).sum(axis=0)
    clashes = np.zeros(state.shape)
    for i, j in zip(*np.tril_indices(len(sizes)), strict=True):
        if np.isfinite(others[i] + others[j]):
            pairs = left[i] * (left[i] - 1) / 2 if i == j else left[i] * left[j]
            same = _left_over(cells, listed, int(sizes[i] + sizes[j])) - others[i] - others[j]
            clashes += np.maximum(pairs, 0) * math.exp(min(0.0, same))
    ways = gammaln(partition.populations.sum() + (partition.n_singletons or 0) + 1.0) - counts @ gammaln(sizes + 1.0)
    return float(ways + logsumexp(state + elsewhere - clashes))


def _left_over(cells: Cells, listed: Float64[np.ndarray, " listed"], n: int) -> float:
    """Return log(sum of p**n) over cells that are not listed: all less the listed, and no more than they can hold."""
    log_sum = cells.log_power_sum(float(n))
    left = 1 - math.fsum(np.exp(n * listed - log_sum))
    mass = 1 - math.fsum(np.exp(listed))
    if left < 1e-12 or mass < 1e-12:
        return -math.inf
    return min(log_sum + math.log(left), (n - 1) * float(listed[-1]) + math.log(mass))


def composite_likelihood(occupancy: Occupancy, partition: Partition) -> float:
    """Return the log composite likelihood of a partition: group sizes as points of a Poisson process.

    ``sum_m N_m log E[N_m] - E[N_m] - log N_m!`` for N_m groups of m tokens, as if the N_m were
    independent. They are not, which the standard error must include (Godambe's information,
    docs/theory.md). Singletons are left out if their number is not known. -inf if a size cannot occur.
    """
    sizes, counts = partition.sizes
    expected = occupancy.expected_groups(2 if partition.n_singletons is None else 1)
    with np.errstate(divide="ignore"):
        log_rate = np.log(np.maximum(occupancy.spectrum(sizes.astype(np.float64)), 0.0))
    return float(counts @ log_rate - expected - gammaln(counts + 1.0).sum())
