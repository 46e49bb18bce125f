"""Uncertainty of sigma: from likelihood ratios, and from how far estimates of drawn snowballs scatter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from .likelihood import Likelihood
from .model import Estimate, drawn_partitions

ERRORS = 200  # snowballs drawn for the error of the composite likelihood's estimate; trials 0 and on


@dataclass(frozen=True, kw_only=True)
class ProfilePoint:
    """The log-likelihood of one sigma; -inf where it is impossible."""

    sigma: float
    log_likelihood: float


class Uncertainty:
    """The interval of an estimate at `level`, and the errors of what is free beside sigma."""

    def __init__(self, likelihood: Likelihood, estimate: Estimate, *, level: float, seed: int) -> None:
        self.likelihood, self.estimate, self.level, self.seed = likelihood, estimate, level, seed

    @cached_property
    def godambe(self) -> tuple[Float64[np.ndarray, "p p"], float]:
        """Covariance of the estimate of log sigma and what is free beside it; and by what a fall of the composite
        likelihood, with all else free, is divided to be one of a likelihood."""
        estimate, partition = self.estimate, self.likelihood.partition
        assert estimate.sigma is not None
        snowball = estimate.hypothesis.law(estimate.sigma).snowball(estimate.n_tokens)
        known = partition.n_singletons is not None
        drawn = list(drawn_partitions(snowball, range(ERRORS), seed=self.seed, with_singletons=known))
        scores, information = self.likelihood.score(estimate.theta, drawn)
        inverse = np.linalg.pinv(information)
        covariance = inverse @ np.cov(scores.T).reshape(information.shape) @ inverse
        return covariance, float(covariance[0, 0] / inverse[0, 0])

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Interval of sigma: from likelihood ratios, the composite's scaled by Godambe's information; where more is
        free than sigma, from the estimate's own error. 0 or infinity where the target bounds sigma
        on one side only."""
        sigma, log_sigma = self.estimate.sigma, float(self.estimate.theta[0])
        if sigma is None:
            return self._one_sided(log_sigma)
        if self.likelihood.free:
            far = float(norm.ppf(0.5 + self.level / 2)) * math.sqrt(self.godambe[0][0, 0])
            return sigma * math.exp(-far), sigma * math.exp(far)
        scale = 1.0 if self.likelihood.is_exact else self.godambe[1]
        fall = float(chi2.ppf(self.level, 1)) / 2 * scale
        return self._falls(log_sigma, fall, -1), self._falls(log_sigma, fall, 1)

    def _one_sided(self, log_sigma: float) -> tuple[float, float]:
        """All tokens share a row, or none do: how large, or how small, sigma can be at this level."""
        fall = -math.log(1 - self.level)  # of the probability of what was observed, from 1
        if log_sigma < math.log(self.estimate.range[0]) + 0.1:
            return 0.0, self._falls(log_sigma, fall, 1)
        return self._falls(log_sigma, fall, -1), math.inf

    def _falls(self, log_sigma: float, fall: float, side: int) -> float:
        """Sigma on this side at which the log-likelihood has fallen by this much."""
        floor = self.likelihood.at(math.exp(log_sigma)) - fall
        step = 1e-3
        while self.likelihood.at(math.exp(log_sigma + side * step)) > floor:
            step *= 2
            if step >= 30:
                return 0.0 if side < 0 else math.inf

        def above(x: float) -> float:
            return max(self.likelihood.at(math.exp(x)) - floor, -1e6)

        return math.exp(brentq(above, log_sigma, log_sigma + side * step, xtol=1e-5))

    def errors(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return standard errors of log sigma and what is free, and the correlation of each with log sigma."""
        covariance, _ = self.godambe
        spread = np.sqrt(np.diag(covariance))
        free = self.likelihood.free
        return dict(zip(["log_sigma", *free], spread.tolist(), strict=True)), {
            name: float(covariance[0, i] / (spread[0] * spread[i])) for i, name in enumerate(free, 1)
        }

    def profile(self, count: int = 41) -> list[ProfilePoint]:
        """Return the log-likelihood of sigma, three intervals wide around the estimate; all else as estimated."""
        estimate, (low, high) = self.estimate, self.interval
        if estimate.sigma is None:
            ends = (high / 30, high * 2) if low == 0 else (low / 2, low * 30)
        else:
            low, high = max(low, estimate.range[0]), min(high, estimate.range[1])
            ends = estimate.sigma * (low / estimate.sigma) ** 3, estimate.sigma * (high / estimate.sigma) ** 3
        rows = []
        for sigma in np.geomspace(*ends, count).tolist():
            log = self.likelihood.of(np.array([math.log(sigma), *estimate.theta[1:]]))
            rows.append(ProfilePoint(sigma=sigma, log_likelihood=log))
        return rows
