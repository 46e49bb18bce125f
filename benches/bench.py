"""Every figure of speed and memory, beside the recipe (the notebook's way, in our own words) and a floor, in one run.

    python benches/bench.py [--json] [--only SECTION]

Timings are medians; the recipe runs a few times only, it is slow. Nothing here fails: it is for reading.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import million
import numba
import numpy as np
import polars as pl
import recipes
import torch
import vocabularies
from llvmlite import binding
from rich.console import Console
from rich.table import Table

from darkvocab import census, diff, evolve
from darkvocab.corpora.counting import Counting, count
from darkvocab.corpora.documents import pieces_of
from darkvocab.embedding.history import History
from darkvocab.embedding.matrix import EmbeddingMatrix
from darkvocab.measures.dark import graded
from darkvocab.measures.indicators import BLACK_HOLES, indicators
from darkvocab.measures.neighbours import neighbours
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.numerics import Distances, Touching, encode, to_index
from darkvocab.snowballs import run
from darkvocab.snowballs.bases import load_base
from darkvocab.snowballs.expect import STATISTICS, Expect, compared
from darkvocab.snowballs.experiments import Questions, Sweep, Trials
from darkvocab.snowballs.fit.likelihood import drawn_partitions
from darkvocab.snowballs.fit.run import Fit
from darkvocab.snowballs.run import clouds
from darkvocab.snowballs.snowball import SnowballLaw
from darkvocab.sources.tokenizer import open_tokenizer
from darkvocab.verification.frames import Frame, encoded, read_frames
from darkvocab.verification.model import PLACES, open_model

N_TOKENS, DIM = 2100, 2560
BASE = "qwen3-4b-centred"
EPSILON = 5.9604645e-5
BIN = Path(sys.executable).parent
MODEL = Path(__file__).parents[1] / "demo/SmolLM2-135M-Instruct.Q4_1.gguf"

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


# Variables that hold a library to fewer instructions than the machine has.
HOLDING = """NUMBA_CPU_NAME NUMBA_CPU_FEATURES OPENBLAS_CORETYPE ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA
    MKL_ENABLE_INSTRUCTIONS NPY_DISABLE_CPU_FEATURES""".split()


def machine() -> dict[str, Any]:
    """Describe the processor, its widest instructions, and which of them each library uses."""
    has, host = binding.get_host_cpu_features(), binding.get_host_cpu_name()
    bf16 = " with bf16" if has.get("avx512bf16") else ""
    levels = {"avx512f": f"AVX-512{bf16}", "avx2": "AVX2", "avx": "AVX", "neon": "NEON"}
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "cores": os.cpu_count(),
        "processor": host,
        "instructions": next((said for name, said in levels.items() if has.get(name)), platform.machine()),
        "numba": numba.config.CPU_NAME or host,
        "numpy": [*simd["baseline"], *simd["found"]][-1],
        "torch": torch.backends.cpu.get_cpu_capability(),
        "held_by": {name: os.environ[name] for name in HOLDING if name in os.environ},
    }


def sentence(of: dict[str, Any]) -> str:
    """Say what `machine` found in one line."""
    uses = ", ".join(f"{name} for {of[name]}" for name in ("numba", "numpy", "torch"))
    held = " ".join(f"{name}={value!r}" for name, value in of["held_by"].items())
    return f"{of['cores']} cores, {of['processor']}: {of['instructions']}; {uses}{f'; held by {held}' if held else ''}"


def median_time(work: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def watched(code: str) -> list[float]:
    """Numbers that a fresh process prints that runs this; at last its peak memory, anonymous and resident, in kB."""
    run = subprocess.run([sys.executable, "-c", WATCHED.format(code=code)], check=True, capture_output=True, text=True)
    return [float(word) for word in run.stdout.split()]


def memory(code: str) -> dict[str, float]:
    *_, anonymous, total = watched(code)
    return {"anonymous_mb": anonymous / 1000, "resident_mb": total / 1000}


def bench_sweep(name: str) -> dict[str, Any]:
    sigmas = np.linspace(1.5e-9, 5e-9, 1000)
    settings = Sweep(sigmas, n_tokens=N_TOKENS, base=name)
    records = list(run.records(settings))
    here = median_time(lambda: list(run.records(settings)), 5) / 1000
    base = torch.from_numpy(settings.base.vector)
    few = sigmas[49::100]  # ten, evenly over the range
    recipe = median_time(lambda: [recipes.sweep_trial(base, sigma, N_TOKENS) for sigma in few], 2) / len(few)
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


def bench_whole_sweep(folder: Path, recipe: float) -> dict[str, Any]:
    """The command, with its run folder, expected curve, figures and page; `recipe`: seconds of one of its trials."""
    settings = Sweep(np.linspace(1.5e-9, 5e-9, 1000), base=BASE)

    def process() -> None:
        out = tempfile.mkdtemp(dir=folder)
        words = ["sweep", "--base", BASE, "--sigma", "1.5e-9:5e-9:1000", "--out", out]
        subprocess.run([str(BIN / "darkvocab"), *words], check=True, capture_output=True)

    process()
    return {
        "what": f"12.2a, darkvocab sweep of 1,000 sigma, base {BASE}, with folder, figures and page: a process",
        "here_s": median_time(process, 5),
        "recipe_s": 1000 * recipe,
        "floor": "its trials alone, in a process that has begun",
        "floor_s": median_time(lambda: list(run.records(settings)), 3),
    }


def bench_sweeps(folder: Path) -> list[dict[str, Any]]:
    rows = [bench_sweep(BASE), bench_sweep("qwen3-4b"), bench_vocabulary()]
    return [*rows[:1], bench_whole_sweep(folder, rows[0]["recipe_s"]), *rows[1:]]


def bench_theory(folder: Path) -> list[dict[str, Any]]:
    """The expected census at one sigma, warm, on one core; beside a thousand snowballs of ours."""
    rows = []
    for sigma in (1e-9, 3e-9, 1e-8, 3.281911e-3):
        simulated, recipe = None, None
        for n in (N_TOKENS, 10**12):
            settings = Expect([sigma], n_tokens=n, base=BASE)
            (point,) = settings
            here = median_time(lambda s=settings: list(s), 9)
            said = f"expect at {sigma:g}, {n:,} tokens x {DIM:,}, base {BASE}"
            if n == N_TOKENS:
                drawn = Trials(sigma, trials=1000, n_tokens=n, base=BASE, measure=())
                start = time.perf_counter()
                records = run.frame(drawn, workers=1)
                recipe = time.perf_counter() - start
                simulated = {name: records[other].mean() for name, (other, _) in STATISTICS.items()}
                found = [compared(0, point, name, 1000, mean) for name, mean in simulated.items()]
                z = [abs(row.z) for row in found if row.z is not None]
                least = min(row.p_value for row in found)
                said += f"; 1,000 of our trials: {f'largest |z| {max(z):.2f}, ' if z else ''}least p-value {least:.2g}"
            how = settings.base.vector, sigma, n
            rows.append(
                {
                    "what": said,
                    "here_s": here,
                    "recipe_s": recipe if n == N_TOKENS else None,
                    "floor": "the law of a token's cell alone: cells of every column that counts, convolved",
                    "floor_s": median_time(lambda h=how: _cell_law(*h), 9),
                }
            )
    several = Expect(np.linspace(1.5e-9, 5e-9, 1000), base=BASE)
    rows.append(
        {
            "what": f"expect, each of 1,000 sigma from 1.5e-9 to 5e-9, base {BASE}, on all cores",
            "here_s": median_time(lambda: list(several), 3) / 1000,
            "recipe_s": None,
            "floor": "the law of a token's cell alone, each by itself on one core",
            "floor_s": median_time(lambda: [_cell_law(several.base.vector, s, N_TOKENS) for s in several.sigmas], 3)
            / 1000,
        }
    )
    words = [str(BIN / "darkvocab"), "expect", "--json", "--base", BASE, "--sigma"]

    def process(sigma: str) -> float:
        return median_time(lambda: subprocess.run([*words, sigma], check=True, capture_output=True), 3)

    for options in ([], ["--compare"], ["--offset", "fit"]):
        fit = [str(BIN / "darkvocab"), "fit", "--target", "qwen3-4b", "--json", *options]
        settings = Fit("qwen3-4b")
        ball = settings.estimate.hypothesis.law(settings.estimate.sigma).snowball(settings.estimate.n_tokens)
        rows.append(
            {
                "what": f"{' '.join(fit[1:])}: interval and 1,000 predictive draws, a process",
                "here_s": median_time(lambda f=fit: subprocess.run(f, check=True, capture_output=True), 3),
                "recipe_s": None,
                "floor": "its 1,200 snowballs, drawn and counted, on one core",
                "floor_s": median_time(partial(_drawn, ball, settings.target.partition), 3),
            }
        )
    code = "import darkvocab, numpy; list(darkvocab.expect(numpy.linspace(1.5e-9, 5e-9, 1000), base={base!r}))"
    rows.append(
        {
            "what": f"expect --sigma 1.5e-9:5e-9:1000 --json, base {BASE}, a process",
            "here_s": process("1.5e-9:5e-9:1000"),
            "recipe_s": None,
            "floor": "the same of one sigma",
            "floor_s": process("3e-9"),
            **memory(code.format(base=BASE)),
        }
    )
    return rows


def _drawn(snowball: Any, like: Any) -> None:
    for _ in drawn_partitions(snowball, range(1200), seed=42, like=like):
        pass


def _cell_law(base: np.ndarray, sigma: float, n_tokens: int) -> None:
    made = SnowballLaw(base=base, sigma=sigma).occupancy(n_tokens)
    if not made.is_dispersed:
        _ = made.levels


def bench_vocabulary() -> dict[str, Any]:
    n = 151_936
    settings = Sweep([1e-8], n_tokens=n, base=BASE)
    (record,) = run.records(settings)
    here = median_time(lambda: list(run.records(settings)), 7)
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


# Serves a model on loopback as the Hub does, until its standard input ends; prints where.
SERVE = """
import sys
from pathlib import Path
import hubs
hub = hubs.Hub()
hub.add("bench/model", {"model.safetensors": Path(sys.argv[1])})
with hub.running():
    print(hub.endpoint, hub.storage, *hub.blobs, flush=True)
    sys.stdin.read()
