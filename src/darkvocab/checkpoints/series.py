"""Series: what becomes of an embedding's black holes and rows from checkpoint to checkpoint of one model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding.find import find_embedding
from ..embedding.matrix import EmbeddingMatrix
from ..errors import CorruptFile, InvalidInput
from ..landing import write_json, write_whole
from ..measures.census import Census
from ..measures.tracking import (
    BIRTH,
    GAIN,
    KINDS,
    LOSE,
    MERGE,
    SPLIT,
    VANISH,
    Event,
    Moves,
    State,
    follow,
    holes_of,
    moves,
    starts,
)
from ..numerics import as_grid
from ..numerics.grouping import Groups, chunks
from ..runs.folder import check_folder
from ..runs.records import csv_bytes, frame_of, write_frames
from ..sources import open_source
from ..text import printable
from .find import find_checkpoints

if TYPE_CHECKING:
    import polars as pl

SCHEMA_VERSION = 1
CHUNK_BYTES = 1 << 24  # of rows that are compared at a time
FILES = (
    *("checkpoints.parquet", "checkpoints.csv", "events.parquet", "black_holes.parquet", "tokens.parquet"),
    "series.json",
)


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
    n_moved: int | None  # tokens whose row is another than before; null where nothing was compared, as all below
    n_equal: int | None  # the others
    mean_move_l_inf_steps: float | None  # grid steps in the component that took most, over all tokens
    max_move_l_inf_steps: int | None
    n_born: int | None  # events, as `darkvocab evolve` names them
    n_split: int | None
    n_merged: int | None
    n_vanished: int | None
    n_gained: int | None
    n_lost: int | None


@dataclass(frozen=True, kw_only=True)
class SeriesEvent:
    """What happened to tokens of a black hole; see `darkvocab.measures.evolution.Event`."""

    checkpoint: int
    name: str
    kind: str
    hole: int
    other: int | None
    n_tokens: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class HoleRecord:
    """A black hole of the last checkpoint."""

    hole: int
    population: int
    born: str  # the checkpoint at which its number appeared
    joined: str  # since when it has these tokens and no others
    frozen: str  # since when none of their rows moved
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SeriesToken:
    """What became of one token of the last checkpoint."""

    token: int
    text: str | None
    n_changes: int  # checkpoints at which its row was not what it was at the one before
    frozen: str  # the checkpoint since which its row is what it is at the last
    hole: int | None  # its black hole at the last; null where it stands alone


COUNTED = {BIRTH: "n_born", SPLIT: "n_split", MERGE: "n_merged", VANISH: "n_vanished", GAIN: "n_gained", LOSE: "n_lost"}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A measured series: records as polars frames, and what they come to as a JSON-ready dict."""

    checkpoints: pl.DataFrame  # of `CheckpointRecord`
    events: pl.DataFrame  # of `SeriesEvent`
    black_holes: pl.DataFrame  # of `HoleRecord`
    tokens: pl.DataFrame  # of `SeriesToken`
    summary: dict[str, Any]

    def write(self, folder: str | Path) -> list[Path]:
        """Write `FILES`, each whole or not, `series.json` last.

        Raises
        ------
        RunFolderRefused
            The folder holds something else.
        DiskFull, InvalidInput
            As `write_whole`.
        """
        folder = Path(folder)
        check_folder(folder, FILES)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in FILES]
        paths[-1].unlink(missing_ok=True)  # of an earlier measurement, which the others would not be of
        write_frames(paths[0], CheckpointRecord, [self.checkpoints])
        write_whole(paths[1], csv_bytes(self.checkpoints))
        write_frames(paths[2], SeriesEvent, [self.events])
        write_frames(paths[3], HoleRecord, [self.black_holes])
        write_frames(paths[4], SeriesToken, [self.tokens])
        write_json(paths[-1], self.summary)
        return paths


# Measuring -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What the next checkpoint is held against."""

    record: CheckpointRecord
    matrix: EmbeddingMatrix
    groups: Groups
    identity: tuple[Any, ...]


def _sha256(words: np.ndarray) -> str:
    digest = hashlib.sha256()
    for rows in chunks(words, CHUNK_BYTES):
        digest.update(words[rows].tobytes())
    return digest.hexdigest()


