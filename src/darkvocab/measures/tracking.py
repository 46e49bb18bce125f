"""Track tokens from one state to another: their moves, and the changes of their black holes.

A black hole keeps its number as long as it can be followed. Numbers count up from 1; 0 is for tokens in none.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64, Integer, UInt

from ..numerics import Distances, Grid, _backends, as_grid, decode
from ..numerics.chebyshev import UNITS
from ..numerics.grouping import Groups, identical_rows, members_of, n_cores

MOST_ONE_BY_ONE = 512  # distinct rows whose pairs are compared one by one

EVENT_KINDS = ("start", "birth", "vanish", "merge", "split", "gain", "lose")
START, BIRTH, VANISH, MERGE, SPLIT, GAIN, LOSE = EVENT_KINDS


class State:
    """Rows of all tokens at one time: words on their grid, and their groups, values and indices."""

    def __init__(self, words: UInt[np.ndarray, "n dim"], grid: str | Grid) -> None:
        self.words = words
        self.grid = as_grid(grid)
        self.index: Integer[np.ndarray, "n dim"] = np.empty(words.shape, np.int32 if self.grid.bits < 32 else np.int64)
        _backends.neighbours.index_words(words, self.grid.word_dtype.type(self.grid.sign), self.index)

    @cached_property
    def groups(self) -> Groups:
        """Tokens with equal rows; -0.0 equals 0.0."""
        return identical_rows(self.words)

    @cached_property
    def values(self) -> Float32[np.ndarray, "n dim"]:
        """Weight units."""
        return decode(self.words, self.grid)

    @property
    def beyond(self) -> Int64[np.ndarray, " k"]:
        """Tokens whose row holds NaN or infinity."""
        return np.flatnonzero(self.groups.largest_code > self.grid.max_code)


@dataclass(frozen=True, kw_only=True)
class Radii:
    """Centroid of some tokens, and their Euclidean distances from it (weight units, in float64)."""

    centroid: Float64[np.ndarray, " dim"]
    radius_max: float  # of the token farthest from the centroid
    radius_rms: float  # root of the mean squared distance from the centroid


def cloud(state: State, tokens: Int[np.ndarray, " k"]) -> Radii:
    """Return centroid and radii of these tokens, at least one."""
    centroid = np.empty(state.words.shape[1])
    total, largest = _backends.motion.around_mean(None, state.values, tokens, centroid)
    return Radii(centroid=centroid, radius_max=largest**0.5, radius_rms=(total / len(tokens)) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Largest L-infinity distance of some rows, and the column that they differ so much in."""

    weight: float  # weight units, in float32; infinite beyond it
    column: int
    steps: int  # grid steps
    column_of_steps: int


def extent(state: State, tokens: Int[np.ndarray, " k"]) -> Extent:
    """Return the largest distance over all pairs of these tokens, at least one: the width of their widest column."""
    weight, column = _backends.motion.widest(state.values, tokens)
    steps, column_of_steps = _backends.motion.widest(state.index, tokens)
    return Extent(weight=weight, column=column, steps=steps, column_of_steps=column_of_steps)


