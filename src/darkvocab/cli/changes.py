"""Commands on how checkpoints change: diff, repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import darkvocab

from .checkpoints import Bitwise, GridName
from .shell import FINDINGS, Json, announce_compilation, app, command, print_json, progress_bar


@app.command(no_args_is_help=True)
@command
def diff(
    a: Annotated[str, typer.Argument(help="A file or a model folder, as for `scan`.", metavar="A", show_default=False)],
    b: Annotated[str, typer.Argument(help="Another.", metavar="B", show_default=False)],
    matrix: Annotated[
        str, typer.Option(help="input, output, or both: the output matrices too where a model is untied.")
    ] = "both",
    tensor: Annotated[
        str | None, typer.Option(help="Compare this tensor alone; NAME[ROW] of a history.", show_default=False)
    ] = None,
    tensor_b: Annotated[
        str | None, typer.Option(help="The tensor of B, where it is not --tensor.", show_default=False)
    ] = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(help='A tokenizer.json to name the tokens of both by; "none" for ids only.', show_default=False),
    ] = None,
    show: Annotated[int, typer.Option(help="Tokens to print of those that moved farthest.", min=1, max=100)] = 12,
    csv: Annotated[Path | None, typer.Option(help="Also write every token to this CSV.", show_default=False)] = None,
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
        found = darkvocab.diff(
            a,
            b,
            matrix=matrix,
            tensor=tensor,
            tensor_b=tensor_b,
            grid=grid,
            bitwise=bitwise,
            tokenizer=tokenizer,
            progress=progress,
        )
    if csv is not None:
        found.write_csv(csv)
    report = found.to_json()
    if as_json:
        print_json(report)
    else:
        from ..reports.changes import print_diff
        from ..reports.tables import console

        print_diff(report, console(), show)
    if exit_code and found.differs:
        raise typer.Exit(FINDINGS)