"""
# Prints seconds, bytes read and bytes of the tensor.
READ = """
import time
from darkvocab.sources import hub, open_source
begun = time.perf_counter()
tensor = open_source("bench/model").tensors["model.embed_tokens.weight"]
tensor.words()
print(time.perf_counter() - begun, tensor.path.origin()["bytes_read"], tensor.nbytes)
"""


def bench_hub(folder: Path) -> list[dict[str, Any]]:
    path = folder / "model.safetensors"
    n, others = 151_936, 1 << 30
    size = n * DIM * 2
    spec = {
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [n, DIM], "data_offsets": [0, size]},
        "layers": {"dtype": "U8", "shape": [others], "data_offsets": [size, size + others]},
    }
    head = json.dumps(spec).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _ in range(n // 2374):
            file.write(np.random.default_rng(1).bytes(2374 * DIM * 2))
        file.truncate(8 + len(head) + size + others)
    importable = Path(__file__).parents[1] / "tests/importable"
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, path],
        env={**os.environ, "PYTHONPATH": str(importable)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as served:
        assert served.stdout is not None
        endpoint, storage, blob = served.stdout.readline().split()
        request = urllib.request.Request(f"{storage}/blobs/{blob}", headers={"Range": f"bytes=0-{size - 1}"})
        floor = median_time(lambda: _read_all(request), 3)
        runs = []
        for number in range(3):
            os.environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / f"home{number}")}
            runs.append(watched(READ))
            shutil.rmtree(folder / f"home{number}")
        served.communicate()
    here, read, _, anonymous, resident = (statistics.median(numbers) for numbers in zip(*runs, strict=True))
    return [
        {
            "what": f"the embedding of a model on the Hub, {size / 1e6:,.0f} of {(size + others) / 1e6:,.0f} MB, over "
            f"loopback: {read / size:.5f} of its bytes, {read / here / 1e6:,.0f} MB/s",
            "here_s": here,
            "recipe_s": None,
            "floor": "reading as many bytes by one request of the standard library, and keeping none",
            "floor_s": floor,
            "anonymous_mb": anonymous / 1000,
            "resident_mb": resident / 1000,
        }
    ]


def _read_all(request: urllib.request.Request) -> None:
    with urllib.request.urlopen(request) as answer:
        while answer.read(1 << 20):
            pass


def write_rows(path: Path, n: int, cluster: int, sigma: float) -> np.ndarray:
    """A bfloat16 vocabulary: Gaussian rows, and among them a snowball of tokens around one centroid, at random ids."""
    rng = np.random.default_rng(1)
    words = ((rng.standard_normal((n, DIM), dtype=np.float32) * 0.02).view(np.uint32) >> 16).astype(np.uint16)
    noise = sigma * rng.standard_normal((cluster, DIM))
    words[rng.choice(n, cluster, replace=False)] = encode(load_base(BASE).vector + noise, "bfloat16")
    spec = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [n, DIM], "data_offsets": [0, words.nbytes]}}
    head = json.dumps(spec).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.write(words)
    return words


def bench_neighbours(folder: Path) -> list[dict[str, Any]]:
    """Touching rows of a whole vocabulary with a snowball in it, collapsed or of many different rows."""
    path, n, rows = folder / "rows.safetensors", 151_936, []
    for cluster, sigma, touching, repeats in (
        (2100, 1e-8, Touching(1, "steps"), 5),
        (20_000, 1e-6, Touching(1, "steps"), 3),
        (20_000, 1e-6, Touching(2 * EPSILON), 3),
    ):
        words = write_rows(path, n, cluster, sigma)
        matrix = EmbeddingMatrix.open(path)
        found = neighbours(matrix, touching)
        some = torch.from_numpy(words[:8000].view(np.int16)).view(torch.bfloat16).float()
        recipe = median_time(lambda x=some: torch.cdist(x[:400], x, p=float("inf")), 1) * n * n / (400 * 8000)
        words64 = words.view(np.uint64)
        rows.append(
            {
                "what": f"neighbours {touching} of {n:,} x {DIM:,} bfloat16 with a snowball "
                f"of {cluster:,} at {sigma:g}: {found.n_pairs:,} pairs of {found.n_unique:,} rows",
                "here_s": median_time(lambda m=matrix, t=touching: neighbours(m, t), repeats),
                "recipe_s": recipe,
                "floor": "summing the same 778 MB as uint64, one core; recipe: 400 x 8,000 by torch.cdist, scaled",
                "floor_s": median_time(lambda w=words64: w.sum(), 5),
                **memory(
                    "from darkvocab.embedding.matrix import EmbeddingMatrix; from darkvocab.numerics import Touching; "
                    "from darkvocab.measures.neighbours import neighbours; "
                    f"neighbours(EmbeddingMatrix.open({str(path)!r}), Touching({touching.threshold!r}, "
                    f"{touching.unit!r}))"
                ),
            }
        )
    return rows


def bench_diff(folder: Path) -> list[dict[str, Any]]:
    """Two vocabularies of Qwen's size with a snowball each: every row moved by a step in one column of three."""
    n, one, other = 151_936, folder / "a.safetensors", folder / "b.safetensors"
    words = write_rows(one, n, 2100, 1e-8)
    header = one.stat().st_size - words.nbytes
    moved = words.copy()
    moved[:, ::3] ^= 1
    with one.open("rb") as file, other.open("wb") as made:
        made.write(file.read(header))
        made.write(moved)
    found = diff(one, other)
    (part,) = found.parts
    wide = words.view(np.uint64), moved.view(np.uint64)
    return [
        {
            "what": f"diff of two {n:,} x {DIM:,} bfloat16, {len(part.movers()):,} rows moved",
            "here_s": median_time(lambda: diff(one, other), 3),
            "recipe_s": None,
            "floor": "summing the same 1,556 MB as uint64 in numpy, one core",
            "floor_s": median_time(lambda: [words.sum() for words in wide], 3),
            **memory(f"import darkvocab; darkvocab.diff({str(one)!r}, {str(other)!r})"),
        }
    ]


