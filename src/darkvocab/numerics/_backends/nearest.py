"""Distance in steps to the nearest of a few rows, compiled."""

import numpy as np

from .compilation import kernel


@kernel(forceinline=True)
def _apart(x, y):
    furthest = np.int64(0)
    for d in range(x.size):
        furthest = max(furthest, abs(np.int64(x[d]) - np.int64(y[d])))
    return furthest


@kernel()
def nearest(index, targets, steps):
    """steps[i] = smallest over rows y of `targets` of max_d |index[i, d] - y[d]|; ordered indices, int32.

    In the column in which a row is furthest from one target it mostly is as far from the next: one look rules that out.
    """
    for i in range(index.shape[0]):
        x, column = index[i], 0
        least = _apart(x, targets[0])
        for d in range(x.size):
            if abs(np.int64(x[d]) - np.int64(targets[0, d])) == least:
                column = d
                break
        for k in range(1, targets.shape[0]):
            if abs(np.int64(x[column]) - np.int64(targets[k, column])) < least:
                least = min(least, _apart(x, targets[k]))
        steps[i] = least
