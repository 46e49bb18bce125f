"""Commands on trainings, finished runs and the notebooks: train, evolve, history, reproduce, report, summary."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import darkvocab

from .. import reports
from ..errors import InvalidInput
from . import shell
from .shell import app, progress_bar, put, say, watched

if TYPE_CHECKING:
    from ..training.replicas import Replicas
    from ..training.settings import Training


def _training(corpus: Path | None, vocabulary: int | None, tokenizer: Path | None, **options: Any) -> Training:
    """Return the settings that these options come to."""
    options["clip"] = options["clip"] or None
    options["record"] = tuple(options["record"] or ())
    text = darkvocab.training.load_corpus(corpus, vocabulary=vocabulary, tokenizer=tokenizer)
    return darkvocab.Training.of(text, **options)


@app.command()
def train(
    out: Path, replicas: int, engine: str, workers: int | None, resume: bool, as_json: bool, **settings: Any
) -> None:
    training = _training(**settings)
    if replicas > 1:
        several = darkvocab.training.Replicas(training=training, n=replicas)
        _train_replicas(several, out, as_json, engine=engine, workers=workers, resume=resume)
        return
    if engine != "local" or workers is not None:
        raise InvalidInput("--engine and --workers are for several --replicas; one training takes the cores there are")
    with progress_bar("training") as progress:
        outcome = darkvocab.train(training, out, resume=resume, progress=progress, say=say)
    put(as_json, reports.print_training, outcome.to_json(), data=lambda: {"run": str(out), **outcome.to_json()})


def _train_replicas(replicas: Replicas, out: Path, as_json: bool, **running: Any) -> None:
    from ..runs.records import read_records

    watched("training", replicas.run, out, say=say, **running)
    page, *_, figure = darkvocab.report(out)
    records = read_records(out)
    put(as_json, reports.print_replicas, records, data=lambda: reports.replicas_json(out, records))
    say(f"open {page}; records in {out / 'records.csv'}, figure for print {figure}")


@app.command(no_args_is_help=True)
def study(name: str, out: Path, as_json: bool, **settings: Any) -> None:
    from ..runs.folder import read_manifest
    from ..runs.records import read_records

    watched("training", darkvocab.studies.study, name, out, say=say, **settings)
    page, *_, figure = darkvocab.report(out)
    records, parameters = read_records(out), read_manifest(out)["parameters"]
    put(as_json, reports.print_study, records, parameters, data=lambda: reports.study_json(out, records, parameters))
    say(f"open {page}; records in {out / 'records.csv'}, figure for print {figure}")


@app.command(no_args_is_help=True)
def evolve(source: Path, out: Path | None, as_json: bool, **settings: Any) -> None:
    if out is None and (source / "manifest.json").is_file():
        out = source
    evolution = watched("measuring", darkvocab.evolve, source, out=out, **settings)
    page = darkvocab.report(out)[0] if out else None
    frames = {name: getattr(evolution, name) for name in ("tokens", "events", "records")}
    put(as_json, reports.print_evolution, evolution, data=lambda: reports.frames_json(evolution.summary, **frames))
    if out:
        say(f"open {page}; records in {out / 'evolution.parquet'}, events in {out / 'events.parquet'}")
    else:
        say("nothing was kept: --out DIR lands records, events and figures")


@app.command(no_args_is_help=True)
def history(sources: list[str], out: Path | None, as_json: bool, **settings: Any) -> None:
    series = watched("measuring", darkvocab.series, *sources, out=out, in_bytes=True, **settings)
    frames = {name: getattr(series, name) for name in ("checkpoints", "black_holes", "tokens", "events")}
    put(as_json, reports.print_series, series, data=lambda: reports.frames_json(series.summary, **frames))
    if out:
        say(f"checkpoints in {out / 'checkpoints.csv'}, events and tokens beside it")


@app.command(no_args_is_help=True)
def reproduce(
    recipe: str, base: Path | None, corpus: Path | None, out: Path | None, resume: bool, as_json: bool, **running: Any
) -> None:
    from ..notebooks.recipes import CLOUDS, DIFFERS, TRAININGS, WITH_CENTROID

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
    put(as_json, reports.print_comparison, rows, data=lambda: {"recipe": recipe, "figures": rows})
    if any(row.agrees == DIFFERS for row in comparison):
        raise typer.Exit(shell.FINDINGS)


@app.command(no_args_is_help=True)
def report(run: Path, as_json: bool) -> None:
    written = [str(path) for path in darkvocab.report(run)]
    put(as_json, reports.print_lines, written, data=lambda: {"written": written})


@app.command(no_args_is_help=True)
def summary(run: Path, column: list[str] | None, bins: int, as_json: bool) -> None:
    summed = darkvocab.summary(run, column or None, bins)
    put(as_json, reports.print_summary, summed, single=bool(column))
    if summed["n_landed"] < summed["n_records"]:
        say(f"{summed['n_landed']:,} of {summed['n_records']:,} records have landed; the run is {summed['status']}")
