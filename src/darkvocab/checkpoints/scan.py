"""Scan: which tokens of a checkpoint are dark, and why; the centroid of its black holes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..gpu.batch import compared
from ..gpu.device import Device, open_device
from ..landing import write_whole
from ..measures.census import Census
from ..measures.geometry import Geometry
from ..measures.indicators import COLUMNS, Indicators, indicators, steps_to_nearest
from ..measures.neighbours import Neighbours, neighbours
from ..numerics import as_grid, index_values
from ..numerics.grouping import n_cores
from ..runs.folder import versions
from ..runs.records import csv_bytes
from ..sources import RemoteFile, open_source, sha256
from ..text import printable

if TYPE_CHECKING:
    import polars as pl

    from ..measures.vocabulary import Vocabulary

SCHEMA_VERSION = 2
MOST_COMPARED = 20_000  # black holes whose distances are taken: all pairs, over all columns
MOST_TARGETS = 64  # black holes, the most populous ones, that the nearest is sought among
MOST_EDGES = 20_000  # of the neighbour graph, in a report
MOST_MAPPED = 4_000  # rows of the cluster that are laid out in a plane
PASSES = 6  # over the rows: census, steps, and four for the indicators
WHICH = ("dark", "all")


@dataclass(frozen=True)
class Scan:
    """What is known of a checkpoint's tokens: a report, JSON-ready, and a row for every token (`docs/files.md`)."""

    report: dict[str, Any]
    tokens: pl.DataFrame

    def json(self, tokens: str | None = None) -> dict[str, Any]:
        """The report, with the dark tokens or all of them where that is asked.

        Raises
        ------
        InvalidInput
            Another word than "dark" or "all".
        """
        if tokens is None:
            return self.report
        return {**self.report, "tokens": self.listed(tokens).to_dicts()}

    def listed(self, tokens: str) -> pl.DataFrame:
        """The dark tokens, the surest first; or all, by id."""
        check_which(tokens)
        if tokens == "all":
            return self.tokens
        by = self.report["indicators"]["by"] or "id"
        return self.tokens.filter("dark").sort("score", by, "id", descending=[True, False, False])


def check_which(tokens: str | None) -> None:
    """Refuse a word that names no tokens.

    Raises
    ------
    InvalidInput
    """
    if tokens not in (None, *WHICH):
        raise InvalidInput(f"unknown tokens {tokens!r}; choose one of {', '.join(WHICH)}")


def scan(source: str | Path, *, tokens: str | None = None, **options: Any) -> dict[str, Any]:
    """`explain` as a JSON-ready dict (its keys: `docs/files.md`).

    Parameters
    ----------
    tokens : list "dark" tokens, or "all" of them, too
    source, options : as `explain`
    """
    check_which(tokens)
    return explain(source, **options).json(tokens)


