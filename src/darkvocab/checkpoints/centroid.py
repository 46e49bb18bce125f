"""Centroid of a checkpoint's black holes, written as a base for snowballs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..landing import check_place, write_whole
from ..measures.census import Census
from ..numerics import as_grid, index_values
from ..runs.folder import versions
from ..sources import open_source, sha256
from ..text import printable


def centroid(
    source: str | Path, out: str | Path, *, tensor: str | None = None, grid: str | None = None, bitwise: bool = False
) -> dict[str, Any]:
    """Write the mean row of all tokens in black holes: float32, key `centroid`, as seeds 000 and 001 load it.

    The mean is summed in float64. Returns path, norm, hidden_dim, and the provenance, which the file's metadata have,
    too. Raises InvalidInput where there is no black hole or `out` is a file of the source; otherwise as `scan`.
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
