"""Scan: the census of a checkpoint's embedding, with token texts and provenance; the centroid of its black holes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..folder import versions, write_whole
from ..matrix import EmbeddingMatrix, printable
from ..measures.census import Census
from ..measures.geometry import Geometry
from ..numerics import as_grid, index_values
from ..numerics.grouping import n_cores
from ..records import csv_bytes
from ..sources import open_source, sha256

SCHEMA_VERSION = 1
MOST_COMPARED = 20_000  # black holes whose distances are taken: all pairs, over all columns


def scan(
    source: str | Path,
    *,
    tensor: str | None = None,
    grid: str | None = None,
    bitwise: bool = False,
    tokenizer: str | Path | None = None,
    checksum: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Census of the input embedding of a checkpoint, as a JSON-ready dict (its keys: `docs/files.md`).

    Parameters
    ----------
    source : a file of a kind that `docs/files.md` lists, or a model folder
    tensor, tokenizer : as `EmbeddingMatrix.open`
    grid, bitwise : as `census`
    checksum : hash the file that holds the tensor; this reads all of it, everything else only the embedding's rows
    progress : told (bytes done, bytes in all) as rows and the checksum are read

    Raises
    ------
    FileNotFoundError, CorruptFile, NoEmbedding, ValueError
        As `EmbeddingMatrix.open` and `EmbeddingMatrix.groups`.
    """
    matrix = EmbeddingMatrix.open(source, tensor=tensor, tokenizer=tokenizer)
    path = matrix.path
    assert path is not None
    size = path.stat().st_size
    total = matrix.words.nbytes + (size if checksum else 0)
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, total)

    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256, path, advance) if checksum else None
        census = Census(matrix.groups(grid, bitwise=bitwise, progress=advance))
        report = _report(matrix, census, as_grid(grid or matrix.grid).name, bitwise)
        report["source"] = {
            "asked": str(source),
            "path": str(path),
            "sha256": digest.result() if digest else None,
            "bytes": size,
        }
    return report


def _report(matrix: EmbeddingMatrix, census: Census, grid: str, bitwise: bool) -> dict[str, Any]:
    members = census.members()
    norms = matrix.norms()
    return {
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
        "n_unique": census.n_unique,
        "n_black_holes": census.n_black_holes,
        "black_hole_population": census.black_hole_population,
        "n_singletons": census.n_singletons,
        "populations": census.populations.tolist(),
        "n_beyond_tokenizer": matrix.n_beyond_tokenizer,
        "norms": {
            "min": float(norms.min()),
            **{f"p{q}": float(np.percentile(norms, q)) for q in (1, 5, 25, 50, 75, 95, 99)},
            "max": float(norms.max()),
            "mean": float(norms.mean()),
        },
        "l_inf": _distances(matrix, census, grid),
        "black_holes": [
            {
                "population": len(tokens),
                "token_ids": tokens.tolist(),
                "tokens": [matrix.texts.get(token) for token in tokens.tolist()],
                "norm": float(norms[tokens[0]]),
            }
            for tokens in members
        ],
    }


def _distances(matrix: EmbeddingMatrix, census: Census, grid: str) -> dict[str, Any] | None:
    """L-infinity among one row of each black hole; None where they are too many to compare all with all."""
    if census.n_black_holes > MOST_COMPARED:
        return None
    among = Geometry(matrix.index(census.representatives, grid), grid, over="black_holes", threads=n_cores())
    return {
        "rows": "black_holes",
        "max": _finite(among.weight.max),
        "mean": _finite(among.weight.mean),
        "median": _finite(among.weight.lower_median),
        "max_steps": int(among.steps.max),
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
    ValueError
        There is no black hole to average, or `out` is a file of the source; otherwise as `scan`.
    """
    from safetensors.numpy import save

    check_place(out, source)
    matrix = EmbeddingMatrix.open(open_source(source), tensor=tensor, tokenizer="none")
    census = Census(matrix.groups(grid, bitwise=bitwise))
    if not census.n_black_holes:
        coarser = "" if grid else "; --grid bfloat16 asks what would coincide on a coarser grid"
        raise ValueError(f"{source} has no black holes on {grid or matrix.grid.name}: no rows to average{coarser}")
    total = np.zeros(matrix.dim)
    on = grid or matrix.grid
    values = index_values(matrix.index(census.representatives, grid), on)
    for row, population in zip(values, census.populations, strict=True):
        total += row * population
    vector = (total / census.black_hole_population).astype(np.float32)
    assert matrix.path is not None
    provenance = {
        "made_by": f"darkvocab centroid {versions()['darkvocab']}",
        "source": printable(matrix.path.name),
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
    ValueError
    """
    out, source = Path(out), Path(source)
    if out.exists() and any(out.samefile(file) for file in (source, *source.glob("*")) if file.exists()):
        raise ValueError(f"{out} is part of the source; choose another place to write to")


def write_tokens(report: dict[str, Any], path: str | Path) -> None:
    """Write every token of a scan's black holes as CSV: black_hole (1 is the largest), population, token_id, token.

    Raises
    ------
    DiskFull, ValueError
        As `write_whole`; the place is a file of the source.
    """
    import polars as pl

    check_place(path, report["source"]["asked"])
    rows = [
        (number, hole["population"], token, text)
        for number, hole in enumerate(report["black_holes"], 1)
        for token, text in zip(hole["token_ids"], hole["tokens"], strict=True)
    ]
    schema = {"black_hole": pl.Int64, "population": pl.Int64, "token_id": pl.Int64, "token": pl.String}
    write_whole(Path(path), csv_bytes(pl.DataFrame(rows, schema=schema, orient="row")))
