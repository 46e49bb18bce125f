"""Fit: which sigma explains an observed census best, how surely, how well, and what else explains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.stats import chi2, norm

from ..errors import InvalidInput, NoFit
from ..numerics import as_grid, boundaries, index_values, round_to, ulp
from ..numerics.distributions import INDEPENDENT
from ..runs.folder import versions
from ..runs.randomness import BASE, check_seed, generator
from .bases import load_base
from .evidence import Association, Gap, association, gap
from .law import SnowballLaw
from .snowball import draw
from .targets import Target, load_target
from .theory import Partition, composite_likelihood, partition_likelihood

SCHEMA_VERSION = 1
LEVEL = 0.9
ERRORS = 200  # snowballs drawn for the error of the composite likelihood's estimate
DRAWS = 1000  # snowballs drawn from the fit, for what it predicts
SIGMAS = 25  # of them
MOST_TOKENS = 1_000_000  # of a snowball that is drawn
COARSE = 1.2  # ratio of neighbouring sigmas where the likelihood is first looked at
RANKS = 24  # largest groups that are held against their bounds
OFF_LATTICE = 10  # bases drawn
FREE = ("offset", "tokens")
OFFSETS = np.arange(0, 0.5, 0.02)  # along which the ridge is drawn


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """How the tokens came about, but for sigma."""

    base: Float64[np.ndarray, " dim"]
    grid: str = "bfloat16"
    arithmetic: str = "float32"
    distribution: str = "gaussian"
    offset: float = 0.0  # of every component, in the grid's spacing there

    @cached_property
    def centre(self) -> Float64[np.ndarray, " dim"]:
        if not self.offset:
            return self.base
        return self.base + self.offset * ulp(round_to(self.base, self.grid), self.grid)

    def law(self, sigma: float) -> SnowballLaw:
        return SnowballLaw(
            base=self.centre,
            sigma=sigma,
            grid=self.grid,
            arithmetic=self.arithmetic,
            distribution=self.distribution,
        )

    def range(self, n_tokens: int) -> tuple[float, float]:
        """Sigmas between nearly all tokens at home and nearly all alone, as far as the grid can tell."""
        rounded = round_to(self.centre, self.grid).astype(np.float64)
        lower, upper = boundaries(rounded, self.grid)
        near = np.minimum(np.abs(self.centre - lower), np.abs(upper - self.centre))
        spacing = ulp(rounded, self.grid)
        resolved = np.maximum(near, spacing / 65536)[spacing > 0]
        low = float(resolved.min()) / 10
        high = low
        while high < 64 * spacing.max():
            high *= 2
            try:
                if self.law(high).occupancy(n_tokens).log_coincident_pairs < -3:
                    break
            except ValueError:  # overflows
                return low, high / 2
        return low, high


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Where a likelihood is largest. `sigma` None: it has no largest value, all tokens share a row or none do."""

    hypothesis: Hypothesis
    sigma: float | None
    n_tokens: int
    log_likelihood: float
    kind: str  # "composite" or "partition"
    range: tuple[float, float]


