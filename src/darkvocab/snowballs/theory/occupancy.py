"""Occupancy: the expected census of a snowball, and how far it varies, in closed form.

A token's cell is its rounded row. Cells are independent draws of N tokens from one distribution
over cells; every statistic is a sum over cells, and a sum over cells is a mean over tokens:
``sum_cells f(p) = E[f(p) / p]``.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64
from scipy.special import betainc, betaincc, gammaln

from ...errors import InvalidInput
from ...numerics import _backends
from ...numerics.cells import Cells
from ...numerics.grids import ArrayLike

LISTED = 1 << 14  # cells that are listed one by one, where there are no more
BIN = 1 / 128  # of the logarithm of a cell's probability, where there are
BELOW = 32.0  # nats below 1 / N under which a token is alone but for a chance of e**-32
DISPERSED = -23.0  # log(N * p) of the likeliest cell under which black holes are pairs, but for a part in 1e10
SUMMED = 4096  # tokens of the largest group up to which binomial laws are summed term by term
APART = 1e-4  # share of tokens in black holes under which covariances between cells are taken to first order
LARGEST = 256  # cells listed for the largest populations
NEVER = 760.0  # nats: e**-760 is 0 in float64
FEW = 0.1  # expected tokens of a cell under which sums over populations are summed term by term

Array = np.ndarray
Weight = tuple[float, float]  # of a cell with n >= 2 tokens: constant + slope * n
PAIRS, IN_PAIRS, SQUARES, OCCUPIED, SINGLE, DOUBLE = range(6)  # of `_sums`: what is summed over cells
ONE, TOKENS, SURPLUS = (1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)


@dataclass(frozen=True)
class Moments:
    """Expected value and standard deviation of a statistic."""

    mean: float
    std: float


@dataclass(frozen=True)
class Levels:
    """The probability of a random token's cell: its logarithm's distribution over levels.

    `is_exact`: every cell is a level of its own. Else logarithms lie on bins 1/128 apart, with the
    mean kept exactly and the second moment corrected, so that what is left is of third order; and
    tokens alone in all likelihood, below e**-32 / N, are one level of probability 1e-304.
    """

    log_p: Float64[np.ndarray, " levels"]
    mass: Float64[np.ndarray, " levels"]  # sums to 1; single levels can be slightly negative by the correction
    is_exact: bool

    @cached_property
    def p(self) -> Array:
        return np.minimum(np.exp(self.log_p), 1.0)

    @cached_property
    def log_q(self) -> Array:
        """Logarithm of 1 - p."""
        with np.errstate(divide="ignore"):
            return np.log1p(-self.p)


def levels(cells: Cells, n_tokens: float) -> Levels:
    """Distribution of the logarithm of a random token's cell probability.

    Exact where there are 16,384 cells or fewer. Else a convolution of the columns' distributions
    over bins, followed from the likeliest cell down to what decides any statistic of `n_tokens`
    tokens.
    """
    n_runs = np.diff(cells.starts)
    if np.log(n_runs).sum() <= math.log(LISTED) + 1e-9:
        log_p: Array = np.zeros(1)
        mass: Array = np.ones(1)
        for start, end in zip(cells.starts[:-1], cells.starts[1:], strict=True):
            held = np.flatnonzero(cells.p[start:end]) + start
            log_p = (log_p[:, None] + cells.log_cell[held]).ravel()
            mass = (mass[:, None] * cells.p[held]).ravel()
        return Levels(log_p, mass, True)
    top = math.fsum(cells.log_likeliest)
    floor = min(-math.log(max(n_tokens, 1)) - BELOW, _deciding(cells))
    mass, spread = np.empty((2, max(3, math.ceil((top - floor) / BIN))))
    beyond = _backends.levels.add_columns(cells.starts, cells.cost, cells.p, BIN, mass, spread)
    corrected = np.pad(mass, 1) - 0.5 * np.diff(np.pad(spread, 2), n=2)
    log_p = top - BIN * np.arange(-1, mass.size + 1)
    return Levels(np.append(log_p, -700.0), np.append(corrected, beyond), False)


def _deciding(cells: Cells) -> float:
    """Logarithm of a probability below which cells hold next to no coincident pairs: by their law's moments."""
    weight = cells.p * np.exp(cells.log_cell - np.repeat(cells.log_power_sums(2), np.diff(cells.starts)))
    log_cell = np.where(cells.p > 0, cells.log_cell, 0)
    mean = np.add.reduceat(weight * log_cell, cells.starts[:-1])
    variance = np.add.reduceat(weight * log_cell**2, cells.starts[:-1]) - mean**2
    return float(mean.sum() - 9 * math.sqrt(max(variance.sum(), 0)) - 10)


