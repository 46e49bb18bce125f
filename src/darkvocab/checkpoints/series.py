"""Series: the checkpoints of one model measured in order, and what changed from each to the next."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..embedding.find import find_embedding
from ..embedding.history import FILE
from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput, MissingFile
from ..landing import write_json
from ..measures.tracking import KINDS
from ..numerics.grouping import members_of
from ..progress import Report
from ..runs.folder import check_folder, take_folder
from ..runs.records import frame_of, frame_of_columns, write_csv, write_frames
from ..sources import READERS, WEIGHTS, open_source, revisions
from ..text import Shown, listed, printable
from .course import CheckpointRecord, Course, SeriesEvent

SCHEMA_VERSION = 1
LAST = "main"  # a branch that goes on where the others stop
FILES = (
    *("checkpoints.parquet", "checkpoints.csv", "events.parquet", "black_holes.parquet", "tokens.parquet"),
    "series.json",
)


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

    Several sources: these. One: the branches and tags of a model on the Hub (`main` last), or the checkpoints in a
    folder: its model folders, else its files; sorted by name, numbers as numbers, and of these only those that match
    one of the patterns, joined by commas: `step*`. Raises MissingFile where none matches, InvalidInput where one source
    is a single checkpoint or a pattern is for several; else as `open_source`.
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
        open_source(source)  # what is wrong with it, if anything is
        raise InvalidInput(f"{source} is one checkpoint; give several, a folder of them, or org/name on the Hub")
    return names


def _in_folder(folder: Path) -> Mapping[str, str | Path]:
    """Return the model folders of a folder; where it has none, its files of weights."""
    items = list(folder.iterdir())
    models = {item.name: item for item in items if any((item / name).is_file() for name in WEIGHTS)}
    if not models and any((folder / name).is_file() for name in WEIGHTS):
        hint = f"; a training's history is measured by: darkvocab evolve {folder}" if (folder / FILE).is_file() else ""
        raise InvalidInput(f"{folder} is one model folder; give several, or the folder that they lie in{hint}")
    return models or {item.name: item for item in items if item.suffix in (*READERS, ".gguf") and item.is_file()}


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
    """Changes of one token of the last checkpoint."""

    token: int
    text: str | None
    n_changes: int  # checkpoints at which its row was not what it was at the one before
    frozen: str  # the checkpoint since which its row is what it is at the last
    hole: int | None  # its black hole at the last; null where it stands alone


@dataclass(frozen=True, kw_only=True, repr=False)
class Series(Shown):
    """A measured series: records as polars frames, and their summary as a JSON-ready dict."""

    checkpoints: pl.DataFrame  # of `CheckpointRecord`
    events: pl.DataFrame  # of `SeriesEvent`
    black_holes: pl.DataFrame  # of `HoleRecord`
    tokens: pl.DataFrame  # of `SeriesToken`
    summary: dict[str, Any]

    def write(self, folder: str | Path) -> list[Path]:
        """Write `FILES`, each whole or not, `series.json` last; raises as `check_folder` and `write_whole`."""
        paths = take_folder(folder, FILES)
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
    """Measure the checkpoints of one model in order: their censuses, and what changed from each to the next.

    Two matrices are in memory at a time. Of a file on the Hub that has the same hash as an earlier one nothing is read.
    Sources and `revisions` are as `find_checkpoints` takes them, `tensor` and `tokenizer` (the last checkpoint's) as
    `EmbeddingMatrix.open`. Every checkpoint is rounded to `grid` first; `out` is a folder to write to (`Series.write`).
    `progress` is called with (bytes done, bytes in all). Raises as these, and as `EmbeddingMatrix.groups`.
    """
    if out is not None:
        check_folder(Path(out), FILES)
    named = find_checkpoints(sources, revisions)
    course = Course(grid)
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
        "events": {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        "n_tokens": len(course.holes),
        "n_never_moved": int((course.n_changes == 0).sum()),
        "frozen_since": [{"name": record.name, "n_tokens": n} for record, n in frozen if n],
    }
