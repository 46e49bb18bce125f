"""Judge which tokens a model never learned and which too little, and order them by how sure that is."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from ..embedding.matrix import EmbeddingMatrix
from ..numerics.populations import LowerTail, lower_tail
from ..progress import Advance
from .census import Census
from .indicators import BLACK_HOLES, UNSEEN_TOKENS, Indicators, indicators

if TYPE_CHECKING:
    from ..gpu.device import Device
    from .vocabulary import Vocabulary

GRADES = ("trained", "weak", "untrained")
TRAINED, WEAK, UNTRAINED = range(len(GRADES))
SAYS: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
MOST_WRONG = 0.2  # expected share of trained tokens among the weak, at most, at any distance from the reference
MOVED = 1 / 3  # part of the trained tokens' median distance up to which a token may be weak (LOG.md: SmolLM2's P_max)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One matrix of a model, and the grades of its rows.

    A token is

    - ``untrained``: its score is at least `indicators.DARK`: it moved as little as the reference;
    - ``weak``: it moved, but less than a third of the trained rows' median distance, and is nearer to the reference
      than their lower tail explains (`numerics.populations.lower_tail`, of the logarithm of the score's distance);
    - ``trained``: neither. Without a reference no token is weak.

    The law misses weak rows where trained ones moved by very different distances, and says so. It calls weak the few
    tokens that learned enough from little training, such as marks of a chat format.
    """

    name: str  # "input" or "output"; "both" where the two are one
    matrix: EmbeddingMatrix
    census: Census
    indicators: Indicators
    tail: LowerTail | None  # None without a reference, or a distance to it
    grade: Int8[np.ndarray, " n_tokens"]  # place in `GRADES`

    @property
    def distance(self) -> Float64[np.ndarray, " n_tokens"] | None:
        """Distance to the reference from which the score is computed; None without a reference."""
        return self.indicators.columns[self.indicators.by] if self.indicators.by else None

    @property
    def says(self) -> str:
        """Sentence on how many rows of this matrix are weak, or why none is."""
        tail = self.tail
        if tail is None:
            return SAYS["no_reference"]
        if not tail.n_below:
            reason = "reaching" if tail.reaching >= 1 else "missed" if tail.missed >= 1 else "none"
            return SAYS[reason].format(tail=tail)
        share = min(tail.expected / tail.n_below, 1.0)
        wrong = f"at most {share:.1%}" if share >= 0.001 else "fewer than 0.1%"
        missed = f"; at least {tail.missed:,.0f} more lie among the trained" if tail.missed >= 1 else ""
        rows = f"{tail.n_below:,} row{'s' * (tail.n_below != 1)}"
        return SAYS["weak"].format(rows=rows, wrong=wrong, missed=missed)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Graded sides of a model; of an untied model the worse grade of a token counts."""

    sides: tuple[Side, ...]  # the input's, then the output's; one where they are one matrix
    n_tokens: int  # of the input; an output matrix may be padded

    @property
    def judged(self) -> Side:
        """Side whose rows show training best: the output's where that was graded."""
        return self.sides[-1]

    @cached_property
    def grade(self) -> Int8[np.ndarray, " n_tokens"]:
        """Worse grade of each token."""
        return np.max([side.grade[: self.n_tokens] for side in self.sides], axis=0)

    @cached_property
    def score(self) -> Float64[np.ndarray, " n_tokens"]:
        """Higher score of each token."""
        return np.max([side.indicators.score[: self.n_tokens] for side in self.sides], axis=0)

    @property
    def dark(self) -> Bool[np.ndarray, " n_tokens"]:
        return self.grade == UNTRAINED

    def side(self) -> list[str | None]:
        """Return the matrix with the worse grade of each token: "input", "output", "both", or None if trained."""
        names = np.full(self.n_tokens, "both", object)
        if len(self.sides) == 2:
            first, second = (side.grade[: self.n_tokens] for side in self.sides)
            names[first > second] = self.sides[0].name
            names[first < second] = self.sides[1].name
        names[self.grade == TRAINED] = None
        return list(names)


def judged_matrix(matrix: EmbeddingMatrix) -> EmbeddingMatrix:
    """Return the matrix whose rows show training best: the output, where it has a row for every token."""
    output = matrix.unembedding()
    return output if output is not None and output.n_tokens >= matrix.n_tokens else matrix