def likeliest(cells: Cells, count: int) -> Float64[np.ndarray, " cells"]:
    """Return the logarithms of the `count` largest probabilities of all cells (fewer where there are fewer), exactly.

    They descend. The best of all columns are among the best of some columns times the cells of the
    next; columns whose second cell is too improbable to come in are left out.

    Examples
    --------
    >>> from darkvocab.snowballs.snowball import SnowballLaw
    >>> law = SnowballLaw(base=np.array([1.0, 1.0039]), sigma=0.001, arithmetic="exact")
    >>> np.exp(likeliest(law.cells(100), 3)).round(3)
    array([0.49 , 0.485, 0.013])
    """
    costs = np.zeros(1)
    if len(cells.columns):
        is_likeliest, first = cells.cost == 0, cells.starts[:-1]
        second = np.minimum.reduceat(np.where(is_likeliest, np.inf, cells.cost), first)
        second[np.add.reduceat(np.where(is_likeliest, cells.count, 0), first) > 1] = 0
        for j in np.argsort(second, kind="stable"):
            limit = costs[-1] if len(costs) == count else np.inf
            if not second[j] < limit:
                break
            runs = slice(cells.starts[j], cells.starts[j + 1])
            column = np.repeat(cells.cost[runs], np.minimum(cells.count[runs], count))
            costs = np.sort(np.add.outer(costs, column[column < limit]).ravel())[:count]
    return float(cells.log_likeliest.sum()) - costs