class Likelihood:
    """The likelihood of a partition under a hypothesis, as a function of sigma and, where asked, of more."""

    def __init__(self, partition: Partition, hypothesis: Hypothesis, free: tuple[str, ...] = ()) -> None:
        self.partition, self.hypothesis, self.free = partition, hypothesis, free
        self.is_exact = partition.is_tractable and not free
        n_tokens = partition.n_tokens
        self.n_tokens = n_tokens if n_tokens is not None else int(partition.populations.sum())

    @property
    def kind(self) -> str:
        return "partition" if self.is_exact else "composite"

    def at(self, sigma: float, offset: float | None = None, n_tokens: float | None = None) -> float:
        """Its logarithm."""
        hypothesis = self.hypothesis if offset is None else replace(self.hypothesis, offset=offset)
        n = round(n_tokens) if n_tokens else self.n_tokens
        try:
            if self.is_exact:
                return partition_likelihood(hypothesis.law(sigma).cells(n), self.partition)
            return composite_likelihood(hypothesis.law(sigma).occupancy(n), self.partition)
        except ValueError:  # overflows the grid
            return -math.inf

    def of(self, theta: np.ndarray) -> float:
        """At log sigma and the free parameters: offset, log of the tokens beyond those in black holes."""
        return self.at(math.exp(theta[0]), *self.free_values(theta))

    def free_values(self, theta: np.ndarray) -> tuple[float | None, float | None]:
        """Offset and number of tokens."""
        more = dict(zip(self.free, theta[1:].tolist(), strict=True))
        n_tokens = None
        if "tokens" in more:
            n_tokens = min(float(self.partition.populations.sum()) + math.exp(min(more["tokens"], 30.0)), 1e12)
        return more.get("offset"), n_tokens

    def maximum(self) -> tuple[Estimate, np.ndarray]:
        """Where it is largest, of sigma by a scan over its whole range, and its parameters."""
        low, high = self.hypothesis.range(max(self.n_tokens, 2))
        count = max(8, math.ceil(math.log(high / low) / math.log(COARSE)))
        sigmas = np.geomspace(low, high, count)
        logs = np.empty(count)
        for i, sigma in enumerate(sigmas.tolist()):
            logs[i] = self.at(sigma)
        best = int(np.nanargmax(np.where(np.isfinite(logs), logs, -np.inf)))
        if not np.isfinite(logs[best]):
            raise NoFit(
                f"no sigma from {low:.3g} to {high:.3g} makes these populations around this base: their likelihood "
                "underflows everywhere; give the base they come from, or let it move (--offset fit)"
            )
        ends = best in (0, count - 1) and not self.free
        found = np.array([math.log(sigmas[best])])
        log_likelihood = float(logs[best])
        if not ends:
            around = math.log(sigmas[max(best - 1, 0)]), math.log(sigmas[min(best + 1, count - 1)])
            made = minimize_scalar(
                lambda x: -self.at(math.exp(x)), bounds=around, method="bounded", options={"xatol": 1e-5}
            )
            found, log_likelihood = np.array([float(made.x)]), -float(made.fun)
        if self.free:
            moved, found[0] = self._best_offset(found[0], log_likelihood)
            start = np.array([found[0], *(moved if name == "offset" else 2.0 for name in self.free)])
            simplex = start + 0.1 * np.eye(len(start) + 1, len(start), -1)
            how = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-4, "maxiter": 400}
            made = minimize(lambda theta: -self._inside(theta), start, method="Nelder-Mead", options=how)
            found, log_likelihood = made.x, -float(made.fun)
        offset, n_tokens = self.free_values(found)
        estimate = Estimate(
            hypothesis=self.hypothesis if offset is None else replace(self.hypothesis, offset=offset),
            sigma=None if ends else math.exp(found[0]),
            n_tokens=round(n_tokens) if n_tokens else self.n_tokens,
            log_likelihood=log_likelihood,
            kind=self.kind,
            range=(low, high),
        )
        return estimate, found

    def _best_offset(self, log_sigma: float, log_likelihood: float) -> tuple[float, float]:
        """Where along the offset to start from, and log sigma there: there can be several maxima."""
        best = log_likelihood, 0.0, log_sigma
        for row in ridge(self.partition, self.hypothesis, OFFSETS) if "offset" in self.free else []:
            if row["sigma"]:
                best = max(best, (row["log_likelihood"], row["offset"], math.log(row["sigma"])))
        return min(max(best[1], 0.01), 0.49), best[2]

    def _inside(self, theta: np.ndarray) -> float:
        offset, _ = self.free_values(theta)
        if offset is not None and not 0 <= offset <= 0.5:
            return -1e12 * (1 + abs(offset))
        found = self.of(theta)
        return found if math.isfinite(found) else -1e12

    def score(self, theta: np.ndarray, drawn: list[Partition]) -> tuple[np.ndarray, np.ndarray]:
        """Scores of partitions drawn at theta [drawn, parameters], and the composite's information [p, p].

        Derivatives of the logarithm of every population's expected number, by central differences.
        """
        sizes = np.unique(np.concatenate([partition.sizes[0] for partition in drawn])).astype(np.float64)
        step = np.array([4e-3, *(2e-3 if name == "offset" else 4e-2 for name in self.free)])
        slopes, expected = [], []
        for i in range(len(theta)):
            ends = []
            for sign in (1, -1):
                moved = theta.copy()
                moved[i] += sign * step[i]
                offset, n_tokens = self.free_values(moved)
                hypothesis = self.hypothesis if offset is None else replace(self.hypothesis, offset=offset)
                made = hypothesis.law(math.exp(moved[0])).occupancy(round(n_tokens) if n_tokens else self.n_tokens)
                total = made.expected_groups(2 if self.partition.n_singletons is None else 1)
                ends.append((np.log(np.maximum(made.spectrum(sizes), 1e-300)), total))
            slopes.append((ends[0][0] - ends[1][0]) / (2 * step[i]))
            expected.append((ends[0][1] - ends[1][1]) / (2 * step[i]))
        slope = np.array(slopes).T
        scores, information = np.empty((len(drawn), len(theta))), np.zeros((len(theta), len(theta)))
        for number, partition in enumerate(drawn):
            occurring, counts = partition.sizes
            of = slope[np.searchsorted(sizes, occurring)]
            scores[number] = counts @ of - np.array(expected)
            information += (of * counts[:, None]).T @ of / len(drawn)
        return scores, information


