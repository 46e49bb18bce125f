"""Compare two checkpoints row by row: equal rows, the moves of the others, and the changes of each black hole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int64

from ..embedding.matrix import EmbeddingMatrix, finite_rows
from ..errors import InvalidInput, one_of
from ..measures.census import Census
from ..measures.distances import Displacements, displacements
from ..measures.tracking import follow
from ..numerics import Grid, as_grid, identical_rows
from ..numerics.grouping import members_of
from ..progress import Advance, Progress, Report
from ..runs.records import write_csv
from ..text import Shown

if TYPE_CHECKING:
    import polars as pl

SCHEMA_VERSION = 1
MATRICES = "input", "output", "both"
MOVERS = 100  # in the JSON; the CSV has all
CHANGE_KINDS = ("kept", "grown", "shrunk", "changed", "merged", "split", "born", "dissolved")


@dataclass(frozen=True, kw_only=True)
class Change:
    """Change of a black hole between A and B, as `tracking.follow` follows it.

    kept, grown, shrunk, changed  in both: with the same tokens; with more; with fewer; with some joined, others left
    merged, dissolved             in A alone: some of its tokens are in others of B; all stand alone, or are not in B
    split, born                   in B alone: some of its tokens were in others of A; all stood alone, or are not in A
    """

    kind: str
    a: int | None  # its number in A, 1 for the largest; None where it is new
    b: int | None  # its number in B; None where it ended
    n_shared: int  # tokens that it has in both
    joined: Int64[np.ndarray, " j"]
    left: Int64[np.ndarray, " l"]
    came_from: tuple[tuple[int, int], ...]  # numbers in A that joined tokens had, and how many; most first
    went_to: tuple[tuple[int, int], ...]  # numbers in B that tokens which left have

    @property
    def population_a(self) -> int:
        return self.n_shared + len(self.left)

    @property
    def population_b(self) -> int:
        return self.n_shared + len(self.joined)

    def to_json(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("kind", "a", "b", "population_a", "population_b", "n_shared")}
        tokens = {name: getattr(self, name).tolist() for name in ("joined", "left")}
        holes = {name: list(map(list, getattr(self, name))) for name in ("came_from", "went_to")}
        return {**numbers, **tokens, **holes}


@dataclass(frozen=True, kw_only=True, repr=False)
class MatrixDiff(Shown):
    """One matrix of two checkpoints, compared row by row; one may have more tokens than the other."""

    matrix: str  # input, output, or as asked
    a: EmbeddingMatrix
    b: EmbeddingMatrix
    grid: Grid  # on which they are compared
    bitwise: bool
    displacements: Displacements  # of the tokens that both have
    holes_a: Int64[np.ndarray, " n_a"]  # black hole of each token, 1 for the largest, 0 for none
    holes_b: Int64[np.ndarray, " n_b"]

    @cached_property
    def changes(self) -> list[Change]:
        """Changes of black holes: those of A, the largest first, then new ones of B."""
        ids = self.token_ids
        followed = changes(self.holes_a, self.holes_b)
        return [replace(change, joined=ids[change.joined], left=ids[change.left]) for change in followed]

    @cached_property
    def equal(self) -> Bool[np.ndarray, " n"]:
        """Equality of each token's two rows: bit for bit, or by value (-0.0 = 0.0)."""
        return self.displacements.same if self.bitwise else self.displacements.l_inf_steps == 0

    @property
    def n_common(self) -> int:
        return len(self.equal)

    @property
    def n_equal(self) -> int:
        return int(self.equal.sum())

    @property
    def counts(self) -> Counter[str]:
        """Number of black holes by the kind of their change."""
        return Counter(change.kind for change in self.changes)

    @property
    def differs(self) -> bool:
        return self.a.n_tokens != self.b.n_tokens or not self.equal.all()

    def _shown(self) -> dict[str, Any]:
        rows = {"n_common": self.n_common, "n_equal": self.n_equal, "n_moved": self.n_common - self.n_equal}
        return {"matrix": self.matrix, "grid": self.grid.name, **rows, "black_holes": dict(self.counts)}

    @property
    def token_ids(self) -> Int64[np.ndarray, " n"]:
        """Token of each row of the matrix that has more."""
        return max(self.a, self.b, key=lambda matrix: matrix.n_tokens).token_ids

    @property
    def skipped(self) -> list[int]:
        """Tokens that were left out because a row of theirs holds NaN or infinity."""
        return sorted({*self.a.skipped, *self.b.skipped})

    def movers(self) -> Int64[np.ndarray, " moved"]:
        """Rows that differ, the farthest (Euclidean, weight units) first."""
        moved = np.flatnonzero(~self.equal)
        return moved[np.argsort(-self.displacements.euclidean[moved], kind="stable")]

    @property
    def _lengths(self) -> dict[str, np.ndarray]:
        return {name: getattr(self.displacements, name) for name in ("l_inf_steps", "l_inf", "euclidean")}

    def to_json(self) -> dict[str, Any]:
        movers = self.movers()
        ids = self.token_ids
        far = {name: values[movers] for name, values in self._lengths.items() if len(movers)}
        moved = {name: {"median": float(np.median(some)), "max": some.max().item()} for name, some in far.items()}
        return {
            "matrix": self.matrix,
            "a": _side(self.a, self.holes_a),
            "b": _side(self.b, self.holes_b),
            "grid": self.grid.name,
            "equality": "bits" if self.bitwise else "values",
            "n_common": self.n_common,
            "n_equal": self.n_equal,
            "n_same_bits": int(self.displacements.same.sum()),
            "n_moved": len(movers),
            "n_only_a": max(0, self.a.n_tokens - self.b.n_tokens),
            "n_only_b": max(0, self.b.n_tokens - self.a.n_tokens),
            "skipped": self.skipped,
            "moved": moved if len(movers) else None,
            "movers": [
                {"token_id": token, "a": self.a.texts.get(token), "b": self.b.texts.get(token)}
                | {name: values[row].item() for name, values in self._lengths.items()}
                for row, token in zip(movers[:MOVERS].tolist(), ids[movers[:MOVERS]].tolist(), strict=True)
            ],
            "counts": {kind: self.counts[kind] for kind in CHANGE_KINDS},
            "black_holes": [change.to_json() for change in self.changes],
        }

    def frame(self) -> pl.DataFrame:
        """Tabulate every token of either, by id."""
        import polars as pl

        n = max(self.a.n_tokens, self.b.n_tokens)
        status = ["equal" if equal else "moved" for equal in self.equal.tolist()]
        status += ["only in a" if self.a.n_tokens > self.b.n_tokens else "only in b"] * (n - self.n_common)
        ids = self.token_ids.tolist()
        texts = {"token_a": self.a.texts, "token_b": self.b.texts}
        holes = {"black_hole_a": self.holes_a, "black_hole_b": self.holes_b}
        numbers = {name: pl.Series(values) for name, values in self._lengths.items()}
        numbers |= {name: pl.Series(np.where(of, of, -1)).replace(-1, None) for name, of in holes.items()}
        return pl.DataFrame(
            {
                "matrix": pl.repeat(self.matrix, n, eager=True),
                "token_id": ids,
                **{name: pl.Series(map(of.get, ids), dtype=pl.String) for name, of in texts.items()},
                "status": pl.Series(status, dtype=pl.String),
                **{name: values.extend_constant(None, n - len(values)) for name, values in numbers.items()},
            }
        )


