"""Commands on trainings: train, evolve, history."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import darkvocab

from ..errors import InvalidInput
from .checkpoints import GridName, Tensor, Tokenizer
from .progress import progress_bar
from .shell import EngineName, Json, Resume, Seed, Workers, announce_compilation, app, print_json, say, taking

if TYPE_CHECKING:
    from ..training.settings import Training

# Options of `train` that are fields of `Training` and of its architecture by the same name.
ARCHITECTURE = "layers heads width context norm tied".split()
AS_GIVEN = "precision rounding schedule batch steps label_shift seed device record_every".split()


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `train`, in the order of its help."""

    out: Annotated[Path, typer.Option(help="Run folder for the recording.")]
    corpus: Annotated[Path | None, typer.Option(help="A text file; by default the help topics of Python.")] = None
    vocabulary: Annotated[int | None, typer.Option(help="Bytes below this are tokens, 128 or 256; by default 128.")] = (
        None
    )
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer file, instead of bytes.")] = None
    start: Annotated[str, typer.Option(help="Rows before step 1: normal, point, or snowball.")] = "snowball"
    init_unit: Annotated[bool, typer.Option(help="point: a vector of length 1.")] = True
    init_sigma: Annotated[float, typer.Option(help="snowball: noise around its vector, weight units.")] = 1e-5
    init_drawn: Annotated[str, typer.Option(help="snowball: summed in float32, or in the weights' grid.")] = "float32"
    noise: Annotated[str, typer.Option(help="After each step: none or gaussian.")] = "none"
    noise_sigma: Annotated[float, typer.Option(help="Of that noise, weight units.")] = 3e-6
    noise_rows: Annotated[str, typer.Option(help="It moves all rows, or unseen ones.")] = "all"
    precision: Annotated[
        str, typer.Option(help="pure-bf16 (the notebooks'), bf16-weights (float32 state), mixed, or float32.")
    ] = "bf16-weights"
    rounding: Annotated[str, typer.Option(help="bf16-weights: nearest or stochastic.")] = "nearest"
    norm: Annotated[str, typer.Option(help="layernorm or rmsnorm.")] = "layernorm"
    tied: Annotated[bool, typer.Option(help="The output matrix is the embedding.")] = True
    layers: Annotated[int, typer.Option(help="Of the GPT-2.")] = 2
    heads: Annotated[int, typer.Option(help="Of each layer.")] = 2
    width: Annotated[int, typer.Option(help="Components of an embedding row.")] = 64
    context: Annotated[int, typer.Option(help="Tokens of an example.")] = 128
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw"
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr", help="At step 1.")] = 1e-3
    weight_decay: Annotated[float, typer.Option(help="Of matrices; biases and norms have none.")] = 0.01
    schedule: Annotated[str, typer.Option(help="Of the learning rate: linear (down to 0) or constant.")] = "linear"
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0: any.")] = 1.0
    batch: Annotated[int, typer.Option(help="Examples of a step.")] = 32
    steps: Annotated[int, typer.Option(help="To make.")] = 10_000
    label_shift: Annotated[int, typer.Option(help="Tokens ahead to predict: 1, or 2 as the notebooks do.")] = 1
    seed: Seed = 42
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu"
    record_every: Annotated[int, typer.Option(help="Steps from one recorded state to the next.")] = 1
    record: Annotated[
        list[str] | None, typer.Option(help="Also record gradients, or moments, of the embedding; repeat for both.")
    ] = None
    replicas: Annotated[int, typer.Option(help="Trainings, from --seed and the seeds that follow.", min=1)] = 1
    engine: EngineName = "local"
    workers: Workers = None
    resume: Resume = False
    as_json: Json = False

    def training(self) -> Training:
        """Return the settings that they come to."""
        from ..training import choices

        return darkvocab.Training(
            corpus=darkvocab.training.load_corpus(self.corpus, vocabulary=self.vocabulary, tokenizer=self.tokenizer),
            architecture=choices.Architecture(**{name: getattr(self, name) for name in ARCHITECTURE}),
            start=choices.start(self.start, unit=self.init_unit, sigma=self.init_sigma, drawn=self.init_drawn),
            noise=choices.noise(self.noise, sigma=self.noise_sigma, rows=self.noise_rows),
            optimizer=choices.optimizer(
                self.optimizer, learning_rate=self.learning_rate, weight_decay=self.weight_decay
            ),
            clip=self.clip or None,
            record=tuple(self.record or ()),
            **{name: getattr(self, name) for name in AS_GIVEN},
        )


