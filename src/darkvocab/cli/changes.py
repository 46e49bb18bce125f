"""Commands on how checkpoints change: diff, repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import darkvocab

from .checkpoints import Bitwise, GridName, SkipNonfinite, SourceArgument, Tensor
from .progress import progress_bar
from .shell import FINDINGS, Json, Seed, announce_compilation, app, print_json


@app.command(no_args_is_help=True)
def diff(
    a: Annotated[str, typer.Argument(help="A file or a model folder, as for `scan`.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Another.", metavar="B")],
    matrix: Annotated[
        str, typer.Option(help="input, output, or both: the output matrices too where a model is untied.")
    ] = "both",
    tensor: Annotated[str | None, typer.Option(help="Compare this tensor alone; NAME[ROW] of a history.")] = None,
    tensor_b: Annotated[str | None, typer.Option(help="The tensor of B, where it is not --tensor.")] = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(help='A tokenizer to name the tokens of both by, a file or folder; "none" for ids only.'),
    ] = None,
    skip_nonfinite: SkipNonfinite = False,
    show: Annotated[int, typer.Option(help="Tokens to print of those that moved farthest.", min=1, max=100)] = 12,
    csv: Annotated[Path | None, typer.Option(help="Also write every token to this CSV.")] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 where a row or a text differs, as `git diff` does.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints row by row: equal rows, how far the others moved, what became of each black hole.

    Example: darkvocab diff base-model fine-tuned-model --csv moved.csv
    """
    announce_compilation()
    with progress_bar("reading", in_bytes=True) as progress:
        compared = darkvocab.diff(
            a,
            b,
            matrix=matrix,
            tensor=tensor,
            tensor_b=tensor_b,
            grid=grid,
            bitwise=bitwise,
            tokenizer=tokenizer,
            skip_nonfinite=skip_nonfinite,
            progress=progress,
        )
    if csv is not None:
        compared.write_csv(csv)
    report = compared.to_json()
    if as_json:
        print_json(report)
    else:
        from ..reports.changes import print_diff
        from ..reports.console import console

        print_diff(report, console(), show)
    if exit_code and compared.differs:
        raise typer.Exit(FINDINGS)


@app.command(no_args_is_help=True)
def repair(
    source: SourceArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write, new or empty.")],
    tokens: Annotated[
        str,
        typer.Option(
            help="Ids, ranges like 10-20, @FILE.json, black-holes, beyond-tokenizer, dark, weak; with commas."
        ),
    ] = "black-holes",
    how: Annotated[
        str,
        typer.Option(
            help="mean of all other rows; pieces: of those that spell a token; gaussian: their mean and covariance."
        ),
    ] = "mean",
    matrix: Annotated[str, typer.Option(help="input, output, or both: the output too where it is untied.")] = "both",
    jitter: Annotated[int, typer.Option(help="Steps, 1 to so many, by which each component leaves a mean.")] = 1,
    seed: Seed = 0,
    tensor: Tensor = None,
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer, instead of the one beside the weights.")] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Hard links for files that stay the same, which then are the source's.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, print what would be.")] = False,
    as_json: Json = False,
) -> None:
    """Copy a safetensors checkpoint, with fresh rows for tokens that were never trained; every other byte is the same.

    What was written is compared with the source, and its census taken.
    Example: darkvocab repair path/to/model -o repaired --how pieces
    """
    announce_compilation()
    with progress_bar("repairing", in_bytes=True) as progress:
        report = darkvocab.repair(
            source,
            output,
            tokens=tokens,
            how=how,
            matrix=matrix,
            jitter=jitter,
            seed=seed,
            tensor=tensor,
            tokenizer=tokenizer,
            link=link,
            dry_run=dry_run,
            progress=progress,
        )
    if as_json:
        print_json(report)
    else:
        from ..reports.changes import print_repair
        from ..reports.console import console

        print_repair(report, console())