def _side(matrix: EmbeddingMatrix, holes: np.ndarray) -> dict[str, Any]:
    return {
        **{"tensor": matrix.tensor, "path": str(matrix.path), "stored_grid": matrix.stored, "tied": matrix.tied},
        **{"n_tokens": matrix.n_tokens, "hidden_dim": matrix.dim},
        **{"n_black_holes": int(holes.max(initial=0)), "black_hole_population": int((holes > 0).sum())},
    }


@dataclass(frozen=True, kw_only=True, repr=False)
class Diff(Shown):
    """Two checkpoints, A and B."""

    asked: tuple[str, str]
    parts: tuple[MatrixDiff, ...]  # the input matrix, then the output matrix
    notes: tuple[str, ...]  # what was not compared, and why

    @cached_property
    def texts(self) -> dict[str, Any] | None:
        """Tokens whose texts differ, and the numbers of those with a text in A or B alone; None without texts."""
        a, b = (side.texts for side in (self.parts[0].a, self.parts[0].b))
        if not (a and b):
            return None
        both = sorted(a.keys() & b.keys())
        different = [{"token_id": token, "a": a[token], "b": b[token]} for token in both if a[token] != b[token]]
        only = {"n_only_a": len(a) - len(both), "n_only_b": len(b) - len(both)}
        return {"n_different": len(different), **only, "different": different}

    @property
    def differs(self) -> bool:
        """True if any row or text differs."""
        return any(part.differs for part in self.parts) or any((self.texts or {}).values())

    def _shown(self) -> dict[str, Any]:
        parts = {f"{part.matrix} matrix": part for part in self.parts}
        return {"a": self.asked[0], "b": self.asked[1], "differs": self.differs, **parts, "notes": self.notes}

    def to_json(self) -> dict[str, Any]:
        """Return all but equal rows and all but the farthest movers, JSON-ready; its keys: `docs/files.md`."""
        return {
            "schema_version": SCHEMA_VERSION,
            **{"a": self.asked[0], "b": self.asked[1], "differs": self.differs, "notes": list(self.notes)},
            "texts": self.texts,
            "matrices": [part.to_json() for part in self.parts],
        }

    def write_csv(self, path: str | Path) -> None:
        """Write every token of each matrix as CSV; raises as `runs.records.write_csv`."""
        import polars as pl

        write_csv(path, pl.concat(part.frame() for part in self.parts), *self.asked)