def mean_distances(
    state: State, sets: Sequence[Int[np.ndarray, " ..."]], most_rows: int
) -> list[tuple[float, float] | None]:
    """Return the mean L-infinity distance over all pairs of each set's tokens, in weight units and in grid steps.

    A set without a pair has mean 0, one with more than `most_rows` distinct rows None. Cost: the square of the number
    of distinct rows, once for all sets where they are few.
    """
    first = state.groups.first
    counts = [np.bincount(state.groups.labels[tokens], minlength=len(first)) for tokens in sets]
    pairs = [len(tokens) * (len(tokens) - 1) / 2 for tokens in sets]
    if len(first) <= min(MOST_ONE_BY_ONE, most_rows):
        sums = np.empty((2, len(sets)))
        weights = np.array(counts, np.float64)
        _backends.motion.sum_pairs(state.values[first], state.index[first], weights, sums[0], sums[1])
        return [(a / n, b / n) if n else (0.0, 0.0) for a, b, n in zip(*sums.tolist(), pairs, strict=True)]
    means: list[tuple[float, float] | None] = []
    for count in counts:
        present = np.flatnonzero(count)
        if len(present) > most_rows:
            means.append(None)
            continue
        index = state.index[first[present]]
        options: dict[str, Any] = {"weights": count[present], "threads": n_cores()}
        weight, steps = (Distances(index, state.grid, unit=unit, **options).spread.mean for unit in UNITS)
        means.append((weight, steps))
    return means


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Length of each token's move in grid steps, from the difference of its row's ordered indices."""

    l1: Int64[np.ndarray, " n"]  # steps taken in all components together
    l2: Float64[np.ndarray, " n"]
    l_inf: Int64[np.ndarray, " n"]  # steps in the component that took most; 0 where the token did not move

    def spread(self, tokens: Int[np.ndarray, " k"]) -> tuple[int, float, int, float, float, float, int]:
        """Count these tokens (at least one) that moved; then mean and maximum over all of them of l1, l2, l_inf."""
        return _backends.motion.summarise_moves(self.l1, self.l2, self.l_inf, tokens)


def moves(before: State, after: State) -> Moves:
    """Count the steps from one state of the same tokens to another.

    Examples
    --------
    >>> one, other = (State(np.array([row], np.uint16), "bfloat16") for row in ([0x3F80, 0x0001], [0x3F83, 0x8001]))
    >>> m = moves(one, other)
    >>> m.l1, m.l_inf
    (array([5]), array([3]))
    """
    n = len(before.words)
    moved = Moves(l1=np.zeros(n, np.int64), l2=np.zeros(n), l_inf=np.zeros(n, np.int64))
    if before is not after:
        _backends.motion.tally_moves(before.index, after.index, moved.l1, moved.l2, moved.l_inf)
    return moved


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Motion of some tokens, split into the shared part and each token's own, in weight units."""

    bulk: float  # Euclidean length of the mean displacement: the motion of the centroid
    thermal: float  # root mean square, over tokens, of displacement minus mean displacement


