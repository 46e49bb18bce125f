"""Cost against size: measure, fit the exponent of each line, print a Markdown table and draw docs/images/scale.png.

    python benches/scale.py [--only LINE] [--out FIGURE]

Of each size the fastest of several runs, warm, in this process, on all cores that the command takes by itself. The
exponent is the slope of a straight line through the logarithms of the larger half of the sizes, where what does not
grow counts little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import vocabularies

import darkvocab
from darkvocab.embedding.matrix import EmbeddingMatrix
from darkvocab.measures.neighbours import neighbours
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.numerics import Distances, encode, to_index
from darkvocab.reports.plot import Panel, Plot, Series, around, save_as
from darkvocab.snowballs import run
from darkvocab.snowballs.bases import load_base
from darkvocab.snowballs.experiments import Sweep
from darkvocab.sources.tokenizer import open_tokenizer

BASE = "qwen3-4b-centred"
FIGURE = Path(__file__).parents[1] / "docs/images/scale.png"
LONG = 1.0  # seconds after which a size is measured once
COLOURS = ("#0072b2", "#56b4e9", "#e69f00", "#000000", "#009e73", "#d55e00")  # Okabe & Ito (2008)
MARKS = "osos^^"
N_BLACK = 2100  # tokens of a matrix that share a row, as of Qwen3-4B

Sizes = Iterator[tuple[int, Callable[[], object]]]


def write_matrix(path: Path, n: int, dim: int) -> Path:
    """Write a bfloat16 vocabulary of Gaussian rows, and a black hole among them."""
    rng = np.random.default_rng(1)
    spec = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [n, dim], "data_offsets": [0, 2 * n * dim]}}
    head = json.dumps(spec).encode()
    base = np.resize(load_base(BASE).vector, dim)
    black = np.zeros(n, bool)
    black[rng.choice(n, N_BLACK, replace=False)] = True
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for first in range(0, n, 10_000):
            few = black[first : first + 10_000]
            rows = rng.standard_normal((len(few), dim), dtype=np.float32) * np.float32(0.02)
            rows[few] = base
            file.write(encode(rows, "bfloat16"))
    return path


def scan_by_tokens(folder: Path) -> Sizes:
    for n in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        path = write_matrix(folder / f"{n}.safetensors", n, 128)
        yield n, lambda p=path: darkvocab.scan(p)
        path.unlink()


def scan_by_columns(folder: Path) -> Sizes:
    for dim in (256, 512, 1024, 2048, 4096, 8192):
        path = write_matrix(folder / f"{dim}.safetensors", 20_000, dim)
        yield dim, lambda p=path: darkvocab.scan(p)
        path.unlink()


def neighbours_by_rows(folder: Path) -> Sizes:
    for n in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        path = write_matrix(folder / f"{n}.safetensors", n, 128)
        yield n, lambda p=path: neighbours(EmbeddingMatrix.open(p))
        path.unlink()


def sweep_by_tokens(folder: Path) -> Sizes:
    for n in (1000, 10_000, 100_000, 1_000_000):
        settings = Sweep([3e-9], n_tokens=n, base=BASE)
        yield n, lambda s=settings: list(run.records(s))


def pairs_by_rows(folder: Path) -> Sizes:
    for n in (500, 1000, 2000, 4000, 8000):
        rows = np.random.default_rng(1).standard_normal((n, 2560), dtype=np.float32)
        index = to_index(encode(rows, "bfloat16"), "bfloat16")
        yield n, lambda i=index: Distances(i, "bfloat16").spread


def vocabulary_by_tokens(folder: Path) -> Sizes:
    whole = json.loads(vocabularies.byte_level(150_000).to_str())
    vocab, merges = whole["model"]["vocab"], whole["model"]["merges"]
    n_letters = len(vocab) - len(merges)  # a merge makes the token of the next id
    for n in (10_000, 20_000, 40_000, 80_000, len(vocab)):
        first = {
            "vocab": {text: token for text, token in vocab.items() if token < n},
            "merges": merges[: n - n_letters],
        }
        (folder / "tokenizer.json").write_text(
            json.dumps(whole | {"model": whole["model"] | first, "added_tokens": []}), "utf-8"
        )
        tokenizer = open_tokenizer(folder / "tokenizer.json")
        yield n, lambda t=tokenizer, n=n: vocabulary(t, n)


LINES: dict[str, tuple[str, Callable[[Path], Sizes]]] = {
    "scan by tokens": ("128 columns", scan_by_tokens),
    "scan by columns": ("20,000 tokens", scan_by_columns),
    "sweep by tokens": ("one sigma, 3e-9", sweep_by_tokens),
    "all pairs by rows": ("2,560 columns", pairs_by_rows),
    "vocabulary by tokens": ("a byte-level BPE", vocabulary_by_tokens),
    "neighbours by rows": ("128 columns", neighbours_by_rows),
}


def fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of three runs after one that compiles; of two runs where they take long."""
    work()
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        if best > LONG:
            break
    return best


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of a line through the logarithms of the larger half of the sizes."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)[0])


def draw(lines: dict[str, tuple[list[int], list[float]]]) -> Plot:
    """Return all lines in one panel."""
    series = [
        Series(x=x, y=y, label=f"{name}: n^{exponent(x, y):.2f}", colour=colour, mark=mark, width=1.2, size=4)
        for (name, (x, y)), colour, mark in zip(lines.items(), COLOURS, MARKS, strict=False)
    ]
    x, y = (np.concatenate(of) for of in zip(*lines.values(), strict=True))
    caption = "Cost against size: the fastest of several runs, warm; the exponent is fitted to the larger half of sizes"
    panel = Panel(
        title="",
        x=around(x, "tokens, columns or rows", "log"),
        y=around(y, "seconds", "log"),
        series=series,
        legend="lower right",
    )
    return Plot(panels=[panel], height=4.2, caption=caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=LINES, action="append", help="measure only this line; repeat for more")
    parser.add_argument("--out", type=Path, default=FIGURE, help="the figure, .png or .pdf")
    arguments = parser.parse_args()
    lines: dict[str, tuple[list[int], list[float]]] = {}
    print("| cost of | at | from | to | exponent |\n|---|---|--:|--:|--:|")
    for name in arguments.only or LINES:
        at, sizes_of = LINES[name]
        with tempfile.TemporaryDirectory() as folder:
            sizes, seconds = zip(*((n, fastest(work)) for n, work in sizes_of(Path(folder))), strict=True)
        lines[name] = list(sizes), list(seconds)
        ends = (
            f"{n:,}: {taken:.3g} s"
            for n, taken in zip(sizes[:: len(sizes) - 1], seconds[:: len(sizes) - 1], strict=True)
        )
        print(f"| {name} | {at} | {' | '.join(ends)} | {exponent(*lines[name]):.2f} |", flush=True)
    save_as(draw(lines).draw(), arguments.out)


if __name__ == "__main__":
    main()
