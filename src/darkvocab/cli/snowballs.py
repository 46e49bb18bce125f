"""Commands on snowballs, drawn and in theory: sweep, trials, questions, expect, fit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import darkvocab

from ..errors import InvalidInput
from . import shell
from .progress import announce_compilation, progress_bar, watched
from .shell import FILE, REQUIRED, TEXT, Options, app, put, say, some, takes

if TYPE_CHECKING:
    from ..snowballs.expect import Expect, Expected

# Options of all three commands by their names: type, default, help. The first group is of what is drawn.
DRAWN: Options = {
    "sigma": (str, REQUIRED, "START:STOP:COUNT, both ends included, or a comma list; weight units."),
    "spacing": (str, "linear", "Of START:STOP:COUNT: linear or log."),
    "trials": (int, 1, "Snowballs at each sigma."),
    "tokens": (int, 2100, "Rows of a snowball."),
    "dim": (int | None, None, "Components; by default the base's."),
    "base": (str, "qwen3-4b", "qwen3-4b, qwen3-4b-centred, random, random-unit, or a file with a vector."),
    "grid": (str, "bfloat16", "Number grid to round to."),
    "distribution": (
        *(str, "gaussian"),
        "Of the noise: gaussian, laplace, uniform-ball, uniform-shell; sigma is of each component.",
    ),
    "arithmetic": (str, "float32", "float32 (add in float32, then round) or exact (round once)."),
    "seed": (shell.Seed, 42),
    "sampler": (str, "sparse", "sparse, dense (the same law, slower), or notebook (torch's stream)."),
}
MEASURED: Options = {
    "redraw_base": (bool, False, "Draw a random base anew at each sigma."),
    "measure": (str, "", "A comma list of census, geometry, steps, topology."),
    "over": (str, "", "L-infinity over black_holes, unique rows, or all tokens."),
    "epsilon": (float | None, None, "A length, weight units, to scale columns by."),
    "touching": (float | None, None, "Rows touch within this; by default twice --epsilon, or else 2 steps."),
    "touching_unit": (str, "weight", "Of --touching: weight or steps."),
    "strict": (bool, False, "Rows touch at < (not <=) --touching."),
}
ASKED: Options = {
    "fixed_base": (bool, False, "Keep one random base for every sigma."),
    "threshold": (float, 1e-4, "Tokens touch within this, weight units."),
    "inclusive": (bool, False, "Tokens touch at <= (not <) --threshold."),
}
RUNNING: Options = {
    "engine": (shell.EngineName, "local"),
    "workers": (shell.Workers, None),
    "device": (shell.DeviceName, "cpu"),
    "out": (*FILE, "Run folder for records, figures and report."),
    "resume": (shell.Resume, False),
}
DRAWING: Options = {"figure": (*FILE, "Draw it, too: a .png or .pdf file.")}
EXPECTED: Options = {
    "sigma": (str, "", DRAWN["sigma"][2]),
    **some(DRAWN | MEASURED, "spacing tokens dim base redraw_base grid"),
    "distribution": (str, "gaussian", "Of the noise: gaussian, laplace, uniform; sigma is of each component."),
    "arithmetic": DRAWN["arithmetic"],
    "seed": (int, 42, "Of a base that is drawn."),
    "run": (
        *FILE,
        "A run of sweep or trials to hold against theory, at its own settings. Exits with 1 where it differs.",
    ),
}
FITTED: Options = {
    "target": (
        *(str, REQUIRED),
        "qwen3-4b, a checkpoint, a JSON of scan, or populations such as 814,704,306 (with --singletons).",
    ),
    "singletons": (
        *TEXT,
        "Tokens of the snowball that are alone; unknown: fit their number. By default what the target says.",
    ),
    "base": (*TEXT, "As in expect; by default the row of a checkpoint's largest black hole, else qwen3-4b."),
    "grid": (*TEXT, "Number grid; by default that of a checkpoint, else bfloat16."),
    "distribution": (str, "gaussian", "Of the noise: gaussian, laplace; or fit, the one of the larger likelihood."),
    "arithmetic": DRAWN["arithmetic"],
    "offset": (str, "0", "Move every component of the rounded base by so much of the grid's spacing; or fit."),
    "compare": (bool, False, "Fit the other explanations, too."),
    "level": (float, 0.9, "Of the interval of sigma."),
    "draws": (int, 1000, "Snowballs drawn from the fit for what it predicts."),
    "seed": DRAWN["seed"],
}


def settings_of(experiment: str, options: dict[str, Any]) -> Any:
    """Return the settings of a command's options, but for those that say how it is run."""
    from ..snowballs.bases import is_drawn
    from ..snowballs.questions import Questions
    from ..snowballs.settings import parse_sigmas
    from ..snowballs.sweep import Sweep
    from ..snowballs.trials import Trials

    given = {name: value for name, value in options.items() if name not in (*RUNNING, "as_json")}
    sigmas = parse_sigmas(given.pop("sigma"), given.pop("spacing"))
    given["n_tokens"] = given.pop("tokens")
    if experiment == "questions":
        given["touching"] = darkvocab.numerics.Touching(given.pop("threshold"), strict=not given.pop("inclusive"))
        given["redraw_base"] = not given.pop("fixed_base") and is_drawn(given["base"])
        return Questions(sigmas, **given)
    given["measure"] = [name.strip() for name in given["measure"].split(",")]
    given["touching"] = _touching(given["touching"], given.pop("touching_unit"), given.pop("strict"))
    return {"sweep": Sweep, "trials": Trials}[experiment](sigmas, **given)