class _Course:
    """Follows black holes and rows through the checkpoints, two of which are in memory at a time."""

    def __init__(self, grid: str | None) -> None:
        self.grid = grid
        self.records: list[CheckpointRecord] = []
        self.events: list[SeriesEvent] = []
        self.last: _Measured | None = None
        self.holes = self.n_changes = self.changed = np.zeros(0, np.int64)  # of each token; last the checkpoint
        self.born: dict[int, int] = {}  # the checkpoint at which each black hole's number appeared
        self.joined: dict[int, int] = {}  # at which its tokens last changed
        self._fresh = 1  # number of the next new black hole
        self._first: dict[tuple[Any, ...], str] = {}  # checkpoint, by the identity of its words
        self._known: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # identity of words, by their place in a file

    def take(self, name: str, matrix: EmbeddingMatrix) -> None:
        """The next checkpoint."""
        assert matrix.path is not None
        at, before, identity = len(self.records), self.last, self._identity(matrix)
        same = before is not None and identity == before.identity
        groups = before.groups if before and same else self._groups(name, matrix)
        census, grid = Census(groups), as_grid(self.grid or matrix.grid).name
        why = _why_not(before.record, matrix, grid) if before else None
        compared = before is not None and why is None
        moved = _moves(before.matrix, matrix, grid) if before and compared and not same else None
        events = self._follow(at, groups, moved) if compared else self._begin(at, groups)
        kinds = Counter(event.kind for event in events)
        n_moved = int((moved.l_inf > 0).sum()) if moved else 0
        remote = {} if isinstance(matrix.path, Path) else matrix.path.origin()
        record = CheckpointRecord(
            checkpoint=at,
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
            n_unique=census.n_unique,
            n_black_holes=census.n_black_holes,
            black_hole_population=census.black_hole_population,
            n_singletons=census.n_singletons,
            largest_bh=census.largest_black_hole,
            gini_coefficient=census.gini,
            not_compared=why,
            n_moved=n_moved if compared else None,
            n_equal=matrix.n_tokens - n_moved if compared else None,
            mean_move_l_inf_steps=(float(moved.l_inf.mean()) if moved else 0.0) if compared else None,
            max_move_l_inf_steps=(int(moved.l_inf.max()) if moved else 0) if compared else None,
            **{column: kinds[kind] if compared else None for kind, column in COUNTED.items()},
        )
        self._first.setdefault(identity, record.name)
        self.records.append(record)
        self.events += [
            SeriesEvent(
                checkpoint=at,
                name=record.name,
                kind=event.kind,
                hole=event.hole,
                other=event.other or None,
                n_tokens=len(event.tokens),
                tokens=event.tokens,
            )
            for event in events
        ]
        self.last = _Measured(record=record, matrix=matrix, groups=groups, identity=identity)

    def _identity(self, matrix: EmbeddingMatrix) -> tuple[Any, ...]:
        """Equal where the words are. They are not looked at where a file of the same hash was."""
        tensor = matrix.held
        assert tensor is not None
        place = None if isinstance(tensor.path, Path) else (tensor.path.sha256, tensor.offset, tensor.shape)
        if place in self._known:
            return self._known[place]
        identity = tensor.dtype, tensor.shape, _sha256(matrix.words)
        if place:
            self._known[place] = identity
        return identity

    def _groups(self, name: str, matrix: EmbeddingMatrix) -> Groups:
        try:
            return matrix.groups(self.grid)
        except CorruptFile as error:
            raise CorruptFile(f"{name}: {error}") from None
        except ValueError as error:
            raise InvalidInput(f"{name}: {error}") from None

    def _begin(self, at: int, groups: Groups) -> list[Event]:
        """The black holes of a first checkpoint, and of one that the one before cannot be compared with."""
        holes, shift = holes_of(groups), self._fresh - 1
        events = [replace(event, hole=event.hole + shift) for event in starts(holes)]
        self.holes, self._fresh = np.where(holes > 0, holes + shift, 0), self._fresh + len(events)
        self.n_changes, self.changed = np.zeros(len(holes), np.int64), np.full(len(holes), at)
        self._date(at, events)
        return events

    def _follow(self, at: int, groups: Groups, moved: Moves | None) -> list[Event]:
        """What became of black holes and rows since the one before; `moved` is None where the words are the same."""
        if moved is None:
            return []
        self.holes, events, self._fresh = follow(self.holes, groups, self._fresh)
        self.n_changes[moved.l_inf > 0] += 1
        self.changed[moved.l_inf > 0] = at
        self._date(at, events)
        return events

    def _date(self, at: int, events: list[Event]) -> None:
        for event in events:
            self.born.setdefault(event.hole, at)
            for hole in (event.hole, event.other):
                self.joined[hole] = at


def _why_not(then: CheckpointRecord, found: EmbeddingMatrix, grid: str) -> str | None:
    """Why a checkpoint and the next cannot be compared row by row."""
    if (then.n_tokens, then.hidden_dim) != (found.n_tokens, found.dim):
        return (
            f"{found.n_tokens:,} tokens x {found.dim:,}, but {then.name} has {then.n_tokens:,} x "
            f"{then.hidden_dim:,}: the series begins anew"
        )
    if then.grid != grid:
        return f"stored as {grid}, but {then.name} as {then.grid}: the series begins anew; --grid puts both on one grid"
    return None


