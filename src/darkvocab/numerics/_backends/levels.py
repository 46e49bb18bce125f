"""Levels, compiled: the distribution of a sum of independent columns' costs, on a grid of bins."""

import numpy as np

from .compilation import kernel


@kernel()
def add_columns(starts, cost, p, width, mass, spread):
    """Distribution of the sum over columns of one cost each, costs >= 0, column j's with the probabilities p.

    mass [bins] : probability of each bin, bin i at the cost ``i * width``; a cost between two bins goes to both, in the
    shares that keep the mean. spread [bins] : what that adds to the variance, times the mass, over width**2; a cost of
    zero adds nothing. Returns the probability of costs beyond the last bin.
    """
    n = mass.size
    mass[:] = 0.0
    spread[:] = 0.0
    mass[0] = 1.0
    occupied = 1
    beyond = 0.0
    new_mass, new_spread = np.empty(n), np.empty(n)
    for j in range(starts.size - 1):
        new_mass[:] = 0.0
        new_spread[:] = 0.0
        farthest = np.int64(0)
        for run in range(starts[j], starts[j + 1]):
            if p[run] == 0.0:
                continue
            place = cost[run] / width
            if not place < n:
                for i in range(occupied):
                    beyond += p[run] * mass[i]
                continue
            low = np.int64(place)
            share = place - low
            add = share * (1.0 - share)
            for after in range(2):
                part = p[run] * (share if after else 1.0 - share)
                to = low + after
                if part == 0.0:
                    continue
                inside = max(min(occupied, n - to), 0)
                target, target_spread = new_mass[to:], new_spread[to:]
                for i in range(inside):
                    target[i] += part * mass[i]
                    target_spread[i] += part * (spread[i] + add * mass[i])
                for i in range(inside, occupied):
                    beyond += part * mass[i]
                farthest = to if to > farthest else farthest
        occupied = min(n, occupied + farthest)
        mass[:] = new_mass
        spread[:] = new_spread
    return beyond
