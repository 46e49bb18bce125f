"""Commands on what theory says of snowballs: expect, fit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import darkvocab

from ..errors import InvalidInput
from . import shell
from .progress import announce_compilation, progress_bar, watched
from .shell import REQUIRED, Options, app, put, say, some, takes
from .snowballs import DRAWN, MEASURED

if TYPE_CHECKING:
    from ..snowballs.expect import Expect, Expected

DRAWING: Options = {"figure": (Path | None, None, "Draw it, too: a .png or .pdf file.")}
EXPECTED: Options = {
    "sigma": (str, "", DRAWN["sigma"][2]),
    **some(DRAWN | MEASURED, "spacing tokens dim base redraw_base grid"),
    "distribution": (str, "gaussian", "Of the noise: gaussian, laplace, uniform; sigma is of each component."),
    "arithmetic": DRAWN["arithmetic"],
    "seed": (int, 42, "Of a base that is drawn."),
    "run": (
        *(Path | None, None),
        "A run of sweep or trials to hold against theory, at its own settings. Exits with 1 where it differs.",
    ),
}
FITTED: Options = {
    "target": (
        *(str, REQUIRED),
        "qwen3-4b, a checkpoint, a JSON of scan, or populations such as 814,704,306 (with --singletons).",
    ),
    "singletons": (
        *(str | None, None),
        "Tokens of the snowball that are alone; unknown: fit their number. By default what the target says.",
    ),
    "base": (
        *(str | None, None),
        "As in expect; by default the row of a checkpoint's largest black hole, else qwen3-4b.",
    ),
    "grid": (str | None, None, "Number grid; by default that of a checkpoint, else bfloat16."),
    "distribution": (str, "gaussian", "Of the noise: gaussian, laplace; or fit, the one of the larger likelihood."),
    "arithmetic": DRAWN["arithmetic"],
    "offset": (str, "0", "Move every component of the rounded base by so much of the grid's spacing; or fit."),
    "compare": (bool, False, "Fit the other explanations, too."),
    "level": (float, 0.9, "Of the interval of sigma."),
    "draws": (int, 1000, "Snowballs drawn from the fit for what it predicts."),
    "seed": DRAWN["seed"],
}


@app.command(no_args_is_help=True)
@takes(EXPECTED | DRAWING)
def expect(sigma: str, spacing: str, run: Path | None, figure: Path | None, as_json: bool, **settings: Any) -> None:
    """The census that snowballs are expected to have, in closed form: no drawing, any number of tokens.

    Example: darkvocab expect --sigma 1e-9:1e-7:200 --spacing log --tokens 151936 --figure expected.png
    """
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

        settings["n_tokens"] = settings.pop("tokens")
        points = _expected(darkvocab.snowballs.Expect(parse_sigmas(sigma, spacing), **settings))
    if agreement:
        put(as_json, print_agreement, agreement, data=agreement.to_json)
    else:
        put(as_json, print_expected, points, data=lambda: {"points": [asdict(point) for point in points]})
    if figure:  # after the results, which a full disk then leaves
        save_as(expected_plot(points, agreement).draw(), figure)
        say(f"open {figure}")
    if agreement and not agreement.agrees:
        raise typer.Exit(shell.FINDINGS)


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
@takes(FITTED | DRAWING)
def fit(target: str, figure: Path | None, as_json: bool, **settings: Any) -> None:
    """Which sigma explains an observed census best, how surely, and whether it explains it at all.

    Example: darkvocab fit --target qwen3-4b --compare --figure fit.png
    """
    from ..reports.figures import check_figure, save_as
    from ..reports.fits import fit_figure, print_fit

    announce_compilation()
    if figure:
        check_figure(figure)
    fitted = darkvocab.snowballs.Fit(target, **settings)
    result = watched("fitting", fitted.result)
    put(as_json, print_fit, result, data=result.to_json)
    if figure:
        save_as(fit_figure(result), figure)
        say(f"open {figure}")
