"""How often the interval of a fit holds the sigma that its target was drawn with: `covering.py composite 200`."""

import sys

import numpy as np

from darkvocab import Fit
from darkvocab.snowballs.bases import qwen3_4b_centred
from darkvocab.snowballs.snowball import Snowball, draw
from darkvocab.snowballs.targets import Target
from darkvocab.snowballs.theory import Partition

SIGMAS = {"composite": (8e-9, 3e-8), "partition": (2.2e-9,)}


def main(kind, fits):
    base, covered = qwen3_4b_centred()[:300], dict.fromkeys(SIGMAS[kind], 0)
    for trial in range(fits):
        sigma = SIGMAS[kind][trial % len(SIGMAS[kind])]
        ball = Snowball(base=base, n_tokens=400, sigma=sigma)
        counts = draw(ball, seed=77, trial=trial).groups().counts
        target = Target("drawn", Partition(np.sort(counts[counts > 1])[::-1], int((counts == 1).sum())))
        made = Fit(target, base=base, seed=trial)
        if made.estimate.kind != kind:
            raise SystemExit(f"trial {trial} has {len(counts)} groups: fitted by the {made.estimate.kind} likelihood")
        low, high = made.interval
        covered[sigma] += low <= sigma <= high
    return covered


if __name__ == "__main__":
    print(*main(sys.argv[1], int(sys.argv[2])).values())
