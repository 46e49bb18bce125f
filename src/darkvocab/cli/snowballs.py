"""Commands on snowballs: sweep, trials, questions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import darkvocab

from ..errors import InvalidInput
from .progress import progress_bar
from .shell import DeviceName, EngineName, Json, Resume, Seed, Workers, announce_compilation, app, command, say

Sigma = Annotated[
    str, typer.Option(help="START:STOP:COUNT, both ends included, or a comma list; weight units.", show_default=False)
]
Spacing = Annotated[str, typer.Option(help="Of START:STOP:COUNT: linear or log.")]
TrialCount = Annotated[int, typer.Option(help="Snowballs at each sigma.")]
Tokens = Annotated[int, typer.Option(help="Rows of a snowball.")]
Dim = Annotated[int | None, typer.Option(help="Components; by default the base's.", show_default=False)]
BaseName = Annotated[
    str, typer.Option(help="qwen3-4b, qwen3-4b-centred, random, random-unit, or a file with a vector.")
]
RedrawBase = Annotated[bool, typer.Option("--redraw-base", help="Draw a random base anew at each sigma.")]
RoundTo = Annotated[str, typer.Option(help="Number grid to round to.")]
Distribution = Annotated[
    str, typer.Option(help="Of the noise: gaussian, laplace, uniform-ball, uniform-shell; sigma is of each component.")
]
Arithmetic = Annotated[str, typer.Option(help="float32 (add in float32, then round) or exact (round once).")]
Sampler = Annotated[str, typer.Option(help="sparse, dense (the same law, slower), or notebook (torch's stream).")]
Measure = Annotated[str, typer.Option(help="A comma list of census, geometry, steps, topology.")]
Over = Annotated[str, typer.Option(help="L-infinity over black_holes, unique rows, or all tokens.")]
Epsilon = Annotated[float | None, typer.Option(help="A length, weight units, to scale columns by.", show_default=False)]
TouchingOption = Annotated[
    float | None,
    typer.Option(help="Rows touch within this; by default twice --epsilon, or else 2 steps.", show_default=False),
]
TouchingUnit = Annotated[str, typer.Option(help="Of --touching: weight or steps.")]
Strict = Annotated[bool, typer.Option("--strict", help="Rows touch at < (not <=) --touching.")]
Out = Annotated[Path | None, typer.Option(help="Run folder for records, figures and report.", show_default=False)]


def _touching(threshold: float | None, unit: str, strict: bool) -> Any:
    """The threshold of the graph, or None for the default."""
    if threshold is None:
        if strict:
            raise InvalidInput("--strict says how rows touch at --touching; give --touching, too")
        return None
    return darkvocab.Touching(threshold, unit, strict)


def _run(settings: Any, label: str, as_json: bool, **running: Any) -> None:
    """Run an experiment on snowballs; print its table or its JSON, and write its report where it has a folder."""
    from ..reports.console import console
    from ..reports.experiments import experiment_json, print_experiment

    announce_compilation()
    out = running["out"]
    with progress_bar(label) as progress:
        if out:
            settings.land(progress=progress, say=say, **running)
            made: Any = out
        else:
            made = settings.frame(progress=progress, say=say, **running)
    written = darkvocab.report(out) if out else []
    if as_json:
        sys.stdout.writelines(experiment_json(settings.experiment, made))
    else:
        print_experiment(settings.experiment, made, console())
    if out:
        from ..runs.folder import read_manifest
        from ..runs.records import csv_path

        figures = f", figure for print {written[-1]}" if len(written) > 1 else ""
        say(f"open {written[0]}; records in {csv_path(out, read_manifest(out))}{figures}")
    else:
        say("nothing was kept: --out DIR lands records, figures and a report")


@app.command(no_args_is_help=True)
@command
def sweep(
    sigma: Sigma,
    spacing: Spacing = "linear",
    trials: TrialCount = 1,
    tokens: Tokens = 2100,
    dim: Dim = None,
    base: BaseName = "qwen3-4b",
    redraw_base: RedrawBase = False,
    grid: RoundTo = "bfloat16",
    distribution: Distribution = "gaussian",
    arithmetic: Arithmetic = "float32",
    measure: Measure = "census,geometry,steps",
    over: Over = "black_holes",
    epsilon: Epsilon = None,
    touching: TouchingOption = None,
    touching_unit: TouchingUnit = "weight",
    strict: Strict = False,
    seed: Seed = 42,
    sampler: Sampler = "sparse",
    engine: EngineName = "local",
    workers: Workers = None,
    device: DeviceName = "cpu",
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Draw snowballs over a range of sigma and count their black holes (12.2a).

    Example: darkvocab sweep --sigma 1.5e-9:5e-9:1000 --out runs/qwen
    """
    from ..snowballs.settings import parse_sigmas

    settings = darkvocab.Sweep(
        parse_sigmas(sigma, spacing),
        trials=trials,
        n_tokens=tokens,
        dim=dim,
        base=base,
        redraw_base=redraw_base,
        grid=grid,
        distribution=distribution,
        arithmetic=arithmetic,
        measure=[name.strip() for name in measure.split(",")],
        over=over,
        epsilon=epsilon,
        touching=_touching(touching, touching_unit, strict),
        seed=seed,
        sampler=sampler,
    )
    _run(settings, "sweeping", as_json, engine=engine, workers=workers, device=device, out=out, resume=resume)