def judge(
    matrix: EmbeddingMatrix,
    *,
    judged: EmbeddingMatrix | None = None,
    census: Census | None = None,
    words: Callable[[], Vocabulary] | None = None,
    n_occurrences: Int64[np.ndarray, " n_tokens"] | None = None,
    device: Device | None = None,
    progress: Advance | None = None,
) -> Judgement:
    """Grade the tokens of a checkpoint by how far training moved their rows.

    The embedding is graded, and the output matrix of an untied model: training moves its rows whenever a token is not
    predicted (Land & Bartolo judge by it alone). Raises as `vocabulary` and `EmbeddingMatrix.groups`.

    Parameters
    ----------
    matrix : the input embedding
    judged : `judged_matrix(matrix)`, where that is known already
    census : of the input embedding; by default by value, on the stored grid
    words : returns the vocabulary; called after the norms, as it may wait
    n_occurrences : of each token in a corpus: those that never occur may be a reference
    device : groups rows on a GPU; changes no result
    progress : called with the bytes of rows of each pass
    """
    from .vocabulary import vocabulary

    judged = judged or judged_matrix(matrix)
    words = words or cache(lambda: vocabulary(matrix.tokenizer, matrix.n_tokens))
    never = {} if n_occurrences is None else {UNSEEN_TOKENS: np.flatnonzero(n_occurrences == 0)}

    def side(name: str, rows: EmbeddingMatrix, census: Census | None) -> Side:
        taken = census or Census(rows.groups(device=device, progress=progress))
        known = lambda: untrained(rows, taken, words()) | never  # noqa: E731
        return graded(name, rows, taken, indicators(rows, known, progress=progress))

    tied = judged is matrix
    first = side("both" if tied else "input", matrix, census)
    return Judgement(sides=(first,) if tied else (first, side("output", judged, None)), n_tokens=matrix.n_tokens)


def graded(name: str, matrix: EmbeddingMatrix, census: Census, shown: Indicators) -> Side:
    """Grade the rows of one matrix by their indicators."""
    grade = np.where(shown.dark, UNTRAINED, TRAINED).astype(np.int8)
    tail = None
    if shown.by:
        logarithms = np.log(np.maximum(shown.columns[shown.by], np.finfo(np.float64).tiny))
        moved = np.flatnonzero(~shown.dark)
        furthest = np.log(shown.threshold) if shown.threshold else -np.inf
        power = 1 if shown.by == "euclidean" else 2  # a cosine distance grows with the square of the angle
        limit = np.median(logarithms[moved]) + power * np.log(MOVED) if len(moved) else -np.inf
        tail = lower_tail(logarithms[moved], limit=limit, at=furthest, share=MOST_WRONG)
        grade[moved[logarithms[moved] <= tail.bound]] = WEAK
    return Side(name=name, matrix=matrix, census=census, indicators=shown, tail=tail, grade=grade)


def untrained(matrix: EmbeddingMatrix, census: Census, words: Vocabulary) -> dict[str, Int64[np.ndarray, " k"]]:
    """Return the ids of tokens that training cannot have moved, or cannot have moved apart, by kind."""
    category = np.array(words.category)
    reserved = np.array([name is not None for name in words.reserved])
    beyond = np.flatnonzero(category == "beyond_tokenizer")
    padding = np.arange(len(category), matrix.n_tokens)  # rows of the output matrix
    return {
        "rows beyond the tokenizer" if len(beyond) else "output rows beyond the input": np.append(beyond, padding),
        BLACK_HOLES: np.flatnonzero(census.numbers),
        "reserved names": np.flatnonzero(reserved),
        "unreachable tokens": np.flatnonzero((category == "unreachable") & ~reserved),
    }


def surest_first(
    score: Float64[np.ndarray, " n"], distance: Float64[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " n"]:
    """Return token ids, the surest to be dark first: by the highest score (NaN last), the least distance, then by id.

    The distance, from which the score is computed, orders tokens whose score is 1.

    Examples
    --------
    >>> surest_first(np.array([0.5, 1.0, 1.0, 1.0]), np.array([0.9, 0.3, 0.1, 0.3]))
    array([2, 1, 3, 0])
    """
    return np.lexsort((-score,) if distance is None else (distance, -score))