def drift(before: State, after: State, tokens: Int[np.ndarray, " k"]) -> Drift:
    """Split the motion of these tokens, at least one, into bulk and thermal motion."""
    mean = np.empty(before.words.shape[1])
    total, _ = _backends.motion.around_mean(before.values, after.values, tokens, mean)
    return Drift(bulk=float(np.sqrt(mean @ mean)), thermal=(total / len(tokens)) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Event in the life of one black hole between two states.

    start   `hole` exists in the first state, with these tokens
    birth   `hole` is new, of these tokens, which were in none
    split   `hole` is new: these tokens left `other`, which goes on
    gain    `hole` goes on, or is new by a split: these tokens join it, from `other` (which goes on) or from none (0)
    lose    `hole` goes on, or ended in a merger: these tokens leave it, for `other` (which goes on) or for none (0)
    merge   `hole` ended: these tokens are now in `other`, which goes on
    vanish  `hole` ended: all its tokens, these, are now in none
    """

    kind: str
    hole: int
    other: int  # 0: none
    tokens: tuple[int, ...]  # ascending

    def columns(self) -> dict[str, Any]:
        """Return the columns that records of events share."""
        tokens = {"n_tokens": len(self.tokens), "tokens": self.tokens}
        return {"kind": self.kind, "hole": self.hole, "other": self.other or None, **tokens}


def holes_of(groups: Groups) -> Int64[np.ndarray, " n"]:
    """Number the black holes of a first state from 1, by their first tokens; 0 for tokens that stand alone."""
    black = groups.counts >= 2
    return np.where(black, np.cumsum(black), 0)[groups.labels]


def follow(
    before: Int64[np.ndarray, " n"], groups: Groups, fresh: int
) -> tuple[Int64[np.ndarray, " n"], list[Event], int]:
    """Return the number of each token's black hole after a change, the events of the change, and the next free number.

    Old and new black holes are matched one to one, the pair with most shared tokens first, of equal ones that with the
    smaller old number, then that with the smaller first shared token. So of any old and new that share a token at
    least one is matched. An unmatched old one has ended; an unmatched new one gets a new number.
    Every token whose number changes is in one event; in two, `lose` and `gain`, where both numbers go on. Events are
    sorted by `EVENT_KINDS`, then by numbers; `replay` makes the numbers after from those before.

    Parameters
    ----------
    before : black hole of each token, 0 for none
    groups : tokens with equal rows, after
    fresh : the first number that no black hole has had

    Examples
    --------
    >>> groups = identical_rows(np.array([[1], [1], [1], [2], [2]], np.uint8))
    >>> after, events, _ = follow(np.array([1, 1, 2, 2, 2]), groups, 3)
    >>> after
    array([1, 1, 1, 2, 2])
    >>> [(event.kind, event.hole, event.other, event.tokens) for event in events]
    [('gain', 1, 2, (2,)), ('lose', 2, 1, (2,))]
    """
    new = holes_of(groups)
    number = np.zeros(int(new.max(initial=0)) + 1, np.int64)
    both = np.flatnonzero((before > 0) & (new > 0))
    pairs, firsts, shared = np.unique(before[both] * len(number) + new[both], return_index=True, return_counts=True)
    ongoing = set()
    for pair in pairs[np.lexsort((both[firsts], pairs // len(number), -shared))].tolist():
        old, fresh_hole = divmod(pair, len(number))
        if old not in ongoing and not number[fresh_hole]:
            ongoing.add(old)
            number[fresh_hole] = old
    born = np.flatnonzero(number == 0)[1:]  # 0 is for no black hole, not a new one
    number[born] = range(fresh, fresh + len(born))
    after = number[new]
    events = list(_events(before, after, ongoing, fresh))
    events.sort(key=lambda event: (EVENT_KINDS.index(event.kind), event.hole, event.other))
    return after, events, fresh + len(born)


def _events(before: np.ndarray, after: np.ndarray, ongoing: set[int], fresh: int) -> Iterator[Event]:
    changed = np.flatnonzero(before != after)
    ways: dict[tuple[int, int], list[int]] = {}
    for token, old, new in zip(changed.tolist(), before[changed].tolist(), after[changed].tolist(), strict=True):
        ways.setdefault((old, new), []).append(token)
    merged = {old for old, new in ways if old and new and old not in ongoing}
    split = {new for old, new in ways if old and new >= fresh}

    def events_of(old: int, new: int) -> list[tuple[str, int, int]]:
        """Return kind, `hole` and `other` of the events of tokens that went from one number to another."""
        if not old:
            return [(BIRTH if new >= fresh and new not in split else GAIN, new, 0)]
        if not new:
            return [(LOSE if old in ongoing or old in merged else VANISH, old, 0)]
        if old not in ongoing:
            return [(MERGE, old, new)]
        return [(SPLIT, new, old)] if new >= fresh else [(LOSE, old, new), (GAIN, new, old)]

    for way, tokens in ways.items():
        for kind, hole, other in events_of(*way):
            yield Event(kind=kind, hole=hole, other=other, tokens=tuple(tokens))


def starts(holes: Int64[np.ndarray, " n"]) -> list[Event]:
    """Return the black holes of a first state as events."""
    members = members_of(holes).items()
    return [Event(kind=START, hole=hole, other=0, tokens=tuple(tokens.tolist())) for hole, tokens in members]


def replay(holes: Int64[np.ndarray, " n"], events: Iterable[tuple[str, int, int, Sequence[int]]]) -> None:
    """Apply events (kind, hole, other, tokens) of one moment to the black holes of tokens, in place."""
    for kind, hole, other, tokens in events:
        holes[list(tokens)] = other if kind in (MERGE, LOSE, VANISH) else hole
