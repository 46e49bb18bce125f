"""Fits of many snowballs: `covering.py composite 100` counts the intervals that hold the sigma of their snowball,
`covering.py estimates 60` prints the estimates."""

import sys

import numpy as np

from darkvocab.snowballs.bases import qwen3_4b_centred
from darkvocab.snowballs.fit.run import Fit
from darkvocab.snowballs.fit.targets import ObservedCensus
from darkvocab.snowballs.snowball import Snowball, draw
from darkvocab.snowballs.theory import Partition

BASE = qwen3_4b_centred()[:300]
SIGMAS = {"composite": (8e-9, 3e-8), "partition": (2.2e-9,)}


def drawn(sigma, trial):
    counts = draw(Snowball(base=BASE, n_tokens=400, sigma=sigma), seed=77, trial=trial).groups().counts
    return ObservedCensus("drawn", Partition(np.sort(counts[counts > 1])[::-1], int((counts == 1).sum())))


def estimates(fits):
    return [Fit(drawn(8e-9, trial), base=BASE).estimate.sigma for trial in range(fits)]


def covered(kind, fits):
    covered = dict.fromkeys(SIGMAS[kind], 0)
    for trial in range(fits):
        sigma = SIGMAS[kind][trial % len(SIGMAS[kind])]
        target = drawn(sigma, trial)
        result = Fit(target, base=BASE, seed=trial)
        if result.estimate.likelihood.kind != kind:
            counts = target.partition.populations
            raise SystemExit(
                f"trial {trial} has {len(counts)} black holes: fitted by the {result.estimate.likelihood.kind}"
            )
        low, high = result.interval
        covered[sigma] += low <= sigma <= high
    return list(covered.values())


if __name__ == "__main__":
    kind, fits = sys.argv[1], int(sys.argv[2])
    print(*(estimates(fits) if kind == "estimates" else covered(kind, fits)))
