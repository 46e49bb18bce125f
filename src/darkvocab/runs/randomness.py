"""Give each trial random numbers of its own: a counter-based generator for each seed, purpose, point and trial."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidInput

NOISE, BASE, SAMPLE = 0, 1, 2  # purposes of a generator: streams of the same task never meet
SEED_LIMIT = 2**64


def check_seed(seed: int) -> int:
    """Return the seed; an InvalidInput where not 0 <= seed < 2**64."""
    if not 0 <= seed < SEED_LIMIT:
        raise InvalidInput(f"seed must be from 0 to 2**64 - 1, got {seed}")
    return seed


def generator(seed: int, point: int, trial: int, *, purpose: int = NOISE) -> np.random.Generator:
    """Return the generator of one trial: Philox4x64 with key (seed, purpose) and counter (0, 0, point, trial).

    Its numbers do not depend on what else was drawn, in which order, or in which process.
    """
    key = np.array([check_seed(seed), purpose], np.uint64)
    counter = np.array([0, 0, point, trial], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
