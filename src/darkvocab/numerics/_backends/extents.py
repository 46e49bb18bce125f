"""Laws of the distance of two draws from runs of cells, and of the extent of many, compiled."""

import numpy as np

from .compilation import kernel


@kernel()
def _staircase(a, b, edge, stride):
    """``sum over j < b of clip(a - edge - j * stride, 0, a)``."""
    full = min(max(np.floor(-edge / stride) + 1, 0.0), b)
    some = min(max(np.ceil((a - edge) / stride), 0.0), b)
    n = some - full
    return full * a + n * (a - edge) - stride * (full + some - 1) * n / 2


@kernel()
def _share(r, s, first, last, count, t):
    """Share of the pairs of a cell of run r and one of the later run s that are no more than t apart.

    Cells of a run lie evenly, and the wider spacing is a multiple of the narrower: the count is exact.
    """
    a, b = count[r], count[s]
    wide_r = (last[r] - first[r]) / (a - 1) if a > 1 else 0.0
    wide_s = (last[s] - first[s]) / (b - 1) if b > 1 else wide_r
    if a == 1:
        wide_r = wide_s
    if wide_r <= wide_s:
        pairs = _staircase(a, b, np.ceil((first[s] - first[r] - t) / wide_r), wide_s / wide_r)
    else:
        pairs = _staircase(b, a, np.ceil((last[s] - last[r] - t) / wide_s), wide_r / wide_s)
    return pairs / (a * b)


@kernel()
def log_cdf(starts, first, last, count, p, below, above, n, t, out, since, until):
    """out[i] = log P(distance <= t[i]), summed over columns; the law is flat at least over since[i] <= t < until[i].

    n = 0: the distance of two draws. n >= 1: the extent, largest minus smallest, of n draws.
    first, last [runs] where each run's cells begin and end, count how many they are, evenly spaced.
    """
    for i in range(t.size):
        limit, total, lower, upper = t[i], 0.0, 0.0, np.inf
        for j in range(starts.size - 1):
            low, high = starts[j], starts[j + 1]
            extent = last[high - 1] - first[low]
            if extent <= limit:
                lower = max(lower, extent)
                continue
            within, beyond, s = 0.0, 0.0, low
            for r in range(low, high):
                if n * below[r] > 800:
                    break  # none of n draws is expected below run r with a probability above exp(-800)
                # Of two draws in run r: that they are no more than t apart, and that the other is so far above.
                within_run, beyond_run, width = 1.0, 0.0, last[r] - first[r]
                if width > limit:
                    a = count[r]
                    steps = np.floor(limit / (width / (a - 1)))
                    within_run = (a + steps * (2 * a - steps - 1)) / (a * a)
                    beyond_run = (a - steps - 1) * (a - steps) / (2 * a * a)
                    lower, upper = limit, limit
                s = max(s, r + 1)
                while s < high and last[s] - first[r] <= limit:
                    s += 1
                if s > r + 1:
                    lower = max(lower, last[s - 1] - first[r])
                near = above[r] if s == high else below[s] - below[r + 1]  # of later runs, up to t above run r's cells
                far, k = 0.0, s  # and beyond, on the average over its cells
                while k < high and first[k] - last[r] <= limit:
                    share = _share(r, k, first, last, count, limit)
                    near += share * p[k]
                    far += (1 - share) * p[k]
                    lower, upper = limit, limit
                    k += 1
                if k < high:
                    upper = min(upper, first[k] - last[r])
                far += above[k - 1]
                if n == 0:  # the other draw lies above as often as below
                    within += p[r] * (2 * near + within_run * p[r])
                    beyond += 2 * p[r] * (far + beyond_run * p[r])
                elif p[r] > 0:  # the least of n draws lies in run r, the others at most t above it
                    missed = below[r] + far + beyond_run * p[r]
                    if n * missed > 800:
                        continue
                    held = near + (1 - beyond_run) * p[r] if missed > 0.5 else 1 - missed
                    log_held = np.log(held) if missed > 0.5 else np.log1p(-missed)
                    within -= np.exp(n * log_held) * np.expm1(n * np.log1p(-min(1.0, p[r] / held)))
            total += np.log1p(-beyond) if n == 0 and beyond < 0.5 else np.log(min(within, 1.0))
        out[i], since[i], until[i] = total, lower, upper