class Fit:
    """A snowball fitted to an observed census.

    Parameters
    ----------
    target : "qwen3-4b", a file, populations, as `load_target`; or a `Target`
    singletons : as `load_target`; "unknown" fits the number of tokens, too
    base : as `darkvocab.expect`; by default the row of the largest black hole where the target is a checkpoint, else
        "qwen3-4b"
    grid, arithmetic, distribution : of the snowball, as `darkvocab.expect`; grid by default the target's, or bfloat16;
        distribution "fit": the one of the largest likelihood
    offset : by how much every component of the rounded base is moved, in the grid's spacing, 0 to 1/2; or "fit"
    level : of the interval of sigma
    draws : snowballs drawn from the fit, for what it predicts
    compare : fit the other explanations, too

    The likelihood is the probability of the observed partition where its groups are few (`partition_likelihood`), else
    a composite likelihood whose error is that of 200 snowballs drawn at the estimate (Godambe's information).
    """

    def __init__(
        self,
        target: str | Path | Target,
        *,
        singletons: int | str | None = None,
        base: str | Path | np.ndarray | None = None,
        grid: str | None = None,
        arithmetic: str = "float32",
        distribution: str = "gaussian",
        offset: float | str = 0.0,
        level: float = LEVEL,
        draws: int = DRAWS,
        seed: int = 42,
        compare: bool = False,
    ) -> None:
        self.target = target if isinstance(target, Target) else load_target(target, singletons)
        own = self.target.base if base is None else None
        self.base = own or load_base("qwen3-4b" if base is None else base, seed=check_seed(seed))
        grid = as_grid(grid or self.target.grid or "bfloat16").name
        self.level, self.draws, self.seed, self.compare = level, draws, seed, compare
        if not 0 < level < 1:
            raise InvalidInput(f"level must lie between 0 and 1, got {level!r}")
        if draws < 20:
            raise InvalidInput(f"draws must be >= 20, got {draws}")
        if isinstance(offset, str) and offset != "fit":
            raise InvalidInput(f"offset is a number from 0 to 0.5, or fit; got {offset!r}")
        moved = 0.0 if offset == "fit" else float(offset)
        if not 0 <= moved <= 0.5:
            raise InvalidInput(f"offset must lie between 0 and 0.5 of the grid's spacing, got {offset!r}")
        if self.target.grid and self.target.grid != grid:
            raise InvalidInput(f"{self.target.name} is on {self.target.grid}, not {grid}")
        if self.target.dim is not None and self.target.dim != self.base.vector.size:
            raise InvalidInput(
                f"base {self.base.name!r} has {self.base.vector.size:,} components, {self.target.name} has "
                f"{self.target.dim:,}; give the vector its tokens lie around (--base; darkvocab centroid makes one)"
            )
        partition = self.target.partition
        tokens = (partition.n_tokens or int(partition.populations.sum())) or 1
        if tokens > MOST_TOKENS:
            raise InvalidInput(
                f"{tokens:,} tokens: a fit draws snowballs for its errors, of {MOST_TOKENS:,} tokens at most; for the "
                "expectation of larger ones there is darkvocab expect"
            )
        families = INDEPENDENT if distribution == "fit" else (distribution,)
        vector = self.base.vector if offset == 0 else round_to(self.base.vector, grid)
        self.hypothesis = Hypothesis(
            base=vector.astype(np.float64), grid=grid, arithmetic=arithmetic, distribution=families[0], offset=moved
        )
        self.families = families
        self.free = tuple(
            name
            for name, is_free in zip(FREE, (offset == "fit", partition.n_singletons is None), strict=True)
            if is_free
        )
        # Refuses what has no closed form.
        self.hypothesis.law(float(np.abs(vector).max() or 1.0) * 1e-9).occupancy(tokens)

    @cached_property
    def _best(self) -> tuple[Likelihood, tuple[Estimate, np.ndarray]]:
        """The family of noise with the largest likelihood, and where that is."""
        found, none = [], None
        for family in self.families:
            likelihood = Likelihood(self.target.partition, replace(self.hypothesis, distribution=family), self.free)
            try:
                found.append((likelihood, likelihood.maximum()))
            except NoFit as error:
                none = error
        if none and not found:
            raise none
        return max(found, key=lambda made: made[1][0].log_likelihood)

    @property
    def likelihood(self) -> Likelihood:
        return self._best[0]

    @property
    def _maximum(self) -> tuple[Estimate, np.ndarray]:
        return self._best[1]

    @property
    def estimate(self) -> Estimate:
        return self._maximum[0]

    # How sure ----------------------------------------------------------------------------------------------------

    def _drawn(self, sigma: float, count: int, first: int, hypothesis: Hypothesis | None = None) -> Iterator[Partition]:
        """Partitions of snowballs drawn at this sigma, numbered from `first`."""
        ball = (hypothesis or self.estimate.hypothesis).law(sigma).snowball(self.estimate.n_tokens)
        cells = ball.single_cells() if ball.has_cells else None
        known = self.target.partition.n_singletons is not None
        for trial in range(first, first + count):
            counts = draw(ball, seed=self.seed, trial=trial, cells=cells).groups().counts
            yield Partition(np.sort(counts[counts > 1])[::-1], int((counts == 1).sum()) if known else None)

    @cached_property
    def _godambe(self) -> tuple[Float64[np.ndarray, "p p"], float]:
        """Covariance of the estimate of log sigma and what is free beside it; and by what a fall of the composite
        likelihood, with all else free, is divided to be one of a likelihood."""
        estimate, theta = self._maximum
        assert estimate.sigma is not None
        scores, information = self.likelihood.score(theta, list(self._drawn(estimate.sigma, ERRORS, 0)))
        inverse = np.linalg.pinv(information)
        covariance = inverse @ np.cov(scores.T).reshape(information.shape) @ inverse
        return covariance, float(covariance[0, 0] / inverse[0, 0])

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Of sigma, at `level`: from likelihood ratios, the composite's scaled by Godambe's information; where more is
        free than sigma, from the estimate's own error. 0 or infinity where the target bounds sigma on one side only."""
        estimate, theta = self._maximum
        if estimate.sigma is None:
            return self._one_sided()
        if self.free:
            far = float(norm.ppf(0.5 + self.level / 2)) * math.sqrt(self._godambe[0][0, 0])
            return estimate.sigma * math.exp(-far), estimate.sigma * math.exp(far)
        scale = 1.0 if self.likelihood.is_exact else self._godambe[1]
        fall = float(chi2.ppf(self.level, 1)) / 2 * scale
        return self._falls(theta[0], fall, -1), self._falls(theta[0], fall, 1)

    def _one_sided(self) -> tuple[float, float]:
        """All tokens share a row, or none do: how large, or how small, sigma can be at this level."""
        estimate, theta = self._maximum
        fall = -math.log(1 - self.level)  # of the probability of what was observed, from 1
        if theta[0] < math.log(estimate.range[0]) + 0.1:
            return 0.0, self._falls(theta[0], fall, 1)
        return self._falls(theta[0], fall, -1), math.inf

    def _falls(self, start: float, fall: float, side: int) -> float:
        """Sigma on this side at which the log-likelihood has fallen by this much."""
        top = self.likelihood.at(math.exp(start))
        step = 1e-3
        while step < 30:
            found = self.likelihood.at(math.exp(start + side * step))
            if not found > top - fall:
                break
            step *= 2
        else:
            return 0.0 if side < 0 else math.inf

        def above(x: float) -> float:
            found = self.likelihood.at(math.exp(x))
            return max(found, top - fall - 1e6) - (top - fall)

        return math.exp(brentq(above, start, start + side * step, xtol=1e-5))

    # How well ----------------------------------------------------------------------------------------------------

    @cached_property
    def predicted(self) -> list[Partition]:
        """Partitions drawn from the fit: sigma lognormal around the estimate with its error (posterior predictive, with
        a flat prior of log sigma), or the estimate where the target bounds it on one side only."""
        estimate, _ = self._maximum
        low, high = self.interval
        sigma = estimate.sigma
        if sigma is None:
            return list(self._drawn(high if low == 0 else low, self.draws, ERRORS))
        shares = norm.ppf((np.arange(SIGMAS) + 0.5) / SIGMAS) / norm.ppf(0.5 + self.level / 2)
        drawn: list[Partition] = []
        for i, share in enumerate(shares.tolist()):
            near = sigma * (high / sigma) ** share if share > 0 else sigma * (low / sigma) ** -share
            near = min(max(near, estimate.range[0]), estimate.range[1])
            many = (self.draws * (i + 1)) // SIGMAS - (self.draws * i) // SIGMAS
            drawn += self._drawn(near, many, ERRORS + len(drawn))
        return drawn

    @cached_property
    def checks(self) -> list[dict[str, Any]]:
        """Of each statistic what was observed, what snowballs drawn from the fit have, and how often they are so far
        out: twice the smaller tail, the observed one counted in."""
        observed = statistics(self.target.partition)
        drawn = [statistics(partition) for partition in self.predicted]
        made = []
        for name, value in observed.items():
            values = np.array([row[name] for row in drawn])
            tail = min(int((values <= value).sum()), int((values >= value).sum()))
            low, high = np.quantile(values, [0.05, 0.95]).tolist()
            made.append(
                {
                    "statistic": name,
                    "observed": value,
                    "mean": float(values.mean()),
                    "p5": low,
                    "p95": high,
                    "p": min(1.0, 2 * (1 + tail) / (1 + len(values))),
                }
            )
        return made

    @cached_property
    def ranks(self) -> list[dict[str, Any]]:
        """Of the largest groups the populations, observed and predicted; singletons count as groups of one."""
        count = min(RANKS, max(len(self.target.partition.populations) + 6, 10))
        drawn = np.array([_ranked(partition, count) for partition in self.predicted])
        low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
        observed = _ranked(self.target.partition, count)
        return [
            {
                "rank": rank + 1,
                "observed": int(observed[rank]),
                "mean": float(drawn[:, rank].mean()),
                "p5": float(low[rank]),
                "p95": float(high[rank]),
            }
            for rank in range(count)
        ]

    def profile(self, count: int = 41) -> list[dict[str, Any]]:
        """The log-likelihood of sigma, three intervals wide around the estimate; all else as estimated."""
        estimate, theta = self._maximum
        low, high = self.interval
        if estimate.sigma is None:
            ends = (high / 30, high * 2) if low == 0 else (low / 2, low * 30)
        else:
            low, high = max(low, estimate.range[0]), min(high, estimate.range[1])
            ends = estimate.sigma * (low / estimate.sigma) ** 3, estimate.sigma * (high / estimate.sigma) ** 3
        rows = []
        for sigma in np.geomspace(*ends, count).tolist():
            log = self.likelihood.of(np.array([math.log(sigma), *theta[1:]]))
            rows.append({"sigma": sigma, "log_likelihood": _finite(log)})
        return rows

    @cached_property
    def bound(self) -> dict[str, Any]:
        """A bound on the chance of populations so far out, at the sigma where it is largest.

        Of each of the 24 largest groups, and of there being no more, how likely is one as large or larger, as small or
        smaller: closed bounds (`Occupancy.at_least`, `at_most`). The least of them, times their number (Bonferroni), is
        a p-value at each sigma; its largest over all sigma is `log10_p`. Which of the bounds that was is told, too.
        """
        estimate, _ = self._maximum
        low, high = (math.log(end) for end in estimate.range)
        around = np.linspace(low, high, max(16, math.ceil(8 * (high - low))))
        found = [self._rarest(math.exp(x))["log10_p"] for x in around.tolist()]
        best = int(np.argmax(found))
        made = minimize_scalar(
            lambda x: -max(self._rarest(math.exp(x))["log10_p"], -1e6),
            bounds=(around[max(best - 1, 0)], around[min(best + 1, len(around) - 1)]),
            method="bounded",
        )
        at = [math.exp(x) for x in (float(around[best]), float(made.x))] + ([estimate.sigma] if estimate.sigma else [])
        return max((self._rarest(sigma) for sigma in at), key=lambda row: row["log10_p"])

    def _rarest(self, sigma: float) -> dict[str, Any]:
        """The p-value of `bound` at one sigma."""
        estimate, partition = self.estimate, self.target.partition
        populations = partition.populations.tolist()[:RANKS]
        ranks = [(rank, m, True) for rank, m in enumerate(populations, 1)]
        ranks += [(rank, m, False) for rank, m in enumerate(populations, 1)]
        if partition.n_singletons is not None:
            ranks.append((len(partition.populations) + 1, 1, False))  # no more black holes
        try:
            made = estimate.hypothesis.law(sigma).occupancy(estimate.n_tokens)
        except ValueError:  # overflows the grid
            return {"log10_p": -math.inf, "sigma": sigma, "rank": 0, "population": 0, "or_more": True}
        told = [(made.at_least(rank, m) if more else made.at_most(rank, m), rank, m, more) for rank, m, more in ranks]
        log_p, rank, m, more = min(told)
        log10_p = min(0.0, (log_p + math.log(len(ranks))) / math.log(10))
        return {"log10_p": log10_p, "sigma": sigma, "rank": rank, "population": m, "or_more": more}

    @property
    def columns(self) -> list[dict[str, Any]] | None:
        """Where the rows are known: the columns in which they differ, their values as ordered indices, and the tokens
        in black holes at each."""
        if self.target.index is None:
            return None
        index, populations = self.target.index, self.target.partition.populations
        made = []
        for column in np.flatnonzero((index != index[0]).any(axis=0)).tolist():
            cells, place = np.unique(index[:, column], return_inverse=True)
            spacing = float(ulp(index_values(cells[:1], self.hypothesis.grid), self.hypothesis.grid)[0])
            tokens = np.bincount(place, populations).astype(int).tolist()
            made.append({"column": column, "spacing": spacing, "cells": cells.tolist(), "tokens": tokens})
        return made

    @cached_property
    def gap(self) -> Gap | None:
        """Where the rows are known: `evidence.gap`."""
        if self.target.index is None:
            return None
        return gap(self.target.index, self.target.partition.populations, self.hypothesis.grid)

    @cached_property
    def association(self) -> Association | None:
        """Where the rows are known: `evidence.association`."""
        return None if self.target.index is None else association(self.target.index, self.target.partition.populations)

    # What else ---------------------------------------------------------------------------------------------------

    def hypotheses(self, progress: Callable[[int, int], None] | None = None) -> list[dict[str, Any]]:
        """The explanations that the notebooks argue over, each with its best sigma and log-likelihood."""
        ours = self.likelihood.hypothesis
        lattice = round_to(self.base.vector, ours.grid).astype(np.float64)
        moved = [lattice + self._shift(number) * ulp(lattice, ours.grid) for number in range(OFF_LATTICE)]
        independent = {
            "direct snowball": ours,
            "exact arithmetic" if ours.arithmetic == "float32" else "float32 arithmetic": replace(
                ours, arithmetic="exact" if ours.arithmetic == "float32" else "float32"
            ),
            **{f"{name} noise": replace(ours, distribution=name) for name in INDEPENDENT},
            "base on the lattice": replace(ours, base=lattice, offset=0.0),
            **{f"off the lattice {i + 1}": replace(ours, base=base, offset=0.0) for i, base in enumerate(moved)},
        }
        independent.pop(f"{ours.distribution} noise")
        if ours.offset == 0 and (lattice == ours.base).all():
            independent.pop("base on the lattice")
        made: list[dict[str, Any]] = []
        for done, (name, hypothesis) in enumerate(independent.items()):
            if progress:
                progress(done, len(independent) + 2)
            try:
                found, _ = Likelihood(self.target.partition, hypothesis, self.free).maximum()
                made.append({"hypothesis": name, **_facts(found)})
            except NoFit:
                made.append({"hypothesis": name, "sigma": None, "log_likelihood": None, "likelihood": None})
        off = [
            row for row in made if row["hypothesis"].startswith("off the lattice") and row["log_likelihood"] is not None
        ]
        made = [row for row in made if not row["hypothesis"].startswith("off the lattice")]
        if off:
            best = max(off, key=lambda row: row["log_likelihood"])
            logs = np.array([row["log_likelihood"] for row in off])
            mean = float(np.logaddexp.reduce(logs) - math.log(OFF_LATTICE))
            made.append({**best, "hypothesis": f"off the lattice (mean of {OFF_LATTICE})", "log_likelihood": mean})
            made.append({**best, "hypothesis": f"off the lattice (best of {OFF_LATTICE})"})
        same = "the same law: which tokens survive does not depend on their rows"
        made.append({**made[0], "hypothesis": "uniform survival from the vocabulary", "note": same})
        for name in ("uniform-ball", "uniform-shell"):
            made.append({"hypothesis": name, **self._dependent(name)})
        if progress:
            progress(len(independent) + 2, len(independent) + 2)
        return made

    def _shift(self, number: int) -> np.ndarray:
        words = generator(self.seed, number, 0, purpose=BASE).random(self.base.vector.size)
        return np.asarray(words) - 0.5

    def _dependent(self, distribution: str) -> dict[str, Any]:
        """Noise without a closed form, drawn at the estimate: how far its unique rows lie from independent noise's."""
        estimate = self.estimate
        if estimate.sigma is None:
            return {"sigma": None, "log_likelihood": None, "likelihood": None}
        hypothesis = replace(estimate.hypothesis, distribution=distribution)
        rows = [len(p.populations) + (p.n_singletons or 0) for p in self._drawn(estimate.sigma, 40, 10_000, hypothesis)]
        expected = estimate.hypothesis.law(estimate.sigma).occupancy(estimate.n_tokens)
        of = expected.n_black_holes if self.target.partition.n_singletons is None else expected.n_unique
        z = (np.mean(rows) - of.mean) / (max(of.std, 1e-9) / math.sqrt(len(rows)))
        note = f"drawn {len(rows)} times: its unique rows lie {z:+.1f} standard errors from those of independent noise"
        return {"sigma": estimate.sigma, "log_likelihood": None, "likelihood": "drawn", "note": note}

    def report(self, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Everything, JSON-ready (its keys: `docs/files.md`)."""
        estimate, partition = self.estimate, self.target.partition
        low, high = self.interval
        made: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "target": {
                "name": self.target.name,
                "populations": partition.populations.tolist(),
                "n_singletons": partition.n_singletons,
                "n_tokens": partition.n_tokens,
                "remark": self.target.remark,
            },
            "settings": {
                "base": self.base.name,
                "hidden_dim": self.base.vector.size,
                "grid": self.hypothesis.grid,
                "arithmetic": self.hypothesis.arithmetic,
                "distribution": estimate.hypothesis.distribution,
                "free": ["sigma", *self.free, *(["distribution"] if len(self.families) > 1 else [])],
                "level": self.level,
                "draws": self.draws,
                "seed": self.seed,
            },
            **_facts(estimate),
            "interval": [low, high if math.isfinite(high) else None],
            "offset": estimate.hypothesis.offset,
            "n_tokens": estimate.n_tokens,
        }
        if estimate.sigma is not None:
            occupancy = estimate.hypothesis.law(estimate.sigma).occupancy(estimate.n_tokens)
            names = ("n_unique", "n_singletons", "n_black_holes", "black_hole_population")
            made["expected"] = {name: getattr(occupancy, name).__dict__ for name in names}
            made["expected"]["largest"] = occupancy.largest(max(4, min(len(partition.populations), RANKS))).tolist()
            if self.free:
                covariance = self._godambe[0]
                spread = np.sqrt(np.diag(covariance))
                made["errors"] = dict(zip(["log_sigma", *self.free], spread.tolist(), strict=True))
                made["correlation_with_log_sigma"] = {
                    name: float(covariance[0, i + 1] / (spread[0] * spread[i + 1])) for i, name in enumerate(self.free)
                }
        made["checks"] = self.checks
        made["ranks"] = self.ranks
        made["profile"] = self.profile()
        made["bound"] = {**self.bound, "log10_p": _finite(self.bound["log10_p"])}
        made["columns"] = self.columns
        made["gap"] = self.gap and self.gap.__dict__
        made["association"] = self.association and self.association.__dict__
        made["hypotheses"] = self.hypotheses(progress) if self.compare else None
        made["ridge"] = None
        if self.compare or "offset" in self.free:
            lattice = round_to(self.base.vector, self.hypothesis.grid).astype(np.float64)
            made["ridge"] = ridge(partition, replace(self.likelihood.hypothesis, base=lattice), OFFSETS)
        made["packages"] = versions()
        return made


def ridge(partition: Partition, hypothesis: Hypothesis, offsets: np.ndarray) -> list[dict[str, Any]]:
    """At each offset of the base the best sigma, and the log-likelihood there: where they trade off."""
    rows = []
    for offset in offsets.tolist():
        try:
            found, _ = Likelihood(partition, replace(hypothesis, offset=offset)).maximum()
        except NoFit:
            continue
        rows.append({"offset": offset, "sigma": found.sigma, "log_likelihood": found.log_likelihood})
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _facts(estimate: Estimate) -> dict[str, Any]:
    return {
        "sigma": estimate.sigma,
        "log_likelihood": estimate.log_likelihood,
        "likelihood": estimate.kind,
    }


def _ranked(partition: Partition, count: int) -> Int64[np.ndarray, " ranks"]:
    """The largest groups' tokens, 0 where there are no more."""
    made = np.zeros(count, np.int64)
    largest = partition.populations[:count]
    made[: len(largest)] = largest
    made[len(largest) : len(largest) + (partition.n_singletons or 0)] = 1
    return made


def statistics(partition: Partition) -> dict[str, float]:
    """What a partition is held against: counts, and its largest populations."""
    populations = partition.populations
    made: dict[str, float] = {
        "n_black_holes": len(populations),
        "black_hole_population": int(populations.sum()),
    }
    if partition.n_singletons is not None:
        made = {"n_unique": len(populations) + partition.n_singletons, "n_singletons": partition.n_singletons, **made}
    for rank, population in enumerate(_ranked(Partition(populations, 0), 6).tolist(), 1):
        made[f"population_{rank}"] = population
    return made


def fit(target: str | Path | Target, **settings: Any) -> dict[str, Any]:
    """Fit a snowball to an observed census; the report of `Fit`, JSON-ready.

    Parameters
    ----------
    target, settings : of `Fit`

    Raises
    ------
    OSError, CorruptFile, InvalidInput
        As `load_target` and `load_base`; settings without sense.
    NoResult
        Populations that no sigma makes around this base.

    Examples
    --------
    >>> made = fit("2055,16,10,10,9", draws=100)
    >>> made["likelihood"], f"{made['sigma']:.3g}"
    ('partition', '1.46e-09')
    """
    return Fit(target, **settings).report()
