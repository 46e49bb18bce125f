"""Commands on how checkpoints change: diff, repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import darkvocab

from . import shell
from .checkpoints import GIVEN, READ
from .progress import watched
from .shell import REQUIRED, Options, app, put, some, takes

A = typer.Argument(help="A file or a model folder, as for `scan`.", metavar="A")
B = typer.Argument(help="Another.", metavar="B")
COMPARED: Options = {
    "a": (Annotated[str, A], REQUIRED),
    "b": (Annotated[str, B], REQUIRED),
    "matrix": (str, "both", "input, output, or both: the output matrices too where a model is untied."),
    "tensor": (str | None, None, "Compare this tensor alone; NAME[ROW] of a history."),
    "tensor_b": (str | None, None, "The tensor of B, where it is not --tensor."),
    **some(READ, "grid bitwise"),
    "tokenizer": (
        *(str | None, None),
        'A tokenizer to name the tokens of both by, a file or folder; "none" for ids only.',
    ),
    **some(READ, "skip_nonfinite"),
    "show": (int, 12, "Tokens to print of those that moved farthest.", {"min": 1, "max": 100}),
    "csv": (Path | None, None, "Also write every token to this CSV."),
    "exit_code": (bool, False, "Exit with 1 where a row or a text differs, as `git diff` does."),
}
REPAIRED: Options = {
    "output": (Annotated[Path, typer.Option("-o", "--output", help="The folder to write, new or empty.")], REQUIRED),
    "tokens": (
        *(str, "black-holes"),
        "Ids, ranges like 10-20, @FILE.json, black-holes, beyond-tokenizer, dark, weak; with commas.",
    ),
    "how": (
        *(str, "mean"),
        "mean of all other rows; pieces: of those that spell a token; gaussian: their mean and covariance.",
    ),
    "matrix": (str, "both", "input, output, or both: the output too where it is untied."),
    "jitter": (int, 1, "Steps, 1 to so many, by which each component leaves a mean."),
    "seed": (shell.Seed, 0),
    **some(READ, "tensor"),
    "tokenizer": (str | None, None, "A tokenizer, instead of the one beside the weights."),
    "link": (bool, False, "Hard links for files that stay the same, which then are the source's."),
    "dry_run": (bool, False, "Write nothing, print what would be."),
}


@app.command(no_args_is_help=True)
@takes(COMPARED)
def diff(a: str, b: str, show: int, csv: Path | None, exit_code: bool, as_json: bool, **settings: Any) -> None:
    """Compare two checkpoints row by row: equal rows, how far the others moved, what became of each black hole.

    Example: darkvocab diff base-model fine-tuned-model --csv moved.csv
    """
    from ..reports.changes import print_diff

    compared = watched("reading", darkvocab.diff, a, b, in_bytes=True, **settings)
    if csv is not None:
        compared.write_csv(csv)
    put(as_json, print_diff, compared.to_json(), show)
    if exit_code and compared.differs:
        raise typer.Exit(shell.FINDINGS)


@app.command(no_args_is_help=True)
@takes(GIVEN | REPAIRED)
def repair(source: str, output: Path, as_json: bool, **settings: Any) -> None:
    """Copy a safetensors checkpoint, with fresh rows for tokens that were never trained; every other byte is the same.

    What was written is compared with the source, and its census taken.
    Example: darkvocab repair path/to/model -o repaired --how pieces
    """
    from ..reports.changes import print_repair

    put(as_json, print_repair, watched("repairing", darkvocab.repair, source, output, in_bytes=True, **settings))
