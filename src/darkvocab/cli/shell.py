"""What every command shares: the application, errors as sentences and exit codes, and progress on stderr."""

import atexit
import gc
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, NoReturn, TypeVar

import typer

import darkvocab

from ..errors import DarkvocabError, DiskFull, of_the_machine
from ..text import printable
from .options import TEXTS, Command, Function, Group, takes_options

FINDINGS = 1
BUG = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130
Result = TypeVar("Result")


class Application(typer.Typer):
    """An application whose commands have the help of `Command`, take their options and end errors as `command` does."""

    def command(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """Register a command; as `typer.Typer.command`."""
        register = super().command(*arguments, **{"cls": Command, **options})
        return lambda function: register(command(takes_options(function, "printed", "terminal")))


app = Application(
    name="darkvocab",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_interrupted = False
TERMINAL: dict[str, Any] = {"quiet": False, "color": None}  # as asked for before a command's name or behind it


def say(text: str) -> None:
    """Print a note to stderr, unless --quiet was given."""
    if not TERMINAL["quiet"]:
        print(text, file=sys.stderr, flush=True)


def fail(error: BaseException | str, code: int) -> NoReturn:
    lines = str(error).split("\n")
    print("\n".join(["darkvocab: " + printable(lines[0]), *map(printable, lines[1:])]), file=sys.stderr, flush=True)
    raise typer.Exit(code)


def command(function: Function) -> Function:
    """Turn what a library call raises into a sentence and an exit code."""

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> None:
        TERMINAL.update({name: asked for name in TERMINAL if (asked := options.pop(name, None))})
        try:
            function(*arguments, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has what it wanted
        except typer.Exit:
            raise
        except BaseException as error:
            lands = options.get("resume") is not None and options.get("out")
            resumable = " (what has landed is kept: the same command with --resume goes on)" if lands else ""
            fail(*_explained(error, resumable))

    return wrapped  # type: ignore[return-value]


def _explained(error: BaseException, resumable: str) -> tuple[str, int]:
    """Return the sentence and the exit code for an exception; a bug is shown whole, with what to do about it."""
    if isinstance(error, KeyboardInterrupt) or _interrupted:  # a library may turn the interruption into its own error
        return f"interrupted{resumable}", INTERRUPTED
    known = error if isinstance(error, DarkvocabError) else of_the_machine(error)
    if known is None:
        traceback.print_exception(error)
        return TEXTS["bug"].format(version=darkvocab.__version__), BUG
    room = f"; make room{resumable}" if isinstance(known, DiskFull) else ""
    return f"{known}{room}", known.exit_code


def put(
    as_json: bool,
    table: Callable[..., None],
    report: Any,
    *given: Any,
    data: Callable[[], Any] | None = None,
    **options: Any,
) -> None:
    """Print a report with a function of `reports`, or as JSON: itself, or the data (or lines) that are made of it."""
    if as_json:
        value = data() if data else report
        sys.stdout.writelines(value if isinstance(value, Iterator) else (json.dumps(value, allow_nan=False), "\n"))
    else:
        from ..reports.console import console

        table(report, console(TERMINAL["color"]), *given, **options)


@app.callback(invoke_without_command=True)
@takes_options
def root(version: bool, **terminal: Any) -> None:
    TERMINAL.update(terminal)
    if version:
        machine = f"{platform.system()} {platform.machine()}, {processor()}"
        print(f"darkvocab {darkvocab.__version__}, Python {platform.python_version()}, {machine}")
        raise typer.Exit


def processor() -> str:
    """Return the name of the processor and its instruction sets that kernels are compiled for, as LLVM has them."""
    from llvmlite import binding

    has = binding.get_host_cpu_features()
    sets = [name for feature, name in TEXTS["instructions"].items() if has.get(feature)]
    return ", ".join([binding.get_host_cpu_name(), *sets])


def _interrupt(signum: int, frame: Any) -> NoReturn:
    global _interrupted
    _interrupted = True
    sys.unraisablehook = lambda _: None  # what a library was making just then may complain when it goes
    raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise KeyboardInterrupt once more where it was raised before: a callback of a library may have swallowed it."""
    if _interrupted:
        raise KeyboardInterrupt


class _Pace:
    """Text for a progress bar: how far, how fast over the last half minute, how long still.

    The first call's count was done before, by an earlier run, and does not enter the speed.
    """

    def __init__(self, *, in_bytes: bool = False) -> None:
        self._in_bytes = in_bytes
        self._calls: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int) -> str:
        check_interrupted()
        now = time.monotonic()
        if self._calls and done < self._calls[-1][1]:  # another thing has begun
            self._calls.clear()
        self._calls.append((now, done))
        while len(self._calls) > 2 and self._calls[1][0] <= now - 30:
            self._calls.popleft()
        then, before = self._calls[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        reached = _in_bytes(done, total) if self._in_bytes else f"{done:,} of {total:,}"
        if not rate:
            return reached
        speed, unit = (rate / 1e6, " MB") if self._in_bytes else (rate, "")
        shown = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        return f"{reached}, {shown}{unit}/s, about {_spoken((total - done) / rate)} left"


def _in_bytes(done: int, total: int) -> str:
    scale, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    return f"{done / scale:,.1f} of {total / scale:,.1f} {unit}"


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


@contextmanager
def progress_bar(label: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that draws a bar on a terminal, or else writes a line every ten seconds."""
    for number in (signal.SIGINT, signal.SIGTERM):  # polars, once imported, has the system resume what they interrupt
        if hasattr(signal, "siginterrupt"):  # on POSIX
            signal.siginterrupt(number, True)
    pace = _Pace(in_bytes=in_bytes)
    if sys.stderr.isatty() and not TERMINAL["quiet"]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        from ..reports.console import COLORS

        columns = TextColumn(label, markup=False), BarColumn(), TextColumn("{task.description}", markup=False)
        console = Console(stderr=True, **COLORS[TERMINAL["color"]])
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description=pace(done, total))
        return
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        text = pace(done, total)
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            say(f"{label}: {text}")

    yield line


@cache
def announce_compilation() -> None:
    """Say once that kernels are being compiled, when they are; the compiled ones are kept for the next time."""
    from numba.core import event

    class Announce(event.Listener):  # type: ignore[misc]
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                self.said = True
                say("compiling kernels for this machine: a few seconds, the first time only")

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Announce())


def watched(label: str, call: Callable[..., Result], *given: Any, in_bytes: bool = False, **settings: Any) -> Result:
    """Call a function of the library, whose kernels may be compiled first, and show its progress."""
    announce_compilation()
    with progress_bar(label, in_bytes=in_bytes) as progress:
        return call(*given, progress=progress, **settings)


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
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # its idle threads sleep: they would keep cores from others
    gc.set_threshold(100_000)  # a command makes millions of objects that are in no cycle,
    atexit.register(gc.freeze)  # and what is left at its end goes with the process
    app()