def explain(
    source: str | Path,
    *,
    tensor: str | None = None,
    grid: str | None = None,
    bitwise: bool = False,
    tokenizer: str | Path | None = None,
    checksum: bool = True,
    device: str | Device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Census, indicators, neighbours and vocabulary of a checkpoint: which tokens are dark, and why.

    Black holes, neighbours and norms are of the input embedding; indicators and score of the output matrix, whose rows
    training moves whenever a token is not predicted, where the model has one of its own (as Land & Bartolo do).

    Parameters
    ----------
    source : a file of a kind that `docs/files.md` lists, a model folder, or `org/name[@revision]` on the Hub
    tensor, tokenizer : as `EmbeddingMatrix.open`
    grid, bitwise : of census and neighbours, as `census`; indicators are of the rows as they are stored
    checksum : hash the file that holds the tensor; this reads all of it, everything else only the embedding's rows. Of
        a file on the Hub, the hash that the Hub says
    device : "cuda", "cuda:N" or "mps" groups rows and compares black holes on a GPU; changes no result
    progress : told (bytes done, bytes in all) as pieces arrive from the Hub, then anew as rows and checksum are read

    Raises
    ------
    MissingFile, CorruptFile, NoEmbedding, InvalidInput
        As `EmbeddingMatrix.open` and `EmbeddingMatrix.groups`.
    """
    opened = open_device(device)
    matrix = EmbeddingMatrix.open(open_source(source, progress), tensor=tensor, tokenizer=tokenizer)
    path = matrix.path
    assert path is not None
    size = path.stat().st_size
    total = PASSES * matrix.words.nbytes + (size if checksum and isinstance(path, Path) else 0)
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, total)

    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256, path, advance) if checksum else None
        found = explained(matrix, grid, bitwise=bitwise, device=opened, advance=advance)
        found.report["source"] = {
            "asked": str(source),
            "path": str(path),
            "sha256": digest.result() if digest else None,
            "bytes": size,
            **(path.origin() if isinstance(path, RemoteFile) else {}),
        }
    if progress:
        progress(total, total)
    return found


def explained(
    matrix: EmbeddingMatrix,
    grid: str | None = None,
    *,
    bitwise: bool = False,
    device: Device | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Scan:
    """`explain` of an open matrix; its report has no `source`. `advance` is told the bytes of each pass."""
    from ..measures.vocabulary import vocabulary

    grid = as_grid(grid or matrix.grid).name

    def counted() -> tuple[Census, Neighbours | None]:
        groups = matrix.groups(grid, bitwise=bitwise, device=device, progress=advance)
        return Census(groups), None if matrix.quantised else neighbours(matrix, grid=grid, groups=groups)

    with ThreadPoolExecutor(1) as pool:  # rows beside texts, whose search takes long where a tokenizer is slow
        counting = pool.submit(counted)
        words = vocabulary(matrix.tokenizer, matrix.n_tokens)
        census, near = counting.result()
    scored = _scored(matrix)
    own = census if scored is matrix else Census(scored.groups(device=device))
    shown = indicators(scored, _untrained(scored, own, words), progress=advance)
    norms = shown.norms if scored is matrix else matrix.norms()
    report = {
        "schema_version": SCHEMA_VERSION,
        "n_tokens": matrix.n_tokens,
        "hidden_dim": matrix.dim,
        "grid": grid,
        "stored_grid": matrix.stored,
        "equality": "bits" if bitwise else "values",
        "tensor": matrix.tensor,
        "chosen": matrix.chosen,
        "output_tensor": matrix.output,
        "output_shape": list(matrix.output_shape) if matrix.output_shape else None,
        "tied": matrix.tied,
        **_counts(census),
        "n_beyond_tokenizer": matrix.n_beyond_tokenizer,
        "norms": {
            "min": float(norms.min()),
            **{f"p{q}": float(np.percentile(norms, q)) for q in (1, 5, 25, 50, 75, 95, 99)},
            "max": float(norms.max()),
            "mean": float(norms.mean()),
        },
        "l_inf": _distances(matrix, census, grid, device),
        "output": None if scored is matrix else {"tensor": scored.tensor, **_counts(own)},
        "vocabulary": _vocabulary_report(words, matrix),
        "indicators": _indicators_report(shown, scored, matrix.n_tokens),
        "neighbours": near and _neighbours_report(near, matrix),
        "black_holes": [
            {
                "population": len(tokens),
                "token_ids": tokens.tolist(),
                "tokens": [matrix.texts.get(token) for token in tokens.tolist()],
                "norm": float(norms[tokens[0]]),
            }
            for tokens in census.members()
        ],
    }
    steps = _steps(matrix, census, near, grid, advance)
    return Scan(report, _frame(words, matrix, census, near, steps, norms, shown, scored))


def _scored(matrix: EmbeddingMatrix) -> EmbeddingMatrix:
    """The matrix whose rows tell what training did: the output matrix, where it has a row for every token."""
    output = matrix.unembedding()
    return output if output is not None and output.n_tokens >= matrix.n_tokens else matrix


def _untrained(matrix: EmbeddingMatrix, census: Census, words: Vocabulary) -> dict[str, np.ndarray]:
    """Tokens that no training can have moved, or none can have moved apart."""
    category, reserved = np.array(words.category), np.array([name is not None for name in words.reserved])
    beyond = np.arange(len(category), matrix.n_tokens)  # rows that pad the output matrix
    return {
        "rows beyond the tokenizer": np.concatenate([np.flatnonzero(category == "beyond_tokenizer"), beyond]),
        "black holes": np.flatnonzero(census.numbers),
        "reserved names": np.flatnonzero(reserved),
        "unreachable tokens": np.flatnonzero((category == "unreachable") & ~reserved),
    }


def _counts(census: Census) -> dict[str, Any]:
    return {
        "n_unique": census.n_unique,
        "n_black_holes": census.n_black_holes,
        "black_hole_population": census.black_hole_population,
        "n_singletons": census.n_singletons,
        "populations": census.populations.tolist(),
        "top2_population": census.top2_population,
        "gini_coefficient": census.gini,
    }


def _vocabulary_report(words: Vocabulary, matrix: EmbeddingMatrix) -> dict[str, Any] | None:
    if words.model is None:
        return None
    named = matrix.source and matrix.source.tokenizer
    return {
        "tokenizer": str(named or matrix.path),
        "model": words.model,
        "n_texts": words.n_texts,
        "n_texts_beyond_matrix": words.n_texts_beyond_matrix,
        "categories": words.categories,
        "search": words.search,
    }


def _indicators_report(shown: Indicators, scored: EmbeddingMatrix, n_tokens: int) -> dict[str, Any]:
    reference = shown.reference
    return {
        "matrix": scored.tensor,
        "reference": {
            "kind": reference.kind if reference else "none",
            "n": len(reference.tokens) if reference else 0,
            "n_left_out": reference.n_left_out if reference else 0,
            "how": "rows that stand apart from the others, around a mean of their own"
            if reference
            else "no rows stand apart from the others: no token is called dark",
        },
        "by": shown.by,
        "score": f"chance to be trained as little as the reference, by {COLUMNS[shown.by][0]}" if shown.by else None,
        "threshold": shown.threshold,
        "n_dark": int(shown.dark[:n_tokens].sum()),
        "expected_false_positives": shown.expected_false_positives,
        "columns": [{"name": name, "title": COLUMNS[name][0], "formula": COLUMNS[name][1]} for name in shown.columns],
    }


def _neighbours_report(near: Neighbours, matrix: EmbeddingMatrix) -> dict[str, Any]:
    cluster, edges = near.cluster, None
    if near.n_pairs <= min(MOST_EDGES, near.max_pairs):
        edges = near.groups.first[near.pairs].T.tolist()
    return {
        "touching": str(near.touching),
        "n_pairs": near.n_pairs,
        "n_components": near.n_components,
        "degrees": np.transpose(near.degree_table()).tolist(),
        "cluster": {
            "n_tokens": len(cluster),
            "n_core": len(near.core),
            "n_outliers": len(near.outliers),
            "token_ids": cluster.tolist(),
            "map": _mapped(near, matrix),
        },
        "edges": edges,
    }


def _mapped(near: Neighbours, matrix: EmbeddingMatrix) -> list[list[float]] | None:
    """The cluster's distinct rows at their first two principal components: first token, x, y, weight units."""
    first = near.groups.first
    tokens = np.intersect1d(first, near.cluster)
    if not 3 <= len(tokens) <= MOST_MAPPED:
        return None
    rows = matrix.rows(tokens).astype(np.float64)
    rows -= rows.mean(0)
    differing = rows[:, np.ptp(rows, 0) > 0]
    if differing.shape[1] < 2:
        return None
    values, vectors = np.linalg.eigh(differing @ differing.T)
    places = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0))
    places *= np.where(places[np.abs(places).argmax(0), [0, 1]] < 0, -1, 1)  # a sign is no finding: make it the same
    return [[token, x, y] for token, (x, y) in zip(tokens.tolist(), places.tolist(), strict=True)]