def diff(
    a: str | Path,
    b: str | Path,
    *,
    matrix: str = "both",
    tensor: str | None = None,
    tensor_b: str | None = None,
    grid: str | None = None,
    bitwise: bool = False,
    tokenizer: str | Path | None = None,
    skip_nonfinite: bool = False,
    progress: Report | None = None,
) -> Diff:
    """Compare two checkpoints row by row, token i of one with token i of the other.

    Raises InvalidInput where rows differ in length, or where an output matrix that is asked for is missing; otherwise
    as `EmbeddingMatrix.open` and `EmbeddingMatrix.groups`.

    Parameters
    ----------
    a, b : files or model folders, as `EmbeddingMatrix.open`; vocabularies may differ in size
    matrix : "input", "output", or "both": the output too where either model is untied
    tensor, tensor_b : compare only these tensors (`NAME[ROW]` for a state of a history); `tensor_b` is by default
        `tensor`
    grid : round to it first; by default to the coarser of the two grids, with fewer bits in its mantissa
    bitwise : compare bit patterns, so that -0.0 is not 0.0
    tokenizer : for both, instead of each one's own; "none" for no texts
    skip_nonfinite : leave out tokens whose row holds NaN or infinity in either, and list them; by default these are
        refused
    progress : called with (bytes done, bytes in all)
    """
    one_of(matrix, "matrix", MATRICES)
    one = EmbeddingMatrix.open(a, tensor=tensor, tokenizer=tokenizer)
    other = EmbeddingMatrix.open(b, tensor=tensor_b or tensor, tokenizer=tokenizer)
    pairs, notes = ([("as asked", one, other)], []) if tensor or tensor_b else _pairs(one, other, matrix)
    for _, x, y in pairs:
        if x.dim != y.dim:
            widths = f"{x.tensor} of {a} has rows of {x.dim:,} columns, {y.tensor} of {b} of {y.dim:,}"
            hint = "there is nothing to compare; --tensor and --tensor-b choose other tensors"
            raise InvalidInput(f"{widths}: {hint}")
    if skip_nonfinite:
        pairs = [(name, *finite_rows(x, y)) for name, x, y in pairs]
    work = Progress(sum(2 * (x.words.nbytes + y.words.nbytes) for _, x, y in pairs), progress)
    parts = tuple(_compared(name, x, y, grid, bitwise, work.advance) for name, x, y in pairs)
    work.finish()  # rows that only one has are read once, not twice
    return Diff(asked=(str(a), str(b)), parts=parts, notes=tuple(notes))


