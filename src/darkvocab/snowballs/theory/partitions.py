"""Partitions: how probable it is that a snowball's tokens fall into groups of exactly these sizes."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import gammaln, logsumexp

from ...errors import InvalidInput
from ...numerics.cells import Cells
from .occupancy import Occupancy, likeliest

LISTED = 256  # likeliest cells that are gone through one by one
MOST_STATES = 1024  # ways in which groups of each size can be taken or not, for `partition_likelihood`


@dataclass(frozen=True)
class Partition:
    """Sizes of the groups that tokens fall into. `n_singletons` None: not known how many tokens are alone."""

    populations: Int64[np.ndarray, " black_holes"]  # of groups of two and more, descending
    n_singletons: int | None

    @property
    def n_tokens(self) -> int | None:
        return None if self.n_singletons is None else int(self.populations.sum()) + self.n_singletons

    @property
    def sizes(self) -> tuple[Int64[np.ndarray, " sizes"], Int64[np.ndarray, " sizes"]]:
        """Sizes of groups that occur, ascending, and how many groups have each; singletons where they are known."""
        sizes, counts = np.unique(self.populations, return_counts=True)
        if self.n_singletons:
            sizes, counts = np.append(1, sizes), np.append(self.n_singletons, counts)
        return sizes.astype(np.int64), counts.astype(np.int64)

    @property
    def is_tractable(self) -> bool:
        """True where `partition_likelihood` can go through it: few groups of different sizes."""
        return self.n_singletons is not None and math.prod((self.sizes[1] + 1).tolist()) <= MOST_STATES


def partition_likelihood(cells: Cells, partition: Partition) -> float:
    """Logarithm of the probability that N tokens fall into groups of exactly these sizes, singletons included.

    ``N! / prod_i n_i! * m(p)``, m the monomial symmetric function of the cells' probabilities: the
    sum, over all ways to give the groups different cells, of ``prod p**n`` (the exchangeable
    partition probability function [1]_ times the number of partitions with these sizes). How the
    256 likeliest cells and the others are gone through: docs/theory.md. -inf where there are fewer
    cells than groups; InvalidInput for more than 1,024 states (`Partition.is_tractable`).

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
    listed = likeliest(cells, LISTED)
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
    """Logarithm of the sum of p**n over cells that are not listed: what is left, and no more than they can hold."""
    log_sum = cells.log_power_sum(float(n))
    left = 1 - math.fsum(np.exp(n * listed - log_sum))
    mass = 1 - math.fsum(np.exp(listed))
    if left < 1e-12 or mass < 1e-12:
        return -math.inf
    return min(log_sum + math.log(left), (n - 1) * float(listed[-1]) + math.log(mass))


def composite_likelihood(occupancy: Occupancy, partition: Partition) -> float:
    """Logarithm of the composite likelihood of a partition: its groups as points of a Poisson process of populations.

    ``sum_m N_m log E[N_m] - E[N_m] - log N_m!``, N_m groups of m tokens: of each population its own
    likelihood, as if they were independent; that they are not must go into its error (Godambe's
    information, docs/theory.md). Singletons are left out where their number is not known. -inf
    where a population cannot occur.
    """
    sizes, counts = partition.sizes
    expected = occupancy.expected_groups(2 if partition.n_singletons is None else 1)
    with np.errstate(divide="ignore"):
        log_rate = np.log(np.maximum(occupancy.spectrum(sizes.astype(np.float64)), 0.0))
    return float(counts @ log_rate - expected - gammaln(counts + 1.0).sum())
