"""Two populations in one list of numbers: a low mode apart from the rest, and the chance of belonging to it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float64

WINDOW = 32  # consecutive numbers whose width gives a density: its relative error is 1 / sqrt(32)
DEPTH = 4.0  # how many times rarer numbers must be between two modes than in either
PREDICTION = 0.99  # part of the population's own law beyond which nothing is said to belong to it
PRIOR = 0.3  # scale of logarithms, a factor of 1.35, taken as if one number had shown it
TAIL_QUANTILES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)  # pairs of which bound a lower tail,
FEWEST_BELOW = 50  # where so many numbers lie below the lower one
SIZE_QUANTILES = np.linspace(0.8, PREDICTION, 20)  # where the size of the population is estimated


@dataclass(frozen=True)
class LowMode:
    """Lower one of two modes: where it is densest, and the sparsest place between it and the rest."""

    peak: float
    valley: float


def low_mode(numbers: Float64[np.ndarray, " n"]) -> LowMode | None:
    """Find the mode below a valley in the lower half of these numbers; None where their density only rises to its mode.

    The density around 32 consecutive numbers is 32 over their width. A valley is where it is a quarter, or less, of
    the densest place on either side: sampling alone makes one in fewer than one of 10,000 lists of 100,000 numbers.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> both = np.concatenate([rng.normal(1, 0.1, 500), rng.normal(5, 1, 9_500)])
    >>> mode = low_mode(both)
    >>> 0.8 < mode.peak < 1.2 < mode.valley < 2.5
    True
    >>> low_mode(rng.normal(5, 1, 10_000)) is None
    True
    """
    ordered = np.sort(numbers)
    if len(ordered) < 4 * WINDOW:
        return None
    width = ordered[WINDOW:] - ordered[:-WINDOW]
    middle = (ordered[WINDOW:] + ordered[:-WINDOW]) / 2
    width = np.maximum(width, np.spacing(np.abs(middle)))  # equal numbers
    depth = width / np.maximum(np.minimum.accumulate(width), np.minimum.accumulate(width[::-1])[::-1])
    depth[len(ordered) // 2 :] = 0
    valley = int(depth.argmax())
    if not depth[valley] >= DEPTH:
        return None
    return LowMode(peak=float(middle[width[:valley].argmin()]), valley=float(middle[valley]))


def densest(numbers: Float64[np.ndarray, " n"]) -> float:
    """Find where these numbers lie most densely: the half-sample mode [1]_, of any number of them but none.

    References
    ----------
    .. [1] D. R. Bickel, R. Frühwirth, "On a fast, robust estimator of the mode", Computational Statistics & Data
       Analysis 50, 2006.
    """
    left = np.sort(numbers)
    while len(left) > 2:
        half = (len(left) + 1) // 2
        at = int(np.argmin(left[half - 1 :] - left[: len(left) - half + 1]))
        left = left[at : at + half]
    return float(left.mean())


@dataclass(frozen=True, kw_only=True)
class Law:
    """Law of the logarithms of one population's numbers: Student's t, or a normal law without `freedom`."""

    location: float
    scale: float
    freedom: float = np.inf

    @classmethod
    def of_sample(cls, logarithms: Float64[np.ndarray, " m"]) -> Law:
        """Return the law that predicts one more: from the median, and the median absolute deviation, of these.

        From few of them the prediction is wide: m degrees of freedom, and a scale to which `PRIOR` adds one number.
        """
        m = len(logarithms)
        location = float(np.median(logarithms))
        scale = 1.4826 * np.median(np.abs(logarithms - location))
        return cls(location=location, scale=_with_prior(scale, m - 1) * float(np.sqrt(1 + 1 / m)), freedom=m)

    @classmethod
    def of_lower_half(cls, logarithms: Float64[np.ndarray, " n"], inside: Float64[np.ndarray, " m"]) -> Law:
        """Return the normal law around the peak of all of these, where some that belong to it lie.

        Only what lies below the peak says how wide the law is: what lies above it may be of another kind.
        """
        middle = np.median(inside)
        reach = 4 * 1.4826 * np.median(np.abs(inside - middle))
        peak = densest(logarithms[np.abs(logarithms - middle) <= reach])
        lower = logarithms[logarithms <= peak]
        return cls(location=peak, scale=_with_prior(np.sqrt(np.mean((lower - peak) ** 2)), len(lower)))

    def cdf(self, logarithms: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        z = (logarithms - self.location) / self.scale
        return scipy.special.ndtr(z) if np.isinf(self.freedom) else scipy.special.stdtr(self.freedom, z)

    def quantile(self, share: Float64[np.ndarray, "*k"] | float) -> Float64[np.ndarray, "*k"]:
        z = scipy.special.ndtri(share) if np.isinf(self.freedom) else scipy.special.stdtrit(self.freedom, share)
        return np.asarray(self.location + self.scale * z)


def _with_prior(scale: float | np.floating, n: int) -> float:
    return float(np.sqrt((PRIOR**2 + n * scale**2) / (1 + n)))


def membership(
    logarithms: Float64[np.ndarray, " n"], law: Law, *, at_least: int = 0, furthest: float = np.inf
) -> Float64[np.ndarray, " n"]:
    """Chance of each number to belong to the population of this law, by its place among all of them.

    The population is taken to hold ``min over t of #{x <= t} / F0(t)``, t from F0's 80% to its 99% quantile and F0 its
    law, because what else is there only adds to a count; and no fewer than the `at_least` that are known. The chance
    is then its expected density over that of all numbers (one minus the local false discovery rate [1]_), made to fall
    with the number as the slope of the least concave majorant of expected against counted members (Grenander's
    estimate, as in [2]_), between the middles of whose steps it is interpolated. Beyond F0's 99% quantile, or
    `furthest`, it falls by e with every scale of the law: as good as 0, and still in order.

    References
    ----------
    .. [1] B. Efron, "Microarrays, Empirical Bayes and the Two-Groups Model", Statistical Science 23, 2008.
    .. [2] K. Strimmer, "A unified approach to false discovery rate estimation", BMC Bioinformatics 9, 303, 2008.
    """
    values, which, counts = np.unique(logarithms, return_inverse=True, return_counts=True)
    counted = np.cumsum(counts)
    bound = min(float(law.quantile(PREDICTION)), furthest)
    places = law.quantile(SIZE_QUANTILES)
    places, shares = places[places <= bound], SIZE_QUANTILES[places <= bound]
    if not len(places):
        places = np.array([bound])
        shares = law.cdf(np.array([bound]))
    at_most = np.searchsorted(values, places, side="right")
    size = max(at_least, float(np.min(np.concatenate([[0], counted])[at_most] / shares)))
    expected = np.diff(law.cdf(np.minimum(values, bound)), prepend=0.0) * size
    within = values <= bound
    if not within.any():
        return np.zeros(len(logarithms))
    fitted = scipy.optimize.isotonic_regression(expected / counts, weights=counts, increasing=False)
    ends = np.minimum(fitted.blocks, within.sum())
    starts = np.unique(ends[:-1][ends[:-1] < ends[-1]])
    middles = np.add.reduceat(values[: ends[-1]], starts) / np.diff(np.append(starts, ends[-1]))
    chance = np.interp(np.minimum(values, bound), middles, fitted.x[starts].clip(0, 1))
    chance *= np.exp(-np.maximum(values - bound, 0) / law.scale)
    return chance[which]


@dataclass(frozen=True, kw_only=True)
class LowerTail:
    """Numbers below the tail of a population, in ascending order of their places."""

    n_below: int  # lowest numbers that the population does not explain
    expected: float  # of its own among them, at most
    bound: float  # largest of them; -inf where there are none
    missed: float  # numbers above them, up to the limit, that the population does not explain either, at least
    reaching: float  # of the population expected at or below `at`, at most


def lower_tail(
    numbers: Float64[np.ndarray, " n"],
    *,
    limit: float = np.inf,
    at: float = -np.inf,
    share: float = 0.2,
    odds: float = 1e-3,
) -> LowerTail:
    """Count the lowest numbers that the lower tail of the others does not explain.

    The others are taken to have a density whose logarithm is concave below its median. The distribution function F
    then falls at least as fast, going down, as between any two of its quantiles a < b [1]_::

        F(x) <= F(a) * exp(-(a - x) * log(F(b) / F(a)) / (b - a))   for x <= a

    The bound used is the least over pairs of `TAIL_QUANTILES`, each slope lowered by two standard errors. Numbers that
    belong to another population only raise the counts at a quantile, and so the bound. The density of the bound over
    that of all numbers, made to rise with the number, is the share of the population at each place: a local false
    discovery rate, and too high rather than too low.

    Parameters
    ----------
    limit : no number above it is counted
    at : where to say how much of the population may reach
    share : of the population, at most, at every place below
    odds : chance, at most, that the population alone puts so many numbers so low; else none are counted

    References
    ----------
    .. [1] M. Bagnoli, T. Bergstrom, "Log-concave probability and its applications", Economic Theory 26, 2005: the
       distribution function of a log-concave density is log-concave.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> trained = rng.normal(0, 0.1, 20_000)
    >>> lower_tail(trained).n_below
    0
    >>> lower_tail(np.concatenate([trained, rng.uniform(-3, -1, 40)])).n_below
    40
    """
    ordered = np.sort(numbers)
    n = len(ordered)
    expected = np.arange(1.0, n + 1)
    reaching = n / 2
    places = np.quantile(ordered, TAIL_QUANTILES) if n else np.zeros(len(TAIL_QUANTILES))
    for (low, a), (high, b) in itertools.combinations(zip(TAIL_QUANTILES, places, strict=True), 2):
        if n * low < FEWEST_BELOW or a == b:
            continue
        slope = np.log(high / low) / (b - a) * (1 - 2 / np.sqrt(n * low))
        below = ordered <= a
        expected[below] = np.minimum(expected[below], n * low * np.exp(-slope * (a - ordered[below])))
        if at <= a:
            reaching = min(reaching, n * low * np.exp(-slope * (a - at)))
    shares = scipy.optimize.isotonic_regression(np.diff(expected, prepend=0.0)).x if n else expected
    up_to = int(np.searchsorted(ordered, limit, side="right"))
    n_below = min(up_to, int(np.searchsorted(shares, share, side="right")))
    at_most = float(expected[n_below - 1]) if n_below else 0.0
    if n_below and scipy.special.gammainc(n_below, at_most) > odds:  # P(Poisson(at_most) >= n_below)
        n_below = 0
    return LowerTail(
        n_below=n_below,
        expected=at_most if n_below else 0.0,
        bound=float(ordered[n_below - 1]) if n_below else -np.inf,
        missed=float((1 - shares[n_below:up_to]).clip(0).sum()),
        reaching=float(reaching),
    )
