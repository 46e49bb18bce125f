"""Commands on what theory says of snowballs: expect, fit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import darkvocab

from ..errors import InvalidInput
from .progress import progress_bar
from .shell import FINDINGS, Json, Seed, announce_compilation, app, print_json, say
from .snowballs import Arithmetic, BaseName, Dim, RedrawBase, RoundTo, Sigma, Spacing, Tokens

if TYPE_CHECKING:
    from ..snowballs.expect import Expect, Expected

Independent = Annotated[str, typer.Option(help="Of the noise: gaussian, laplace, uniform; sigma is of each component.")]


@app.command(no_args_is_help=True)
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
            help="A run of sweep or trials to hold against theory, at its own settings. Exits with 1 where it differs."
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw it, too: a .png or .pdf file.")] = None,
    as_json: Json = False,
) -> None:
    """The census that snowballs are expected to have, in closed form: no drawing, any number of tokens.

    Example: darkvocab expect --sigma 1e-9:1e-7:200 --spacing log --tokens 151936 --figure expected.png
    """
    from ..reports.console import console
    from ..reports.expected import expected_plot, print_agreement, print_expected
    from ..reports.figures import check_figure, save_as

    announce_compilation()
    if figure:
        check_figure(figure)
    if run and sigma:
        raise InvalidInput("--run has sigma of its own; leave --sigma out")
    if not (run or sigma):
        raise InvalidInput("give --sigma, such as 1e-9:5e-9:100, or the --run of a sweep")
    agreement = darkvocab.agreement(run) if run else None
    if agreement:
        points = agreement.expected
    else:
        from ..snowballs.settings import parse_sigmas

        points = _expected(
            darkvocab.snowballs.Expect(
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
        )
    if as_json:
        print_json(agreement.to_json() if agreement else {"points": [asdict(point) for point in points]})
    elif agreement:
        print_agreement(agreement, console())
    else:
        print_expected(points, console())
    if figure:  # after the results, which a full disk then leaves
        save_as(expected_plot(points, agreement).draw(), figure)
        say(f"open {figure}")
    if agreement and not agreement.agrees:
        raise typer.Exit(FINDINGS)


def _expected(settings: Expect) -> list[Expected]:
    points = []
    with progress_bar("expecting") as progress:
        for point in settings:
            points.append(point)
            progress(len(points), len(settings))
    if any(point.sigma > 0 and not point.n_active_columns for point in points):
        say("noise moves no component at the smallest sigma: they lie below what the grid resolves around this base")
    return points


@app.command(no_args_is_help=True)
def fit(
    target: Annotated[
        str,
        typer.Option(
            help="qwen3-4b, a checkpoint, a JSON of scan, or populations such as 814,704,306 (with --singletons)."
        ),
    ],
    singletons: Annotated[
        str | None,
        typer.Option(
            help="Tokens of the snowball that are alone; unknown: fit their number. By default what the target says."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="As in expect; by default the row of a checkpoint's largest black hole, else qwen3-4b."),
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="Number grid; by default that of a checkpoint, else bfloat16.")
    ] = None,
    distribution: Annotated[
        str, typer.Option(help="Of the noise: gaussian, laplace; or fit, the one of the larger likelihood.")
    ] = "gaussian",
    arithmetic: Arithmetic = "float32",
    offset: Annotated[
        str, typer.Option(help="Move every component of the rounded base by so much of the grid's spacing; or fit.")
    ] = "0",
    compare: Annotated[bool, typer.Option("--compare", help="Fit the other explanations, too.")] = False,
    level: Annotated[float, typer.Option(help="Of the interval of sigma.")] = 0.9,
    draws: Annotated[int, typer.Option(help="Snowballs drawn from the fit for what it predicts.")] = 1000,
    seed: Seed = 42,
    figure: Annotated[Path | None, typer.Option(help="Draw it, too: a .png or .pdf file.")] = None,
    as_json: Json = False,
) -> None:
    """Which sigma explains an observed census best, how surely, and whether it explains it at all.

    Example: darkvocab fit --target qwen3-4b --compare --figure fit.png
    """
    from ..reports.console import console
    from ..reports.figures import check_figure, save_as
    from ..reports.fits import fit_figure, print_fit

    announce_compilation()
    if figure:
        check_figure(figure)
    try:
        moved: float | str = offset if offset == "fit" else float(offset)
    except ValueError:
        raise InvalidInput(f"--offset is a number from 0 to 0.5, or fit; got {offset!r}") from None
    settings = darkvocab.snowballs.Fit(
        target,
        singletons=singletons,
        base=base,
        grid=grid,
        distribution=distribution,
        arithmetic=arithmetic,
        offset=moved,
        level=level,
        draws=draws,
        seed=seed,
        compare=compare,
    )
    with progress_bar("fitting") as progress:
        result = settings.result(progress)
    if as_json:
        print_json(result.to_json())
    else:
        print_fit(result, console())
    if figure:
        save_as(fit_figure(result), figure)
        say(f"open {figure}")
