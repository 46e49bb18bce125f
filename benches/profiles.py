"""Profile every command: wall and processor time, memory, and the shares of what takes its time, as a Markdown table.

    python benches/profiles.py [--only COMMAND]

A command runs as users run it, in a process of its own, and in one more that runs it three times. What the first
run takes more than the second, in processor time, is its start: Python, imports, loading compiled kernels. The third
is profiled with cProfile, in all threads; the share of a part is its own time in this run of that of all parts, waits
left out, and the profiler's own cost a call taken off. What a library does on threads of its own is its time from
call to return. Kernels that read a mapped file have its reading in their time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BASE = "--base qwen3-4b-centred"
COMMANDS = (  # {out} is new in every run; the other files are those of `inputs`
    "scan {model} --html {out}.html",
    "check {model}",
    "vocabulary {model}/tokenizer.json",
    "neighbours {model}",
    "centroid {model} -o {out}.safetensors",
    "diff {model} {other}",
    "history {model} {other}",
    "repair {model} -o {out}",
    f"sweep --sigma 1.5e-9:5e-9:1000 {BASE} --out {{out}}",
    f"trials --sigma 3.281911e-3 --trials 48 --epsilon 5.9604645e-5 {BASE} --out {{out}}",
    "questions --out {out}",
    f"expect --sigma 1.5e-9:5e-9:1000 {BASE}",
    "fit --target qwen3-4b",
    "train --steps 200 --precision pure-bf16 --out {out}",
    "evolve {history} --unseen 76-127 --out {out}",
    "reproduce 12.1a",
    "report {run}",
    "summary {run}",
)
SERIAL = {"sweep", "trials", "questions"}  # profiled without processes of their own, which a profiler does not see
SHOWN = 0.03  # the least share that is named
PARTS = {  # by file and name of a function; what is nowhere here counts to its package, one of C to its caller's part
    "waits": r"^~.*(acquire|_thread\.|_queue|select\.|poll|sleep)",
    "kernels": r"(src|site-packages)/darkvocab/.*_backends",
    "darkvocab": r"(src|site-packages)/darkvocab/",
    "figures": r"site-packages/(matplotlib|PIL|fontTools|kiwisolver|contourpy|pyparsing)",
    "numpy": r"site-packages/numpy|^~.*(numpy|ufunc)",
    "polars": r"site-packages/polars|^~.*(polars|PyDataFrame|PySeries|PyLazyFrame|PyExpr|new_(opt_|str))",
    "hashing": r"^~.*(_hashlib|_sha)",
    "compression": r"/gzip\.py|^~.*zlib",
    "JSON": r"/json/|^~.*_json",
    "files": r"^~.*(io\.open|_io\.|posix\.|mmap)",
    "torch": r"site-packages/torch|^~.*torch",
    "tokenizers": r"^~.*tokenizers",
}

# Runs a command three times, each with a folder of its own for {out}; prints shares.
AGAIN = "import sys; sys.path.insert(0, {here!r}); import profiles; profiles.again({words!r})"


def part_of(function: tuple[str, int, str]) -> str:
    """Return the part that a function counts to; empty for one of C that says nothing of itself."""
    file, _, name = function
    named = (part for part, has in PARTS.items() if re.search(has, f"{file} {name}"))
    package = re.search(r"site-packages/(\w+)", file)
    return next(named, "" if file == "~" else package[1] if package else "standard library")


def own_times(profile: Any) -> Iterator[tuple[str, int, float]]:
    """Yield part, number of calls and own seconds of every function, of some in C by caller."""
    import pstats

    for function, (_, calls, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if (part := part_of(function)) or not callers:
            yield part, calls, own
            continue
        for caller, (_, by_it, seconds, _) in callers.items():
            yield part_of(caller), by_it, seconds


def shares(profiles: list[Any], cost: float) -> dict[str, float]:
    """Return each part's share of the own time of all functions in these profiles, waits left out."""
    parts: Counter[str] = Counter()
    for part, calls, own in itertools.chain.from_iterable(map(own_times, profiles)):
        parts[part or "standard library"] += max(0.0, own - cost * calls)  # type: ignore[assignment]
    del parts["waits"]
    return {part: seconds / parts.total() for part, seconds in parts.items()}


