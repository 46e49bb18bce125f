"""Recipes of the built-in bases: from the recorded figures to the vectors that the package holds in `data/`."""

import numpy as np

from darkvocab.numerics import decode
from darkvocab.snowballs.bases import recorded


def philox_words(key, n):
    """Raw 64-bit words of Philox: the same on every numpy, unlike its distributions."""
    return np.random.Philox(key=key).random_raw(n)


def qwen3_4b():
    """Return the row of Qwen3-4B's largest black hole as far as it is recorded, in bfloat16.

    Every recorded word and exponent, the whole exponent histogram, and norm, mean and extremes of
    the original; the exponents' places, the other mantissas and the signs are drawn from a fixed
    seed. 2,560 components.
    """
    facts = recorded()["largest_black_hole"]
    dim = recorded()["hidden_dim"]
    words = np.zeros(dim, np.int64)
    known = np.array([int(d) for d in facts["words"]])
    words[known] = list(facts["words"].values())
    exponent = words >> 7 & 0xFF
    exponent[[int(d) for d in facts["exponents"]]] = list(facts["exponents"].values())
    left = np.repeat(
        [int(e) for e in facts["exponent_histogram_biased"]],
        [n - (exponent == int(e)).sum() for e, n in facts["exponent_histogram_biased"].items()],
    )
    open_places = np.flatnonzero(exponent == 0)
    exponent[open_places] = left[np.argsort(philox_words(1, len(left)))]
    free = np.setdiff1d(np.arange(dim), known)
    drawn = philox_words(2, len(free))
    mantissa = (drawn >> np.uint64(57)).astype(np.int64)
    sign = (drawn & np.uint64(1)).astype(np.int64)
    words[free] = sign << 15 | exponent[free] << 7 | mantissa

    # The norm: raise or lower mantissas of the two binades where the density falls, one step each,
    # until it is met.
    order = free[np.argsort(philox_words(3, len(free)))]
    goal = facts["scalars_float32"]["norm"] ** 2
    while True:
        excess = goal - np.square(bfloat16(words)).sum()
        step = 1 if excess > 0 else -1
        movable = order[((words[order] & 0x7F) + step >> 7 == 0) & (exponent[order] > 119) & (exponent[order] < 122)]
        gain = np.square(bfloat16(words[movable] + step)) - np.square(bfloat16(words[movable]))
        moved = np.searchsorted(np.cumsum(np.abs(gain)), abs(excess))
        words[movable[:moved]] += step
        if moved < len(movable):
            break

    # The mean: flip signs, each only where that brings the sum nearer.
    error = facts["scalars_float32"]["mean"] * dim - bfloat16(words).sum()
    for d in order:
        value = bfloat16(words[d : d + 1])[0]
        if abs(error + 2 * value) < abs(error):
            words[d] ^= 0x8000
            error += 2 * value
    return bfloat16(words).astype(np.float32)


def bfloat16(words):
    return decode(words.astype(np.uint16), "bfloat16").astype(np.float64)


def qwen3_4b_centred():
    """Return a vector with the published statistics of the notebooks' centroid, off the lattice.

    Percentiles of the magnitudes, norm, mean, median, smallest and largest component are the
    original's; places and signs are drawn from a fixed seed. Magnitudes between percentiles are
    interpolated, above the median on a power scale whose exponent the norm sets. 2,560 components.
    """
    facts = recorded()["centred_centroid"]
    dim = recorded()["hidden_dim"]
    percent = np.array([float(q) for q in facts["magnitude_percentiles"]])
    knots = np.array(list(facts["magnitude_percentiles"].values()))
    at = np.linspace(0, 100, dim)

    def magnitudes(power):
        size = np.interp(at, percent, knots)
        upper = at > 50
        size[upper] = np.interp(at[upper], percent, knots**power) ** (1 / power)
        size[-2:] = abs(facts["min"]), facts["max"]
        size[np.abs(size - abs(facts["median"])).argmin()] = abs(facts["median"])
        return size

    low, high = -8.0, 8.0001  # the norm grows with the power
    for _ in range(60):
        middle = (low + high) / 2
        if np.linalg.norm(magnitudes(middle)) < facts["norm"]:
            low = middle
        else:
            high = middle
    size = magnitudes(low)

    # Signs: the lower median is the recorded one, so 1,279 components lie below it; then the mean,
    # by swaps.
    ranks = np.argsort(philox_words(4, dim))
    below = np.flatnonzero(size > abs(facts["median"]))
    negative = np.zeros(dim, bool)
    lowest = dim - 2
    middle_one = np.flatnonzero(size == abs(facts["median"]))[0]
    choice = below[np.argsort(philox_words(5, len(below)))]
    choice = choice[(choice < lowest)]
    negative[[lowest, middle_one, *choice[: (dim - 1) // 2 - 1]]] = True
    error = facts["mean"] * dim - np.where(negative, -size, size).sum()
    plus, minus = choice[~negative[choice]], choice[negative[choice]]
    for p, m in zip(plus, minus, strict=False):
        change = 2 * (size[m] - size[p])  # p turns negative, m positive
        if abs(error - change) < abs(error):
            negative[[p, m]] = True, False
            error -= change
    values = np.where(negative, -size, size)
    return values[ranks].astype(np.float32)