def _pairs(
    a: EmbeddingMatrix, b: EmbeddingMatrix, matrix: str
) -> tuple[list[tuple[str, EmbeddingMatrix, EmbeddingMatrix]], list[str]]:
    """Return the matrices to compare by name, and notes on what cannot be compared."""
    pairs: list[tuple[str, EmbeddingMatrix, EmbeddingMatrix]] = [("input", a, b)] if matrix != "output" else []
    if matrix == "input" or (matrix == "both" and a.tied and b.tied):
        return pairs, []
    x = a.unembedding()
    y = b.unembedding()
    if x and y:
        return [*pairs, ("output", x, y)], []
    missing = " and ".join(name for name, output in (("A", x), ("B", y)) if output is None)
    says = f"{missing}: untied, its config says, but without an output tensor"
    if matrix == "output":
        raise InvalidInput(f"no output matrices to compare ({says}); --matrix input compares the embeddings")
    return pairs, [f"output matrices not compared ({says})"]


def _compared(
    name: str, a: EmbeddingMatrix, b: EmbeddingMatrix, grid: str | None, bitwise: bool, progress: Advance
) -> MatrixDiff:
    coarser = min(a.grid, b.grid, key=lambda grid: (grid.mantissa_bits, grid.bits))
    on = as_grid(grid or coarser)
    holes_a, holes_b = (Census(one.groups(on, bitwise=bitwise, progress=progress)).numbers for one in (a, b))
    sides: dict[str, Any] = {"a": a, "b": b, "holes_a": holes_a, "holes_b": holes_b}
    moved = displacements(a, b, on, progress=progress)
    return MatrixDiff(matrix=name, **sides, grid=on, bitwise=bitwise, displacements=moved)


def changes(holes_a: Int64[np.ndarray, " n_a"], holes_b: Int64[np.ndarray, " n_b"]) -> list[Change]:
    """Follow each black hole from A to B: those of A by number, then new ones; a missing token is in none."""
    n = max(len(holes_a), len(holes_b))
    a, b = (np.pad(holes, (0, n - len(holes))) for holes in (holes_a, holes_b))
    numbers = np.where(b > 0, b, n + 1 + np.arange(n))  # a token that stands alone has one of its own
    after, _, _ = follow(a, identical_rows(numbers.astype(np.uint64)[:, None]), int(a.max(initial=0)) + 1)
    old = members_of(a)
    new = members_of(after)
    followed = [_change(number, old.get(number), new.get(number), a, b, after) for number in sorted(old.keys() | new)]
    return sorted(followed, key=lambda change: (change.a or np.inf, change.b))


def _change(
    number: int, was: np.ndarray | None, now: np.ndarray | None, a: np.ndarray, b: np.ndarray, after: np.ndarray
) -> Change:
    none = np.empty(0, np.int64)
    joined = none if now is None else now[a[now] != number]
    left = none if was is None else was[after[was] != number]
    came = _most(a[joined])
    went = _most(b[left])
    if was is None:
        kind = "split" if came else "born"
    elif now is None:
        kind = "merged" if went else "dissolved"
    else:
        kind = CHANGE_KINDS[bool(len(joined)) + 2 * bool(len(left))]  # kept, grown, shrunk or changed
    return Change(
        kind=kind,
        a=None if was is None else number,
        b=None if now is None else int(b[now[0]]),
        n_shared=0 if now is None else len(now) - len(joined),
        joined=joined,
        left=left,
        came_from=came,
        went_to=went,
    )


def _most(numbers: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Count how often each black hole is among these numbers, most first, then by number."""
    return tuple(Counter(np.sort(numbers[numbers > 0]).tolist()).most_common())
