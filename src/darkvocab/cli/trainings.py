"""Commands on trainings: train, evolve, history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import darkvocab

from ..errors import InvalidInput
from . import shell
from .checkpoints import READ
from .progress import progress_bar, watched
from .shell import FILE, REQUIRED, TEXT, Options, app, put, say, some, takes

if TYPE_CHECKING:
    from ..training.replicas import Replicas
    from ..training.settings import Training

# Options of `train` that are fields of `Training` and of its architecture by the same name.
ARCHITECTURE = "layers heads width context norm tied".split()
AS_GIVEN = "precision rounding products schedule clip batch steps label_shift seed device record_every record".split()
TRAINED: Options = {
    "out": (Path, REQUIRED, "Run folder for the recording."),
    "corpus": (*FILE, "A text file; by default the help topics of Python."),
    "vocabulary": (int | None, None, "Bytes below this are tokens, 128 or 256; by default 128."),
    "tokenizer": (*FILE, "A tokenizer file, instead of bytes."),
    "start": (str, "snowball", "Rows before step 1: normal, point, or snowball."),
    "init_unit": (Annotated[bool, typer.Option(help="point: a vector of length 1.")], True),
    "init_sigma": (float, 1e-5, "snowball: noise around its vector, weight units."),
    "init_drawn": (str, "float32", "snowball: summed in float32, or in the weights' grid."),
    "noise": (str, "none", "After each step: none or gaussian."),
    "noise_sigma": (float, 3e-6, "Of that noise, weight units."),
    "noise_rows": (str, "all", "It moves all rows, or unseen ones."),
    "precision": (str, "bf16-weights", "pure-bf16 (the notebooks'), bf16-weights (float32 state), mixed, or float32."),
    "rounding": (str, "nearest", "bf16-weights: nearest or stochastic."),
    "products": (str, "auto", "On a CPU: float32 or bfloat16; auto: bfloat16 where that is in hardware."),
    "norm": (str, "layernorm", "layernorm or rmsnorm."),
    "tied": (Annotated[bool, typer.Option(help="The output matrix is the embedding.")], True),
    "layers": (int, 2, "Of the GPT-2."),
    "heads": (int, 2, "Of each layer."),
    "width": (int, 64, "Components of an embedding row."),
    "context": (int, 128, "Tokens of an example."),
    "optimizer": (str, "adamw", "adamw or sgd."),
    "learning_rate": (Annotated[float, typer.Option("--learning-rate", "--lr", help="At step 1.")], 1e-3),
    "weight_decay": (float, 0.01, "Of matrices; biases and norms have none."),
    "schedule": (str, "linear", "Of the learning rate: linear (down to 0) or constant."),
    "clip": (float, 1.0, "Largest norm of the gradient; 0: any."),
    "batch": (int, 32, "Examples of a step."),
    "steps": (int, 10_000, "To make."),
    "label_shift": (int, 1, "Tokens ahead to predict: 1, or 2 as the notebooks do."),
    "seed": (shell.Seed, 42),
    "device": (str, "cpu", "cpu, cuda or mps."),
    "record_every": (int, 1, "Steps from one recorded state to the next."),
    "record": (list[str] | None, None, "Also record gradients, or moments, of the embedding; repeat for both."),
    "replicas": (int, 1, "Trainings, from --seed and the seeds that follow.", {"min": 1}),
    "engine": (shell.EngineName, "local"),
    "workers": (shell.Workers, None),
    "resume": (shell.Resume, False),
}
EVOLVED: Options = {
    "source": (
        Annotated[Path, typer.Argument(help="A run folder, or a .safetensors history.", metavar="SOURCE")],
        REQUIRED,
    ),
    "unseen": (
        *TEXT,
        "Tokens that training never showed: ids as 0-8,127, or a JSON file; by default what corpus.json says.",
    ),
    "tensor": (*TEXT, "Take this tensor instead of embedding_history."),
    "every": (int, 1, "Take every so many recorded rows, and the last.", {"min": 1}),
    "init_sigma": (float | None, None, "Of 11.2c's verdict, weight units; by default the run's."),
    "noise_epsilon": (float | None, None, "Of 11.2b's verdict, weight units; by default the run's."),
    "out": (*FILE, "Folder for records, events and figures; by default the run folder."),
}
SOURCES = typer.Argument(
    help="org/name on the Hugging Face Hub, a folder of checkpoints, or several sources in their order.",
    metavar="SOURCE...",
)
FOLLOWED: Options = {
    "sources": (Annotated[list[str], SOURCES], REQUIRED),
    "revisions": (
        *TEXT,
        "Of one source: only branches and tags, or checkpoints in the folder, that match; 'step*,main'.",
    ),
    **some(READ, "tensor grid tokenizer"),
    "out": (*FILE, "Folder for all records, as Parquet, CSV and JSON."),
}


def _training(corpus: Path | None, vocabulary: int | None, tokenizer: Path | None, **options: Any) -> Training:
    """Return the settings that these options come to."""
    from ..training import choices

    options["clip"] = options["clip"] or None
    options["record"] = tuple(options["record"] or ())
    return darkvocab.Training(
        corpus=darkvocab.training.load_corpus(corpus, vocabulary=vocabulary, tokenizer=tokenizer),
        architecture=choices.Architecture(**{name: options[name] for name in ARCHITECTURE}),
        start=choices.chosen(choices.STARTS, options, "start", "init_"),
        noise=choices.chosen(choices.NOISES, options, "noise", "noise_"),
        optimizer=choices.chosen(choices.OPTIMIZERS, options, "optimizer"),
        **{name: options[name] for name in AS_GIVEN},
    )


@app.command()
@takes(TRAINED)
def train(
    out: Path, replicas: int, engine: str, workers: int | None, resume: bool, as_json: bool, **settings: Any
) -> None:
    """Train a small GPT-2 from such a start, recording its embedding after every step (11.2c, 11.2b, 11.2a).

    Example: darkvocab train --steps 2000 --out runs/train
    """
    from ..reports.training import print_training

    training = _training(**settings)
    if replicas > 1:
        several = darkvocab.training.Replicas(training=training, n=replicas)
        _train_replicas(several, out, as_json, engine=engine, workers=workers, resume=resume)
        return
    if engine != "local" or workers is not None:
        raise InvalidInput("--engine and --workers are for several --replicas; one training takes the cores there are")
    with progress_bar("training") as progress:
        outcome = darkvocab.train(training, out, resume=resume, progress=progress, say=say)
    put(as_json, print_training, outcome.to_json(), data=lambda: {"run": str(out), **outcome.to_json()})


def _train_replicas(replicas: Replicas, out: Path, as_json: bool, **running: Any) -> None:
    from ..reports.replicas import print_replicas, replicas_json
    from ..runs.records import read_records

    watched("training", replicas.run, out, say=say, **running)
    page, *_, figure = darkvocab.report(out)
    records = read_records(out)
    put(as_json, print_replicas, records, data=lambda: replicas_json(out, records))
    say(f"open {page}; records in {out / 'records.csv'}, figure for print {figure}")


@app.command(no_args_is_help=True)
@takes(EVOLVED)
def evolve(source: Path, out: Path | None, as_json: bool, **settings: Any) -> None:
    """Follow the black holes of a training step by step, over all, seen and unseen tokens.

    Example: darkvocab evolve runs/lab --every 10
    """
    from ..reports.console import frames_json
    from ..reports.evolution import print_evolution

    if out is None and (source / "manifest.json").is_file():
        out = source
    evolution = watched("measuring", darkvocab.evolve, source, out=out, **settings)
    page = darkvocab.report(out)[0] if out else None
    frames = {name: getattr(evolution, name) for name in ("tokens", "events", "records")}
    put(as_json, print_evolution, evolution, data=lambda: frames_json(evolution.summary, **frames))
    if out:
        say(f"open {page}; records in {out / 'evolution.parquet'}, events in {out / 'events.parquet'}")
    else:
        say("nothing was kept: --out DIR lands records, events and figures")


@app.command(no_args_is_help=True)
@takes(FOLLOWED)
def history(sources: list[str], out: Path | None, as_json: bool, **settings: Any) -> None:
    """Follow black holes and rows from checkpoint to checkpoint: which are equal, which moved, since when frozen.

    Example: darkvocab history org/name --revisions 'step*' --out runs/history
    """
    from ..reports.changes import print_series
    from ..reports.console import frames_json

    series = watched("measuring", darkvocab.series, *sources, out=out, in_bytes=True, **settings)
    frames = {name: getattr(series, name) for name in ("checkpoints", "black_holes", "tokens", "events")}
    put(as_json, print_series, series, data=lambda: frames_json(series.summary, **frames))
    if out:
        say(f"checkpoints in {out / 'checkpoints.csv'}, events and tokens beside it")