@app.command()
@taking(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a small GPT-2 from such a start, recording its embedding after every step (11.2c, 11.2b, 11.2a).

    Example: darkvocab train --steps 2000 --out runs/train
    """
    training = options.training()
    if options.replicas > 1:
        _train_replicas(training, options)
        return
    if options.engine != "local" or options.workers is not None:
        raise InvalidInput("--engine and --workers are for several --replicas; one training takes the cores there are")
    with progress_bar("training") as progress:
        outcome = darkvocab.train(training, options.out, resume=options.resume, progress=progress, say=say)
    if options.as_json:
        print_json({"run": str(options.out), **outcome.to_json()})
    else:
        from ..reports.console import console
        from ..reports.training import print_training

        print_training(outcome.to_json(), console())


def _train_replicas(training: Training, options: TrainOptions) -> None:
    from ..reports.console import console
    from ..reports.replicas import print_replicas, replicas_json
    from ..runs.records import read_records

    announce_compilation()
    out = options.out
    with progress_bar("training") as progress:
        darkvocab.training.Replicas(training=training, n=options.replicas).run(
            out, engine=options.engine, workers=options.workers, resume=options.resume, progress=progress, say=say
        )
    page, *_, figure = darkvocab.report(out)
    if options.as_json:
        print_json(replicas_json(out, read_records(out)))
    else:
        print_replicas(read_records(out), console())
    say(f"open {page}; records in {out / 'records.csv'}, figure for print {figure}")


@app.command(no_args_is_help=True)
def evolve(
    source: Annotated[Path, typer.Argument(help="A run folder, or a .safetensors history.", metavar="SOURCE")],
    unseen: Annotated[
        str | None,
        typer.Option(
            help="Tokens that training never showed: ids as 0-8,127, or a JSON file; by default what corpus.json says."
        ),
    ] = None,
    tensor: Annotated[str | None, typer.Option(help="Take this tensor instead of embedding_history.")] = None,
    every: Annotated[int, typer.Option(help="Take every so many recorded rows, and the last.", min=1)] = 1,
    init_sigma: Annotated[
        float | None, typer.Option(help="Of 11.2c's verdict, weight units; by default the run's.")
    ] = None,
    noise_epsilon: Annotated[
        float | None, typer.Option(help="Of 11.2b's verdict, weight units; by default the run's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for records, events and figures; by default the run folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow the black holes of a training step by step, over all, seen and unseen tokens.

    Example: darkvocab evolve runs/lab --every 10
    """
    from ..reports.console import console, frames_json
    from ..reports.evolution import print_evolution

    announce_compilation()
    if out is None and (source / "manifest.json").is_file():
        out = source
    with progress_bar("measuring") as progress:
        evolution = darkvocab.evolve(
            source,
            unseen=unseen,
            tensor=tensor,
            every=every,
            init_sigma=init_sigma,
            noise_epsilon=noise_epsilon,
            out=out,
            progress=progress,
        )
    page = darkvocab.report(out)[0] if out else None
    if as_json:
        frames = {name: getattr(evolution, name) for name in ("tokens", "events", "records")}
        sys.stdout.writelines(frames_json(evolution.summary, **frames))
    else:
        print_evolution(evolution.records, evolution.events, evolution.summary, console())
    if out:
        say(f"open {page}; records in {out / 'evolution.parquet'}, events in {out / 'events.parquet'}")
    else:
        say("nothing was kept: --out DIR lands records, events and figures")


@app.command(no_args_is_help=True)
def history(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="org/name on the Hugging Face Hub, a folder of checkpoints, or several sources in their order.",
            metavar="SOURCE...",
        ),
    ],
    revisions: Annotated[
        str | None,
        typer.Option(
            help="Of one source: only branches and tags, or checkpoints in the folder, that match; 'step*,main'."
        ),
    ] = None,
    tensor: Tensor = None,
    grid: GridName = None,
    tokenizer: Tokenizer = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all records, as Parquet, CSV and JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Follow black holes and rows from checkpoint to checkpoint: which are equal, which moved, since when frozen.

    Example: darkvocab history org/name --revisions 'step*' --out runs/history
    """
    from ..reports.changes import print_series
    from ..reports.console import console, frames_json

    announce_compilation()
    with progress_bar("measuring", in_bytes=True) as progress:
        series = darkvocab.series(
            *sources, revisions=revisions, tensor=tensor, grid=grid, tokenizer=tokenizer, out=out, progress=progress
        )
    frames = {name: getattr(series, name) for name in ("checkpoints", "black_holes", "tokens", "events")}
    if as_json:
        sys.stdout.writelines(frames_json(series.summary, **frames))
    else:
        print_series(**frames, summary=series.summary, to=console())
    if out:
        say(f"checkpoints in {out / 'checkpoints.csv'}, events and tokens beside it")
