"""Tying: what the config says of input and output being one matrix, and what the tensors are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..numerics.grouping import chunks
from ..text import printable
from .find import said_tied

if TYPE_CHECKING:
    from .matrix import EmbeddingMatrix


@dataclass(frozen=True, kw_only=True)
class Tying:
    """Facts about input and output of one checkpoint, and the contradiction between config and tensors, if any."""

    said: bool | None  # `tie_word_embeddings` of the config; None where it is silent, or at odds with a nested one
    tied: bool  # whether they are one matrix, by their words, or by the config where there is no output tensor
    n_differ: int | None  # the config says tied, the tensors differ: in so many rows of the output
    lacks_output: bool  # the config says untied, and there is no output tensor
    sentence: str | None  # the contradiction


def tying(matrix: EmbeddingMatrix) -> Tying:
    """Hold what a config says against the tensors of an embedding that has all its rows."""
    n_differ = sentence = None
    said = said_tied(matrix.source) if matrix.source else None
    output = matrix.unembedding()
    output = None if output is matrix else output
    lacks_output = said is False and output is None and matrix.output is None
    if said and not matrix.tied and output is not None:
        n_differ = _n_differing(matrix, output)
        sentence = (
            f"the config says that input and output are tied, but {n_differ:,} of {output.n_tokens:,} rows of "
            f"{printable(output.tensor)} are not those of {printable(matrix.tensor)}: a loader that ties drops these"
        )
    if lacks_output:
        sentence = (
            "the config says that input and output are untied, but there is no output tensor: a loader makes one up, "
            "or fails"
        )
    return Tying(said=said, tied=matrix.tied, n_differ=n_differ, lacks_output=lacks_output, sentence=sentence)


def _n_differing(a: EmbeddingMatrix, b: EmbeddingMatrix) -> int:
    """Count the rows of `b` that `a` lacks, or has with other values; NaN is as another NaN."""
    if a.dim != b.dim:
        return b.n_tokens
    n = min(a.n_tokens, b.n_tokens)
    differ = b.n_tokens - n
    for rows in chunks(a.words[:n]):
        x, y = a.rows(rows), b.rows(rows)
        differ += int(((x != y) & ~(np.isnan(x) & np.isnan(y))).any(axis=1).sum())
    return differ
