"""Course of a series: black holes and rows followed from each checkpoint to the next."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..embedding.matrix import EmbeddingMatrix
from ..embedding.scales import find_companions
from ..errors import CorruptFile, InvalidInput
from ..measures.census import Census
from ..measures.distances import displacements
from ..measures.tracking import BIRTH, GAIN, LOSE, MERGE, SPLIT, START, VANISH, Event, follow
from ..numerics import as_grid
from ..numerics.grouping import Groups, chunks
from ..text import printable

CHUNK_BYTES = 1 << 24  # of rows that are hashed at a time


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """One checkpoint: its census, and what changed since the one before."""

    checkpoint: int  # place in the series, from 0
    name: str
    path: str  # of the file that holds the rows
    commit: str | None  # of a revision on the Hub
    bytes_read: int | None  # from there
    identical_to: str | None  # the first checkpoint with the same words, where there is an earlier one
    words_sha256: str  # of the rows as they are stored
    n_tokens: int
    hidden_dim: int
    grid: str
    stored_grid: str
    n_unique: int
    n_black_holes: int
    black_hole_population: int
    n_singletons: int
    largest_bh: int  # 0 without black holes
    gini_coefficient: float
    not_compared: str | None  # why this and the one before cannot be compared; null where they were, and at the first
    n_moved: int | None = None  # tokens whose row is another than before; null where nothing was compared, as all below
    n_equal: int | None = None  # the others
    mean_move_l_inf_steps: float | None = None  # grid steps in the component that took most, over all tokens
    max_move_l_inf_steps: int | None = None
    n_born: int | None = None  # events, as `darkvocab evolve` names them
    n_split: int | None = None
    n_merged: int | None = None
    n_vanished: int | None = None
    n_gained: int | None = None
    n_lost: int | None = None


@dataclass(frozen=True, kw_only=True)
class SeriesEvent:
    """Event in the life of a black hole; see `darkvocab.measures.tracking.Event`."""

    checkpoint: int
    name: str
    kind: str
    hole: int
    other: int | None
    n_tokens: int
    tokens: tuple[int, ...]


COUNTED = {BIRTH: "n_born", SPLIT: "n_split", MERGE: "n_merged", VANISH: "n_vanished", GAIN: "n_gained", LOSE: "n_lost"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measured checkpoint, which the next is compared with."""

    matrix: EmbeddingMatrix
    groups: Groups
    identity: tuple[Any, ...]


def _sha256(words: np.ndarray) -> str:
    digest = hashlib.sha256()
    for rows in chunks(words, CHUNK_BYTES):
        digest.update(np.ascontiguousarray(words[rows]).data)
    return digest.hexdigest()