def _steps(
    matrix: EmbeddingMatrix,
    census: Census,
    near: Neighbours | None,
    grid: str,
    advance: Callable[[int], None],
) -> np.ndarray | None:
    """Steps from each row to the nearest black hole, or else to the row that most tokens touch; None without either."""
    targets = census.representatives[:MOST_TARGETS]
    if not len(targets) and near is not None and near.n_pairs:
        targets = near.groups.first[[near.token_degrees.argmax()]]
    return steps_to_nearest(matrix, targets, grid, progress=advance) if len(targets) else None


def _frame(
    words: Vocabulary,
    matrix: EmbeddingMatrix,
    census: Census,
    near: Neighbours | None,
    steps: np.ndarray | None,
    norms: np.ndarray,
    shown: Indicators,
    scored: EmbeddingMatrix,
) -> pl.DataFrame:
    """A row for every token: what it is, which rows it has and touches, its indicators, its score."""
    import polars as pl

    n, labels = matrix.n_tokens, census.groups.labels
    unknown = [None] * n
    return words.frame().hstack(
        pl.DataFrame(
            {
                "black_hole": pl.Series(census.numbers).replace(0, None),
                "population": census.groups.counts[labels],
                "n_touching": pl.Series(near.token_degrees[labels] if near else unknown, dtype=pl.Int64),
                "steps": pl.Series(steps if steps is not None else unknown, dtype=pl.Int64),
                "norm": norms,
                **({} if scored is matrix else {"output_norm": shown.norms[:n]}),
                **{name: column[:n] for name, column in shown.columns.items()},
                "score": shown.score[:n],
                "dark": shown.dark[:n],
            }
        )
    )


