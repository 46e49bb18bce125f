"""Distributions of noise: one component's distribution function over sigma, and how far its tails are followed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtr

from ..errors import InvalidInput, one_of

NEGLECTED = 1e-9  # per snowball: the chance that noise beyond `reach` occurs at all
FARTHEST = 2.0**19  # standard deviations that noise can reach

Function = Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]


@dataclass(frozen=True)
class Distribution:
    """Distribution of the noise of one component over sigma, by its distribution function.

    `cdf` and `sf` (its complement) are vectorised; only where `sf` is given are probabilities in
    the upper tail exact to more than 1e-16. Standard deviation 1 where sigma is to be the standard
    deviation of a component. Without `cdf`, components depend on one another.
    """

    name: str
    cdf: Function | None = field(default=None, repr=False)
    sf: Function | None = field(default=None, repr=False)
    beyond: Callable[[float], float] | None = field(default=None, repr=False)  # P(|Z| > z); else from cdf and sf
    number: int | None = field(default=None, repr=False)  # by which the kernels draw it; None: they cannot

    def below(self, z: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """P(Z <= z)."""
        assert self.cdf is not None, f"{self.name} is not independent"
        return self.cdf(z)

    def above(self, z: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """P(Z > z)."""
        return self.sf(z) if self.sf else 1 - self.below(z)

    def tails(self, z: float) -> float:
        """P(|Z| > z)."""
        if self.beyond:
            return self.beyond(z)
        at = np.array([z])
        return float((self.above(at) + self.below(-at))[0])

    def reach(self, n_components: float) -> float:
        """Distance, in standard deviations, that any of n deviates exceeds with probability 1e-9 at most.

        Union bound; the least such multiple of 1/16. InvalidInput where it lies beyond 2**19.

        Examples
        --------
        >>> DISTRIBUTIONS["gaussian"].reach(2100 * 2560)
        8.25
        """
        return _reach(self, float(n_components))


@lru_cache(maxsize=256)
def _reach(distribution: Distribution, n_components: float) -> float:
    def is_beyond(sixteenths: int) -> bool:
        return n_components * distribution.tails(sixteenths / 16) <= NEGLECTED

    enough = 16
    while enough < 16 * FARTHEST and not is_beyond(enough):  # no farther: far out, a function may be no number
        enough *= 2
    reach = bisect_left(range(enough + 1), True, key=is_beyond)
    if reach > enough:
        raise InvalidInput(
            f"the tails of {distribution.name} are too heavy: of {n_components:.3g} components some reach beyond "
            f"{FARTHEST:g} sigma with a probability above {NEGLECTED:g}"
        )
    return reach / 16


def _laplace(z: np.ndarray) -> np.ndarray:
    tail = 0.5 * np.exp(-np.abs(z) * math.sqrt(2.0))
    return np.where(z < 0, tail, 1 - tail)


def _uniform(z: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + z / math.sqrt(12.0), 0, 1)


def _beyond_gaussian(z: float) -> float:
    return math.erfc(z / math.sqrt(2.0))


DISTRIBUTIONS = {
    distribution.name: distribution
    for distribution in (
        Distribution("gaussian", ndtr, lambda z: ndtr(-z), _beyond_gaussian, number=0),
        Distribution("laplace", _laplace, lambda z: _laplace(-z), lambda z: math.exp(-z * math.sqrt(2.0)), number=1),
        Distribution("uniform", _uniform, lambda z: _uniform(-z)),
        # A component of these tends to Gaussian as the dimension grows, with lighter tails.
        Distribution("uniform-ball", beyond=_beyond_gaussian, number=2),
        Distribution("uniform-shell", beyond=_beyond_gaussian, number=3),
    )
}
DRAWN = tuple(name for name, distribution in DISTRIBUTIONS.items() if distribution.number is not None)
INDEPENDENT = tuple(name for name, distribution in DISTRIBUTIONS.items() if distribution.cdf)


def drawn(name: str | Distribution) -> Distribution:
    """Return the distribution of this name, one that the kernels draw."""
    return DISTRIBUTIONS[one_of(name, "distribution", DRAWN)]


def independent(distribution: str | Distribution) -> Distribution:
    """Return the distribution of this name, or the one given, where its components are independent."""
    if isinstance(distribution, str) and distribution not in DISTRIBUTIONS:
        raise InvalidInput(f"unknown distribution {distribution!r}; choose one of {', '.join(INDEPENDENT)}")
    noise = DISTRIBUTIONS[distribution] if isinstance(distribution, str) else distribution
    if noise.cdf is None:
        raise InvalidInput(
            f"the components of {noise.name} noise depend on one another: its census has no closed form here; draw "
            "it (darkvocab trials), or take gaussian, which it tends to as the dimension grows"
        )
    return noise
