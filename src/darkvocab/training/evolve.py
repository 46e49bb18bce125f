"""Follow an embedding's black holes while a model is trained, from the recorded history."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
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
from ..runs.records import frame_of, frame_of_columns, record_types, write_frames
from ..text import Shown, printable
from .choices import ERRORS
from .verdicts import geometry_of, notebook_displacement, verdicts

SCHEMA_VERSION = 1
MOST_COMPARED = 1024  # distinct rows whose distances are taken: all pairs, over all columns, at every step
FILES = ("evolution.parquet", "events.parquet", "tokens.parquet", "evolution.json")
EvolutionRecord, EventRecord, TokenRecord = record_types(Path(__file__).with_suffix(".toml"), __name__)
NAMES = [field.name for field in fields(EvolutionRecord)]
MOTION = NAMES[NAMES.index("since") :]
STILL = (0, 0.0, 0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)  # the columns after `since`, where no token moved


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
    """Settings of a measurement of a history, checked.

    Raises as `History.open`, `parse_tokens` and `History.rows`; InvalidInput or CorruptFile for a length that is none.

    Parameters
    ----------
    source : a run folder, a `.safetensors` history, or a `History`
    unseen : tokens that training never showed: ids, or text as `parse_tokens`; by default what `corpus.json` says
    tensor : as `History.open`
    every : take every so many recorded rows, and the last
    init_sigma, noise_epsilon : of the notebooks' verdicts (weight units); by default the run's parameters
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
        tokens = self.history.tokens
        n = int(tokens.max()) + 1  # a recording of chosen tokens has their rows alone
        named = parse_tokens(unseen, n) if isinstance(unseen, str) else unseen
        self.unseen = self.history.unseen if named is None else check_tokens(named, n)
        self.every = every
        self._rows = self.history.rows(every)
        self.init_sigma = self._length("init_sigma", init_sigma)
        self.noise_epsilon = self._length("noise_epsilon", noise_epsilon)
        if self.noise_epsilon is None and (sigma := self._length("noise_sigma", None)) is not None:
            self.noise_epsilon = 10 * sigma  # 11.2b adds noise of epsilon / 10, and `train` names the noise itself
        self.selections = {"all": np.arange(len(tokens))}  # rows of a state
        if self.unseen is not None:
            absent = np.isin(tokens, self.unseen)
            both = {"seen": np.flatnonzero(~absent), "unseen": np.flatnonzero(absent)}
            self.selections |= {name: chosen for name, chosen in both.items() if len(chosen)}

    def _length(self, name: str, given: float | None) -> float | None:
        value = self.history.parameters.get(name) if given is None else given
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            said = f"{name} must be a finite length >= 0 (weight units), got {value!r}"
            if given is not None:
                raise InvalidInput(said)
            raise CorruptFile(f"{self.history.path.parent / 'manifest.json'}: {said}")
        return float(value)

    def evolution(self, progress: Report | None = None) -> Evolution:
        """Measure the history, two states at a time; raises CorruptFile where it was cut, or holds NaN or infinity."""
        rows = self.history.words(self._rows, Progress(len(self._rows), progress).advance)
        course = _Course(self, *next(rows))
        for row, words in rows:
            course.go_on(row, words)
        return Evolution(
            records=frame_of(EvolutionRecord, course.records),
            events=frame_of(EventRecord, course.events),
            tokens=course.tokens(),
            summary=self._summary(course),
        )

    def _summary(self, course: _Course) -> dict[str, Any]:
        history = self.history
        kinds = Counter(event.kind for event in course.events)
        unseen = self.selections.get("unseen")
        lengths = {"init_sigma": self.init_sigma, "noise_epsilon": self.noise_epsilon}
        geometry = None
        answers = []
        if unseen is not None and len(unseen) > 1:
            geometry = geometry_of(course.state, unseen, MOST_COMPARED)
            answers = verdicts(course.first, course.state, unseen, geometry, **lengths)
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
            "n_measured": len(self._rows),
            "last_step": course.step,
            "unseen": None if self.unseen is None else list(self.unseen),
            **lengths,
            "events": {kind: kinds[kind] for kind in tracking.EVENT_KINDS if kinds[kind]},
            "freezing": {
                name: {
                    "last_change": int(at) if (at := course.last_change[tokens].max()) >= 0 else None,
                    "n_never_moved": int((course.n_changes[tokens] == 0).sum()),
                    "n_moved_last": int((course.last_change[tokens] == course.step).sum()) if course.step else 0,
                }
                for name, tokens in self.selections.items()
            },
            "notebook_displacement": notebook_displacement(course.first, course.state),
            "geometry": geometry,
            "verdicts": answers,
        }


