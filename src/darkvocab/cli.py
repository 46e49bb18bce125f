"""The command line: parse, call one library function, print. stdout carries data, stderr everything else."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
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
                " (what has landed is kept: the same command with --resume goes on)" if options.get("out") else ""
            )
            _fail(*_explained(error, resumable))

    return wrapped  # type: ignore[return-value]


def _explained(error: BaseException, resumable: str) -> tuple[BaseException | str, int]:
    """What to say of an exception, and the exit code; raises it again where it is a bug of ours."""
    from .matrix import NoEmbedding
    from .records import DiskFull
    from .sources import CorruptFile

    if isinstance(error, KeyboardInterrupt) or _interrupted:  # a library may turn the interruption into its own error
        return f"interrupted{resumable}", INTERRUPTED
    if isinstance(error, DiskFull):
        return f"{error.strerror}; make room{resumable}", INTERRUPTED
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


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that draws a bar on a terminal, and elsewhere writes a line every ten seconds."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    said = started = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= 10:
            said = now
            _say(f"{label}: {done:,} of {total:,}, about {(now - started) * (total - done) / max(done, 1):,.0f} s left")

    yield line


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(darkvocab.__version__)
        raise typer.Exit


Tensor = Annotated[str | None, typer.Option(help="Take this tensor instead of the one found.", show_default=False)]
GridName = Annotated[
    str | None,
    typer.Option(
        help="Round to this grid first: bfloat16, float16, float32, float8_e4m3fn, float8_e5m2.", show_default=False
    ),
]
Bitwise = Annotated[bool, typer.Option("--bitwise", help="Compare bit patterns, so that -0.0 is not 0.0.")]
SourceArgument = Annotated[
    str, typer.Argument(help="A .safetensors or .npy file, or a model folder.", metavar="SOURCE", show_default=False)
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
    with _progress("reading") as progress:
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


@app.command(no_args_is_help=True)
@_command
def sweep(
    sigma: Annotated[
        str,
        typer.Option(help="START:STOP:COUNT, both ends included, or a comma list; weight units.", show_default=False),
    ],
    spacing: Annotated[str, typer.Option(help="Of START:STOP:COUNT: linear or log.")] = "linear",
    trials: Annotated[int, typer.Option(help="Snowballs at each sigma.")] = 1,
    tokens: Annotated[int, typer.Option(help="Rows of a snowball.")] = 2100,
    dim: Annotated[int | None, typer.Option(help="Components; by default the base's.", show_default=False)] = None,
    base: Annotated[
        str, typer.Option(help="qwen3-4b, qwen3-4b-centred, random, random-unit, or a file with a vector.")
    ] = "qwen3-4b",
    redraw_base: Annotated[bool, typer.Option("--redraw-base", help="Draw a random base anew at each sigma.")] = False,
    grid: Annotated[str, typer.Option(help="Number grid to round to.")] = "bfloat16",
    arithmetic: Annotated[
        str, typer.Option(help="float32 (add in float32, then round) or exact (round once).")
    ] = "float32",
    epsilon: Annotated[
        float | None, typer.Option(help="A length, weight units, to scale two columns by.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 42,
    sampler: Annotated[
        str, typer.Option(help="sparse, dense (the same law, slower), or notebook (torch's stream).")
    ] = "sparse",
    workers: Annotated[
        int | None, typer.Option(help="Threads; by default as many as pay. Never changes a record.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder for records, figures and report.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Draw snowballs over a range of sigma and count their black holes (12.2a).

    Example: darkvocab sweep --sigma 1.5e-9:5e-9:1000 --out runs/qwen
    """
    from .experiments.sweep import parse_sigmas

    settings = darkvocab.Sweep(
        parse_sigmas(sigma, spacing),
        trials=trials,
        n_tokens=tokens,
        dim=dim,
        base=base,
        redraw_base=redraw_base,
        grid=grid,
        arithmetic=arithmetic,
        epsilon=epsilon,
        seed=seed,
        sampler=sampler,
    )
    _announce_compilation()
    with _progress("sweeping") as progress:
        frame = settings.frame(workers=workers, out=out, resume=resume, progress=progress)
    written = darkvocab.report(out) if out else []
    if as_json:
        from .reports.tables import summary

        _print_json({"summary": summary(frame), "records": frame.to_dicts()})
    else:
        from .reports.tables import console, print_sweep

        print_sweep(frame, console())
    if written:
        _say(f"open {written[0]}; records in {Path(str(out)) / 'records.csv'}, figure for print {written[-1]}")
    else:
        _say("nothing was kept: --out DIR lands records, figures and a report")


@app.command(no_args_is_help=True)
@_command
def reproduce(
    recipe: Annotated[str, typer.Argument(help="12.2a, 12.1a or 11.2c-init.", show_default=False)],
    base: Annotated[
        Path | None, typer.Option(help="12.2a: the centroid file that the notebook loads.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="12.2a: a run folder for its records.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Run a notebook's experiment with its own parameters, beside what it published.

    Exits with 1 where a figure that can be checked does not agree. Example: darkvocab reproduce 12.1a
    """
    from dataclasses import asdict

    from .experiments.recipes import DIFFERS

    if recipe != "12.2a" and (base or out or resume):
        _fail(f"--base and --out are for 12.2a, as is --resume; {recipe} has none of them", USAGE)
    _announce_compilation()
    with _progress(f"reproducing {recipe}") as progress:
        settings: dict[str, Any] = {"base": base, "out": out, "resume": resume, "progress": progress}
        comparison = darkvocab.reproduce(recipe, **(settings if recipe == "12.2a" else {}))
    rows = [asdict(row) for row in comparison]
    if out:
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
