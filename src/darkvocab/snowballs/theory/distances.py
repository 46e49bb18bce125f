"""Distributions of L-infinity distances in a snowball: of two random tokens, and the largest of all pairs.

Columns are independent and the distance is a maximum over columns, so its CDF is a product over
columns.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from ...errors import InvalidInput, one_of
from ...numerics import Touching, _backends, index_values
from ...numerics.cells import Cells
from ...numerics.chebyshev import UNITS
from ...numerics.grids import ArrayLike

TOLERANCE = 1e-9  # relative error of a mean that is small enough
WORK = 4_000_000  # runs visited to tabulate one distribution
FEWEST_DISTANCES, MOST_DISTANCES = 96, 1 << 14  # tabulated, whatever the work


class _Runs(NamedTuple):
    """Ends of each run of cells, in weight units or as ordered indices, its probability and those on either side."""

    starts: Int64[np.ndarray, " active_plus_one"]
    first: Float64[np.ndarray, " runs"]
    last: Float64[np.ndarray, " runs"]
    n_cells: Float64[np.ndarray, " runs"]
    p: Float64[np.ndarray, " runs"]
    below: Float64[np.ndarray, " runs"]
    above: Float64[np.ndarray, " runs"]

    @property
    def extent(self) -> float:
        return float((self.last[self.starts[1:] - 1] - self.first[self.starts[:-1]]).max(initial=0))


def _runs(cells: Cells, unit: str) -> _Runs:
    ends = [cells.first, cells.first + cells.count - 1]
    if unit == "weight":
        ends = [index_values(end, cells.grid) for end in ends]
    first, last = (end.astype(float) for end in ends)
    below, above = np.zeros((2, cells.p.size))  # the column's other runs, summed from the outside inwards
    for start, end in pairwise(cells.starts.tolist()):
        below[start + 1 : end] = np.cumsum(cells.p[start : end - 1])
        above[start : end - 1] = np.cumsum(cells.p[start + 1 : end][::-1])[::-1]
    return _Runs(cells.starts, first, last, cells.count.astype(float), cells.p, below, above)


@dataclass(frozen=True)
class DistanceLaw:
    """Distribution of one L-infinity distance: of two random tokens, or the largest of all pairs.

    Moments are those of the distribution, the limit of the mean over many snowballs. They come from
    the CDF at every distance that occurs or, if there are too many, at enough of them to make the
    bound `mean_error` small.
    """

    unit: str  # "weight" or "steps"
    n_tokens: float  # the largest distance of so many tokens; 0: the distance of two
    runs: _Runs = field(repr=False)

    def log_cdf(self, t: ArrayLike, *, strict: bool = False) -> Float64[np.ndarray, " ..."]:
        """Return ``log P(distance <= t)`` (`strict`: ``< t``), same shape as t; -inf where P is 0."""
        limit = np.asarray(t, np.float64)
        if np.isnan(limit).any():
            raise InvalidInput("a distance must be a number, got NaN")
        limit = np.nextafter(limit, -np.inf) if strict else limit
        return self._flat(limit.ravel())[0].reshape(limit.shape)

    def cdf(self, t: ArrayLike, *, strict: bool = False) -> Float64[np.ndarray, " ..."]:
        """Return ``P(distance <= t)`` (`strict`: ``< t``), same shape as t."""
        return np.asarray(np.exp(self.log_cdf(t, strict=strict)))

    def _flat(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return log P(distance <= t), and an interval [since, until) around t in which it is constant."""
        t = np.floor(t) if self.unit == "steps" else t
        logs, since, until = np.empty((3, t.size))
        _backends.levels.log_cdf(*self.runs, float(self.n_tokens), np.maximum(t, 0.0), logs, since, until)
        if self.unit == "steps":
            until = np.maximum(until, t + 1)
        return np.where(t < 0, -np.inf, logs), since, until

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Intervals [since, until) in which the CDF is constant, ascending, and its value there.

        Between them it is unknown but monotone. Gaps that matter for the mean are halved until the
        error is small.
        """
        since = np.array([0.0, self.runs.extent])[: 1 + (self.runs.extent > 0)]
        logs, since, until = self._flat(since)
        room = max(FEWEST_DISTANCES, min(MOST_DISTANCES, WORK // max(1, self.runs.p.size)))
        while len(since) < room:
            cdf = np.exp(logs)
            gap = since[1:] - until[:-1]
            mass = np.diff(cdf)
            open_ = np.maximum(gap, 0) * mass
            mean = float((since[1:] + until[:-1]) @ mass) / 2
            if open_.sum() <= 2 * TOLERANCE * mean:
                break
            worst = np.flatnonzero(open_ > max(open_.max() / 4, TOLERANCE * mean / len(open_)))
            worst = worst[np.argsort(-open_[worst])][: room - len(since)]
            middle = until[:-1][worst] + gap[worst] / 2
            more = [np.concatenate(both) for both in zip((logs, since, until), self._flat(middle), strict=True)]
            keep = np.unique(more[1], return_index=True)[1]
            if len(keep) == len(since):
                break
            logs, since, until = (values[keep] for values in more)
        return since, until, np.maximum.accumulate(np.exp(logs))  # rounding may lower it by 1e-16

    @cached_property
    def _masses(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities of the intervals of distance, and the least and greatest distance in each."""
        since, until, cdf = self._table
        return np.diff(cdf, prepend=0), np.append(0, np.minimum(until[:-1], since[1:])), since

    @property
    def mean(self) -> float:
        mass, low, high = self._masses
        return float(mass @ (low + high)) / 2

    @property
    def mean_error(self) -> float:
        """Bound on the error of `mean`, from the gaps of the table."""
        mass, low, high = self._masses
        return float(mass @ (high - low)) / 2

    @property
    def std(self) -> float:
        mass, low, high = self._masses
        return math.sqrt(float(mass @ (((low + high) / 2 - self.mean) ** 2 + (high - low) ** 2 / 12)))

    def quantile(self, share: float) -> float:
        """Return the least t with P(distance <= t) >= share, to a relative error of 1e-9 at most."""
        if not 0 <= share <= 1:
            raise InvalidInput(f"a share must lie between 0 and 1, got {share!r}")
        since, until, cdf = self._table
        at = min(int(np.searchsorted(cdf, share)), len(since) - 1)
        if at == 0:
            return float(since[0])
        low, high = until[at - 1], since[at]
        while high - low > 1e-9 * high:
            middle = low + (high - low) / 2
            (log,), (first,), (after,) = self._flat(np.array([middle]))
            if np.exp(log) >= share:
                high = min(high, first) if first >= low else low
            else:
                low = max(after, middle)
        return float(high)

    @property
    def median(self) -> float:
        """Median of the distribution, the limit of the median over many pairs."""
        return self.quantile(0.5)


