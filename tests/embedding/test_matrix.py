"""An embedding matrix shows what it is."""

import numpy as np

from darkvocab import EmbeddingMatrix


def test_its_repr_is_one_line_without_its_rows():
    matrix = EmbeddingMatrix.of(np.zeros((3, 2), np.float32))
    facts = "tensor='array', n_tokens=3, dim=2, grid='float32', chosen='as given', output=None, path=None"
    assert repr(matrix) == f"EmbeddingMatrix({facts})"
    assert "<caption>EmbeddingMatrix</caption>" in matrix._repr_html_()
