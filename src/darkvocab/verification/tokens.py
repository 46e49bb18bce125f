"""Choose the tokens to ask for: graded ones, controls like them, and a sample of the others."""

import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.scan_result import Scan
from ..errors import InvalidInput
from ..measures.verdict import ASKED, CONTROL, MISSED
from ..runs.records import record_types

EDGES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # of strata, as shares of the trained tokens, the nearest to dark first
LENGTHS = (2, 4, 7)  # characters from which a text is in the next class
Chosen, Answered = record_types(Path(__file__).with_suffix(".toml"), __name__)


def kind_of(text: str | None) -> str:
    """Classify a text: letters, digits, marks, mixed, spaces, or bytes that are no whole characters.

    Examples
    --------
    >>> [kind_of(text) for text in (" the", "42", "({", "a1", "\\n", None, "�")]
    ['letters', 'digits', 'marks', 'mixed', 'spaces', 'bytes', 'bytes']
    """
    if text is None or "\ufffd" in text:
        return "bytes"
    if not (body := text.strip()):
        return "spaces"
    kinds = {unicodedata.category(character)[0] for character in body}
    if kinds <= {"L", "M"}:
        return "letters"
    if kinds == {"N"}:
        return "digits"
    return "mixed" if kinds & {"L", "N"} else "marks"


def _keys(text: str | None, script: str | None) -> tuple[Any, ...]:
    """Return the keys by which controls match a token, the best first: kind, script and length; kind; none."""
    kind = kind_of(text)
    return (kind, script, sum(len(text or "") >= length for length in LENGTHS)), kind, None


def choose(scan: Scan, asked: np.ndarray, *, n_controls: int, n_missed: int, seed: int) -> tuple[list[Any], list[int]]:
    """Return the tokens to ask for, as `Chosen`, and the size of each stratum of the missed.

    Controls are reachable trained tokens, each drawn to match one asked for: in kind, script and class of length if
    possible, else in kind, else at random. The missed are drawn from trained tokens that are not asked for, without
    special ones, in strata by the weights, in proportion to the root of a stratum's size.
    """
    tokens = scan.tokens
    texts = [None if held is None else bytes.fromhex(held).decode("utf-8", "replace") for held in tokens["bytes"]]
    columns = (tokens[name] for name in ("grade", "category", "script"))
    of = dict(zip(tokens["id"], zip(texts, *columns, strict=True), strict=True))
    wanted = asked.tolist()
    if unknown := [token for token in wanted if token not in of]:
        raise InvalidInput(f"there is no row of token {unknown[0]} to ask for")
    rng = np.random.default_rng(seed)
    in_order = tokens["id"].gather(scan.order).to_list()
    place = {token: number for number, token in enumerate(in_order, 1)}
    is_asked = set(wanted)
    trained = [one for one in in_order if of[one][1] == "trained" and of[one][2] != "special" and one not in is_asked]
    edges = [round(share * len(trained)) for share in EDGES]
    strata = [trained[first:last] for first, last in pairwise(edges)]
    reached = [one for one in trained if of[one][2] in ("reachable", None)]
    groups = [(token, ASKED, -1) for token in wanted]
    likeness = {token: _keys(of[token][0], of[token][3]) for token in (*wanted, *reached)}
    groups += [(token, CONTROL, -1) for token in _controls(wanted, reached, likeness, n_controls, rng)]
    roots = np.sqrt(list(map(len, strata)))
    left = n_missed
    for number, members in enumerate(strata):
        share = int(left * roots[number] / max(roots[number:].sum(), 1))
        drawn = sorted(rng.permutation(members)[:share].tolist())
        groups += [(token, MISSED, number) for token in drawn]
        left -= len(drawn)  # the other strata make up for a small one

    def chosen(token: int, group: str, stratum: int) -> Any:
        text, grade, *_ = of[token]
        about = {"token": token, "text": text, "kind": kind_of(text), "grade": grade}
        return Chosen(**about, group=group, stratum=stratum, order=place[token])

    return [chosen(*one) for one in groups], [len(members) for members in strata]


def _controls(
    asked: list[int], pool: list[int], likeness: dict[int, tuple[Any, ...]], n: int, rng: np.random.Generator
) -> list[int]:
    """Draw n tokens of the pool, each once, that match those asked for."""
    left: dict[Any, list[int]] = {}
    for token in rng.permutation(pool).tolist():
        for key in likeness[token]:
            left.setdefault(key, []).append(token)
    drawn: set[int] = set()
    for place in rng.integers(len(asked), size=n) if asked else []:
        for key in likeness[asked[place]]:
            while left.get(key) and left[key][-1] in drawn:
                left[key].pop()
            if left.get(key):
                drawn.add(left[key].pop())
                break
    return sorted(drawn)
