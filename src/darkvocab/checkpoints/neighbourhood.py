"""Find the touching tokens of a checkpoint, their components, and the cluster around its black holes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..embedding.matrix import EmbeddingMatrix
from ..measures.census import Census
from ..measures.neighbours import Neighbours, neighbours
from ..numerics import Touching, as_grid
from ..numerics.grouping import members_of
from ..progress import Progress, Report
from ..runs.records import write_csv
from ..sources import open_source
from ..text import Shown

SCHEMA_VERSION = 1


@dataclass(frozen=True, repr=False)
class Neighbourhood(Shown):
    """Touching tokens of a checkpoint: a JSON-ready report, and a table of all tokens (`docs/files.md`)."""

    report: dict[str, Any]
    tokens: pl.DataFrame

    def write_tokens(self, path: str | Path) -> None:
        """Write every token as CSV; raises as `runs.records.write_csv`."""
        write_csv(path, self.tokens, self.report["source"]["asked"])


def neighbourhood(
    source: str | Path,
    touching: Touching | None = None,
    *,
    tensor: str | None = None,
    grid: str | None = None,
    tokenizer: str | Path | None = None,
    progress: Report | None = None,
) -> Neighbourhood:
    """Find which tokens of a checkpoint's input embedding touch, with their texts.

    Takes and raises what `scan` does; `touching` and `grid` are as `measures.neighbours.neighbours` takes them.
    """
    matrix = EmbeddingMatrix.open(open_source(source, progress), tensor=tensor, tokenizer=tokenizer)
    groups = matrix.groups(grid, progress=Progress(matrix.words.nbytes, progress).advance)
    near = neighbours(matrix, touching, grid, groups=groups)
    census = Census(groups)
    cluster = near.cluster
    report = {
        "schema_version": SCHEMA_VERSION,
        "source": {"asked": str(source), "path": str(matrix.path)},
        "tensor": matrix.tensor,
        "chosen": matrix.chosen,
        "grid": as_grid(grid or matrix.grid).name,
        "stored_grid": matrix.stored,
        "touching": str(near.touching),
        "n_tokens": near.n_tokens,
        "hidden_dim": matrix.dim,
        "n_unique": near.n_unique,
        **{name: getattr(census, name) for name in ("n_black_holes", "black_hole_population")},
        **{name: getattr(near, name) for name in ("n_pairs", "n_token_pairs", "n_isolated", "n_components")},
        "degrees": near.degree_table().T.tolist(),
        "cluster": {
            "component": int(near.component[groups.labels[cluster[0]]]) + 1 if len(cluster) else None,
            "core": near.core.tolist(),
            "outliers": near.outliers.tolist(),
        },
        "components": _components(near, matrix),
    }
    return Neighbourhood(report, _frame(near, census, matrix))


def _components(near: Neighbours, matrix: EmbeddingMatrix) -> list[dict[str, Any]]:
    """List components of two or more rows: their numbers, and their tokens with texts."""
    components = near.components
    members = members_of(near.component[near.groups.labels] + 1)
    return [
        {
            "number": number,
            "n_rows": int(components.rows[number - 1]),
            "n_tokens": len(tokens),
            "n_black_holes": int(components.black_holes[number - 1]),
            "token_ids": tokens.tolist(),
            "tokens": [matrix.texts.get(token) for token in tokens.tolist()],
        }
        for number, tokens in members.items()
        if components.rows[number - 1] >= 2
    ]


def _frame(near: Neighbours, census: Census, matrix: EmbeddingMatrix) -> pl.DataFrame:
    labels = near.groups.labels
    cluster = np.full(near.n_tokens, None)
    cluster[near.core] = "core"
    cluster[near.outliers] = "outlier"
    component = near.component[labels]
    return pl.DataFrame(
        {
            "token_id": pl.int_range(near.n_tokens, eager=True),
            "token": pl.Series([matrix.texts.get(token) for token in range(near.n_tokens)], dtype=pl.String),
            "black_hole": pl.Series(census.numbers).replace(0, None),
            "component": component + 1,
            "component_tokens": near.components.tokens[component],
            "degree": near.degrees[labels],
            "token_degree": near.token_degrees[labels],
            "cluster": pl.Series(cluster.tolist(), dtype=pl.String),
        }
    )
