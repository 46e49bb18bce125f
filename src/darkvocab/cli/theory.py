"""Commands on what theory says of snowballs: expect."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import darkvocab

from .shell import FINDINGS, Json, announce_compilation, app, command, print_json, say
from .snowballs import Arithmetic, BaseName, Dim, RedrawBase, RoundTo, Sigma, Spacing, Tokens

if TYPE_CHECKING:
    from ..experiments.agreement import Agreement
    from ..experiments.expect import Expected

Independent = Annotated[str, typer.Option(help="Of the noise: gaussian, laplace, uniform; sigma is of each component.")]


@app.command(no_args_is_help=True)
@command
def expect(
    sigma: Sigma = "",
    spacing: Spacing = "linear",
    tokens: Tokens = 2100,
    dim: Dim = None,
    base: BaseName = "qwen3-4b",
    redraw_base: RedrawBase = False,
    grid: RoundTo = "bfloat16",
    distribution: Independent = "gaussian",
    arithmetic: Arithmetic = "float32",
    seed: Annotated[int, typer.Option(help="Of a base that is drawn.")] = 42,
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run of sweep or trials to hold against theory, at its own settings. Exits with 1 where it differs.",
            show_default=False,
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw it, too: a .png or .pdf file.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """The census that snowballs are expected to have, in closed form: no drawing, any number of tokens.

    Example: darkvocab expect --sigma 1e-9:1e-7:200 --spacing log --tokens 151936 --figure expected.png
    """
    from ..reports.figures import check_figure

    announce_compilation()
    if figure:
        check_figure(figure)
    if run and sigma:
        raise ValueError("--run has sigma of its own; leave --sigma out")
    if not (run or sigma):
        raise ValueError("give --sigma, such as 1e-9:5e-9:100, or the --run of a sweep")
    if run:
        found = darkvocab.agreement(run)
        points = found.expected
    else:
        from ..experiments.points import parse_sigmas

        found = None
        settings = darkvocab.Expect(
            parse_sigmas(sigma, spacing),
            n_tokens=tokens,
            dim=dim,
            base=base,
            redraw_base=redraw_base,
            grid=grid,
            distribution=distribution,
            arithmetic=arithmetic,
            seed=seed,
        )
        points = list(settings)
    if figure:
        _draw(points, found, figure)
    _print(points, found, as_json)
    if figure:
        say(f"open {figure}")
    if found and not found.agrees:
        raise typer.Exit(FINDINGS)


def _draw(points: list[Expected], found: Agreement | None, figure: Path) -> None:
    from ..experiments.agreement import Compared
    from ..records import frame_of
    from ..reports.expected import expected_figure
    from ..reports.figures import save_as

    comparisons = frame_of(Compared, found.comparisons) if found else None
    save_as(
        expected_figure(frame_of(darkvocab.Expected, points), comparisons, found.largest if found else None), figure
    )


def _print(points: list[Expected], found: Agreement | None, as_json: bool) -> None:
    from ..reports.expected import print_agreement, print_expected
    from ..reports.tables import console

    rows = [asdict(point) for point in points]
    if not found:
        if as_json:
            print_json({"points": rows})
        else:
            print_expected(rows, console())
        return
    comparisons = [asdict(row) for row in found.comparisons]
    if as_json:
        simulated = [{**row, "largest_bh_simulated": mean} for row, mean in zip(rows, found.largest, strict=True)]
        print_json({"agreement": found.summary(), "points": simulated, "comparisons": comparisons})
    else:
        print_agreement(rows, comparisons, found.sentences(), console())
