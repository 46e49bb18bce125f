"""Select tokens by a text such as `5,10-20,@ids.json,black-holes`."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..embedding.matrix import EmbeddingMatrix
from ..errors import CorruptFile, InvalidInput
from ..measures.census import Census
from ..measures.dark import UNTRAINED, WEAK, judge
from ..sources import read_json
from .scan_result import WHICH, Scan

GRADED = {"dark": UNTRAINED, "weak": WEAK}
TOKEN_SETS = ("black-holes", "beyond-tokenizer", *GRADED)


def asked_for(asked: str | Iterable[int], scan: Scan) -> Int64[np.ndarray, " k"]:
    """Return the token ids asked for, ascending: by a word of `Scan.listed`, or as `select`."""
    if isinstance(asked, str) and asked in WHICH:
        return scan.listed(asked)["id"].sort().to_numpy()
    return select(asked, EmbeddingMatrix.open(scan.source.asked), ["either"])["either"]


def select(
    asked: str | Iterable[int], matrix: EmbeddingMatrix, sides: Sequence[str], n_tokens: int | None = None
) -> dict[str, Int64[np.ndarray, " k"]]:
    """Return the token ids asked for, ascending, each once, for each side, all by one judgement.

    Raises InvalidInput for a text that cannot be read so, or an id beyond the tokens; MissingFile or CorruptFile for a
    file of ids that is missing, or holds something else.

    Parameters
    ----------
    asked : ids; or a text with ids, ranges (10-20, both included), files of ids (@FILE.json) and names of
        `TOKEN_SETS`, between commas
    sides : the keys of the result. For "input" and "output" of an untied model, dark and weak tokens are those of that
        matrix; for any other name those of either matrix
    n_tokens : ids are below it; by default the matrix's number of tokens
    """
    n = matrix.n_tokens if n_tokens is None else n_tokens
    if not isinstance(asked, str):
        return dict.fromkeys(sides, np.unique(_checked(asked, n, "the tokens asked for")))
    names = [part.strip() for part in asked.split(",")]
    others = [_part(name, matrix, n) for name in names if name not in GRADED]
    graded = [GRADED[name] for name in names if name in GRADED]
    if not graded:
        return dict.fromkeys(sides, np.unique(np.concatenate(others)))
    judgement = judge(matrix)  # as a scan has it
    grades = {one.name: one.grade[: matrix.n_tokens] for one in judgement.sides}
    return {
        side: np.unique(np.concatenate([*others, np.flatnonzero(np.isin(grades.get(side, judgement.grade), graded))]))
        for side in sides
    }


def _part(part: str, matrix: EmbeddingMatrix, n: int) -> np.ndarray:
    if part == "black-holes":
        return np.flatnonzero(Census(matrix.groups()).numbers)  # by value, as stored
    if part == "beyond-tokenizer":
        if not matrix.texts:
            raise InvalidInput(f"{part} needs a tokenizer; there is none beside the weights: give --tokenizer FILE")
        return np.array([token for token in range(n) if token not in matrix.texts], np.int64)
    if part.startswith("@"):
        return _checked(_read_ids(Path(part[1:])), n, part[1:])
    ends = re.fullmatch("([0-9]{1,18})(?:-([0-9]{1,18}))?", part)
    if not ends:
        known = f"ids, ranges like 10-20, @FILE.json, {', '.join(TOKEN_SETS)}, with commas between"
        raise InvalidInput(f"cannot read {part!r} as tokens; choose {known}")
    first = int(ends[1])
    last = int(ends[2] or ends[1])
    if last < first:
        raise InvalidInput(f"the range {part} ends before it starts; write {last}-{first}")
    return np.arange(first, _checked([last], n, part)[0] + 1)


def _checked(ids: Iterable[Any], n: int, where: str) -> np.ndarray:
    tokens = list(ids)
    wrong = [token for token in tokens if isinstance(token, bool) or not isinstance(token, (int, np.integer))]
    if wrong:
        raise InvalidInput(f"{where}: a token is a whole number, got {wrong[0]!r}"[:200])
    beyond = next((token for token in tokens if not 0 <= token < n), None)
    if beyond is not None:
        raise InvalidInput(f"{where}: there is no token {beyond}; there are {n:,}, 0 to {n - 1:,}")
    return np.array(tokens, np.int64)


def _read_ids(path: Path) -> list[Any]:
    """Read ids from a JSON file: a list, or an object that has one as `tokens`.

    An item is an id, a list of one id (as in `bad_words_ids`), or an object with an `id`.
    """
    held = read_json(path)
    listed = held.get("tokens") if isinstance(held, dict) else held
    if not isinstance(listed, list):
        raise CorruptFile(f"{path}: must hold a list of token ids, or an object with such a list as tokens")
    ids = [item.get("id") if isinstance(item, dict) else item for item in listed]
    ids = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in ids]
    if not all(type(token) is int for token in ids):
        raise CorruptFile(f"{path}: must hold token ids, whole numbers, or objects with such an id")
    return ids
