"""Steps to the nearest of some rows, against all pairs."""

import numpy as np
import pytest

from darkvocab import EmbeddingMatrix
from darkvocab.measures.steps import steps_to_nearest


@pytest.mark.parametrize(("grid", "on"), [("bfloat16", None), ("float32", None), ("float32", "bfloat16")])
def test_steps_to_nearest_equal_those_of_all_pairs(grid, on):
    rng = np.random.default_rng(3)
    matrix = EmbeddingMatrix.from_array(np.round(rng.normal(0, 1, (300, 7)), 1), grid)
    targets = np.array([3, 50, 51, 200, 299])
    index = matrix.index(np.arange(300), on)
    plain = np.abs(index[:, None] - index[targets]).max(2).min(1)
    assert (steps_to_nearest(matrix, targets, on) == plain).all()
    with pytest.raises(ValueError, match="one token or more"):
        steps_to_nearest(matrix, np.array([], np.int64))
