"""Expected census of a snowball with standard deviations, in closed form (an occupancy problem).

A token's cell is its rounded row. The N tokens draw their cells independently from one
distribution. Every statistic is a sum over cells, which is a mean over tokens:
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

MOST_LISTED = 1 << 14  # cells that are listed one by one; more are binned by probability
BIN = 1 / 128  # width of a bin of log p
BELOW = 32.0  # nats: tokens with p < e**-32 / N are alone up to a probability of e**-32
DISPERSED = -23.0  # log(N * p) of the likeliest cell: below it, all but one in 1e10 black holes are pairs
SUMMED = 4096  # tokens of the largest group up to which binomial probabilities are summed term by term
APART = 1e-4  # share of tokens in black holes below which covariances between cells are of first order
LARGEST = 256  # cells listed for the largest populations
UNDERFLOW = 760.0  # nats: e**-760 is 0 in float64
FEW_TOKENS = 0.1  # expected tokens of a cell below which populations are summed term by term

Array = np.ndarray
PAIRS, IN_PAIRS, SQUARES, OCCUPIED, SINGLE, DOUBLE = range(6)  # rows of `_sums`
Weight = tuple[float, float]  # of a cell with n >= 2 tokens: constant + slope * n
ONE: Weight = (1.0, 0.0)
TOKENS: Weight = (0.0, 1.0)
SURPLUS: Weight = (-1.0, 1.0)


@dataclass(frozen=True)
class Moments:
    """Expected value and standard deviation of a statistic."""

    mean: float
    std: float


@dataclass(frozen=True)
class Levels:
    """Distribution of log p, for the probability p of a random token's cell.

    If `is_exact`, every cell is a level. Otherwise levels are bins of width 1/128; the mean is exact
    and the second moment corrected, so the error is of third order. Cells below e**-32 / N, whose
    tokens are almost surely alone, share one level of probability 1e-304.
    """

    log_p: Float64[np.ndarray, " levels"]
    mass: Float64[np.ndarray, " levels"]  # sums to 1; the correction can make a level slightly negative
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
    """Return the `Levels` of these cells.

    Exact for up to 16,384 cells. Otherwise the columns' distributions are convolved over bins, from
    the likeliest cell down to the least probable ones that matter for `n_tokens` tokens.
    """
    n_runs = np.diff(cells.starts)
    if np.log(n_runs).sum() <= math.log(MOST_LISTED) + 1e-9:
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
    """Return the log p below which cells hold almost no coincident pairs, estimated from moments of log p."""
    weight = cells.p * np.exp(cells.log_cell - np.repeat(cells.log_power_sums(2), np.diff(cells.starts)))
    log_cell = np.where(cells.p > 0, cells.log_cell, 0)
    mean = np.add.reduceat(weight * log_cell, cells.starts[:-1])
    variance = np.add.reduceat(weight * log_cell**2, cells.starts[:-1]) - mean**2
    return float(mean.sum() - 9 * math.sqrt(max(variance.sum(), 0)) - 10)


def likeliest(cells: Cells, count: int) -> Float64[np.ndarray, " cells"]:
    """Return the logarithms of the `count` largest cell probabilities (of all cells, if fewer), descending; exact.

    Columns are added one by one, and only the `count` best products are kept. A column whose
    second cell is too improbable to matter is skipped.

    Examples
    --------
    >>> from darkvocab.snowballs.snowball import SnowballLaw
    >>> law = SnowballLaw(base=np.array([1.0, 1.0039]), sigma=0.001, arithmetic="exact")
    >>> np.exp(likeliest(law.cells(100), 3)).round(3)
    array([0.49 , 0.485, 0.013])
    """
    costs = np.zeros(1)
    if len(cells.columns):
        is_likeliest = cells.cost == 0
        first = cells.starts[:-1]
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
    """Expected census of `n_tokens` tokens: 1 to about 1e12, at the same cost.

    `cells` are those of `SnowballLaw.cells` for as many tokens.

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
        self.cells = cells
        self.n_tokens = int(n_tokens)
        self._n = float(n_tokens)

    @staticmethod
    def check(n_tokens: int) -> None:
        """Raise InvalidInput for fewer than 1 token, or more than floats can count."""
        if not 1 <= n_tokens <= 1e15:
            raise InvalidInput(f"n_tokens must be 1 to 1e15, got {n_tokens}")

    @cached_property
    def is_dispersed(self) -> bool:
        """True where cells are too improbable to hold three tokens: all but one in 1e10 black holes are pairs."""
        return math.log(self._n) + math.fsum(self.cells.log_likeliest) < DISPERSED

    @cached_property
    def levels(self) -> Levels:
        return levels(self.cells, self._n)

    @cached_property
    def log_coincident_pairs(self) -> float:
        """Log expected number of pairs of tokens with equal rows: ``C(N, 2) prod_j sum_k p_jk**2``."""
        n = self._n
        return math.log(n * (n - 1) / 2) + self.cells.log_power_sum(2) if n > 1 else -math.inf

    @cached_property
    def coincident_pairs(self) -> Moments:
        """Pairs of tokens with equal rows; exact.

        ``Var = C(N, 2) (s2 - s2**2) + 6 C(N, 3) (s3 - s2**2)`` with the sums s2, s3 of p**2, p**3.
        """
        n = self._n
        s2, s3 = (math.exp(self.cells.log_power_sum(power)) for power in (2, 3))
        variance = n * (n - 1) / 2 * (s2 - s2**2) + n * (n - 1) * (n - 2) * (s3 - s2**2)
        return Moments(math.exp(self.log_coincident_pairs), math.sqrt(max(variance, 0.0)))

    @cached_property
    def n_unique(self) -> Moments:
        """Distinct rows: cells with one token or more."""
        return Moments(self.expected_groups(), self._std(SURPLUS))

    @cached_property
    def n_singletons(self) -> Moments:
        """Tokens with a row of their own: ``N E[(1 - p)**(N - 1)]``."""
        population = self.black_hole_population
        if self._is_sparse:
            return Moments(self._n - population.mean, population.std)
        return Moments(float(self._sums[SINGLE, 0]), population.std)

    @cached_property
    def n_black_holes(self) -> Moments:
        """Cells with two tokens or more."""
        return Moments(self._sum(ONE), self._std(ONE))

    @cached_property
    def black_hole_population(self) -> Moments:
        """Tokens in black holes."""
        return Moments(self._sum(TOKENS), self._std(TOKENS))

    @cached_property
    def _is_sparse(self) -> bool:
        """True where almost all tokens are alone."""
        return self._sum(TOKENS) < APART * self._n

    def expected_groups(self, least: int = 1) -> float:
        """Return the expected number of cells with at least 1 token (unique rows) or 2 tokens (black holes)."""
        if least == 2:
            return self._sum(ONE)
        return self._n - self._sum(SURPLUS) if self._is_sparse else float(self._sums[OCCUPIED, 0])

    @cached_property
    def _sums(self) -> Float64[np.ndarray, "6 3"]:
        """Sums over cells of the terms of `occupied_sums`, of their squares, and of products with the next term."""
        sums = np.empty((6, 3))
        _backends.levels.occupied_sums(self.levels.p, self.levels.log_q, self.levels.mass, self._n, FEW_TOKENS, sums)
        return sums

    def _sum(self, weight: Weight) -> float:
        """Return ``sum over cells of E[w(n); n >= 2]``."""
        constant, slope = weight
        if self.is_dispersed:
            return (constant + 2 * slope) * math.exp(self.log_coincident_pairs)
        return float(constant * self._sums[PAIRS, 0] + slope * self._sums[IN_PAIRS, 0])

    def _std(self, weight: Weight) -> float:
        """Return the standard deviation of ``sum over cells of w(n); n >= 2``.

        In general it follows from the numbers of empty cells and of singletons. If few tokens share
        a row, that is a small difference of large numbers: then the variance within cells is summed
        over populations of two and more, and the covariance between cells is taken to first order,
        ``-(sum_cells p dE[w]/dp)**2 / N``, with a relative error of order 1/N.
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
        """Covariances over pairs of different cells: both empty, both with one token, and one of each.

        Series in p_a p_b, with all terms for up to 200 tokens; beyond, the remainder is of order N**-5.
        """
        n = self._n
        tokens = self.n_tokens
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
        """Log probabilities of the likeliest cells, descending."""
        return likeliest(self.cells, LARGEST)

    def spectrum(self, populations: ArrayLike) -> Float64[np.ndarray, " sizes"]:
        """Return the expected number of cells with exactly m tokens, for every m of `populations` (>= 1).

        ``E[N_m] = E[C(N, m) p**(m - 1) (1 - p)**(N - m)]``. The 256 likeliest cells are exact; bins
        blur the populations of the others by about 1%.
        """
        n = self._n
        sizes = np.asarray(populations, np.float64)
        counts = np.zeros(len(sizes))
        possible = (sizes >= 1) & (sizes <= n)
        m = sizes[possible][:, None]
        ways = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)

        def expected(log_p: Array, log_q: Array, mass: Array) -> Array:
            log_rest = (n - m) * np.maximum(log_q, -1e300)  # finite, since 0 times infinity is NaN
            return np.asarray(np.exp(ways + (m - 1) * log_p + log_rest) @ mass)

        if self.levels.is_exact:
            counts[possible] = expected(self.levels.log_p, self.levels.log_q, self.levels.mass)
            return counts
        listed = self._listed
        share = np.clip(listed - listed[-1], 0, 1)  # part of a cell taken from the list: 0 at its end, 1 a nat above
        left = 1 - np.clip(self.levels.log_p - listed[-1], 0, 1)
        counts[possible] = expected(listed, np.log1p(-np.minimum(np.exp(listed), 1 - 2.0**-53)), np.exp(listed) * share)
        counts[possible] += expected(self.levels.log_p, self.levels.log_q, self.levels.mass * left)
        return counts

    def largest(self, count: int) -> Float64[np.ndarray, " count"]:
        """Return the expected tokens in each of the `count` likeliest cells, descending: N p."""
        return self._n * np.exp(likeliest(self.cells, count))

    @cached_property
    def largest_group(self) -> tuple[float, float]:
        """Bounds on the expected number of tokens in the largest group, which has no closed form.

        The lower bound treats cells as independent, ``sum_m 1 - prod P(n <= m)``, since counts are
        negatively associated [1]_. The upper bound is ``sum_m min(1, sum P(n > m))``. They meet if
        one cell holds most tokens; both are 1 if all tokens are alone.

        References
        ----------
        .. [1] K. Joag-Dev, F. Proschan, "Negative association of random variables with applications", Annals of
           Statistics 11, 1983.
        """
        if self.is_dispersed:
            return 1.0, 1.0 + min(1.0, self._sum(ONE))
        n = self._n
        p, cells = self._weighed
        likely = float(p.max())
        top = n * likely
        if likely == 1:
            return top, top
        around = 8 * math.sqrt(top * (1 - likely)) + 24
        reached = max(0.0, math.floor(top - around))
        last = min(n, math.ceil(top + around))
        if reached:
            # Cells that are left out have P(n > reached) < (e n p / reached)**reached < e**-60.
            kept = n * p > reached * math.exp(-1 - 60 / reached)
            p, cells = p[kept], cells[kept]
        ends = np.unique(np.round(np.linspace(reached, last, 96))) if reached else np.arange(1, last + 1.0)
        if last > SUMMED:
            inside = np.minimum(ends, n - 1)[:, None]
            over = np.where(ends[:, None] < n, betainc(inside + 1, n - inside, np.minimum(p, 1.0)), 0.0)
            log_none = np.einsum("ij,j->i", np.log1p(-np.minimum(over, 1 - 2.0**-53)), cells)
            return _bounded(ends, log_none, np.einsum("ij,j->i", over, cells))
        k = np.arange(min(last + 1, self.n_tokens))
        log_ways = np.cumsum(np.log((n - k) / (k + 1)))[max(int(reached), 1) - 1 :]  # gammaln is inexact for large N
        log_none, expected = np.zeros((2, len(ends)))
        _backends.levels.cells_beyond(ends.astype(np.int64), p, cells, n, log_ways, log_none, expected)
        return _bounded(ends, log_none, expected)

    def at_least(self, rank: int, population: int) -> float:
        """Return the log of a bound on P(each of the r = `rank` largest groups holds at least `population` tokens).

        ``S**r / r!`` for the sum S over cells of P(n >= m): a union bound over sets of r cells, whose
        counts are negatively associated.
        """
        p, cells = self._weighed
        if population > self._n:
            return -math.inf
        over = betainc(float(population), self._n - population + 1, p) if population else np.ones_like(p)
        total = float(over @ cells)
        return min(0.0, rank * math.log(total) - math.lgamma(rank + 1)) if total > 0 else -math.inf

    def at_most(self, rank: int, population: int) -> float:
        """Return the log of a bound on P(the group of this rank, 1 for the largest, holds at most `population` tokens).

        Then one of the r likeliest cells does: the bound is the sum over these of P(n <= m).
        """
        p = np.minimum(np.exp(likeliest(self.cells, rank)), 1.0)
        if len(p) < rank or population >= self._n:
            return 0.0
        total = float(betaincc(population + 1.0, self._n - population, p).sum())
        return min(0.0, math.log(total)) if total > 0 else -math.inf

    @property
    def _weighed(self) -> tuple[Array, Array]:
        """Probabilities and the number of cells with each: the likeliest cells one by one, the others by level."""
        listed = self._listed
        if len(listed) < LARGEST:
            return np.minimum(np.exp(listed), 1.0), np.ones(len(listed))
        below = self._n * self.levels.p > 1e-12
        left = 1 - np.clip(self.levels.log_p[below] - listed[-1], 0, 1)
        share = np.clip(listed - listed[-1], 0, 1)  # as in `spectrum`
        cells = np.maximum(self.levels.mass[below] * left / self.levels.p[below], 0)
        p = np.append(np.exp(listed), self.levels.p[below])
        return np.minimum(p, 1.0), np.append(share, cells)


def _bounded(ends: Array, log_none: Array, expected: Array) -> tuple[float, float]:
    """Return both bounds on ``sum over m of P(largest > m)``, where P is 1 below the first of `ends`, linear between.

    For each end m, `log_none` is log P(no cell holds more) and `expected` the expected number of cells that do.
    """
    probs = np.array([-np.expm1(log_none), np.minimum(expected, 1.0)])
    first, second = probs[:, :-1], probs[:, 1:]
    low, high = ends[0] + (np.diff(ends) * (first + second) / 2 + (first - second) / 2).sum(axis=1)
    return float(low), float(high)