def _touching(threshold: float | None, unit: str, strict: bool) -> Any:
    if threshold is None:
        if strict:
            raise InvalidInput("--strict says how rows touch at --touching; give --touching, too")
        return None
    return darkvocab.numerics.Touching(threshold, unit, strict)


def _run(experiment: str, label: str, options: dict[str, Any]) -> None:
    """Run an experiment on snowballs; print its table or its JSON, and write its report where it has a folder."""
    from ..reports.experiments import experiment_json, print_experiment
    from ..reports.figures import preload
    from ..snowballs.run import frame, land

    settings = settings_of(experiment, options)
    running = {name: options[name] for name in RUNNING}
    out = options["out"]
    if out:
        preload()
    drawn: Any = watched(label, land if out else frame, settings, say=say, **running)
    written = darkvocab.report(out) if out else []
    put(options["as_json"], print_experiment, drawn, experiment, data=lambda: experiment_json(experiment, drawn))
    if out:
        from ..runs.folder import read_manifest
        from ..runs.records import csv_path

        figures = f", figure for print {written[-1]}" if len(written) > 1 else ""
        say(f"open {written[0]}; records in {csv_path(out, read_manifest(out))}{figures}")
    else:
        say("nothing was kept: --out DIR lands records, figures and a report")


@app.command(no_args_is_help=True)
@takes(DRAWN | MEASURED | RUNNING, measure="census,geometry,steps", over="black_holes")
def sweep(**options: Any) -> None:
    """Draw snowballs over a range of sigma and count their black holes (12.2a).

    Example: darkvocab sweep --sigma 1.5e-9:5e-9:1000 --out runs/qwen
    """
    _run("sweep", "sweeping", options)


@app.command(no_args_is_help=True)
@takes(DRAWN | MEASURED | RUNNING, trials=1000, measure="census,geometry,topology", over="unique")
def trials(**options: Any) -> None:
    """Draw many snowballs at one sigma (or several) and take every statistic of each (12.4b).

    Example: darkvocab trials --sigma 3.281911e-3 --trials 100 --epsilon 5.9604645e-5 --out runs/trials
    """
    _run("trials", "drawing", options)


@app.command()
@takes(DRAWN | ASKED | RUNNING, sigma="1e-6:1e-4:10", spacing="log", tokens=2221, base="random-unit")
def questions(**options: Any) -> None:
    """Does rounding alone connect a snowball, at the grid's limit, with plausible populations (13.5a)?

    Example: darkvocab questions --out runs/questions
    """
    _run("questions", "asking", options)


@app.command(no_args_is_help=True)
@takes(EXPECTED | DRAWING)
def expect(sigma: str, spacing: str, run: Path | None, figure: Path | None, as_json: bool, **settings: Any) -> None:
    """The census that snowballs are expected to have, in closed form: no drawing, any number of tokens.

    Example: darkvocab expect --sigma 1e-9:1e-7:200 --spacing log --tokens 151936 --figure expected.png
    """
    from ..reports.expected import expected_plot, print_agreement, print_expected
    from ..reports.figures import check_figure, save_as
    from ..snowballs.settings import parse_sigmas

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
        put(as_json, print_agreement, agreement, data=agreement.to_json)
    else:
        settings["n_tokens"] = settings.pop("tokens")
        points = _expected(darkvocab.snowballs.Expect(parse_sigmas(sigma, spacing), **settings))
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
