"""Parts that every command shares: the application, errors as sentences and exit codes, and progress on stderr."""

import atexit
import gc
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, wraps
from typing import Any, NoReturn, TypeVar

import typer

import darkvocab

from .. import progress
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
        print(f"darkvocab {darkvocab.__version__}, Python {platform.python_version()}, {machine()}")
        raise typer.Exit


def machine() -> str:
    """Return the system, the processor, and its instruction sets that kernels are compiled for, as LLVM has them."""
    from llvmlite import binding

    has = binding.get_host_cpu_features()
    sets = [name for feature, name in TEXTS["instructions"].items() if has.get(feature)]
    return ", ".join([f"{platform.system()} {platform.machine()}", binding.get_host_cpu_name(), *sets])


def _interrupt(signum: int, frame: Any) -> NoReturn:
    global _interrupted
    _interrupted = True
    sys.unraisablehook = lambda _: None  # what a library was making just then may complain when it goes
    raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise KeyboardInterrupt once more where it was raised before: a callback of a library may have swallowed it."""
    if _interrupted:
        raise KeyboardInterrupt


def progress_bar(label: str, *, in_bytes: bool = False) -> AbstractContextManager[Callable[[int, int], None]]:
    """Show progress as `progress.progress_bar`, unless --quiet was given; its callback raises an interruption again."""
    return progress.progress_bar(label, in_bytes=in_bytes, check=check_interrupted, **TERMINAL)


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
    with progress_bar(label, in_bytes=in_bytes) as report:
        return call(*given, progress=report, **settings)


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
