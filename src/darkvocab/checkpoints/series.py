"""Measure the checkpoints of one model in order, and follow black holes and rows from each to the next."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int64

from ..embedding.find import find_embedding
from ..embedding.history import HISTORY_FILE
from ..embedding.matrix import EmbeddingMatrix
from ..embedding.scales import find_companions
from ..errors import CorruptFile, InvalidInput, MissingFile
from ..landing import write_json
from ..measures.census import Census
from ..measures.distances import displacements
from ..measures.tracking import BIRTH, EVENT_KINDS, GAIN, LOSE, MERGE, SPLIT, START, VANISH, Event, follow
from ..numerics import as_grid
from ..numerics.grouping import Groups, chunks, members_of
from ..progress import Report
from ..runs.folder import check_folder, take_folder
from ..runs.records import frame_of, frame_of_columns, record_types, write_csv, write_frames
from ..sources import READERS, WEIGHTS, open_source, revisions
from ..text import Shown, listed, printable

SCHEMA_VERSION = 1
LAST = "main"  # the branch that goes on where the others stop
OUTPUTS = "checkpoints.parquet checkpoints.csv events.parquet black_holes.parquet tokens.parquet series.json".split()


def naturally(name: str) -> list[int | str]:
    """Return a key that sorts numbers in names as numbers.

    Examples
    --------
    >>> sorted(["step10", "step2", "Step1"], key=naturally)
    ['Step1', 'step2', 'step10']
    """
    parts = re.split("([0-9]+)", name)
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)]


def find_checkpoints(sources: Sequence[str | Path], pattern: str | None = None) -> list[tuple[str, str | Path]]:
    """Return names and sources of the checkpoints of a series, in order.

    Several sources are taken as they are. One is a model on the Hub, for its branches and tags (`main` last), or a
    folder, for its model folders, else its files: sorted by name, numbers as numbers, and only those that match one of
    the patterns between commas, such as `step*`. Raises MissingFile where none matches, InvalidInput for a source that
    is one checkpoint, or a pattern for several; otherwise as `open_source`.
    """
    if len(sources) != 1:
        if not sources or pattern is not None:
            raise InvalidInput("give one source, with or without --revisions, or several without")
        return [(str(source), source) for source in sources]
    (source,) = sources
    known = _in_folder(Path(source)) if Path(source).is_dir() else _on_hub(source)
    globs = ["*"] if pattern is None else pattern.split(",")
    names = [name for name in known if any(fnmatchcase(name, glob) for glob in globs)]
    if not names:
        others = listed(sorted(known, key=naturally), 8) or "none"
        asked = f" that matches {pattern!r}" if pattern else ""
        raise MissingFile(f"{source} has no checkpoint{asked}; it has {others}")
    names.sort(key=lambda name: (name == LAST, naturally(name)))
    return [(name, known[name]) for name in names]


def _on_hub(source: str | Path) -> Mapping[str, str | Path]:
    names = revisions(source) if isinstance(source, str) else None
    if names is None:
        open_source(source)  # raises for a source that cannot be opened
        raise InvalidInput(f"{source} is one checkpoint; give several, a folder of them, or org/name on the Hub")
    return names


def _in_folder(folder: Path) -> Mapping[str, str | Path]:
    """Return the model folders of a folder; without any, its files of weights."""
    items = list(folder.iterdir())
    models = {item.name: item for item in items if any((item / name).is_file() for name in WEIGHTS)}
    if not models and any((folder / name).is_file() for name in WEIGHTS):
        is_run = (folder / HISTORY_FILE).is_file()
        hint = f"; a training's history is measured by: darkvocab evolve {folder}" if is_run else ""
        raise InvalidInput(f"{folder} is one model folder; give several, or the folder that they lie in{hint}")
    return models or {item.name: item for item in items if item.suffix in (*READERS, ".gguf") and item.is_file()}


HASHED_BYTES = 1 << 24  # of rows that are hashed at a time
CheckpointRecord, SeriesEvent, HoleRecord, SeriesToken = record_types(Path(__file__).with_suffix(".toml"), __name__)
TALLIES = {BIRTH: "n_born", SPLIT: "n_split", MERGE: "n_merged", VANISH: "n_vanished", GAIN: "n_gained", LOSE: "n_lost"}
CHANGED = ("n_moved", "n_equal", "mean_move_l_inf_steps", "max_move_l_inf_steps", *TALLIES.values())


class Measured(NamedTuple):
    """Measured checkpoint, with which the next is compared."""

    matrix: EmbeddingMatrix
    groups: Groups
    identity: tuple[Any, ...]


def _sha256(words: np.ndarray) -> str:
    digest = hashlib.sha256()
    for rows in chunks(words, HASHED_BYTES):
        digest.update(np.ascontiguousarray(words[rows]).data)
    return digest.hexdigest()


class Course:
    """Black holes and rows, followed through the checkpoints, with two matrices in memory at a time."""

    def __init__(self, grid: str | None) -> None:
        self.grid = grid
        self.records: list[Any] = []  # of `CheckpointRecord`
        self.events: list[Any] = []  # of `SeriesEvent`
        self.last: Measured | None = None
        self.holes = self.n_changes = self.changed = np.zeros(0, np.int64)  # of each token; the last, its checkpoint
        self._fresh = 1  # number of the next new black hole
        self._first: dict[tuple[Any, ...], str] = {}  # name of the first checkpoint by the identity of its words
        self._known: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # identity of words by their place in a file

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
            moved = np.zeros(matrix.n_tokens, int) if same else displacements(before.matrix, matrix, grid).l_inf_steps
        events = self._begin(groups) if moved is None else self._follow(groups, moved)
        remote = {} if isinstance(matrix.path, Path) else matrix.path.origin()
        record = CheckpointRecord(
            checkpoint=len(self.records),
            name=printable(name),
            path=printable(str(matrix.path)),
            **{fact: remote.get(fact) for fact in ("commit", "bytes_read")},
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
        at = {"checkpoint": record.checkpoint, "name": record.name}
        self.events += [SeriesEvent(**at, **event.columns()) for event in events]
        self.records.append(record)
        self.last = Measured(matrix=matrix, groups=groups, identity=identity)

    def _identity(self, matrix: EmbeddingMatrix) -> tuple[Any, ...]:
        """Return a key of words and scales; those in a file of a known hash are not read again."""
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
        """Number the black holes of the first checkpoint, or of one that cannot be compared with the last."""
        n = len(groups.labels)
        self.holes, births, self._fresh = follow(np.zeros(n, np.int64), groups, self._fresh)
        self.n_changes = np.zeros(n, np.int64)
        self.changed = np.full(n, len(self.records))
        return [replace(event, kind=START) for event in births]

    def _follow(self, groups: Groups, moved: Int64[np.ndarray, " n"]) -> list[Event]:
        """Follow black holes and rows from the last checkpoint; `moved` has the steps that each row moved."""
        if not moved.any():
            return []
        self.holes, events, self._fresh = follow(self.holes, groups, self._fresh)
        self.n_changes[moved > 0] += 1
        self.changed[moved > 0] = len(self.records)
        return events


def _changes(moved: Int64[np.ndarray, " n"] | None, events: list[Event]) -> dict[str, Any]:
    """Return the columns of a record on changes, null where nothing was compared."""
    if moved is None:
        return dict.fromkeys(CHANGED)
    kinds = Counter(event.kind for event in events)
    n_moved = int((moved > 0).sum())
    return {
        "n_moved": n_moved,
        "n_equal": len(moved) - n_moved,
        "mean_move_l_inf_steps": float(moved.mean()),
        "max_move_l_inf_steps": int(moved.max()),
        **{column: kinds[kind] for kind, column in TALLIES.items()},
    }


def _why_not(before: Any, matrix: EmbeddingMatrix, grid: str) -> str | None:
    """Return why a checkpoint cannot be compared with the last row by row; None if it can."""
    if (before.n_tokens, before.hidden_dim) != (matrix.n_tokens, matrix.dim):
        theirs = f"{before.name} has {before.n_tokens:,} x {before.hidden_dim:,}"
        return f"{matrix.n_tokens:,} tokens x {matrix.dim:,}, but {theirs}: the series begins anew"
    if before.grid != grid:
        theirs = f"{before.name} as {before.grid}"
        return f"stored as {grid}, but {theirs}: the series begins anew; --grid puts both on one grid"
    return None


@dataclass(frozen=True, kw_only=True, repr=False)
class Series(Shown):
    """Measured series: records as polars frames, and a JSON-ready summary."""

    checkpoints: pl.DataFrame  # of `CheckpointRecord`
    events: pl.DataFrame  # of `SeriesEvent`
    black_holes: pl.DataFrame  # of `HoleRecord`
    tokens: pl.DataFrame  # of `SeriesToken`
    summary: dict[str, Any]

    def write(self, folder: str | Path) -> list[Path]:
        """Write `OUTPUTS`, each whole or not, `series.json` last; raises as `check_folder` and `write_whole`."""
        paths = take_folder(folder, OUTPUTS)
        write_frames(paths[0], CheckpointRecord, [self.checkpoints])
        write_csv(paths[1], self.checkpoints)
        write_frames(paths[2], SeriesEvent, [self.events])
        write_frames(paths[3], HoleRecord, [self.black_holes])
        write_frames(paths[4], SeriesToken, [self.tokens])
        write_json(paths[-1], self.summary)
        return paths


def series(
    *sources: str | Path,
    revisions: str | None = None,
    tensor: str | None = None,
    grid: str | None = None,
    tokenizer: str | Path | None = None,
    out: str | Path | None = None,
    progress: Report | None = None,
) -> Series:
    """Measure the checkpoints of one model in order: their censuses, and the changes from each to the next.

    A file on the Hub with the hash of an earlier one is not read again. Sources and `revisions` are as in
    `find_checkpoints`, `tensor` and `tokenizer` (of the last checkpoint) as in `EmbeddingMatrix.open`. Every checkpoint
    is rounded to `grid` first; `out` is a folder for `Series.write`. `progress` is called with (bytes done, bytes in
    all). Raises as these, and as `EmbeddingMatrix.groups`.
    """
    if out is not None:
        check_folder(Path(out), OUTPUTS)
    named = find_checkpoints(sources, revisions)
    course = Course(grid)
    size = done = 0  # bytes of an embedding, once known, and of those measured

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
    measured = _result(course, matrix.texts, asked)
    if out is not None:
        measured.write(out)
    return measured


def _result(course: Course, texts: dict[int, str], asked: dict[str, Any]) -> Series:
    names = [record.name for record in course.records]
    holes = course.holes
    born: dict[int, str] = {}
    joined: dict[int | None, str] = {}
    for event in course.events:
        born.setdefault(event.hole, event.name)
        joined |= dict.fromkeys((event.hole, event.other), event.name)
    black_holes = [
        HoleRecord(
            hole=hole,
            population=len(tokens),
            born=born[hole],
            joined=joined[hole],
            frozen=names[int(course.changed[tokens].max())],
            tokens=tuple(tokens.tolist()),
        )
        for hole, tokens in sorted(members_of(holes).items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    tokens = frame_of_columns(
        SeriesToken,
        token=range(len(holes)),
        text=[texts.get(token) for token in range(len(holes))],
        n_changes=course.n_changes,
        frozen=[names[since] for since in course.changed.tolist()],
        hole=[hole or None for hole in holes.tolist()],
    )
    return Series(
        checkpoints=frame_of(CheckpointRecord, course.records),
        events=frame_of(SeriesEvent, course.events),
        black_holes=frame_of(HoleRecord, black_holes),
        tokens=tokens,
        summary={"schema_version": SCHEMA_VERSION, **asked, **_summary(course)},
    )


def _summary(course: Course) -> dict[str, Any]:
    same: dict[str, list[str]] = {}
    for record in course.records:
        same.setdefault(record.identical_to or record.name, []).append(record.name)
    kinds = Counter(event.kind for event in course.events)
    frozen = zip(course.records, np.bincount(course.changed, minlength=len(course.records)).tolist(), strict=True)
    return {
        "n_checkpoints": len(course.records),
        "n_distinct": len(same),
        "identical": [group for group in same.values() if len(group) > 1],
        "not_compared": {record.name: record.not_compared for record in course.records if record.not_compared},
        "events": {kind: kinds[kind] for kind in EVENT_KINDS if kinds[kind]},
        "n_tokens": len(course.holes),
        "n_never_moved": int((course.n_changes == 0).sum()),
        "frozen_since": [{"name": record.name, "n_tokens": n} for record, n in frozen if n],
    }