def write_states(path: Path, n_rows: int, n_tokens: int, dim: int, moving: int) -> None:
    """A bfloat16 history: tokens in a few clouds that all move for so many rows, then stand still, a large one at 0."""
    rng = np.random.default_rng(1)
    size = 2 * n_rows * n_tokens * dim
    spec = {"embedding_history": {"dtype": "BF16", "shape": [n_rows, n_tokens, dim], "data_offsets": [0, size]}}
    head = json.dumps(spec).encode()
    rows = np.repeat(rng.standard_normal((8, dim)), n_tokens // 8, axis=0).astype(np.float32)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for row in range(n_rows):
            if row < moving:
                rows += 0.02 * rng.standard_normal(dim) + 0.004 * rng.standard_normal((n_tokens, 1))
            elif size > 1e9:
                break  # a hole in the file: all 0
            file.write((rows.view(np.uint32) >> 16).astype(np.uint16))
        file.truncate(8 + len(head) + size)


def bench_evolve(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for n_rows, n_tokens, dim, moving in (
        (10_001, 128, 64, 10_001),
        (10_001, 128, 64, 300),
        (10_001, 8192, 128, 20),
    ):
        path = folder / "history.safetensors"
        write_states(path, n_rows, n_tokens, dim, moving)
        unseen = range(n_tokens * 3 // 5, n_tokens)
        small = n_tokens == 128
        evolve(path, unseen=unseen, every=n_rows // 3)
        here = median_time(lambda p=path, u=unseen: evolve(p, unseen=u), 3 if small else 1)
        recipe = None
        if small:
            few = [words.copy() for _, words in History.open(path).words(range(0, n_rows, 500))]
            states = [torch.from_numpy(words.view(np.int16)).view(torch.bfloat16) for words in few]
            dead = torch.tensor(unseen)
            recipe = median_time(lambda s=states, d=dead: [recipes.state(x, d) for x in s], 3) / len(states) * n_rows
        rows.append(
            {
                "what": f"evolve {n_rows:,} x {n_tokens:,} x {dim} bfloat16, all tokens moving for {moving:,} rows",
                "here_s": here,
                "recipe_s": recipe,
                "floor": "reading the file from the page cache, 4 MB at a time",
                "floor_s": median_time(lambda p=path: read_through(p), 3),
                **memory(f"import darkvocab; darkvocab.evolve({str(path)!r}, unseen={list(unseen)})"),
            }
        )
    return rows


def read_through(path: Path) -> int:
    """Read a file and do nothing with it."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total += len(block)
    return total


def bench_million(folder: Path) -> list[dict[str, Any]]:
    """A run folder with a million synthetic records, each step in a process of its own."""
    path, n = folder / "million", 1_000_000
    what = {"land": "landing a million records", "finish": "finishing their run", "sum_up": "their summary"}
    records = pl.concat(million.synthetic(first, min(first + 65_536, n)) for first in range(0, n, 65_536))

    def zipped() -> None:
        with gzip.open(folder / "once.csv.gz", "wb", 6) as file:
            records.write_csv(file)

    floors = {
        "land": ("writing them at once to Parquet", lambda: records.write_parquet(folder / "once.parquet")),
        "finish": ("writing them at once to CSV, compressed", zipped),
        "sum_up": ("reading records.parquet", lambda: pl.read_parquet(path / "records.parquet")),
    }
    rows = []
    for step, (floor, work) in floors.items():
        code = (
            f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r}); import million;"
            f"start = time.perf_counter(); million.{step}({str(path)!r}, {n}); print(time.perf_counter() - start)"
        )
        taken, anonymous, total = watched(code)
        row = {"what": f"{what[step]}, {million.megabytes(path):,.0f} MB in the folder", "here_s": taken}
        row |= {"recipe_s": None, "floor": floor, "floor_s": median_time(work, 1)}
        rows.append({**row, "anonymous_mb": anonymous / 1000, "resident_mb": total / 1000})
    return rows


def normals_rate() -> float:
    """Seconds for a float32 normal (numpy SFC64, one core)."""
    generator = np.random.Generator(np.random.SFC64(1))
    return median_time(lambda: generator.standard_normal(2_000_000, dtype=np.float32), 5) / 2_000_000


def compare_rate() -> float:
    """Seconds for one |a - b| and a running maximum where everything is in the first-level cache, one core."""
    from darkvocab.numerics._backends.distances import TILE_BYTES, stream_all

    lanes = TILE_BYTES // 4
    rows = np.random.default_rng(1).standard_normal((lanes, 64)).astype(np.float32)
    tiles, out = np.ascontiguousarray(rows.T)[None], np.zeros((lanes, lanes), np.float32)
    columns = np.arange(64, dtype=np.int32)

    def work() -> None:
        for _ in range(200):
            stream_all(tiles, lanes, rows, columns, out)

    return median_time(work, 9) / (200 * lanes * lanes * 64)


def visited(index: np.ndarray) -> int:
    """Entries of the rows that the exact algorithm lists: each meets every row."""
    from darkvocab.numerics.chebyshev import _Walk

    walk = _Walk(Distances(index, "bfloat16").rows)
    return int(walk.starts[-1]) if walk.width > 0 else len(index) * index.shape[1] // 2


def bench_trials() -> list[dict[str, Any]]:
    """12.4b on two cores, where every column moves and where few do; 13.5a."""
    cores, rows = os.cpu_count() or 1, []
    normal, compare = normals_rate(), compare_rate()

    def here(settings: Any, repeats: int) -> float:
        return median_time(lambda: list(run.records(settings, workers=cores)), repeats) / len(settings)

    for sigma, trials, few in ((3.281911e-3, 24, 1), (1.5e-9, 60_000, 5)):
        settings = Trials(sigma, trials=trials, epsilon=EPSILON, base=BASE)
        base = torch.from_numpy(settings.base.vector)
        (_, cloud), *_ = clouds(settings, range(1))
        index = cloud.index(cloud.groups().first)
        floor = (cloud.codes.size * normal + visited(index) * len(index) * compare) / cores
        code = f"import darkvocab; list(darkvocab.trials({sigma}, trials=4, epsilon={EPSILON}, base={BASE!r}))"
        rows.append(
            {
                "what": f"12.4b, a trial at {sigma:g} with every statistic, base {BASE}, {cores} cores",
                "here_s": here(settings, 3 if trials < 1000 else 1),
                "recipe_s": median_time(lambda b=base, s=sigma: recipes.trial(b, s, N_TOKENS, EPSILON), few),
                "floor": f"{cloud.codes.size:,} float32 normals and {visited(index) * len(index):,} compares in the "
                f"first-level cache, on {cores} cores",
                "floor_s": floor,
                **memory(code),
            }
        )
    settings = Questions(np.geomspace(1e-6, 1e-4, 10).tolist() * 2)
    drawn = [cloud for _, cloud in clouds(settings, range(10))]
    indices = [cloud.index(cloud.groups().first) for cloud in drawn]
    work = sum(c.codes.size * normal + visited(i) * len(i) * compare for c, i in zip(drawn, indices, strict=True))
    rows.append(
        {
            "what": f"13.5a, a trial, mean of its ten sigma, {cores} cores",
            "here_s": here(settings, 3),
            "recipe_s": median_time(lambda: recipes.question(1e-5, 2221, DIM), 1),
            "floor": f"normals and compares as above, for one unit, on {cores} cores",
            "floor_s": work / 10 / cores,
            **memory("import darkvocab; list(darkvocab.questions([1e-6, 1e-5, 1e-4]))"),
        }
    )
    return rows


def plain_distances(rows: np.ndarray, first: int) -> float:
    """The plain twin: every row from `first` on against all, in numpy."""
    return max(float(np.abs(rows - row).max(axis=1).max()) for row in rows[first:])


def bench_kernel() -> list[dict[str, Any]]:
    """All distances of N Gaussian rows, one core, against torch, SciPy and numpy (of large N a part, scaled)."""
    from scipy.spatial.distance import pdist

    torch.set_num_threads(1)
    compare, rows = compare_rate(), []
    for n, dim in ((500, DIM), (2100, DIM), (8000, DIM), (2100, DIM // 4), (2100, DIM * 4)):
        x = np.random.default_rng(1).standard_normal((n, dim), dtype=np.float32)
        words = (x.view(np.uint32) >> 16).astype(np.uint16)
        index, values = to_index(words, "bfloat16"), (words.astype(np.uint32) << 16).view(np.float32)
        here = median_time(lambda i=index: Distances(i, "bfloat16").spread, 3)
        part = min(n, 500 * DIM // dim)
        share, tensor, wide = n / part, torch.from_numpy(values), values[:part].astype(np.float64)
        some = tensor[:part]
        theirs = {
            "torch.cdist(p=inf)": lambda s=some, t=tensor: torch.cdist(s, t, p=float("inf")),
            "pdist('chebyshev')": lambda w=wide: pdist(w, "chebyshev"),
            "numpy, row by row": lambda v=values[:n]: plain_distances(v, len(v) - 100),
        }
        scale = {"torch.cdist(p=inf)": share, "pdist('chebyshev')": share**2, "numpy, row by row": n / 100}
        for name, work in theirs.items():
            rows.append(
                {
                    "what": f"L-infinity of {n:,} x {dim:,}: matrix, max, mean, medians; recipe {name}",
                    "here_s": here,
                    "recipe_s": median_time(work, 1) * scale[name],
                    "floor": "compares of the visited entries in the first-level cache",
                    "floor_s": visited(index) * n * compare,
                }
            )
    torch.set_num_threads(os.cpu_count() or 1)
    return rows


def bench_dask(folder: Path) -> list[dict[str, Any]]:
    """Trials and a sweep through two Dask workers on this machine, and through two processes."""
    from distributed import Client

    address = folder / "scheduler.json"
    commands = [["scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)]]
    commands += [["worker", "--scheduler-file", str(address), "--nthreads", "1", "--no-nanny", "--no-dashboard"]] * 2
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([sys.executable, "-m", "dask", *words], **quiet) for words in commands]
    try:
        while not (address.is_file() and address.read_text().endswith("}")):
            time.sleep(0.1)
        with Client(scheduler_file=str(address), set_as_default=False) as client:
            client.wait_for_workers(2)
        return [
            _through_dask(
                "12.4b, 30,000 trials at 1.5e-9",
                Trials(1.5e-9, trials=30_000, epsilon=EPSILON, base=BASE),
                f"dask:{address}",
            ),
            *(
                _through_dask(
                    f"12.2a, a sweep of {n:,} sigma",
                    Sweep(np.linspace(1.5e-9, 5e-9, n), n_tokens=N_TOKENS, base=BASE),
                    f"dask:{address}",
                )
                for n in (1000, 20_000)
            ),
        ]
    finally:
        for process in reversed(started):  # workers first: without their scheduler they wait for another
            process.terminate()
            process.wait()


def _through_dask(what: str, settings: Any, address: str) -> dict[str, Any]:
    """Time these settings through Dask and through two local processes, in turn; both are warm."""
    taken: dict[str, list[float]] = {address: [], "processes": []}
    for engine in [*taken] * 3:
        start = time.perf_counter()
        list(run.records(settings, engine=engine, workers=2))
        taken[engine].append(time.perf_counter() - start)
    return {
        "what": f"{what}, two Dask workers",
        "here_s": min(taken[address][1:]),
        "recipe_s": None,
        "floor": "the same through two local processes",
        "floor_s": min(taken["processes"][1:]),
    }


def bench_train(folder: Path) -> list[dict[str, Any]]:
    """A step of 11.2c, recorded, with products in the type that this machine takes by itself, and in the other."""
    from darkvocab.notebooks.recipes import training_11_2

    training = training_11_2("11.2c", steps=300)
    by_itself = training.multiplied_in
    other = training_11_2("11.2c", steps=60, products="float32" if by_itself == "bfloat16" else "bfloat16")
    code = (
        "from darkvocab import train; from darkvocab.notebooks.recipes import training_11_2; "
        "from darkvocab.training.stack import Stack; training = training_11_2('11.2c', steps=200); "
    )
    ends_of = (
        f"train(training, {str(folder / 'watched')!r})",
        "sum(segment.last for segment in Stack([training]).segments(200))",
    )
    recorded, bare = (memory(code + end) for end in ends_of)
    recipe = {"recipe_s": statistics.median(recipes.train(60, str(folder / "trainer"))[1][5:])}
    return [
        {**_bench_steps(folder / by_itself, training, ", as this machine takes"), **recipe, **recorded},
        {**_bench_steps(folder / other.products, other), **recipe},
        {
            **_bench_recording(folder, training),
            **{name: max(0.0, recorded[name] - bare[name]) for name in recorded},
        },
    ]


def bench_record(folder: Path) -> list[dict[str, Any]]:
    """What the recorder adds to a step of somebody's own training, beside the step without it."""
    sizes = ((128, 64, 2, 32, 1, 200), (50_000, 576, 2, 8, 10, 20))
    return [_bench_recorder(folder / str(number), *size) for number, size in enumerate(sizes)]


def _bench_recorder(
    folder: Path, n_tokens: int, width: int, layers: int, batch: int, every: int, steps: int
) -> dict[str, Any]:
    """Train a GPT-2 by a plain loop, and take the time of the recorder's hooks, which its thread's work is not in."""
    import transformers

    from darkvocab.training.recorder import Recorder

    settings = {"n_positions": 128, "n_embd": width, "n_layer": layers, "n_head": max(2, width // 64)}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=n_tokens, **settings))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(0, n_tokens, (batch, 128))
    spent = [0.0]

    def timed(hook: Callable[..., None]) -> Callable[..., None]:
        def call(*given: Any) -> None:
            begun = time.perf_counter()
            hook(*given)
            spent[0] += time.perf_counter() - begun

        return call

    with Recorder(folder, every=every, on_alarm="record") as recorder:
        recorder._before, recorder._after, recorder._looked_up = map(  # type: ignore[method-assign]
            timed, (recorder._before, recorder._after, recorder._looked_up)
        )
        recorder.step(model, optimizer)
        begun = time.perf_counter()
        for _ in range(steps):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        step = (time.perf_counter() - begun - spent[0]) / steps
    share = spent[0] / steps / step
    what = (
        f"recording every {every} of a GPT-2's steps, {n_tokens:,} x {width}, batch {batch} x 128: {share:.2%} of one"
    )
    return {"what": what, "here_s": spent[0] / steps, "recipe_s": None, "floor": "the step itself", "floor_s": step}


def _bench_steps(folder: Path, training: Any, note: str = "") -> dict[str, Any]:
    """A step of this training with its recording, beside its products alone."""
    from darkvocab import train

    model, products, ends = training.architecture, training.multiplied_in, [0.0]
    train(training, folder, progress=lambda *_: ends.append(time.perf_counter()))
    weights = 12 * model.layers * model.width**2 + training.corpus.n_vocabulary * model.width
    tokens = training.batch * model.context
    n = tokens * 3 * (weights + 2 * model.layers * model.context * model.width)  # forwards, and twice backwards
    x, w = (torch.randn(shape).to(getattr(torch, products)) for shape in ((tokens, 64), (64, 256)))
    return {
        "what": f"11.2c, a step with its recording, {os.cpu_count()} cores, products in {products}{note}",
        "here_s": statistics.median(np.diff(ends[30:]).tolist()),
        "floor": f"{n / 1e9:.2f} G multiply-adds at the rate of a product of {tokens:,} x 64 x 256",
        "floor_s": n * median_time(lambda: x @ w, 50) / (tokens * 64 * 256),
    }


def _bench_recording(folder: Path, training: Any) -> dict[str, Any]:
    """What of a step is its recording: the state's words, and the metrics."""
    from darkvocab.training.recording import Recording
    from darkvocab.training.stack import Stack

    stack, n = Stack([training]), 1000
    with (
        Recording(folder / "states", "rows", n + 1, stack.rows(0).shape, "bfloat16") as states,
        Recording(folder / "numbers", "metrics", n + 1, (3,), "float64") as numbers,
        (folder / "plain").open("wb", buffering=0) as plain,
    ):

        def record() -> None:
            states.extend(stack.rows(0)[None])
            numbers.extend(np.zeros((1, 3)))

        return {
            "what": "of it the recording: a state [128, 64] and three metrics",
            "here_s": median_time(record, n),
            "recipe_s": None,
            "floor": "writing as many bytes",
            "floor_s": median_time(lambda: plain.write(bytes(2 * 128 * 64 + 24)), n),
        }


def bench_page(folder: Path) -> list[dict[str, Any]]:
    """The page of a scan of 151,936 tokens: to write it, and to have it painted and usable in Chromium."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "importable"))
    from atlases import qwen_shaped
    from playwright.sync_api import sync_playwright

    from darkvocab.reports.atlas import pack, write_page

    scanned = qwen_shaped()
    path = folder / "page.html"
    write = median_time(lambda: write_page(scanned, path), 5)
    zipped = gzip.decompress(pack(scanned, np.zeros(len(scanned.tokens), np.int64)))
    zipping = median_time(lambda: gzip.compress(zipped, 6), 5)
    page = f"the page of 151,936 tokens, {path.stat().st_size / 1e6:.1f} MB"
    rows = [{"what": f"{page}: written", "here_s": write, "floor": "compressing what it packs", "floor_s": zipping}]
    told = """[performance.getEntriesByName('first-contentful-paint')[0].startTime,
               performance.getEntriesByName('usable')[0]?.startTime]"""
    (folder / "empty.html").write_text("<!doctype html><p>nothing")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))

        def opened(name: str, waits: str) -> Any:
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto((folder / name).as_uri())
            tab.locator(waits).wait_for(state="attached")
            tab.wait_for_timeout(300)  # until the browser has noted its paint
            made = tab.evaluate(told)
            tab.close()
            return made

        paints, usables = zip(*(opened(path.name, "html[data-ready]") for _ in range(7)), strict=True)
        bare = statistics.median(opened("empty.html", "p")[0] for _ in range(7))
        browser.close()
    for what, times in (("first paint", paints), ("usable", usables)):
        row = {"what": f"{page}: {what}", "here_s": statistics.median(times) / 1e3}
        rows.append({**row, "floor": "first paint of an empty page", "floor_s": bare / 1e3})
    return [{**row, "recipe_s": None} for row in rows]


def bench_reachability(path: Path, n_rows: int, name: str) -> dict[str, Any]:
    """Every token of a tokenizer explained; loading it is not counted."""
    tokenizer = open_tokenizer(path)
    found = vocabulary(tokenizer, n_rows)
    here = median_time(lambda: vocabulary(tokenizer, n_rows), 7)
    texts = [witness for witness in found.witness if witness is not None]
    return {
        "what": f"vocabulary of {name}, {found.n_texts:,} texts, {found.n_texts / here:,.0f} a second",
        "here_s": here,
        "recipe_s": None,
        "floor": "the library's encode_batch_fast of the witnesses at once",
        "floor_s": median_time(lambda: tokenizer.rules.encode_batch_fast(texts, add_special_tokens=False), 5),
        **memory(f"from darkvocab.measures.vocabulary import vocabulary; vocabulary({str(path)!r}, {n_rows})"),
    }


def bench_byte_level(folder: Path) -> list[dict[str, Any]]:
    """The tokens of a byte-level BPE of Qwen's size."""
    path = folder / "tokenizer.json"
    vocabularies.byte_level(151_669).save(str(path))
    return [bench_reachability(path, 151_936, "a byte-level BPE")]


def bench_scan(folder: Path) -> list[dict[str, Any]]:
    """A whole scan with its page, as a process: census, neighbours, vocabulary, indicators; with and without sha256."""
    n = 151_936
    model = folder / "model"
    model.mkdir()
    path, rows = model / "model.safetensors", []
    write_rows(path, n, 2_100, 1.5e-9)
    vocabularies.byte_level(151_669).save(str(model / "tokenizer.json"))
    for hashed in (False, True):
        flags = [] if hashed else ["--no-sha256"]
        words = [str(model), "--html", str(folder / "dark.html"), "--json", *flags]
        what = f"scan --html of {n:,} x {DIM:,} bfloat16, a process" + ", hashed, too" * hashed
        rows.append(_scan_process(words, path, what, 3))
    return [*rows, bench_grades(path)]


def _scan_process(words: list[str], path: Path, what: str, repeats: int) -> dict[str, Any]:
    """A scan with these arguments, of this file, as a process."""

    def process() -> None:
        subprocess.run([str(BIN / "darkvocab"), "scan", *words], check=True, capture_output=True)

    process()  # compiles
    code = (
        f"import contextlib, io, sys; from darkvocab.cli import main; sys.argv = {['darkvocab', 'scan', *words]!r}\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()"
    )
    return {
        "what": what,
        "here_s": median_time(process, repeats),
        "recipe_s": None,
        "floor": "reading the file once",
        "floor_s": median_time(lambda: _read_file(path), 3),
        **memory(code),
    }


def bench_language_model(folder: Path) -> list[dict[str, Any]]:
    """The demo's language model: its scan as a process, and its tokens."""
    scanned = _scan_process([str(MODEL)], MODEL, "scan of SmolLM2-135M-Instruct.Q4_1.gguf, a process", 7)
    return [scanned, bench_reachability(MODEL, 49_152, "SmolLM2")]


def bench_corpus(folder: Path) -> list[dict[str, Any]]:
    """Counts of texts in JSON lines, beside the tokenizer's own `encode_batch` of the same texts, which counts none."""
    texts = [path.read_text("utf-8", "replace") for path in sorted(Path(os.__file__).parent.glob("*.py"))]
    texts = [text[at : at + 4096] for text in texts for at in range(0, len(text), 4096)]
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    counting = Counting(source=str(MODEL), n_tokens=49_152, sought=(1, 2, 5), field="text")
    counting.tokenizer.encode(texts[:1])
    (piece,), _ = pieces_of([str(file)])
    here = median_time(lambda: count(counting, piece), 5)
    own = median_time(lambda: counting.tokenizer.rules.encode_batch(texts, add_special_tokens=False), 5)
    what = f"corpus: {file.stat().st_size / 1e6:.0f} MB of JSON lines, SmolLM2's tokenizer"
    floor = "encode_batch of the same texts by the tokenizers library"
    return [{"what": what, "here_s": here, "recipe_s": None, "floor_s": own, "floor": floor}]


def bench_grades(path: Path) -> dict[str, Any]:
    """Measure what grades add to a scan of this file, once the distances to the reference are known."""
    matrix = EmbeddingMatrix.open(path)
    counted = census(matrix)
    shown = indicators(matrix, {BLACK_HOLES: np.flatnonzero(counted.numbers)})
    distances = shown.columns[shown.by]
    return {
        "what": f"of it, grades of {matrix.n_tokens:,} rows",
        "here_s": median_time(lambda: graded("both", matrix, counted, shown), 9),
        "recipe_s": None,
        "floor": "sorting the distances",
        "floor_s": median_time(lambda: np.sort(distances), 9),
    }


def bench_verify(folder: Path) -> list[dict[str, Any]]:
    """SmolLM2 asked to repeat tokens, beside a plain loop and batched generation; in rounds, as machines are shared."""
    import transformers

    model = open_model(MODEL)
    dense = {"dtype": torch.float32, "quantization_config": transformers.GgufConfig(dequantize=True)}
    twin = transformers.AutoModelForCausalLM.from_pretrained(MODEL.parent, gguf_file=MODEL.name, **dense).eval()
    frames = [encoded(text, model.encode) for text in read_frames()[0]]
    tokens = np.random.default_rng(0).permutation(twin.config.vocab_size)[:64]
    ways = {
        "verify": (tokens, lambda frame, some: [answer.p for answer in model.answers(frame, some)]),
        "a plain loop": (tokens[:2], lambda frame, some: asked_plainly(twin, frame, some)),
        "batched generate": (tokens[:16], lambda frame, some: generated(twin, frame, some)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    p = {}
    for _ in range(4):  # the first warms up
        for name, (some, ask) in ways.items():
            os.environ["TRANSFORMERS_SDPA_FORCE_GQA"] = str(int(name == "verify"))
            start = time.perf_counter()
            p[name] = np.array([ask(frame, some) for frame in frames])
            times[name].append((time.perf_counter() - start) / len(some))
    each = {name: statistics.median(rounds[1:]) for name, rounds in times.items()}
    floor = products_time(twin, frames)
    apart = max(float(abs(p[name] - p["verify"][..., : len(ways[name][0])]).max()) for name in ways)
    command = [str(BIN / "darkvocab"), "verify", str(MODEL), "--out", str(folder / "run")]
    whole = median_time(lambda: subprocess.run(command, check=True, capture_output=True), 1)
    n_asked = len(pl.read_parquet(folder / "run/records.parquet")) // (len(frames) * PLACES)
    rows = [
        {"what": "verify of SmolLM2, a token; recipe: a plain loop", "here_s": each["verify"]},
        {"what": f"recipe: batched generate; p apart by {apart:.1g} at most", "here_s": each["verify"]},
        {"what": f"verify of SmolLM2, {n_asked} tokens, a process", "here_s": whole, "n": n_asked},
        {"what": "verify of all its 49,152 tokens, estimated", "here_s": 49_152 * each["verify"], "n": 49_152},
    ]
    recipes_s = [each["a plain loop"], each["batched generate"], None, None]
    of = "products with its weights, at the rate of one of 1,280 rows"
    return [
        {**row, "recipe_s": recipe, "floor": of, "floor_s": floor * row.get("n", 1)}
        for row, recipe in zip(rows, recipes_s, strict=True)
    ]


def bench_serve(folder: Path) -> list[dict[str, Any]]:
    """SmolLM2 asked through a server of llama.cpp."""
    import serving

    with serving.serving(MODEL) as address:
        rate = serving.served_rate(MODEL, address)
    row = {"what": "verify of SmolLM2 through llama.cpp's server, an answer", "here_s": 1 / rate["ours"]}
    return [{**row, "recipe_s": None, "floor": "the same request by a bare loop", "floor_s": 1 / rate["floor"]}]


@torch.inference_mode()
def asked_plainly(model: Any, frame: Frame, tokens: np.ndarray) -> np.ndarray:
    """Return probabilities [places, tokens]: a text at a time, whole, without a cache."""
    p = np.empty((PLACES, len(tokens)))
    for column, token in enumerate(tokens):
        ids = torch.tensor(np.append(frame.beginning, frame.rest(tokens[column : column + 1])))
        for place in range(PLACES):
            logits = model(ids[None]).logits[0, -1]
            p[place, column] = logits.softmax(0)[token]
            ids = torch.cat([ids, logits.argmax()[None]])
    return p


def generated(model: Any, frame: Frame, tokens: np.ndarray) -> np.ndarray:
    """Return the same by transformers' generate of all texts together."""
    rest = frame.rest(tokens)
    ids = torch.tensor(np.hstack([np.tile(frame.beginning, (len(tokens), 1)), rest]))
    how: dict[str, Any] = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    how |= {"min_new_tokens": PLACES, "max_new_tokens": PLACES, "attention_mask": torch.ones_like(ids)}
    chosen = torch.tensor(tokens)[:, None]
    return np.array([at.softmax(1).gather(1, chosen)[:, 0] for at in model.generate(ids, **how).logits])


def products_time(model: Any, frames: list[Frame]) -> float:
    """Return the seconds that a token's products with the weights take, at the rate of one of 1,280 rows."""
    n_positions = sum(len(frame.ids) - len(frame.beginning) + PLACES - 1 for frame in frames)
    layers = [module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    numbers = sum(layer.weight.numel() * (n_positions if layer.out_features < 9_999 else 9) for layer in layers)
    width = next(layer for layer in layers if layer.out_features > layer.in_features)
    rows = torch.randn(1280, width.in_features)
    with torch.inference_mode():
        multiply = torch.ops.mkldnn._linear_pointwise
        seconds = median_time(lambda: multiply(rows, width.weight, None, "none", [], ""), 15)
    return numbers * seconds / (len(rows) * width.weight.numel())


def _read_file(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 22):
            pass


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

            def call(cache: str, words: list[str] = words) -> None:
                env = {**os.environ, "NUMBA_CACHE_DIR": f"{folder}/{cache}"}
                subprocess.run([str(BIN / "darkvocab"), *words], check=True, capture_output=True, env=env)

            fresh = (f"{words[0]}{number}" for number in range(3))
            first = median_time(lambda f=fresh, c=call: c(next(f)), 3)
            again = median_time(lambda w=words, c=call: c(f"{w[0]}0"), 3)
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
    sections: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
        "sweep": bench_sweeps,
        "theory": bench_theory,
        "trials": lambda folder: bench_trials(),
        "kernel": lambda folder: bench_kernel(),
        "census": lambda folder: [bench_census(folder)],
        "hub": bench_hub,
        "neighbours": bench_neighbours,
        "diff": bench_diff,
        "vocabulary": bench_byte_level,
        "scan": bench_scan,
        "smollm2": bench_language_model,
        "corpus": bench_corpus,
        "verify": bench_verify,
        "serve": bench_serve,
        "evolve": bench_evolve,
        "million": bench_million,
        "dask": bench_dask,
        "train": bench_train,
        "record": bench_record,
        "page": bench_page,
        "start": lambda folder: [*bench_start(), *bench_first_call()],
    }
    parser.add_argument("--only", choices=sections, action="append", help="run only this section; repeat for more")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only or sections:
        with tempfile.TemporaryDirectory() as folder:
            rows += sections[name](Path(folder))
    if arguments.json:
        print(json.dumps({**machine(), "versions": {"torch": torch.__version__}, "rows": rows}, indent=2))
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
    console.print(sentence(machine()), highlight=False, soft_wrap=True)
    console.print(table)
    for number, floor in enumerate(dict.fromkeys(f"{row['what']}: {row['floor']}" for row in rows)):
        console.print("floor of " * (number == 0) + floor, highlight=False)


if __name__ == "__main__":
    main()
