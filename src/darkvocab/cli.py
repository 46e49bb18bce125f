"""The command line: parse, call one library function, print. stdout carries data, stderr everything else."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

import darkvocab

FINDINGS, USAGE, MISSING, CORRUPT, INTERRUPTED = 1, 2, 3, 4, 130

app = typer.Typer(
    name="darkvocab",
    help="Which tokens did a model never learn, what structure do they form, and how did it get there?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_interrupted = False
Command = TypeVar("Command", bound=Callable[..., None])
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(error: BaseException | str, code: int) -> NoReturn:
    from .matrix import printable

    lines = str(error).split("\n")
    _say("\n".join(["darkvocab: " + printable(lines[0]), *map(printable, lines[1:])]))
    raise typer.Exit(code)


def _command(function: Command) -> Command:
    """Turn what a library call raises into a sentence and an exit code."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has what it wanted
        except typer.Exit:
            raise
        except BaseException as error:
            resumable = (
                " (what has landed is kept: the same command with --resume goes on)"
                if options.get("resume") is not None and options.get("out")
                else ""
            )
            _fail(*_explained(error, resumable))

    return wrapped  # type: ignore[return-value]


def _explained(error: BaseException, resumable: str) -> tuple[BaseException | str, int]:
    """What to say of an exception, and the exit code; raises it again where it is a bug of ours."""
    from .engine import EngineLost, WorkerDied
    from .folder import FULL, DiskFull
    from .matrix import NoEmbedding
    from .sources import CorruptFile

    if isinstance(error, KeyboardInterrupt) or _interrupted:  # a library may turn the interruption into its own error
        return f"interrupted{resumable}", INTERRUPTED
    if isinstance(error, DiskFull):
        return f"{error.strerror}; make room{resumable}", INTERRUPTED
    if isinstance(error, OSError) and error.errno in FULL:  # numba keeps what it compiles
        return (
            f"no space left to write ({error}); make room, or set NUMBA_CACHE_DIR to where there is{resumable}",
            INTERRUPTED,
        )
    if isinstance(error, ArithmeticError):  # a training that diverged
        return error, FINDINGS
    if isinstance(error, (EngineLost, WorkerDied)):
        return error, INTERRUPTED
    if isinstance(error, MemoryError):
        return f"this needs more memory than there is ({error})", USAGE
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", MISSING
    if isinstance(error, (OSError, ImportError, NoEmbedding)):
        return error, MISSING
    if isinstance(error, ValueError):
        return error, CORRUPT if isinstance(error, CorruptFile) else USAGE
    raise error


def _announce_compilation() -> None:
    """Say once that kernels are being compiled, when they are; the compiled ones are kept for the next time."""
    from numba.core import event

    class Announce(event.Listener):  # type: ignore[misc]
        said = False

        def on_start(self, event: Any) -> None:
            if not Announce.said:
                Announce.said = True
                _say("compiling kernels for this machine: a few seconds, the first time only")

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Announce())


