"""Every figure of speed and memory, beside the recipe (the notebook's way, in our own words) and a floor, in one run.

    python benches/bench.py [--json]

Timings are medians; the recipe runs a few times only, it is slow. Nothing here fails: it is for reading.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from darkvocab import Sweep, census
from darkvocab.matrix import EmbeddingMatrix

N_TOKENS, DIM = 2100, 2560
BASE = "qwen3-4b-centred"
BIN = Path(sys.executable).parent

# Run in a process of its own: prints the largest anonymous and total resident memory that it saw, in kB.
WATCHED = """
import threading, time
peak = [0]
def watch():
    while True:
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                peak[0] = max(peak[0], int(line.split()[1]))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
{code}
total = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak[0], total)
"""


def median_time(work: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory(code: str) -> dict[str, float]:
    """Peak memory of a fresh process that runs this, MB."""
    run = subprocess.run([sys.executable, "-c", WATCHED.format(code=code)], check=True, capture_output=True, text=True)
    anonymous, total = (int(word) / 1000 for word in run.stdout.split()[-2:])
    return {"anonymous_mb": anonymous, "resident_mb": total}


def recipe_trial(base: torch.Tensor, sigma: float) -> int:
    """12.2a as the notebook does it: normals for every component, a sort of the rows, a cube of differences."""
    rows = (base + torch.randn(N_TOKENS, DIM) * sigma).to(torch.bfloat16).to(torch.float32)
    unique, _, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    holes = unique[counts >= 2]
    if len(holes) > 1:
        distances = (holes[:, None] - holes[None]).abs().amax(dim=2)
        pairs = distances[~torch.eye(len(holes), dtype=torch.bool)]
        pairs.max(), pairs.mean(), pairs.median()
    return len(holes)


def bench_sweep(name: str) -> dict[str, Any]:
    sigmas = np.linspace(1.5e-9, 5e-9, 1000)
    settings = Sweep(sigmas, n_tokens=N_TOKENS, base=name)
    records = list(settings)
    here = median_time(lambda: list(settings), 5) / 1000
    base = torch.from_numpy(settings.base.vector)
    few = sigmas[49::100]  # ten, evenly over the range
    recipe = median_time(lambda: [recipe_trial(base, sigma) for sigma in few], 2) / len(few)
    needed = statistics.mean(record.n_active_columns for record in records) * N_TOKENS
    generator = np.random.Generator(np.random.SFC64(1))
    normals = median_time(lambda: generator.standard_normal(2_000_000, dtype=np.float32), 5) / 2_000_000
    return {
        "what": f"12.2a, a trial of the 1,000-sigma sweep, base {name}",
        "here_s": here,
        "recipe_s": recipe,
        "floor": f"drawing {needed:,.0f} float32 normals, the columns that can move (numpy SFC64, one core)",
        "floor_s": needed * normals,
        **memory(f"import darkvocab, numpy; list(darkvocab.sweep(numpy.linspace(1.5e-9, 5e-9, 1000), base={name!r}))"),
    }


def bench_vocabulary() -> dict[str, Any]:
    n = 151_936
    settings = Sweep([1e-8], n_tokens=n, base=BASE)
    (record,) = settings
    here = median_time(lambda: list(settings), 7)
    generator = np.random.Generator(np.random.SFC64(1))
    normals = median_time(lambda: generator.standard_normal(2_000_000, dtype=np.float32), 5) / 2_000_000
    return {
        "what": "one snowball of 151,936 x 2,560 at 1e-8, with its record",
        "here_s": here,
        "recipe_s": None,
        "floor": f"drawing {record.n_active_columns * n:,} float32 normals, the columns that can move",
        "floor_s": record.n_active_columns * n * normals,
        **memory(f"import darkvocab; list(darkvocab.sweep([1e-8], n_tokens={n}, base={BASE!r}))"),
    }


def bench_census(folder: Path) -> dict[str, Any]:
    path = folder / "rows.safetensors"
    n = 151_936
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((n, DIM), dtype=np.float32) * 0.02).view(np.uint32)
    words = (rows >> 16).astype(np.uint16)
    words[rng.choice(n, 2100, replace=False)] = words[0]
    del rows
    spec = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [n, DIM], "data_offsets": [0, words.nbytes]}}
    head = json.dumps(spec).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.write(words)
    matrix = EmbeddingMatrix.open(path)
    census(matrix)
    here = median_time(lambda: census(matrix), 7)
    wide = words.view(np.uint64)
    reading = median_time(lambda: wide.sum(), 5)
    tensor = torch.from_numpy(words.view(np.int16)).view(torch.bfloat16)
    recipe = median_time(lambda: torch.unique(tensor, dim=0, return_inverse=True, return_counts=True), 2)
    return {
        "what": "census of 151,936 x 2,560 bfloat16, memory-mapped, in the page cache",
        "here_s": here,
        "recipe_s": recipe,
        "floor": "summing the same 778 MB as uint64 in numpy, one core",
        "floor_s": reading,
        **memory(f"import darkvocab; darkvocab.census(darkvocab.EmbeddingMatrix.open({str(path)!r}))"),
    }


def bench_start() -> list[dict[str, Any]]:
    def process(*words: str, **environment: str) -> float:
        env = {**os.environ, **environment}
        return median_time(lambda: subprocess.run(words, check=True, capture_output=True, env=env), 9)

    bare = process(sys.executable, "-c", "pass")
    rows = [
        {"what": "darkvocab --help", "here_s": process(str(BIN / "darkvocab"), "--help")},
        {"what": "import darkvocab", "here_s": process(sys.executable, "-c", "import darkvocab")},
    ]
    for row in rows:
        row |= {"recipe_s": None, "floor": "starting Python", "floor_s": bare}
    return rows


def bench_first_call() -> list[dict[str, Any]]:
    """A first call compiles; the next one loads what was compiled."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", np.ones((50, 8), np.float32))
        commands = {
            "sweep of 10 sigma": ["sweep", "--sigma", "1.5e-9:5e-9:10", "--base", BASE],
            "scan of a small matrix": ["scan", f"{folder}/rows.npy"],
        }
        for what, words in commands.items():
            env = {**os.environ, "NUMBA_CACHE_DIR": f"{folder}/{words[0]}"}
            first, again = (
                median_time(
                    lambda w=words, e=env: subprocess.run(
                        [str(BIN / "darkvocab"), *w], check=True, capture_output=True, env=e
                    ),
                    repeats,
                )
                for repeats in (1, 3)
            )
            rows.append({"what": f"darkvocab {what}, first call ever", "here_s": first, "recipe_s": None})
            rows[-1] |= {"floor": "the same call again", "floor_s": again}
    return rows


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            bench_sweep(BASE),
            bench_sweep("qwen3-4b"),
            bench_vocabulary(),
            bench_census(Path(folder)),
            *bench_start(),
            *bench_first_call(),
        ]
    if arguments.json:
        print(json.dumps({"cores": os.cpu_count(), "torch": torch.__version__, "rows": rows}, indent=2))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("", "here", "recipe", "ratio", "floor", "here / floor", "anonymous", "resident"):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    for row in rows:
        ratio = f"{row['recipe_s'] / row['here_s']:,.0f} x" if row["recipe_s"] else ""
        table.add_row(
            *(row["what"], seconds(row["here_s"]), seconds(row["recipe_s"]), ratio, seconds(row["floor_s"])),
            f"{row['here_s'] / row['floor_s']:.2f}",
            *(f"{row[key]:,.0f} MB" if key in row else "" for key in ("anonymous_mb", "resident_mb")),
        )
    console = Console(width=150)
    console.print(table)
    for number, floor in enumerate(dict.fromkeys(f"{row['what']}: {row['floor']}" for row in rows)):
        console.print("floor of " * (number == 0) + floor, highlight=False)


if __name__ == "__main__":
    main()