class Occupancy:
    """The census of `n_tokens` tokens, 1 to 1e12 or so at the same cost, before it is drawn.

    `cells` are those of `SnowballLaw.cells`, made for so many tokens.

    Examples
    --------
    >>> from darkvocab.snowballs.snowball import SnowballLaw
    >>> between_two_cells = SnowballLaw(base=np.array([1.00390625]), sigma=1e-4, arithmetic="exact")
    >>> pair = between_two_cells.occupancy(2)
    >>> round(pair.n_black_holes.mean, 12), round(pair.n_unique.mean, 12)
    (0.5, 1.5)
    """

    def __init__(self, cells: Cells, n_tokens: int) -> None:
        self.check(n_tokens)
        self.cells, self.n_tokens = cells, int(n_tokens)
        self._n = float(n_tokens)

    @staticmethod
    def check(n_tokens: int) -> None:
        """Raise InvalidInput for fewer tokens than one, or for more than floats can count."""
        if not 1 <= n_tokens <= 1e15:
            raise InvalidInput(f"n_tokens must be 1 to 1e15, got {n_tokens}")

    @cached_property
    def is_dispersed(self) -> bool:
        """True where no cell is likely enough to hold three tokens: black holes are pairs, but for a part in 1e10."""
        return math.log(self._n) + math.fsum(self.cells.log_likeliest) < DISPERSED

    @cached_property
    def levels(self) -> Levels:
        return levels(self.cells, self._n)

    @cached_property
    def log_coincident_pairs(self) -> float:
        """Logarithm of the expected number of pairs of tokens with equal rows: ``C(N, 2) prod_j sum_k p_jk**2``."""
        n = self._n
        return math.log(n * (n - 1) / 2) + self.cells.log_power_sum(2) if n > 1 else -math.inf

    @cached_property
    def coincident_pairs(self) -> Moments:
        """Pairs of tokens with equal rows; exact.

        ``Var = C(N, 2) (s2 - s2**2) + 6 C(N, 3) (s3 - s2**2)`` with the power sums s2, s3 of the
        cells.
        """
        n, s2, s3 = self._n, math.exp(self.cells.log_power_sum(2)), math.exp(self.cells.log_power_sum(3))
        variance = n * (n - 1) / 2 * (s2 - s2**2) + n * (n - 1) * (n - 2) * (s3 - s2**2)
        return Moments(math.exp(self.log_coincident_pairs), math.sqrt(max(variance, 0.0)))

    @cached_property
    def n_unique(self) -> Moments:
        """Distinct rows: the cells that hold any token."""
        return Moments(self.expected_groups(), self._std(SURPLUS))

    @cached_property
    def n_singletons(self) -> Moments:
        """Tokens whose row no other has: ``N E[(1 - p)**(N - 1)]``."""
        population = self.black_hole_population
        if self._is_sparse:
            return Moments(self._n - population.mean, population.std)
        return Moments(float(self._sums[SINGLE, 0]), population.std)

    @cached_property
    def n_black_holes(self) -> Moments:
        """Cells that hold two tokens or more."""
        return Moments(self._sum(ONE), self._std(ONE))

    @cached_property
    def black_hole_population(self) -> Moments:
        """Tokens in black holes."""
        return Moments(self._sum(TOKENS), self._std(TOKENS))

    @cached_property
    def _is_sparse(self) -> bool:
        """True where next to all tokens are alone."""
        return self._sum(TOKENS) < APART * self._n

    def expected_groups(self, least: int = 1) -> float:
        """Expected number of cells that hold this many tokens, one or two, or more: unique rows, or black holes."""
        if least == 2:
            return self._sum(ONE)
        return self._n - self._sum(SURPLUS) if self._is_sparse else float(self._sums[OCCUPIED, 0])

    @cached_property
    def _sums(self) -> Float64[np.ndarray, "6 3"]:
        """Sums over cells of what `occupied_sums` names, of its square, and of its product with the next."""
        sums = np.empty((6, 3))
        _backends.levels.occupied_sums(self.levels.p, self.levels.log_q, self.levels.mass, self._n, FEW, sums)
        return sums

    def _sum(self, weight: Weight) -> float:
        """``sum over cells of E[w(n); n >= 2]``."""
        constant, slope = weight
        if self.is_dispersed:
            return (constant + 2 * slope) * math.exp(self.log_coincident_pairs)
        return float(constant * self._sums[PAIRS, 0] + slope * self._sums[IN_PAIRS, 0])

    def _std(self, weight: Weight) -> float:
        """Standard deviation of ``sum over cells of w(n); n >= 2``: pairs are as good as Poisson.

        Where few tokens share a row its variance, by that of empty cells and of tokens alone, is a
        small difference of large numbers. There the variance within cells is summed over
        populations of two and more, and the covariance of cells taken to first order:
        ``-(sum_cells p dE[w]/dp)**2 / N``, with an error of the order 1/N of it.
        """
        constant, slope = weight
        alone = constant + slope
        if self.n_tokens == 1:
            return 0.0
        if self.is_dispersed:
            return (constant + 2 * slope) * math.sqrt(math.exp(self.log_coincident_pairs))
        sums, squares, products = self._sums.T.tolist()
        if self._is_sparse:
            within = constant**2 * (sums[PAIRS] - squares[PAIRS]) + slope**2 * (sums[SQUARES] - squares[IN_PAIRS])
            within += 2 * constant * slope * (sums[IN_PAIRS] - products[PAIRS])
            across = 2 * alone * sums[DOUBLE] + slope * sums[IN_PAIRS]
            return math.sqrt(max(within - across**2 / self._n, 0.0))
        empty, single, mixed = self._across
        empty += sums[OCCUPIED] - squares[OCCUPIED]
        single += sums[SINGLE] - squares[SINGLE]
        mixed += products[OCCUPIED] - sums[SINGLE]
        return math.sqrt(max(constant**2 * empty + alone**2 * single + 2 * constant * alone * mixed, 0.0))

    @cached_property
    def _across(self) -> tuple[float, float, float]:
        """Covariances, over pairs of different cells, of both being empty, of both holding one token, and of one each.

        Series in p_a p_b: all terms up to 200 tokens; then what is left is of order N**-5.
        """
        n, tokens = self._n, self.n_tokens
        k = np.arange(1, 1 + (min(tokens, 40) if tokens <= 200 else 4))
        once, twice = sums = np.empty((2, 3, 2 * k.size + 3))  # [d, k] p**k (1 - p)**(n - d - k); and with 2 n for n
        _backends.levels.power_sums(self.levels.p, self.levels.log_q, self.levels.mass, n, sums)

        def signed(m: int) -> Array:
            return np.array([(-1) ** i * float(math.comb(m, i)) for i in k.tolist()])

        empty = signed(tokens) * (once[0, k] ** 2 - twice[0, 2 * k])
        mixed = n * signed(tokens - 1) * (once[1, k] * once[0, k + 1] - twice[1, 2 * k + 1])
        single = n * (n - 1) * signed(tokens - 2) * (once[1, k + 1] ** 2 - twice[2, 2 * k + 2])
        ones = once[0, 1] ** 2 - twice[0, 2]  # (1 - p)**(n - 2) p = ((1 - p)**(n - 2) - (1 - p)**(n - 1)) + ...
        more = 2 * (once[0, 1] * once[0, 2] - twice[0, 3]) + once[0, 2] ** 2 - twice[0, 4]
        return math.fsum(empty), math.fsum([*single, -n * ones, n * (n - 1) * more]), math.fsum([*mixed, n * ones])

    @cached_property
    def _listed(self) -> Array:
        """Logarithms of the probabilities of the likeliest cells, descending."""
        return likeliest(self.cells, LARGEST)

    def spectrum(self, populations: ArrayLike) -> Float64[np.ndarray, " sizes"]:
        """Expected number of cells that hold exactly m tokens, for every m of `populations` (>= 1).

        ``E[N_m] = E[C(N, m) p**(m - 1) (1 - p)**(N - m)]``. The 256 likeliest cells are listed one
        by one; of others a population is blurred by the bins, by about a hundredth of itself.
        """
        n, populations = self._n, np.asarray(populations, np.float64)
        counts = np.zeros(len(populations))
        possible = (populations >= 1) & (populations <= n)
        m = populations[possible][:, None]
        ways = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)

        def expected(log_p: Array, log_q: Array, mass: Array) -> Array:
            log_rest = (n - m) * np.maximum(log_q, -1e300)  # no infinity, of which there may be none
            return np.asarray(np.exp(ways + (m - 1) * log_p + log_rest) @ mass)

        if self.levels.is_exact:
            counts[possible] = expected(self.levels.log_p, self.levels.log_q, self.levels.mass)
            return counts
        listed = self._listed
        share = np.clip(listed - listed[-1], 0, 1)  # what of a level is listed: none of the last cell's, all above
        left = 1 - np.clip(self.levels.log_p - listed[-1], 0, 1)
        counts[possible] = expected(listed, np.log1p(-np.minimum(np.exp(listed), 1 - 2.0**-53)), np.exp(listed) * share)
        counts[possible] += expected(self.levels.log_p, self.levels.log_q, self.levels.mass * left)
        return counts

    def largest(self, count: int) -> Float64[np.ndarray, " count"]:
        """Expected tokens of each of the likeliest cells, descending: N times their probabilities."""
        return self._n * np.exp(likeliest(self.cells, count))

    @cached_property
    def largest_group(self) -> tuple[float, float]:
        """Bounds on the expected tokens of the largest group, 1 where all are alone.

        It has no closed form. Below: cells as if independent, ``sum_m 1 - prod P(n <= m)``, since
        the counts are negatively associated [1]_. Above: ``sum_m min(1, sum P(n > m))``. They meet
        where one cell holds most.

        References
        ----------
        .. [1] K. Joag-Dev, F. Proschan, "Negative association of random variables with applications", Annals of
           Statistics 11, 1983.
        """
        if self.is_dispersed:
            return 1.0, 1.0 + min(1.0, self._sum(ONE))
        n, p, cells = self._n, *self._weighed
        likely = float(p.max())
        top = n * likely
        if likely == 1:
            return top, top
        around = 8 * math.sqrt(top * (1 - likely)) + 24
        reached = max(0.0, math.floor(top - around))
        last = min(n, math.ceil(top + around))
        if reached:
            # Of the others P(n > reached) < (e n p / reached)**reached, below e**-60.
            kept = n * p > reached * math.exp(-1 - 60 / reached)
            p, cells = p[kept], cells[kept]
        ends = np.unique(np.round(np.linspace(reached, last, 96))) if reached else np.arange(1, last + 1.0)
        if last > SUMMED:
            inside = np.minimum(ends, n - 1)[:, None]
            over = np.where(ends[:, None] < n, betainc(inside + 1, n - inside, np.minimum(p, 1.0)), 0.0)
            log_none = np.einsum("ij,j->i", np.log1p(-np.minimum(over, 1 - 2.0**-53)), cells)
            return _bounded(ends, log_none, np.einsum("ij,j->i", over, cells))
        k = np.arange(min(last + 1, self.n_tokens))
        log_ways = np.cumsum(np.log((n - k) / (k + 1)))[max(int(reached), 1) - 1 :]  # gammaln of many tokens is coarse
        log_none, expected = np.zeros((2, len(ends)))
        _backends.levels.cells_beyond(ends.astype(np.int64), p, cells, n, log_ways, log_none, expected)
        return _bounded(ends, log_none, expected)

    def at_least(self, rank: int, population: int) -> float:
        """Bound on the chance that the `rank` largest groups all hold this many tokens or more, as a logarithm.

        ``S**r / r!``, S the sum over cells of P(n >= m): the union over sets of r cells, whose
        counts are negatively associated.
        """
        p, cells = self._weighed
        if population > self._n:
            return -math.inf
        over = betainc(float(population), self._n - population + 1, p) if population else np.ones_like(p)
        total = float(over @ cells)
        return min(0.0, rank * math.log(total) - math.lgamma(rank + 1)) if total > 0 else -math.inf

    def at_most(self, rank: int, population: int) -> float:
        """Bound on the chance that the group of this rank (1: the largest) holds this many tokens or fewer, as a
        logarithm: then one of the r likeliest cells does, so the sum over them of P(n <= m)."""
        p = np.minimum(np.exp(likeliest(self.cells, rank)), 1.0)
        if len(p) < rank or population >= self._n:
            return 0.0
        total = float(betaincc(population + 1.0, self._n - population, p).sum())
        return min(0.0, math.log(total)) if total > 0 else -math.inf

    @property
    def _weighed(self) -> tuple[Array, Array]:
        """Probabilities of cells and how many have each: the likeliest listed, the others by levels."""
        listed, below = self._listed, self._n * self.levels.p > 1e-12
        if len(listed) < LARGEST:
            return np.minimum(np.exp(listed), 1.0), np.ones(len(listed))
        left = 1 - np.clip(self.levels.log_p[below] - listed[-1], 0, 1)
        share = np.clip(listed - listed[-1], 0, 1)  # as in `spectrum`
        cells = np.maximum(self.levels.mass[below] * left / self.levels.p[below], 0)
        p = np.append(np.exp(listed), self.levels.p[below])
        return np.minimum(p, 1.0), np.append(share, cells)


def _bounded(ends: Array, log_none: Array, expected: Array) -> tuple[float, float]:
    """``sum over m of P(largest > m)``, 1 before the first of `ends`; linear between them.

    At each of `ends`: log P(no cell holds more), and the expected number of cells that do.
    """
    chances = np.array([-np.expm1(log_none), np.minimum(expected, 1.0)])
    width, first, second = np.diff(ends), chances[:, :-1], chances[:, 1:]
    low, high = ends[0] + (width * (first + second) / 2 + (first - second) / 2).sum(axis=1)
    return float(low), float(high)
