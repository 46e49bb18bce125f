"""Commands on finished runs, and on the notebooks: reproduce, report, summary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import darkvocab

from .progress import progress_bar
from .shell import FINDINGS, USAGE, EngineName, Json, Resume, Workers, announce_compilation, app, fail, print_json, say


@app.command(no_args_is_help=True)
def reproduce(
    recipe: Annotated[str, typer.Argument(help="12.2a, 12.4b, 13.5a, 11.2c, 11.2b, 11.2a, 12.1a or 11.2c-init.")],
    base: Annotated[Path | None, typer.Option(help="12.2a, 12.4b: the centroid file that the notebook loads.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="11.2c, 11.2b, 11.2a: the text that the notebook trains on.")
    ] = None,
    engine: EngineName = "local",
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(help="A run folder for its records, or its recording.")] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Run a notebook's experiment with its own parameters, beside what it published.

    Exits with 1 where a figure that can be checked does not agree. Example: darkvocab reproduce 12.1a
    """
    from dataclasses import asdict

    from ..notebooks.comparison import DIFFERS
    from ..notebooks.recipes import CLOUDS, WITH_CENTROID
    from ..notebooks.trainings import TRAININGS

    if base and recipe not in WITH_CENTROID:
        fail(f"--base is for {' and '.join(WITH_CENTROID)}; {recipe} draws its own", USAGE)
    if corpus and recipe not in TRAININGS:
        fail(f"--corpus is for {', '.join(TRAININGS)}; {recipe} trains nothing", USAGE)
    if (out or resume) and recipe not in (*CLOUDS, *TRAININGS):
        fail(f"--out and --resume are for {', '.join((*CLOUDS, *TRAININGS))}; {recipe} leaves no records", USAGE)
    announce_compilation()
    with progress_bar(f"reproducing {recipe}") as progress:
        settings: dict[str, Any] = {"base": base} if base else {}
        if recipe in CLOUDS:
            settings |= {"engine": engine, "workers": workers, "out": out, "resume": resume, "say": say}
        if recipe in TRAININGS:
            settings |= {"corpus": corpus, "out": out, "resume": resume, "say": say}
        comparison = darkvocab.reproduce(recipe, progress=progress, **settings)
    rows = [asdict(row) for row in comparison]
    if out and recipe in CLOUDS:
        darkvocab.report(out)
    if as_json:
        print_json({"recipe": recipe, "figures": rows})
    else:
        from ..reports.console import console
        from ..reports.experiments import print_comparison

        print_comparison(rows, console())
    if any(row.agrees == DIFFERS for row in comparison):
        raise typer.Exit(FINDINGS)


@app.command(no_args_is_help=True)
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run or training.")], as_json: Json = False
) -> None:
    """Write the figures and the page of a finished run, a training or a measured history, from what its folder holds.

    Example: darkvocab report runs/qwen
    """
    written = darkvocab.report(run)
    if as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        print("\n".join(str(path) for path in written))


@app.command(no_args_is_help=True)
def summary(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    column: Annotated[list[str] | None, typer.Option(help="This column, at each sigma; repeat for more.")] = None,
    bins: Annotated[int, typer.Option(help="Of each histogram.", min=1, max=10_000)] = 30,
    as_json: Json = False,
) -> None:
    """Statistics of a run's records, column by column: mean, spread, quantiles, histogram.

    Example: darkvocab summary runs/qwen --column n_black_holes
    """
    made = darkvocab.summary(run, column or None, bins)
    if as_json:
        print_json(made)
    else:
        from ..reports.console import console
        from ..reports.summary import print_summary

        print_summary(made, console(), single=bool(column))
    if made["n_landed"] < made["n_records"]:
        say(f"{made['n_landed']:,} of {made['n_records']:,} records have landed; the run is {made['status']}")