@app.command(no_args_is_help=True)
@command
def trials(
    sigma: Sigma,
    spacing: Spacing = "linear",
    trials: TrialCount = 1000,
    tokens: Tokens = 2100,
    dim: Dim = None,
    base: BaseName = "qwen3-4b",
    redraw_base: RedrawBase = False,
    grid: RoundTo = "bfloat16",
    distribution: Distribution = "gaussian",
    arithmetic: Arithmetic = "float32",
    measure: Measure = "census,geometry,topology",
    over: Over = "unique",
    epsilon: Epsilon = None,
    touching: TouchingOption = None,
    touching_unit: TouchingUnit = "weight",
    strict: Strict = False,
    seed: Seed = 42,
    sampler: Sampler = "sparse",
    engine: EngineName = "local",
    workers: Workers = None,
    device: DeviceName = "cpu",
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Draw many snowballs at one sigma (or several) and take every statistic of each (12.4b).

    Example: darkvocab trials --sigma 3.281911e-3 --trials 100 --epsilon 5.9604645e-5 --out runs/trials
    """
    from ..snowballs.settings import parse_sigmas

    settings = darkvocab.Trials(
        parse_sigmas(sigma, spacing),
        trials=trials,
        n_tokens=tokens,
        dim=dim,
        base=base,
        redraw_base=redraw_base,
        grid=grid,
        distribution=distribution,
        arithmetic=arithmetic,
        measure=[name.strip() for name in measure.split(",")],
        over=over,
        epsilon=epsilon,
        touching=_touching(touching, touching_unit, strict),
        seed=seed,
        sampler=sampler,
    )
    _run(settings, "drawing", as_json, engine=engine, workers=workers, device=device, out=out, resume=resume)


@app.command()
@command
def questions(
    sigma: Annotated[str, typer.Option(help="START:STOP:COUNT, both ends included, or a comma list; weight units.")] = (
        "1e-6:1e-4:10"
    ),
    spacing: Spacing = "log",
    trials: TrialCount = 1,
    tokens: Tokens = 2221,
    dim: Dim = None,
    base: BaseName = "random-unit",
    fixed_base: Annotated[bool, typer.Option("--fixed-base", help="Keep one random base for every sigma.")] = False,
    grid: RoundTo = "bfloat16",
    distribution: Distribution = "gaussian",
    arithmetic: Arithmetic = "float32",
    threshold: Annotated[float, typer.Option(help="Tokens touch within this, weight units.")] = 1e-4,
    inclusive: Annotated[bool, typer.Option("--inclusive", help="Tokens touch at <= (not <) --threshold.")] = False,
    seed: Seed = 42,
    sampler: Sampler = "sparse",
    engine: EngineName = "local",
    workers: Workers = None,
    device: DeviceName = "cpu",
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Does rounding alone connect a snowball, at the grid's limit, with plausible populations (13.5a)?

    Example: darkvocab questions --out runs/questions
    """
    from ..snowballs.bases import DRAWN
    from ..snowballs.settings import parse_sigmas

    settings = darkvocab.Questions(
        parse_sigmas(sigma, spacing),
        trials=trials,
        n_tokens=tokens,
        dim=dim,
        base=base,
        redraw_base=base in DRAWN and not fixed_base,
        grid=grid,
        distribution=distribution,
        arithmetic=arithmetic,
        touching=darkvocab.Touching(threshold, strict=not inclusive),
        seed=seed,
        sampler=sampler,
    )
    _run(settings, "asking", as_json, engine=engine, workers=workers, device=device, out=out, resume=resume)