class _Pace:
    """How far, how fast over the last half minute, how long still. What the first call tells was done before us."""

    def __init__(self, *, in_bytes: bool = False) -> None:
        self._in_bytes = in_bytes
        self._told: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int) -> str:
        now = time.monotonic()
        self._told.append((now, done))
        while len(self._told) > 2 and self._told[1][0] <= now - 30:
            self._told.popleft()
        then, before = self._told[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        scale, unit = (1e9, " GB") if total >= 1e9 else (1e6, " MB")
        far = f"{done / scale:,.1f} of {total / scale:,.1f}{unit}" if self._in_bytes else f"{done:,} of {total:,}"
        if not rate:
            return far
        speed, unit = (rate / 1e6, " MB") if self._in_bytes else (rate, "")
        left = (total - done) / rate
        spoken = f"{left:,.0f} s" if left < 120 else f"{left / 60:,.0f} min" if left < 7200 else f"{left / 3600:,.1f} h"
        return f"{far}, {f'{speed:,.0f}' if speed >= 10 else f'{speed:.2g}'}{unit}/s, about {spoken} left"


@contextmanager
def _progress(label: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that draws a bar on a terminal, and elsewhere writes a line every ten seconds."""
    pace = _Pace(in_bytes=in_bytes)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn(label, markup=False), BarColumn(), TextColumn("{task.description}", markup=False)
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description=pace(done, total))
        return
    said = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal said
        text = pace(done, total)
        if time.monotonic() - said >= 10:
            said = time.monotonic()
            _say(f"{label}: {text}")

    yield line


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(darkvocab.__version__)
        raise typer.Exit


Tensor = Annotated[
    str | None,
    typer.Option(help="Take this tensor instead of the one found; NAME[ROW] of a history.", show_default=False),
]
GridName = Annotated[
    str | None,
    typer.Option(
        help="Round to this grid first: bfloat16, float16, float32, float8_e4m3fn, float8_e5m2.", show_default=False
    ),
]
Bitwise = Annotated[bool, typer.Option("--bitwise", help="Compare bit patterns, so that -0.0 is not 0.0.")]
SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A .safetensors, .bin, .pt, .pth, .gguf, .npy or .npz file, or a model folder.",
        metavar="SOURCE",
        show_default=False,
    ),
]


@app.command(no_args_is_help=True)
@_command
def scan(
    source: SourceArgument,
    tensor: Tensor = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    tokenizer: Annotated[
        str | None, typer.Option(help='A tokenizer.json to name tokens by; "none" for ids only.', show_default=False)
    ] = None,
    checksum: Annotated[
        bool, typer.Option("--sha256/--no-sha256", help="Hash the weights file, which reads all of it.")
    ] = True,
    show: Annotated[int, typer.Option(help="Tokens to print of each black hole.", min=1)] = 12,
    csv: Annotated[
        Path | None, typer.Option(help="Also write every token of a black hole to this CSV.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Census of a checkpoint: which tokens share an embedding row, bit for bit?

    Example: darkvocab scan path/to/model --grid bfloat16
    """
    _announce_compilation()
    with _progress("reading", in_bytes=True) as progress:
        report = darkvocab.scan(
            source, tensor=tensor, grid=grid, bitwise=bitwise, tokenizer=tokenizer, checksum=checksum, progress=progress
        )
    if csv is not None:
        from .experiments.scan import write_tokens

        write_tokens(report, csv)
    if as_json:
        _print_json(report)
    else:
        from .reports.tables import console, print_scan

        print_scan(report, console(), show)


@app.command(no_args_is_help=True)
@_command
def centroid(
    source: SourceArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.", show_default=False)],
    tensor: Tensor = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    as_json: Json = False,
) -> None:
    """Write the population-weighted mean of the black-hole rows: a base for `sweep`, float32, key `centroid`.

    Example: darkvocab centroid path/to/model -o centroid.safetensors
    """
    _announce_compilation()
    made = darkvocab.centroid(source, output, tensor=tensor, grid=grid, bitwise=bitwise)
    if as_json:
        _print_json(made)
    else:
        from .matrix import printable

        facts = made["provenance"]
        print(
            f"{printable(made['path'])}: {made['hidden_dim']:,} components, norm {made['norm']:.6f}, the mean of "
            f"{facts['black_hole_population']:,} tokens in {facts['n_black_holes']:,} black holes on {facts['grid']}"
        )


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
Seed = Annotated[int, typer.Option(help="Of every draw.")]
Measure = Annotated[str, typer.Option(help="A comma list of census, geometry, steps, topology.")]
Over = Annotated[str, typer.Option(help="L-infinity over black_holes, unique rows, or all tokens.")]
Epsilon = Annotated[float | None, typer.Option(help="A length, weight units, to scale columns by.", show_default=False)]
TouchingOption = Annotated[
    float | None,
    typer.Option(help="Rows touch within this; by default twice --epsilon, or else 2 steps.", show_default=False),
]
TouchingUnit = Annotated[str, typer.Option(help="Of --touching: weight or steps.")]
Strict = Annotated[bool, typer.Option("--strict", help="Rows touch at < (not <=) --touching.")]
EngineName = Annotated[
    str, typer.Option(help="local, serial, threads, processes, dask://HOST:PORT, or dask:SCHEDULER_FILE.json.")
]
Workers = Annotated[
    int | None,
    typer.Option(help="Of a local engine; by default as many as pay. Never changes a record.", show_default=False),
]
Out = Annotated[Path | None, typer.Option(help="Run folder for records, figures and report.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]


def _touching(threshold: float | None, unit: str, strict: bool) -> Any:
    """The threshold of the graph, or None for the default."""
    if threshold is None:
        if strict:
            raise ValueError("--strict says how rows touch at --touching; give --touching, too")
        return None
    return darkvocab.Touching(threshold, unit, strict)


def _run(settings: Any, label: str, as_json: bool, **running: Any) -> None:
    """Run an experiment on snowballs; print its table or its JSON, and write its report where it has a folder."""
    from .reports.tables import console, experiment_json, print_experiment

    _announce_compilation()
    out = running["out"]
    with _progress(label) as progress:
        if out:
            settings.land(progress=progress, say=_say, **running)
            made: Any = out
        else:
            made = settings.frame(progress=progress, say=_say, **running)
    written = darkvocab.report(out) if out else []
    if as_json:
        sys.stdout.writelines(experiment_json(settings.experiment, made))
    else:
        print_experiment(settings.experiment, made, console())
    if out:
        from .folder import read_manifest
        from .records import csv_path

        figures = f", figure for print {written[-1]}" if len(written) > 1 else ""
        _say(f"open {written[0]}; records in {csv_path(out, read_manifest(out))}{figures}")
    else:
        _say("nothing was kept: --out DIR lands records, figures and a report")


@app.command(no_args_is_help=True)
@_command
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
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Draw snowballs over a range of sigma and count their black holes (12.2a).

    Example: darkvocab sweep --sigma 1.5e-9:5e-9:1000 --out runs/qwen
    """
    from .experiments.clouds import parse_sigmas

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
    _run(settings, "sweeping", as_json, engine=engine, workers=workers, out=out, resume=resume)


@app.command(no_args_is_help=True)
@_command
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
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Draw many snowballs at one sigma (or several) and take every statistic of each (12.4b).

    Example: darkvocab trials --sigma 3.281911e-3 --trials 100 --epsilon 5.9604645e-5 --out runs/trials
    """
    from .experiments.clouds import parse_sigmas

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
    _run(settings, "drawing", as_json, engine=engine, workers=workers, out=out, resume=resume)


@app.command()
@_command
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
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Does rounding alone connect a snowball, at the grid's limit, with plausible populations (13.5a)?

    Example: darkvocab questions --out runs/questions
    """
    from .experiments.bases import DRAWN
    from .experiments.clouds import parse_sigmas

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
    _run(settings, "asking", as_json, engine=engine, workers=workers, out=out, resume=resume)


@app.command()
@_command
def train(
    out: Annotated[Path, typer.Option(help="Run folder for the recording.", show_default=False)],
    corpus: Annotated[
        Path | None, typer.Option(help="A text file; by default the help topics of Python.", show_default=False)
    ] = None,
    vocabulary: Annotated[
        int | None, typer.Option(help="Bytes below this are tokens, 128 or 256; by default 128.", show_default=False)
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, instead of bytes.", show_default=False)
    ] = None,
    start: Annotated[str, typer.Option(help="Rows before step 1: normal, point, or snowball.")] = "snowball",
    init_unit: Annotated[bool, typer.Option(help="point: a vector of length 1.")] = True,
    init_sigma: Annotated[float, typer.Option(help="snowball: noise around its vector, weight units.")] = 1e-5,
    init_drawn: Annotated[str, typer.Option(help="snowball: summed in float32, or in the weights' grid.")] = "float32",
    noise: Annotated[str, typer.Option(help="After each step: none or gaussian.")] = "none",
    noise_sigma: Annotated[float, typer.Option(help="Of that noise, weight units.")] = 3e-6,
    noise_rows: Annotated[str, typer.Option(help="It moves all rows, or unseen ones.")] = "all",
    precision: Annotated[
        str, typer.Option(help="pure-bf16 (the notebooks'), bf16-weights (float32 state), mixed, or float32.")
    ] = "bf16-weights",
    rounding: Annotated[str, typer.Option(help="bf16-weights: nearest or stochastic.")] = "nearest",
    norm: Annotated[str, typer.Option(help="layernorm or rmsnorm.")] = "layernorm",
    tied: Annotated[bool, typer.Option(help="The output matrix is the embedding.")] = True,
    layers: Annotated[int, typer.Option(help="Of the GPT-2.")] = 2,
    heads: Annotated[int, typer.Option(help="Of each layer.")] = 2,
    width: Annotated[int, typer.Option(help="Components of an embedding row.")] = 64,
    context: Annotated[int, typer.Option(help="Tokens of an example.")] = 128,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr", help="At step 1.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of matrices; biases and norms have none.")] = 0.01,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: linear (down to 0) or constant.")] = "linear",
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient; 0: any.")] = 1.0,
    batch: Annotated[int, typer.Option(help="Examples of a step.")] = 32,
    steps: Annotated[int, typer.Option(help="To make.")] = 10_000,
    label_shift: Annotated[int, typer.Option(help="Tokens ahead to predict: 1, or 2 as the notebooks do.")] = 1,
    seed: Seed = 42,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    record_every: Annotated[int, typer.Option(help="Steps from one recorded state to the next.")] = 1,
    record: Annotated[
        list[str] | None,
        typer.Option(help="Also record gradients, or moments, of the embedding; repeat for both.", show_default=False),
    ] = None,
    replicas: Annotated[int, typer.Option(help="Trainings, from --seed and the seeds that follow.", min=1)] = 1,
    engine: EngineName = "local",
    workers: Workers = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a small GPT-2 from such a start, recording its embedding after every step (11.2c, 11.2b, 11.2a).

    Example: darkvocab train --steps 2000 --out runs/train
    """
    from .experiments.training import choices
    from .experiments.training.lab import outcome

    settings = darkvocab.Training(
        corpus=darkvocab.load_corpus(corpus, vocabulary=vocabulary, tokenizer=tokenizer),
        architecture=choices.Architecture(
            layers=layers, heads=heads, width=width, context=context, norm=norm, tied=tied
        ),
        start=choices.start(start, unit=init_unit, sigma=init_sigma, drawn=init_drawn),
        noise=choices.noise(noise, sigma=noise_sigma, rows=noise_rows),
        precision=precision,
        rounding=rounding,
        optimizer=choices.optimizer(optimizer, learning_rate=learning_rate, weight_decay=weight_decay),
        schedule=schedule,
        clip=clip or None,
        batch=batch,
        steps=steps,
        label_shift=label_shift,
        seed=seed,
        device=device,
        record_every=record_every,
        record=tuple(record or ()),
    )
    if replicas > 1:
        _replicas(settings, replicas, out, as_json, engine=engine, workers=workers, resume=resume)
        return
    if engine != "local" or workers is not None:
        raise ValueError("--engine and --workers are for several --replicas; one training takes the cores there are")
    with _progress("training") as progress:
        settings.run(out, resume=resume, progress=progress, say=_say)
    made = outcome(out)
    if as_json:
        _print_json(made)
    else:
        from .reports.tables import console, print_training

        print_training(made, console())


def _replicas(settings: Any, n: int, out: Path, as_json: bool, **running: Any) -> None:
    """Train from several seeds, and print where they ended."""
    from .records import read_records
    from .reports.replicas import print_replicas, replicas_json
    from .reports.tables import console

    _announce_compilation()
    with _progress("training") as progress:
        darkvocab.Replicas(training=settings, n=n).run(out, progress=progress, say=_say, **running)
    page, *_, figure = darkvocab.report(out)
    if as_json:
        _print_json(replicas_json(out, read_records(out)))
    else:
        print_replicas(read_records(out), console())
    _say(f"open {page}; records in {out / 'records.csv'}, figure for print {figure}")


@app.command(no_args_is_help=True)
@_command
def evolve(
    source: Annotated[
        Path,
        typer.Argument(help="A run folder, or a .safetensors history.", metavar="SOURCE", show_default=False),
    ],
    unseen: Annotated[
        str | None,
        typer.Option(
            help="Tokens that training never showed: ids as 0-8,127, or a JSON file; by default what corpus.json says.",
            show_default=False,
        ),
    ] = None,
    tensor: Annotated[
        str | None, typer.Option(help="Take this tensor instead of embedding_history.", show_default=False)
    ] = None,
    every: Annotated[int, typer.Option(help="Take every so many recorded rows, and the last.", min=1)] = 1,
    init_sigma: Annotated[
        float | None,
        typer.Option(help="Of 11.2c's verdict, weight units; by default the run's.", show_default=False),
    ] = None,
    noise_epsilon: Annotated[
        float | None,
        typer.Option(help="Of 11.2b's verdict, weight units; by default the run's.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for records, events and figures; by default the run folder.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """What became of the black holes while a model was trained: step by step, over all, seen and unseen tokens.

    Example: darkvocab evolve runs/lab --every 10
    """
    from .reports.evolution import draw_evolution, evolution_json, print_evolution
    from .reports.tables import console

    _announce_compilation()
    if out is None and (source / "manifest.json").is_file():
        out = source
    with _progress("measuring") as progress:
        made = darkvocab.evolve(
            source,
            unseen=unseen,
            tensor=tensor,
            every=every,
            init_sigma=init_sigma,
            noise_epsilon=noise_epsilon,
            out=out,
            progress=progress,
        )
    written = draw_evolution(out) if out else []
    if as_json:
        sys.stdout.writelines(evolution_json(made.records, made.events, made.tokens, made.summary))
    else:
        print_evolution(made.records, made.events, made.summary, console())
    if out:
        _say(f"records in {out / 'evolution.parquet'}, events in {out / 'events.parquet'}, figures {written[0].parent}")
    else:
        _say("nothing was kept: --out DIR lands records, events and figures")


@app.command(no_args_is_help=True)
@_command
def reproduce(
    recipe: Annotated[
        str, typer.Argument(help="12.2a, 12.4b, 13.5a, 11.2c, 11.2b, 11.2a, 12.1a or 11.2c-init.", show_default=False)
    ],
    base: Annotated[
        Path | None, typer.Option(help="12.2a, 12.4b: the centroid file that the notebook loads.", show_default=False)
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="11.2c, 11.2b, 11.2a: the text that the notebook trains on.", show_default=False)
    ] = None,
    engine: EngineName = "local",
    workers: Workers = None,
    out: Annotated[
        Path | None, typer.Option(help="A run folder for its records, or its recording.", show_default=False)
    ] = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Run a notebook's experiment with its own parameters, beside what it published.

    Exits with 1 where a figure that can be checked does not agree. Example: darkvocab reproduce 12.1a
    """
    from dataclasses import asdict

    from .experiments.comparison import DIFFERS
    from .experiments.recipes import CLOUDS, TRAININGS, WITH_CENTROID

    if base and recipe not in WITH_CENTROID:
        _fail(f"--base is for {' and '.join(WITH_CENTROID)}; {recipe} draws its own", USAGE)
    if corpus and recipe not in TRAININGS:
        _fail(f"--corpus is for {', '.join(TRAININGS)}; {recipe} trains nothing", USAGE)
    if (out or resume) and recipe not in (*CLOUDS, *TRAININGS):
        _fail(f"--out and --resume are for {', '.join((*CLOUDS, *TRAININGS))}; {recipe} leaves no records", USAGE)
    _announce_compilation()
    with _progress(f"reproducing {recipe}") as progress:
        settings: dict[str, Any] = {"base": base} if base else {}
        if recipe in CLOUDS:
            settings |= {"engine": engine, "workers": workers, "out": out, "resume": resume, "say": _say}
        if recipe in TRAININGS:
            settings |= {"corpus": corpus, "out": out, "resume": resume, "say": _say}
        comparison = darkvocab.reproduce(recipe, progress=progress, **settings)
    rows = [asdict(row) for row in comparison]
    if out and recipe in CLOUDS:
        darkvocab.report(out)
    if as_json:
        _print_json({"recipe": recipe, "figures": rows})
    else:
        from .reports.tables import console, print_comparison

        print_comparison(rows, console())
    if any(row.agrees == DIFFERS for row in comparison):
        raise typer.Exit(FINDINGS)


@app.command(no_args_is_help=True)
@_command
def report(
    run: Annotated[Path, typer.Argument(help="A finished run folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write the figures and the report of a finished run again, from its records.

    Example: darkvocab report runs/qwen
    """
    written = darkvocab.report(run)
    if as_json:
        _print_json({"written": [str(path) for path in written]})
    else:
        print("\n".join(str(path) for path in written))


@app.command(no_args_is_help=True)
@_command
def summary(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.", show_default=False)],
    column: Annotated[
        list[str] | None,
        typer.Option(help="This column, at each sigma; repeat for more.", show_default=False),
    ] = None,
    bins: Annotated[int, typer.Option(help="Of each histogram.", min=1, max=10_000)] = 30,
    as_json: Json = False,
) -> None:
    """Statistics of a run's records, column by column: mean, spread, quantiles, histogram.

    Example: darkvocab summary runs/qwen --column n_black_holes
    """
    made = darkvocab.summary(run, column or None, bins)
    if as_json:
        _print_json(made)
    else:
        from .reports.summary import print_summary
        from .reports.tables import console

        print_summary(made, console(), single=bool(column))
    if made["n_landed"] < made["n_records"]:
        _say(f"{made['n_landed']:,} of {made['n_records']:,} records have landed; the run is {made['status']}")


def _interrupt(signum: int, frame: Any) -> NoReturn:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: SIGTERM ends a run as Ctrl-C does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and background jobs of a script have it
            signal.signal(number, _interrupt)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed from the start: nobody listens
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a text that the terminal's encoding lacks
    app()
