"""Distance in steps to the nearest of a few rows, compiled."""

import numpy as np

from .compilation import kernel


@kernel()
def nearest(index, targets, steps):
    """steps[i] = smallest over rows y of `targets` of max_d |index[i, d] - y[d]|; ordered indices, int32.

    In the column in which a row is furthest from one target it mostly is as far from the next: one look rules that out.
    """
    for i in range(index.shape[0]):
        x, column, least = index[i], 0, np.int64(1 << 32)  # beyond any difference
        for k in range(targets.shape[0]):
            y = targets[k]
            if abs(np.int64(x[column]) - np.int64(y[column])) >= least:
                continue
            furthest = np.int64(0)
            for d in range(x.size):
                furthest = max(furthest, abs(np.int64(x[d]) - np.int64(y[d])))
            least = min(least, furthest)
            for d in range(x.size if k == 0 else 0):
                if abs(np.int64(x[d]) - np.int64(y[d])) == least:
                    column = d
                    break
        steps[i] = least