def _moves(before: EmbeddingMatrix, after: EmbeddingMatrix, grid: str) -> Moves:
    """How far each token moved, a few rows at a time."""
    parts = [
        moves(State(before.rounded(rows, grid), grid), State(after.rounded(rows, grid), grid))
        for rows in chunks(before.words, CHUNK_BYTES)
    ]
    return Moves(
        l1=np.concatenate([part.l1 for part in parts]),
        l2=np.concatenate([part.l2 for part in parts]),
        l_inf=np.concatenate([part.l_inf for part in parts]),
    )


def series(
    *sources: str | Path,
    revisions: str | None = None,
    tensor: str | None = None,
    grid: str | None = None,
    tokenizer: str | Path | None = None,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Series:
    """Measure the checkpoints of one model in order: their censuses, and what changed from each to the next.

    Two matrices are in memory at a time. Of a file on the Hub that has the same hash as an earlier one nothing is read.

    Parameters
    ----------
    sources, revisions : as `find_checkpoints`
    tensor, tokenizer : as `EmbeddingMatrix.open`; the tokenizer is the last checkpoint's
    grid : round every checkpoint to it first
    out : folder to write to (`Series.write`); by default nothing is written
    progress : told (bytes done, bytes in all)

    Raises
    ------
    MissingFile, AccessRefused, Unreachable, NoEmbedding, CorruptFile, InvalidInput
        As `find_checkpoints`, `EmbeddingMatrix.open`, `EmbeddingMatrix.groups` and `Series.write`.
    """
    if out is not None:
        check_folder(Path(out), FILES)
    named = find_checkpoints(sources, revisions)
    course = _Course(grid)
    size = done = 0  # bytes of an embedding, once one is known, and of those that are measured

    def transferred(now: int, _: int) -> None:
        if progress and size:
            progress(done + min(now, size), len(named) * size)

    for at, (name, source) in enumerate(named, 1):
        opened = open_source(source, transferred)
        size = size or find_embedding(opened, tensor)[0].nbytes
        matrix = EmbeddingMatrix.open(opened, tensor=tensor, tokenizer=tokenizer if at == len(named) else "none")
        course.take(name, matrix)
        done = at * size
        transferred(0, 0)
    asked = {"asked": [printable(str(source)) for source in sources], "revisions": revisions}
    made = _made(course, matrix.texts, asked)
    if out is not None:
        made.write(out)
    return made


def _made(course: _Course, texts: dict[int, str], asked: dict[str, Any]) -> Series:
    names, holes = [record.name for record in course.records], course.holes
    order = np.argsort(holes, kind="stable")
    members = {int(hole): list(tokens) for hole, tokens in groupby(order.tolist(), key=holes.__getitem__) if hole}
    black_holes = [
        HoleRecord(
            hole=hole,
            population=len(tokens),
            born=names[course.born[hole]],
            joined=names[course.joined[hole]],
            frozen=names[int(course.changed[tokens].max())],
            tokens=tuple(tokens),
        )
        for hole, tokens in sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    columns = zip(course.n_changes.tolist(), course.changed.tolist(), holes.tolist(), strict=True)
    tokens = [
        SeriesToken(token=token, text=texts.get(token), n_changes=times, frozen=names[since], hole=hole or None)
        for token, (times, since, hole) in enumerate(columns)
    ]
    same: dict[str, list[str]] = {}
    for record in course.records:
        same.setdefault(record.identical_to or record.name, []).append(record.name)
    frozen = np.bincount(course.changed, minlength=len(names)).tolist()
    kinds = Counter(event.kind for event in course.events)
    return Series(
        checkpoints=frame_of(CheckpointRecord, course.records),
        events=frame_of(SeriesEvent, course.events),
        black_holes=frame_of(HoleRecord, black_holes),
        tokens=frame_of(SeriesToken, tokens),
        summary={
            "schema_version": SCHEMA_VERSION,
            **asked,
            "n_checkpoints": len(names),
            "n_distinct": len(same),
            "identical": [group for group in same.values() if len(group) > 1],
            "not_compared": {record.name: record.not_compared for record in course.records if record.not_compared},
            "events": {kind: kinds[kind] for kind in KINDS if kinds[kind]},
            "n_tokens": len(holes),
            "n_never_moved": int((course.n_changes == 0).sum()),
            "frozen_since": [{"name": name, "n_tokens": n} for name, n in zip(names, frozen, strict=True) if n],
        },
    )
