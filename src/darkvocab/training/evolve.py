"""Follow an embedding's black holes while a model is trained, from the recorded history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..embedding.history import History, check_tokens, parse_tokens
from ..errors import CorruptFile, InvalidInput
from ..landing import write_json
from ..measures import tracking
from ..measures.census import Census
from ..numerics.grouping import identical_rows
from ..progress import Progress, Report
from ..runs.folder import check_folder, take_folder
from ..runs.records import frame_of, write_frames
from ..text import Shown, printable
from .verdicts import geometry_of, notebook_displacement, verdicts

SCHEMA_VERSION = 1
MOST_COMPARED = 1024  # distinct rows whose distances are taken: all pairs, over all columns, at every step
FRAMED = 4096  # records kept as objects before they become columns
FILES = ("evolution.parquet", "events.parquet", "tokens.parquet", "evolution.json")


@dataclass(frozen=True, kw_only=True)
class EvolutionRecord:
    """Some tokens at one recorded row: all, seen or unseen in training. Lengths in weight units but where named."""

    row: int
    step: int  # optimizer steps taken
    tokens: str  # all, seen, unseen
    n_tokens: int
    n_unique: int
    n_black_holes: int
    black_hole_population: int
    n_singletons: int
    largest_bh: int  # 0 without black holes
    gini_coefficient: float
    max_l_inf: float  # over all pairs of these tokens
    mean_l_inf: float | None  # null with more than 1,024 distinct rows
    max_l_inf_steps: int
    mean_l_inf_steps: float | None
    centroid_norm: float
    centroid_displacement: float  # from row 0
    radius_max: float  # Euclidean distance from the centroid: of the farthest token
    radius_rms: float  # and its root mean square
    since: int | None  # the optimizer step that motion is counted from; null at row 0, as all below
    n_moved: int | None  # tokens whose row is another
    mean_move_l1_steps: float | None  # grid steps, over all these tokens
    max_move_l1_steps: int | None
    mean_move_l2_steps: float | None
    max_move_l2_steps: float | None
    mean_move_l_inf_steps: float | None
    max_move_l_inf_steps: int | None
    bulk_motion: float | None  # length of the mean displacement
    thermal_motion: float | None  # root mean square of displacement - mean displacement


COLUMNS = [field.name for field in fields(EvolutionRecord)]
MOTION = COLUMNS[COLUMNS.index("since") :]


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """One event of a black hole's tokens; see `darkvocab.measures.tracking.Event`."""

    row: int
    step: int
    kind: str
    hole: int
    other: int | None  # the other black hole, if there is one
    n_tokens: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """One token's changes over the whole history, and its black hole at the end."""

    token: int
    seen: bool | None  # in training; null where nobody says
    n_changes: int  # measured rows at which it was not what it was at the one before
    last_change: int | None  # optimizer step of the last of these; null where it never changed
    hole: int | None  # its black hole at the last row, by number; null where it stands alone


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Geometry and census of some tokens at one row; taken over from row to row while none of them moves."""

    cloud: tracking.Cloud
    columns: dict[str, Any]  # of `EvolutionRecord`


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured row: its records, and what the next one is compared with."""

    records: list[EvolutionRecord]
    events: list[EventRecord]  # that led to it
    moves: tracking.Moves | None  # since the row before; None at the first
    holes: np.ndarray  # black hole of each token, 0 for none
    fresh: int  # number of the next new black hole
    state: tracking.State
    shapes: dict[str, Shape]
    start: dict[str, Shape]  # of the first row


class _Columns:
    """Records of one type as they come, kept as columns."""

    def __init__(self, row: type) -> None:
        self.row, self._records, self.frames = row, list[Any](), list[pl.DataFrame]()

    def extend(self, records: Sequence[Any]) -> None:
        self._records += records
        if len(self._records) >= FRAMED:
            self._pack()

    def _pack(self) -> None:
        self.frames.append(frame_of(self.row, self._records))
        self._records = []

    def frame(self) -> pl.DataFrame:
        self._pack()
        return pl.concat(self.frames, rechunk=True)


@dataclass(frozen=True, kw_only=True, repr=False)
class Evolution(Shown):
    """A measured history: records as polars frames, and their summary as a JSON-ready dict."""

    records: pl.DataFrame  # of `EvolutionRecord`
    events: pl.DataFrame  # of `EventRecord`
    tokens: pl.DataFrame  # of `TokenRecord`
    summary: dict[str, Any]

    def write(self, folder: str | Path) -> list[Path]:
        """Write `FILES`, each whole or not, `evolution.json` last; raises as `check_folder` and `write_whole`."""
        paths = take_folder(folder, FILES)
        write_frames(paths[0], EvolutionRecord, [self.records])
        write_frames(paths[1], EventRecord, [self.events])
        write_frames(paths[2], TokenRecord, [self.tokens])
        write_json(paths[-1], self.summary)
        return paths