def run_command(words: list[str]) -> None:
    """Run a command in this process, its output to nobody."""
    import click

    from darkvocab.cli import app

    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    ends = contextlib.suppress(SystemExit, click.exceptions.Exit)
    with tempfile.TemporaryDirectory() as folder, quiet[0], quiet[1], ends:
        app([word.format(out=f"{folder}/out") for word in words], standalone_mode=False)


def again(words: list[str]) -> None:
    """Run a command three times, and print the share of its start, and of the parts of the rest, as JSON."""
    import cProfile
    import threading

    words = [*words, "--engine", "serial"] if words[0] in SERIAL else words
    run_command(words)
    first = time.process_time()
    run_command(words)
    start = max(0.0, 1 - (time.process_time() - first) / first)
    profiles: list[cProfile.Profile] = []

    def begin(*_: Any) -> None:
        profiles.append(cProfile.Profile())
        profiles[-1].enable()

    cost = profiler_cost()
    threading.setprofile(begin)
    begin()
    run_command(words)
    profiles[0].disable()
    rest = {part: (1 - start) * share for part, share in shares(profiles, cost).items()}
    print(json.dumps({"start": start, **rest}))


def profiler_cost() -> float:
    """Seconds that cProfile adds to a function's own time, a call."""
    import cProfile
    import timeit

    bare = min(timeit.repeat(lambda: None, number=100_000))
    with cProfile.Profile():
        return (min(timeit.repeat(lambda: None, number=100_000)) - bare) / 100_000


def anonymous(pid: int) -> int:
    """Return the anonymous memory of a process and of those that it started, kB."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        own = re.findall(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:  # it ended
        return 0
    return sum(map(int, own)) + sum(anonymous(int(child)) for child in children)


def watched(words: list[str]) -> tuple[float, float, int]:
    """Run a command as a process; return its wall and processor seconds, and its largest anonymous memory, kB."""
    with tempfile.TemporaryDirectory() as folder:
        start, before, most = time.perf_counter(), os.times(), 0
        given = [Path(sys.executable).parent / "darkvocab", *(word.format(out=f"{folder}/out") for word in words)]
        with subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                most = max(most, anonymous(process.pid))
                time.sleep(0.005)
        wall, after = time.perf_counter() - start, os.times()
    if process.returncode not in (0, 1):  # 1: a check that finds something
        raise SystemExit(f"darkvocab {' '.join(words)} exits with {process.returncode}")
    return wall, after.children_user + after.children_system - before.children_user - before.children_system, most


def profiled(words: list[str]) -> str:
    """Return a row of the table."""
    code = AGAIN.format(here=str(Path(__file__).parent), words=words)
    parts = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    wall, processor, most = min(watched(words), watched(words))
    largest = sorted(((share, part) for part, share in parts.items() if share >= SHOWN), reverse=True)
    named = ", ".join(f"{part} {share:.0%}" for share, part in largest)
    shown = re.sub(r"\S*/", "", " ".join(words)).replace("{out}", "OUT")
    return f"| `{shown}` | {wall:.2f} s | {processor:.2f} s | {most / 1000:,.0f} MB | {named} |"


def inputs(folder: Path) -> dict[str, str]:
    """Write two models of Qwen's size with a tokenizer, a training's history and a finished run; return their paths."""
    import bench
    import numpy as np
    import vocabularies

    import darkvocab

    model, other, history, run = (folder / name for name in ("model", "other.safetensors", "h.safetensors", "run"))
    model.mkdir()
    vocabularies.byte_level(151_669).save(str(model / "tokenizer.json"))
    words = bench.write_rows(other, 151_936, 2100, 1e-8)
    (model / "model.safetensors").write_bytes(other.read_bytes())
    words[:, ::3] ^= 1  # every row of the other is a step away in one column of three
    with other.open("r+b") as file:
        file.seek(-words.nbytes, os.SEEK_END)
        file.write(words)
    bench.write_states(history, 10_001, 128, 64, 10_001)
    list(darkvocab.sweep(np.linspace(1.5e-9, 5e-9, 1000), base="qwen3-4b-centred", out=run))
    return {"model": str(model), "other": str(other), "history": str(history), "run": str(run)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="profile only this command; repeat for more")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        paths = inputs(Path(folder))
        print("| command | wall | processor | anonymous | what takes its time |\n|---|--:|--:|--:|---|")
        for command in COMMANDS:
            if not only or command.split()[0] in only:
                print(profiled([word.format(**paths, out="{out}") for word in command.split()]), flush=True)


if __name__ == "__main__":
    main()