class _Course:
    """Records of the rows measured so far, and the state that the next row is compared with."""

    def __init__(self, settings: Evolve, row: int, words: np.ndarray) -> None:
        """Measure the first row."""
        self.settings = settings
        self.history = settings.history
        self.first = self.state = self._state(row, words)
        self.holes = tracking.holes_of(self.state.groups)  # of each token, 0 for none
        self._fresh = int(self.holes.max(initial=0)) + 1  # number of the next new black hole
        self._start: dict[str, np.ndarray] = {}  # centroid of each selection
        self._counts = self._count()  # reused while the black holes have the same tokens
        self._shapes = self._measure()  # reused while no token moves
        self.records: list[Any] = []
        self.events: list[Any] = []
        self.n_changes = np.zeros(self.history.n_tokens, np.int64)
        self.last_change = np.full(self.history.n_tokens, -1)  # optimizer step; -1 where a token never changed
        self._note(row, tracking.starts(self.holes), lambda _: [None] * len(MOTION))

    @property
    def step(self) -> int:
        """Optimizer step of the last row."""
        return self.records[-1].step

    def go_on(self, row: int, words: np.ndarray) -> None:
        """Measure the next row, and what changed since the one before."""
        before = self.state
        since = self.step
        if np.array_equal(words, before.words):  # most rows of a long run: it is frozen
            self._note(row, [], lambda _: (since, *STILL))
            return
        self.state = self._state(row, words)
        moved = tracking.moves(before, self.state)
        changed = moved.l_inf > 0
        events: list[tracking.Event] = []
        if not np.array_equal(self.state.groups.labels, before.groups.labels):
            self.holes, events, self._fresh = tracking.follow(self.holes, self.state.groups, self._fresh)
            self._counts = self._count()
        if changed.any():
            self._shapes = self._measure()

        def motion(tokens: np.ndarray) -> tuple[Any, ...]:
            spread = moved.spread(tokens)
            if not spread[0]:
                return (since, *STILL)
            drift = tracking.drift(before, self.state, tokens)
            return (since, *spread, drift.bulk, drift.thermal)

        self._note(row, events, motion)
        self.n_changes += changed
        self.last_change[changed] = self.step

    def _state(self, row: int, words: np.ndarray) -> tracking.State:
        state = tracking.State(words, self.history.grid)
        if bad := self.history.tokens[state.beyond].tolist():
            named = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
            where = {"history": self.history, "step": self.history.step(row), "row": row}
            raise CorruptFile(ERRORS["not_finite"].format(**where, n=len(bad), named=named))
        return state

    def _count(self) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
        """Return, by selection, one token of each distinct row of the last state, and the census for its record."""
        counts = {}
        for name, tokens in self.settings.selections.items():
            groups = identical_rows(self.state.words[tokens])
            census = Census(groups)
            more = {"largest_bh": census.largest_black_hole, "gini_coefficient": census.gini}
            counts[name] = tokens[groups.first], {"n_tokens": census.n_tokens, **census.counts(), **more}
        return counts

    def _measure(self) -> dict[str, dict[str, Any]]:
        """Return, by selection, census and geometry of the last state for its record."""
        shapes = {}
        selections = self.settings.selections
        means = tracking.mean_distances(self.state, list(selections.values()), MOST_COMPARED)
        for (name, tokens), mean in zip(selections.items(), means, strict=True):
            distinct, counts = self._counts[name]
            around = tracking.cloud(self.state, tokens)
            farthest = tracking.extent(self.state, distinct)
            moved = around.centroid - self._start.setdefault(name, around.centroid)
            shapes[name] = {
                **counts,
                "max_l_inf": farthest.weight,
                "mean_l_inf": mean and mean[0],
                "max_l_inf_steps": farthest.steps,
                "mean_l_inf_steps": mean and mean[1],
                "centroid_norm": math.sqrt(around.centroid @ around.centroid),
                "centroid_displacement": math.sqrt(moved @ moved),
                "radius_max": around.radius_max,
                "radius_rms": around.radius_rms,
            }
        return shapes

    def _note(self, row: int, events: list[tracking.Event], motion: Callable[[np.ndarray], Sequence[Any]]) -> None:
        step = self.history.step(row)
        for event in events:
            named = tuple(self.history.tokens[list(event.tokens)].tolist())
            self.events.append(EventRecord(row=row, step=step, **{**event.columns(), "tokens": named}))
        for name, tokens in self.settings.selections.items():
            columns = self._shapes[name] | dict(zip(MOTION, motion(tokens), strict=True))
            self.records.append(EvolutionRecord(row=row, step=step, tokens=name, **columns))

    def tokens(self) -> pl.DataFrame:
        """Return the changes of each token so far, records of `TokenRecord`."""
        tokens = self.history.tokens
        unseen = self.settings.unseen
        return frame_of_columns(
            TokenRecord,
            token=tokens,
            seen=[None] * len(tokens) if unseen is None else ~np.isin(tokens, unseen),
            n_changes=self.n_changes,
            last_change=[None if at < 0 else at for at in self.last_change.tolist()],
            hole=[hole or None for hole in self.holes.tolist()],
        )


def evolve(
    source: str | Path | History, *, out: str | Path | None = None, progress: Report | None = None, **settings: Any
) -> Evolution:
    """Measure a history by the settings of `Evolve`; write the result into the folder `out`, where one is given.

    `progress` is called with (rows done, rows in all). Raises as `Evolve`, `Evolve.evolution` and `Evolution.write`.
    """
    checked = Evolve(source, **settings)
    if out is not None:
        check_folder(Path(out), FILES)
    evolution = checked.evolution(progress)
    if out is not None:
        evolution.write(out)
    return evolution