class Evolve(Shown):
    """Settings of a measurement of a history, checked; `rows` iterates over its measured rows.

    Parameters
    ----------
    source : a run folder, a `.safetensors` history, or a `History`
    unseen : tokens that training never showed: ids, or text as `parse_tokens`; by default what `corpus.json` says
    tensor : as `History.open`
    every : take every so many recorded rows, and the last
    init_sigma, noise_epsilon : of the notebooks' verdicts (weight units); by default the run's parameters

    Raises
    ------
    MissingFile, NoEmbedding, CorruptFile, InvalidInput
        As `History.open`, `parse_tokens` and `History.rows`; a length that is none.
    """

    def __init__(
        self,
        source: str | Path | History,
        *,
        unseen: str | Sequence[int] | None = None,
        tensor: str | None = None,
        every: int = 1,
        init_sigma: float | None = None,
        noise_epsilon: float | None = None,
    ) -> None:
        self.history = source if isinstance(source, History) else History.open(source, tensor=tensor)
        n = self.history.n_tokens
        named = parse_tokens(unseen, n) if isinstance(unseen, str) else unseen
        self.unseen = self.history.unseen if named is None else check_tokens(named, n)
        self.every, self._rows = every, self.history.rows(every)
        self.init_sigma = self._length("init_sigma", init_sigma)
        self.noise_epsilon = self._length("noise_epsilon", noise_epsilon)
        if self.noise_epsilon is None and (sigma := self._length("noise_sigma", None)) is not None:
            self.noise_epsilon = 10 * sigma  # 11.2b adds noise of epsilon / 10, and `train` names the noise itself
        tokens = np.arange(n)
        self.selections = {"all": tokens}
        if self.unseen is not None:
            absent = np.isin(tokens, self.unseen)
            self.selections |= {
                name: chosen for name, chosen in (("seen", tokens[~absent]), ("unseen", tokens[absent])) if len(chosen)
            }

    def _length(self, name: str, given: float | None) -> float | None:
        value = self.history.parameters.get(name) if given is None else given
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            place = f"{self.history.path.parent / 'manifest.json'}: " if given is None else ""
            raise (CorruptFile if given is None else InvalidInput)(
                f"{place}{name} must be a finite length >= 0 (weight units), got {value!r}"
            )
        return float(value)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, progress: Report | None = None) -> Iterator[Measured]:
        """Measure each row, in order; two states are in memory at a time.

        Raises `CorruptFile` where the file was cut, or holds NaN or infinity (the message names step and token).
        """
        before: Measured | None = None
        for row, words in self.history.words(self._rows, Progress(len(self), progress).advance):
            if before and np.array_equal(words, before.state.words):
                state = before.state  # most of a long run is frozen
            else:
                state = tracking.State(words, self.history.grid)
                self._check(row, state)
            before = self._measured(row, state, before)
            yield before

    def _check(self, row: int, state: tracking.State) -> None:
        bad = state.beyond.tolist()
        if bad:
            named = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
            raise CorruptFile(
                f"{self.history.path}: at step {self.history.step(row):,} (row {row:,}) {len(bad):,} of "
                f"{self.history.n_tokens:,} tokens hold NaN or infinity: {named}; no census of such rows is true"
            )

    def _measured(self, row: int, state: tracking.State, before: Measured | None) -> Measured:
        step, moved = self.history.step(row), tracking.moves(before.state, state) if before else None
        if before is None:
            holes = tracking.holes_of(state.groups)
            events, fresh = tracking.starts(holes), int(holes.max(initial=0)) + 1
        elif np.array_equal(state.groups.labels, before.state.groups.labels):
            holes, events, fresh = before.holes, [], before.fresh
        else:
            holes, events, fresh = tracking.follow(before.holes, state.groups, before.fresh)
        still = moved is not None and not moved.l_inf.any()
        shapes = before.shapes if before and still else self._shapes(state)
        records = []
        for name, tokens in self.selections.items():
            shape, start = shapes[name], before.start[name] if before else shapes[name]
            records.append(
                EvolutionRecord(
                    row=row,
                    step=step,
                    tokens=name,
                    **shape.columns,
                    centroid_displacement=float(np.linalg.norm(shape.cloud.centroid - start.cloud.centroid)),
                    **_motion(before, state, moved, tokens),
                )
            )
        return Measured(
            records=records,
            events=[EventRecord(row=row, step=step, **event.columns()) for event in events],
            moves=moved,
            holes=holes,
            fresh=fresh,
            state=state,
            shapes=shapes,
            start=before.start if before else shapes,
        )

    def _shapes(self, state: tracking.State) -> dict[str, Shape]:
        means = tracking.mean_distances(state, list(self.selections.values()), MOST_COMPARED)
        shapes = (_shape(state, *each) for each in zip(self.selections.values(), means, strict=True))
        return dict(zip(self.selections, shapes, strict=True))

    def evolution(self, progress: Report | None = None) -> Evolution:
        """Measure the whole history: its records and what they come to.

        Memory: what is read at a time, two states, and the records.
        """
        records, events = _Columns(EvolutionRecord), _Columns(EventRecord)
        n_changes = np.zeros(self.history.n_tokens, np.int64)
        last_change = np.full(self.history.n_tokens, -1)
        first = last = None
        for measured in self.rows(progress):
            records.extend(measured.records)
            events.extend(measured.events)
            first, last = first or measured, measured
            if measured.moves is not None:
                changed = measured.moves.l_inf > 0
                n_changes += changed
                last_change[changed] = measured.records[0].step
        assert first is not None
        assert last is not None
        columns = zip(n_changes.tolist(), last_change.tolist(), last.holes.tolist(), strict=True)
        absent = None if self.unseen is None else set(self.unseen)
        tokens = [
            TokenRecord(
                token=token,
                seen=None if absent is None else token not in absent,
                n_changes=times,
                last_change=None if at < 0 else at,
                hole=hole or None,
            )
            for token, (times, at, hole) in enumerate(columns)
        ]
        happened = events.frame()
        return Evolution(
            records=records.frame(),
            events=happened,
            tokens=frame_of(TokenRecord, tokens),
            summary=self._summary(first, last, Counter(happened["kind"].to_list()), n_changes, last_change),
        )

    def _summary(
        self, first: Measured, last: Measured, kinds: Counter, n_changes: np.ndarray, last_change: np.ndarray
    ) -> dict[str, Any]:
        history, step = self.history, last.records[0].step
        unseen = self.selections.get("unseen")
        lengths = {"init_sigma": self.init_sigma, "noise_epsilon": self.noise_epsilon}
        geometry, answers = None, []
        if unseen is not None and len(unseen) > 1:
            geometry = geometry_of(last.state, unseen, MOST_COMPARED)
            answers = verdicts(first.state, last.state, unseen, geometry, **lengths)
        return {
            "schema_version": SCHEMA_VERSION,
            "file": printable(history.path.name),
            "tensor": printable(history.tensor.name),
            "grid": history.grid.name,
            "n_tokens": history.n_tokens,
            "hidden_dim": history.dim,
            "n_planned": history.n_planned,
            "n_recorded": history.n_rows,
            "record_every": history.record_every,
            "every": self.every,
            "n_measured": len(self),
            "last_step": step,
            "unseen": None if self.unseen is None else list(self.unseen),
            **lengths,
            "events": {kind: kinds[kind] for kind in tracking.KINDS if kinds[kind]},
            "freezing": {
                name: {
                    "last_change": int(at) if (at := last_change[tokens].max()) >= 0 else None,
                    "n_never_moved": int((n_changes[tokens] == 0).sum()),
                    "n_moved_last": int((last_change[tokens] == step).sum()) if step else 0,
                }
                for name, tokens in self.selections.items()
            },
            "notebook_displacement": notebook_displacement(first.state, last.state),
            "geometry": geometry,
            "verdicts": answers,
        }


