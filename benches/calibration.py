"""Simulation-based calibration of what this project states with a probability.

    python benches/calibration.py [--fits 200] [--worlds 100] [--figure docs/images/calibration.png]

**Fits.** A sigma is drawn from a law, a snowball at it, and fitted. The rank of the truth is the normal distribution
function of the signed root of its likelihood ratio, of which the interval is made: uniform if that is right at every
level. Talts et al., "Validating Bayesian inference algorithms with simulation-based calibration", 2018.

**Grades.** Made-up vocabularies whose truth is known (those of `indicators.py`), each size and share drawn anew. The
rank of the true number of wrong ones is that in a Poisson law of the stated mean, ties broken by chance. Among the
weak the stated number is a bound: where it has room, ranks are low. Among the untrained it is an estimate.

Each is held against the uniform law by its empirical distribution function, in a band that it leaves with 5% (T.
Säilynoja, P.-C. Bürkner, A. Vehtari, "Graphical test for discrete uniformity", Statistics and Computing 32, 2022).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from indicators import TRAINED, UNTRAINED, WEAK, Judgement, World
from scipy.special import ndtr
from scipy.stats import binom, poisson

from darkvocab.reports.plot import BLACK, BLUE, Axis, Panel, Plot, Series, save_as
from darkvocab.snowballs.bases import qwen3_4b_centred
from darkvocab.snowballs.fit.run import Fit
from darkvocab.snowballs.fit.targets import Target
from darkvocab.snowballs.snowball import Snowball, draw
from darkvocab.snowballs.theory import Partition

POINTS = np.linspace(0, 1, 101)[1:-1]
TRIALS = 2000  # to find the band


def band(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends, at `POINTS`, of a band that n uniform numbers' distribution function leaves with 5%."""
    drawn = np.random.default_rng(seed).random((TRIALS, n))
    counts = (drawn[:, :, None] <= POINTS).sum(1)
    below, above = binom.cdf(counts, n, POINTS), binom.sf(counts - 1, n, POINTS)
    level = np.quantile(2 * np.minimum(below, above).min(1), 0.05)
    return binom.ppf(level / 2, n, POINTS) / n, binom.ppf(1 - level / 2, n, POINTS) / n


def ranks_of_fits(n: int, dim: int, tokens: int, ends: tuple[float, float], seed: int) -> np.ndarray:
    """Return the rank of the true sigma in n fits of snowballs around a part of Qwen3-4B's black hole."""
    base, drawn, ranks = qwen3_4b_centred()[:dim], np.random.default_rng(seed), []
    for number in range(n):
        sigma = float(np.exp(drawn.uniform(*np.log(ends))))
        counts = draw(Snowball(base=base, n_tokens=tokens, sigma=sigma), seed=seed, trial=number).groups().counts
        partition = Partition(np.sort(counts[counts > 1])[::-1], int((counts == 1).sum()))
        fit = Fit(Target("drawn", partition), base=base, draws=20, seed=number)
        estimate, uncertainty = fit.estimate, fit.uncertainty
        if estimate.sigma is None:
            continue  # all in one row, or none: bounded on one side only
        scale = 1.0 if estimate.likelihood.is_exact else uncertainty.godambe[1]
        fall = max(estimate.log_likelihood - estimate.likelihood.at(sigma), 0.0)
        ranks.append(ndtr(math.copysign(math.sqrt(2 * fall / scale), sigma - estimate.sigma)))
    return np.array(ranks)


def ranks_of_grades(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ranks of the wrong ones among the weak, and among the untrained, in n made-up vocabularies."""
    drawn, weak_ranks, dark_ranks = np.random.default_rng(seed), [], []
    for number in range(n):
        n_untrained = int(drawn.integers(15, 300))
        world = replace(
            World(), n_untrained=n_untrained, n_known=n_untrained // 3, weak=float(drawn.uniform(0.001, 0.02)),
            spread=float(drawn.uniform(0.05, 0.2)), noise=float(drawn.uniform(0.01, 0.1)),
        )  # fmt: skip
        sides, truth = world.sides(seed + number), world.truth
        grade = Judgement(sides=sides, n_tokens=len(truth)).grade
        stated = sum(side.tail.expected for side in sides if side.tail)
        for ranks, wrong, mean in (
            (weak_ranks, ((grade == WEAK) & (truth == TRAINED)).sum(), stated),
            (dark_ranks, ((grade == UNTRAINED) & (truth != UNTRAINED)).sum(), _stated_dark(sides, grade)),
        ):
            if mean is not None:
                ranks.append(poisson.cdf(wrong - 1, mean) + drawn.random() * poisson.pmf(wrong, mean))
    return np.array(weak_ranks), np.array(dark_ranks)


def _stated_dark(sides, grade) -> float | None:
    share = sides[0].indicators.expected_false_positives
    return None if share is None else float(share) * (grade == UNTRAINED).sum()


def panel(title: str, ranks: np.ndarray) -> tuple[str, Panel]:
    """Return what is said of some ranks, and a panel: their distribution function less the uniform one, in its band."""
    low, high = band(len(ranks))
    reached = (ranks[:, None] <= POINTS).mean(0)
    n_out = int(((reached < low) | (reached > high)).sum())
    inside = {level: float((np.abs(ranks - 0.5) <= level / 2).mean()) for level in (0.5, 0.8, 0.9, 0.95)}
    said = "; ".join(f"{level:.0%}: {share:.1%}" for level, share in inside.items())
    line = f"{title}: {len(ranks)} ranks, mean {ranks.mean():.3f}; central {said}; outside of the band at {n_out} of 99"
    series = [
        Series(x=POINTS, y=np.zeros_like(POINTS), band=(low - POINTS, high - POINTS), colour=BLACK, line=":"),
        Series(x=POINTS, y=reached - POINTS, colour=BLUE, stepped=True),
    ]
    ends = 1.1 * max(np.abs(high - POINTS).max(), np.abs(reached - POINTS).max())
    axis = Axis(ends=(-ends, ends), label="distribution function less uniform")
    return line, Panel(title=title, x=Axis(ends=(0, 1), label="rank of the truth"), y=axis, series=series)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    weak, dark = ranks_of_grades(asked.worlds, asked.seed)
    kinds = {
        "fit, many groups": ranks_of_fits(asked.fits, 300, 400, (2e-9, 2e-8), asked.seed),
        "fit, few groups": ranks_of_fits(asked.fits, 300, 400, (5e-10, 2e-9), asked.seed + 1),
        "weak tokens that are trained": weak,
        "untrained tokens that are not": dark,
    }
    panels = []
    for title, ranks in kinds.items():
        if len(ranks):
            line, drawn = panel(title, ranks)
            print(line)
            panels.append(drawn)
    if asked.figure and len(panels) % 2 == 0:
        caption = "Ranks of the truth, 95% band of uniform ranks"
        save_as(Plot(panels=panels, columns=2, height=5.0, caption=caption).draw(), asked.figure)


if __name__ == "__main__":
    main()
