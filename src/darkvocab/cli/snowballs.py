"""Commands on snowballs, drawn and in theory: sweep, trials, questions, expect, fit."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import typer

import darkvocab

from .. import reports
from ..errors import InvalidInput
from . import shell
from .options import TABLES
from .shell import announce_compilation, app, progress_bar, put, say, watched

if TYPE_CHECKING:
    from ..snowballs.expect import Expect

RUNNING = tuple(TABLES["running"])  # names of options that say how a command is run, not what it draws
PRINTED = (*TABLES["printed"], *TABLES["terminal"])  # and of those that say how results are shown


def settings_of(experiment: str, options: dict[str, Any]) -> Any:
    """Return the settings of a command's options, but for those that say how it is run."""
    from ..snowballs.bases import is_drawn

    given = {name: value for name, value in options.items() if name not in RUNNING + PRINTED}
    sigmas = darkvocab.snowballs.parse_sigmas(given.pop("sigma"), given.pop("spacing"))
    given["n_tokens"] = given.pop("tokens")
    if experiment == "questions":
        given["touching"] = darkvocab.numerics.Touching(given.pop("threshold"), strict=not given.pop("inclusive"))
        given["redraw_base"] = not given.pop("fixed_base") and is_drawn(given["base"])
        return darkvocab.snowballs.Questions(sigmas, **given)
    given["measure"] = [name.strip() for name in given["measure"].split(",")]
    given["touching"] = _touching(given["touching"], given.pop("touching_unit"), given.pop("strict"))
    kind = darkvocab.snowballs.Sweep if experiment == "sweep" else darkvocab.snowballs.Trials
    return kind(sigmas, **given)


def _touching(threshold: float | None, unit: str, strict: bool) -> Any:
    if threshold is None:
        if strict:
            raise InvalidInput("--strict says how rows touch at --touching; give --touching, too")
        return None
    return darkvocab.numerics.Touching(threshold, unit, strict)


def _run(experiment: str, label: str, options: dict[str, Any]) -> None:
    """Run an experiment on snowballs; print its table or its JSON, and write its report where it has a folder."""
    settings = settings_of(experiment, options)
    running = {name: options[name] for name in RUNNING}
    out = options["out"]
    if out:  # what draws its figures, while it runs; an interruption may leave Python's import lock taken, and ends it
        Thread(target=import_module, args=["matplotlib.backends.backend_pdf"], daemon=True).start()
    run = darkvocab.snowballs.land if out else darkvocab.snowballs.frame
    drawn: Any = watched(label, run, settings, say=say, **running)
    written = darkvocab.report(out) if out else []
    as_data = partial(reports.experiment_json, experiment, drawn)
    put(options["as_json"], reports.print_experiment, drawn, experiment, data=as_data)
    if out:
        from ..runs.folder import read_manifest
        from ..runs.records import csv_path

        figures = f", figure for print {written[-1]}" if len(written) > 1 else ""
        say(f"open {written[0]}; records in {csv_path(out, read_manifest(out))}{figures}")
    else:
        say("nothing was kept: --out DIR lands records, figures and a report")


@app.command(no_args_is_help=True)
def sweep(**options: Any) -> None:
    _run("sweep", "sweeping", options)


@app.command(no_args_is_help=True)
def trials(**options: Any) -> None:
    _run("trials", "drawing", options)


@app.command()
def questions(**options: Any) -> None:
    _run("questions", "asking", options)


@app.command(no_args_is_help=True)
def expect(sigma: str, spacing: str, run: Path | None, figure: Path | None, as_json: bool, **settings: Any) -> None:
    announce_compilation()
    if figure:
        reports.check_figure(figure)
    if run and sigma:
        raise InvalidInput("--run has sigma of its own; leave --sigma out")
    if not (run or sigma):
        raise InvalidInput("give --sigma, such as 1e-9:5e-9:100, or the --run of a sweep")
    agreement = darkvocab.snowballs.agreement(run) if run else None
    if agreement:
        points = agreement.expected
        put(as_json, reports.print_agreement, agreement, data=agreement.to_json)
    else:
        settings["n_tokens"] = settings.pop("tokens")
        points = _expected(darkvocab.snowballs.Expect(darkvocab.snowballs.parse_sigmas(sigma, spacing), **settings))
        put(as_json, reports.print_expected, points, data=lambda: {"points": [asdict(point) for point in points]})
    if figure:  # after the results, which a full disk then leaves
        reports.save_as(reports.expected_plot(points, agreement).draw(), figure)
        say(f"open {figure}")
    if agreement and not agreement.agrees:
        raise typer.Exit(shell.FINDINGS)


def _expected(settings: Expect) -> list[Any]:
    points = []
    with progress_bar("expecting") as progress:
        for point in settings:
            points.append(point)
            progress(len(points), len(settings))
    if any(point.sigma > 0 and not point.n_active_columns for point in points):
        say("noise moves no component at the smallest sigma: they lie below what the grid resolves around this base")
    return points


@app.command(no_args_is_help=True)
def fit(target: str, figure: Path | None, as_json: bool, **settings: Any) -> None:
    announce_compilation()
    if figure:
        reports.check_figure(figure)
    fitted = darkvocab.snowballs.Fit(target, **settings)
    result = watched("fitting", fitted.result)
    put(as_json, reports.print_fit, result, data=result.to_json)
    if figure:
        reports.save_as(reports.fit_figure(result), figure)
        say(f"open {figure}")