class LInfinity:
    """Distributions of L-infinity distances between the tokens of a snowball: of a `pair`, and the `largest`.

    The largest distance between tokens is also that between unique rows, but not that between black
    holes: these leave out the singletons, which lie farthest.

    If runs are single cells, results are exact up to rounding and `Cells.neglected`. For longer runs,
    ``P(distance <= t)`` lies between the true values at t -+ sigma / 16 (in weight units), and much
    closer in practice: docs/theory.md says why.

    `cells` are those of `SnowballLaw.cells` for `n_tokens` tokens (1 to about 1e12); `unit` is
    "weight" (exact differences of values) or "steps" (differences of ordered indices).

    Examples
    --------
    >>> from darkvocab.snowballs.snowball import SnowballLaw
    >>> law = LInfinity(SnowballLaw(base=np.array([1.0, 3.0]), sigma=0.001, arithmetic="exact").cells(1000), 1000)
    >>> law.pairs_within([0, 1, 2]).round(1)
    array([474722. , 499498.8, 499500. ])
    >>> round(law.pair.mean, 4), law.largest.quantile(0.99)
    (0.0496, 2.0)
    """

    def __init__(self, cells: Cells, n_tokens: float, unit: str = "steps") -> None:
        one_of(unit, "unit", UNITS)
        if not n_tokens >= 1:
            raise InvalidInput(f"n_tokens must be >= 1, got {n_tokens!r}")
        self.n_tokens = n_tokens
        runs = _runs(cells, unit)
        self.pair = DistanceLaw(unit, 0, runs)
        self.largest = DistanceLaw(unit, n_tokens, runs)

    def log_pairs_within(self, t: ArrayLike, *, strict: bool = False) -> Float64[np.ndarray, " ..."]:
        """Return the log expected number of pairs of tokens at a distance <= t (`strict`: < t), same shape as t.

        At t = 0 these are the coincident pairs.
        """
        n = self.n_tokens
        n_pairs = math.log(n) + math.log(n - 1) - math.log(2) if n > 1 else -math.inf
        return np.asarray(n_pairs + self.pair.log_cdf(t, strict=strict))

    def pairs_within(self, t: ArrayLike, *, strict: bool = False) -> Float64[np.ndarray, " ..."]:
        """Return the expected number of pairs of tokens at a distance <= t; 0 where its logarithm is below -745."""
        return np.asarray(np.exp(self.log_pairs_within(t, strict=strict)))


def density(cells: Cells, touching: Touching) -> float:
    """Return the expected density of the graph of touching tokens: the probability that two tokens touch.

    As in measured distances, the threshold is rounded to float32 and, in weight units, so is the
    difference of two values.
    """
    law = LInfinity(cells, 2, touching.unit).pair
    with np.errstate(over="ignore"):
        limit = np.float32(touching.threshold)
        if touching.unit == "steps":
            return float(law.cdf(touching.threshold if limit > 2**24 else limit, strict=touching.strict))
        limit = np.nextafter(limit, np.float32(-np.inf)) if touching.strict else limit
        after = np.nextafter(limit, np.float32(np.inf))
    # Differences below the middle round to `limit` at most; the middle itself does if `limit` is even.
    middle = (float(limit) + float(after)) / 2
    return float(law.cdf(middle, strict=bool(limit.view(np.uint32) & 1)))
