"""Made-up vocabularies in which some rows were never trained, and how well a score tells them."""

import numpy as np


def two_populations(seed, n_untrained, *, n_trained=20_000, dim=128):
    """Rows that differ by noise alone, and then rows that training moved, some of them little."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 0.02, dim)
    moved = rng.beta(3, 1, n_trained)[:, None] * rng.normal(0, 0.06, (n_trained, dim))
    rows = centre + rng.normal(0, 0.01, (n_untrained + n_trained, dim))
    rows[n_untrained:] += moved
    return rows.astype(np.float32)


def area(score, members):
    """Area under the ROC curve of a score that is high for members, by counting; ties count half."""
    ordered = np.sort(score[~members])
    below, up_to = (np.searchsorted(ordered, score[members], side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(ordered))