def _distances(matrix: EmbeddingMatrix, census: Census, grid: str, device: Device | None) -> dict[str, Any] | None:
    """L-infinity among one row of each black hole; None where they are too many to compare all with all."""
    if census.n_black_holes > MOST_COMPARED:
        return None
    index = matrix.index(census.representatives, grid)
    made = compared(device, index, as_grid(grid)) if device is not None else None
    if made is None:
        among = Geometry(index, grid, over="black_holes", threads=n_cores())
        made = among.weight, among.steps
    weight, steps = made
    return {
        "rows": "black_holes",
        "max": _finite(weight.max),
        "mean": _finite(weight.mean),
        "median": _finite(weight.lower_median),
        "max_steps": int(steps.max),
    }


def _finite(distance: float) -> float | None:
    """None for a distance that float32 cannot hold, and JSON neither."""
    return distance if math.isfinite(distance) else None


def centroid(
    source: str | Path,
    out: str | Path,
    *,
    tensor: str | None = None,
    grid: str | None = None,
    bitwise: bool = False,
) -> dict[str, Any]:
    """Write the population-weighted mean of the black-hole rows: float32, key `centroid`, as seeds 000 and 001 load it.

    The mean of every token in a black hole, summed in float64. The file's metadata say from what it was made.

    Returns
    -------
    dict with path, norm, hidden_dim, and the provenance that the file's metadata hold

    Raises
    ------
    InvalidInput
        There is no black hole to average, or `out` is a file of the source; otherwise as `scan`.
    """
    from safetensors.numpy import save

    check_place(out, source)
    matrix = EmbeddingMatrix.open(open_source(source), tensor=tensor, tokenizer="none")
    census = Census(matrix.groups(grid, bitwise=bitwise))
    if not census.n_black_holes:
        coarser = "" if grid else "; --grid bfloat16 asks what would coincide on a coarser grid"
        raise InvalidInput(f"{source} has no black holes on {grid or matrix.grid.name}: no rows to average{coarser}")
    total = np.zeros(matrix.dim)
    on = grid or matrix.grid
    values = index_values(matrix.index(census.representatives, grid), on)
    for row, population in zip(values, census.populations, strict=True):
        total += row * population
    vector = (total / census.black_hole_population).astype(np.float32)
    assert matrix.path is not None
    provenance = {
        "made_by": f"darkvocab centroid {versions()['darkvocab']}",
        "source": printable(matrix.path.name if isinstance(matrix.path, Path) else str(matrix.path)),
        "source_sha256": sha256(matrix.path),
        "tensor": matrix.tensor,
        "grid": as_grid(on).name,
        "stored_grid": matrix.stored,
        "n_black_holes": census.n_black_holes,
        "black_hole_population": census.black_hole_population,
        "weighting": "population",
    }
    # One entry, because the library writes several in an order that changes from run to run.
    write_whole(Path(out), save({"centroid": vector}, metadata={"provenance": json.dumps(provenance)}))
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    return {"path": str(out), "norm": norm, "hidden_dim": matrix.dim, "provenance": provenance}


def check_place(out: str | Path, source: str | Path) -> None:
    """Refuse to write over a file of the source.

    Raises
    ------
    InvalidInput
    """
    out, source = Path(out), Path(source)
    if out.exists() and any(out.samefile(file) for file in (source, *source.glob("*")) if file.exists()):
        raise InvalidInput(f"{out} is part of the source; choose another place to write to")


def write_tokens(scanned: Scan, path: str | Path, tokens: str | None = None) -> None:
    """Write tokens of a scan as CSV.

    Those asked for ("dark", "all") with all that is known of each; by default those in black holes: black_hole (1 is
    the largest), population, token_id, token.

    Raises
    ------
    DiskFull, InvalidInput
        As `write_whole`; the place is a file of the source; another word for the tokens.
    """
    import polars as pl

    check_place(path, scanned.report["source"]["asked"])
    if tokens is None:
        inside = scanned.tokens.filter(pl.col("black_hole").is_not_null()).sort("black_hole", "id")
        frame = inside.select("black_hole", "population", token_id="id", token="text")
    else:
        frame = scanned.listed(tokens)
    write_whole(Path(path), csv_bytes(frame))
