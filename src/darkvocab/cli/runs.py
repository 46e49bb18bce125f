"""Commands on finished runs, and on the notebooks: reproduce, report, summary."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

import darkvocab

from ..errors import InvalidInput
from . import shell
from .shell import app, put, say, watched


@app.command(no_args_is_help=True)
def reproduce(
    recipe: str, base: Path | None, corpus: Path | None, out: Path | None, resume: bool, as_json: bool, **running: Any
) -> None:
    """Run a notebook's experiment with its own parameters, beside what it published.

    Exits with 1 where a figure that can be checked does not agree. Example: darkvocab reproduce 12.1a
    """
    from ..notebooks.recipes import CLOUDS, DIFFERS, TRAININGS, WITH_CENTROID
    from ..reports.experiments import print_comparison

    if base and recipe not in WITH_CENTROID:
        raise InvalidInput(f"--base is for {' and '.join(WITH_CENTROID)}; {recipe} draws its own")
    if corpus and recipe not in TRAININGS:
        raise InvalidInput(f"--corpus is for {', '.join(TRAININGS)}; {recipe} trains nothing")
    if (out or resume) and recipe not in (*CLOUDS, *TRAININGS):
        raise InvalidInput(f"--out and --resume are for {', '.join((*CLOUDS, *TRAININGS))}; {recipe} leaves no records")
    settings: dict[str, Any] = {"base": base} if base else {}
    if recipe in (*CLOUDS, *TRAININGS):
        settings |= {"out": out, "resume": resume, "say": say}
        settings |= running if recipe in CLOUDS else {"corpus": corpus}
    comparison = watched(f"reproducing {recipe}", darkvocab.reproduce, recipe, **settings)
    rows = [asdict(row) for row in comparison]
    if out and recipe in CLOUDS:
        darkvocab.report(out)
    put(as_json, print_comparison, rows, data=lambda: {"recipe": recipe, "figures": rows})
    if any(row.agrees == DIFFERS for row in comparison):
        raise typer.Exit(shell.FINDINGS)


@app.command(no_args_is_help=True)
def report(run: Path, as_json: bool) -> None:
    """Write the figures and the page of a finished run, a training or a measured history, from what its folder holds.

    Example: darkvocab report runs/qwen
    """
    from ..reports.console import print_lines

    written = [str(path) for path in darkvocab.report(run)]
    put(as_json, print_lines, written, data=lambda: {"written": written})


@app.command(no_args_is_help=True)
def summary(run: Path, column: list[str] | None, bins: int, as_json: bool) -> None:
    """Statistics of a run's records, column by column: mean, spread, quantiles, histogram.

    Example: darkvocab summary runs/qwen --column n_black_holes
    """
    from ..reports.summary import print_summary

    summed = darkvocab.summary(run, column or None, bins)
    put(as_json, print_summary, summed, single=bool(column))
    if summed["n_landed"] < summed["n_records"]:
        say(f"{summed['n_landed']:,} of {summed['n_records']:,} records have landed; the run is {summed['status']}")
