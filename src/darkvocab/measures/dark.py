"""Judge which tokens of a checkpoint are dark, and put them in the order of how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from ..embedding.matrix import EmbeddingMatrix
from ..progress import Advance
from .census import Census
from .indicators import Indicators, indicators

if TYPE_CHECKING:
    from ..gpu.device import Device
    from .vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The matrix whose rows were judged, its census, and the indicators of its rows."""

    matrix: EmbeddingMatrix
    census: Census
    indicators: Indicators


def judged_matrix(matrix: EmbeddingMatrix) -> EmbeddingMatrix:
    """Return the matrix whose rows tell what training did: the output, where it has a row for every token."""
    output = matrix.unembedding()
    return output if output is not None and output.n_tokens >= matrix.n_tokens else matrix


def judge(
    matrix: EmbeddingMatrix,
    *,
    judged: EmbeddingMatrix | None = None,
    census: Census | None = None,
    words: Vocabulary | None = None,
    device: Device | None = None,
    progress: Advance | None = None,
) -> Judgement:
    """Judge the tokens of a checkpoint by what training did to their rows.

    Indicators are of the output matrix, whose rows training moves whenever a token is not predicted,
    where the model has one of its own, else of the embedding (as Land & Bartolo do). Raises as `vocabulary` and
    `EmbeddingMatrix.groups`.

    Parameters
    ----------
    matrix : the input embedding
    judged : what `judged_matrix` returns, where that is known already
    census : of the judged matrix; by default taken here, by value, on the stored grid
    device : groups rows on a GPU; changes no result
    progress : called with the bytes of rows of each pass
    """
    from .vocabulary import vocabulary

    judged = judged or judged_matrix(matrix)
    words = words or vocabulary(matrix.tokenizer, matrix.n_tokens)
    census = census or Census(judged.groups(device=device, progress=progress))
    return Judgement(
        matrix=judged,
        census=census,
        indicators=indicators(judged, untrained(judged, census, words), progress=progress),
    )


def untrained(matrix: EmbeddingMatrix, census: Census, words: Vocabulary) -> dict[str, Int64[np.ndarray, " k"]]:
    """Return kinds of tokens that no training can have moved, or none can have moved apart, with their ids."""
    category = np.array(words.category)
    reserved = np.array([name is not None for name in words.reserved])
    beyond = np.flatnonzero(category == "beyond_tokenizer")
    padding = np.arange(len(category), matrix.n_tokens)  # rows that pad the output matrix
    return {
        "rows beyond the tokenizer" if len(beyond) else "output rows beyond the input": np.append(beyond, padding),
        "black holes": np.flatnonzero(census.numbers),
        "reserved names": np.flatnonzero(reserved),
        "unreachable tokens": np.flatnonzero((category == "unreachable") & ~reserved),
    }


def surest_first(
    score: Float64[np.ndarray, " n"], distance: Float64[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " n"]:
    """Return token ids, the surest to be dark first: of the highest score, then the nearest, then by id.

    Parameters
    ----------
    score : of each token; NaN comes last
    distance : the indicator that the score is made of, which still tells apart those whose score is 1

    Examples
    --------
    >>> surest_first(np.array([0.5, 1.0, 1.0, 1.0]), np.array([0.9, 0.3, 0.1, 0.3]))
    array([2, 1, 3, 0])
    """
    return np.lexsort((-score,) if distance is None else (distance, -score))