class Course:
    """Follow black holes and rows through the checkpoints, two of which are in memory at a time."""

    def __init__(self, grid: str | None) -> None:
        self.grid = grid
        self.records: list[CheckpointRecord] = []
        self.events: list[SeriesEvent] = []
        self.last: Measured | None = None
        self.holes = self.n_changes = self.changed = np.zeros(0, np.int64)  # of each token; last the checkpoint
        self._fresh = 1  # number of the next new black hole
        self._first: dict[tuple[Any, ...], str] = {}  # checkpoint, by the identity of its words
        self._known: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # identity of words, by their place in a file

    def take(self, name: str, matrix: EmbeddingMatrix) -> None:
        """Measure the next checkpoint, and what changed since the one before."""
        assert matrix.path is not None
        before = self.last
        identity = self._identity(matrix)
        same = before is not None and identity == before.identity
        groups = before.groups if before and same else self._groups(name, matrix)
        census = Census(groups)
        grid = as_grid(self.grid or matrix.grid).name
        why = _why_not(self.records[-1], matrix, grid) if before else None
        moved = None
        if before and why is None:
            moved = (
                np.zeros(matrix.n_tokens, np.int64) if same else displacements(before.matrix, matrix, grid).l_inf_steps
            )
        events = self._begin(groups) if moved is None else self._follow(groups, moved)
        remote = {} if isinstance(matrix.path, Path) else matrix.path.origin()
        record = CheckpointRecord(
            checkpoint=len(self.records),
            name=printable(name),
            path=printable(str(matrix.path)),
            commit=remote.get("commit"),
            bytes_read=remote.get("bytes_read"),
            identical_to=self._first.get(identity),
            words_sha256=identity[-1],
            n_tokens=matrix.n_tokens,
            hidden_dim=matrix.dim,
            grid=grid,
            stored_grid=matrix.stored,
            **census.counts(),
            largest_bh=census.largest_black_hole,
            gini_coefficient=census.gini,
            not_compared=why,
            **_changes(moved, events),
        )
        self._first.setdefault(identity, record.name)
        self.events += [
            SeriesEvent(checkpoint=record.checkpoint, name=record.name, **event.columns()) for event in events
        ]
        self.records.append(record)
        self.last = Measured(matrix=matrix, groups=groups, identity=identity)

    def _identity(self, matrix: EmbeddingMatrix) -> tuple[Any, ...]:
        """Return what is equal where words and scales are; those of a file whose hash is known are not read again."""
        tensor = matrix.held
        assert tensor is not None
        assert matrix.source is not None
        beside = list(find_companions(matrix.source, tensor).values())
        held = [(part.path, part.offset, part.shape) for part in (tensor, *beside)]
        place = tuple((path.sha256, *at) for path, *at in held if not isinstance(path, Path))
        if place in self._known:
            return self._known[place]
        scales = (_sha256(part.packed().reshape(1, -1)) for part in beside)
        identity = tensor.dtype, tensor.shape, *scales, _sha256(matrix.words)
        if place:
            self._known[place] = identity
        return identity

    def _groups(self, name: str, matrix: EmbeddingMatrix) -> Groups:
        try:
            return matrix.groups(self.grid)
        except (CorruptFile, InvalidInput) as error:
            raise type(error)(f"{name}: {error}") from None

    def _begin(self, groups: Groups) -> list[Event]:
        """Number the black holes of a first checkpoint, or of one that cannot be compared with the one before."""
        n = len(groups.labels)
        self.holes, births, self._fresh = follow(np.zeros(n, np.int64), groups, self._fresh)
        self.n_changes = np.zeros(n, np.int64)
        self.changed = np.full(n, len(self.records))
        return [replace(event, kind=START) for event in births]

    def _follow(self, groups: Groups, moved: Int64[np.ndarray, " n"]) -> list[Event]:
        """Follow black holes and rows from the checkpoint before; `moved` is how many steps each row moved."""
        if not moved.any():
            return []
        self.holes, events, self._fresh = follow(self.holes, groups, self._fresh)
        self.n_changes[moved > 0] += 1
        self.changed[moved > 0] = len(self.records)
        return events


def _changes(moved: Int64[np.ndarray, " n"] | None, events: list[Event]) -> dict[str, Any]:
    """Return the columns of a record on what changed, none where nothing was compared."""
    if moved is None:
        return {}
    kinds = Counter(event.kind for event in events)
    n_moved = int((moved > 0).sum())
    return {
        "n_moved": n_moved,
        "n_equal": len(moved) - n_moved,
        "mean_move_l_inf_steps": float(moved.mean()),
        "max_move_l_inf_steps": int(moved.max()),
        **{column: kinds[kind] for kind, column in COUNTED.items()},
    }


def _why_not(before: CheckpointRecord, matrix: EmbeddingMatrix, grid: str) -> str | None:
    """Say why a checkpoint cannot be compared row by row with the one before; None where it can."""
    if (before.n_tokens, before.hidden_dim) != (matrix.n_tokens, matrix.dim):
        return (
            f"{matrix.n_tokens:,} tokens x {matrix.dim:,}, but {before.name} has {before.n_tokens:,} x "
            f"{before.hidden_dim:,}: the series begins anew"
        )
    if before.grid != grid:
        return (
            f"stored as {grid}, but {before.name} as {before.grid}: the series begins anew; "
            "--grid puts both on one grid"
        )
    return None
