"""Fit the hypotheses that the notebooks argue over to one census, each at its best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from ...errors import NoFit
from ...numerics import round_to, ulp
from ...numerics.distributions import INDEPENDENT
from ...progress import Report
from ...runs.randomness import BASE, generator
from .likelihood import Estimate, Hypothesis, Likelihood, drawn_partitions

OFF_LATTICE = 10  # bases drawn
DEPENDENT = ("uniform-ball", "uniform-shell")
DRAWS = range(10_000, 10_040)  # trials of a snowball of dependent noise
SURVIVAL = "the same law: which tokens survive does not depend on their rows"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A hypothesis by its name, its best sigma and log-likelihood; null where no sigma makes the census."""

    hypothesis: str
    sigma: float | None
    log_likelihood: float | None
    likelihood: str | None  # "partition", "composite", or "drawn": it has no closed form
    note: str | None = None


def alternatives(
    estimate: Estimate, base: Float[np.ndarray, " dim"], *, seed: int, progress: Report | None = None
) -> list[Explanation]:
    """Fit the explanations that the notebooks argue over, each by itself.

    `base` is not rounded or moved yet; `progress` is told how many hypotheses are done, and in all.
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
        try:
            best = Likelihood(likelihood.partition, hypothesis, likelihood.free).maximum()
        except NoFit:
            return Explanation(hypothesis=name, sigma=None, log_likelihood=None, likelihood=None)
        return Explanation(hypothesis=name, sigma=best.sigma, log_likelihood=best.log_likelihood, likelihood=best.kind)

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
    """Our hypothesis, and those that differ from it by one setting."""
    other = "exact" if ours.arithmetic == "float32" else "float32"
    noises = {f"{name} noise": replace(ours, distribution=name) for name in INDEPENDENT if name != ours.distribution}
    named = {"direct snowball": ours, f"{other} arithmetic": replace(ours, arithmetic=other), **noises}
    if ours.offset or (lattice != ours.base).any():
        named["base on the lattice"] = replace(ours, base=lattice, offset=0.0)
    return named


def _summed_up(off: list[Explanation]) -> list[Explanation]:
    """The mean likelihood over bases off the lattice, and the best of them; nothing where no sigma makes the census."""
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
    """Noise without a closed form, drawn at the estimate: how far its unique rows lie from independent noise's."""
    row = Explanation(hypothesis=distribution, sigma=estimate.sigma, log_likelihood=None, likelihood=None)
    if estimate.sigma is None:
        return row
    partition = estimate.likelihood.partition
    law = replace(estimate.hypothesis, distribution=distribution).law(estimate.sigma)
    drawn = drawn_partitions(law.snowball(estimate.n_tokens), DRAWS, seed=seed, like=partition)
    rows = [len(one.populations) + (one.n_singletons or 0) for one in drawn]
    occupancy = estimate.hypothesis.law(estimate.sigma).occupancy(estimate.n_tokens)
    expected = occupancy.n_black_holes if partition.n_singletons is None else occupancy.n_unique
    z = (np.mean(rows) - expected.mean) / (max(expected.std, 1e-9) / math.sqrt(len(rows)))
    note = f"drawn {len(rows)} times: its unique rows lie {z:+.1f} standard errors from those of independent noise"
    return replace(row, likelihood="drawn", note=note)