def _shape(state: tracking.State, tokens: np.ndarray, mean: tuple[float, float] | None) -> Shape:
    whole = len(tokens) == len(state.words)
    groups = state.groups if whole else identical_rows(state.words[tokens])
    census = Census(groups)
    around = tracking.cloud(state, tokens)
    farthest = tracking.extent(state, tokens[groups.first])
    columns = {
        "n_tokens": census.n_tokens,
        **census.counts(),
        "largest_bh": census.largest_black_hole,
        "gini_coefficient": census.gini,
        "max_l_inf": farthest.weight,
        "mean_l_inf": mean and mean[0],
        "max_l_inf_steps": farthest.steps,
        "mean_l_inf_steps": mean and mean[1],
        "centroid_norm": float(np.linalg.norm(around.centroid)),
        "radius_max": around.radius_max,
        "radius_rms": around.radius_rms,
    }
    return Shape(cloud=around, columns=columns)


def _motion(
    before: Measured | None, state: tracking.State, moved: tracking.Moves | None, tokens: np.ndarray
) -> dict[str, Any]:
    """Return the columns from `since` on."""
    if before is None or moved is None:
        return dict.fromkeys(MOTION)
    spread = moved.spread(tokens)
    drifted = tracking.drift(before.state, state, tokens) if spread[0] else tracking.Drift(bulk=0.0, thermal=0.0)
    columns = before.records[0].step, *spread, drifted.bulk, drifted.thermal
    return dict(zip(MOTION, columns, strict=True))


def evolve(
    source: str | Path | History, *, out: str | Path | None = None, progress: Report | None = None, **settings: Any
) -> Evolution:
    """Measure a history and, where a folder is given for it, write the result.

    Parameters
    ----------
    source, settings : as `Evolve`, which says what is raised, with `Evolve.rows` and `Evolution.write`
    out : folder to write to (`Evolution.write`); by default nothing is written
    progress : called with (rows done, rows in all)
    """
    settings_of_history = Evolve(source, **settings)
    if out is not None:
        check_folder(Path(out), FILES)
    evolution = settings_of_history.evolution(progress)
    if out is not None:
        evolution.write(out)
    return evolution
