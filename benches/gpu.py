"""Every figure of a GPU beside its floor, in one run of under five minutes, and whether its records are a core's.

    python benches/gpu.py [--device cuda] [--json] [--only SECTION] [--shapes]

Times are medians of many, warm, by the device's own events, or of whole runs by the clock. `--rehearse` runs all of it
on a CPU at small sizes, by torch's own operations: for seeing that it runs, not for its times. Nothing here fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from darkvocab import Training
from darkvocab.gpu.device import Device, groups_of, open_device
from darkvocab.numerics import GRIDS
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import Questions, Sweep, Trials
from darkvocab.snowballs.on_device import ALIGNED, Lanes
from darkvocab.training.choices import SnowballStart
from darkvocab.training.stack import Stack

BASE, EPSILON, SIGMA = "qwen3-4b-centred", 5.9604645e-5, 3.281911e-3  # 12.4b's


@dataclass(frozen=True, kw_only=True)
class Sizes:
    tokens: int = 2100
    trials: int = 2000  # of 12.4b
    points: int = 20_000  # of 12.2a
    questions: int = 40  # runs of ten sigma
    checked: int = 4  # records of each held against a core's
    together: int = 64  # trials in a batch whose parts are timed
    rows: tuple[int, int] = (8000, 4096)
    vocabulary: tuple[int, int] = (151_936, 2560)
    copied: int = 1 << 31  # bytes
    steps: int = 2000
    replicas: tuple[int, ...] = (1, 4, 16, 64)
    repeats: int = 20


REHEARSED = Sizes(
    tokens=60,
    trials=4,
    points=6,
    questions=1,
    checked=2,
    together=2,
    rows=(300, 24),
    vocabulary=(2000, 32),
    copied=1 << 20,
    steps=4,
    replicas=(1, 2),
    repeats=2,
)


class Bench:
    def __init__(self, device: Device, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes
        self.on_gpu = device.place.type == "cuda"
        self.rates: dict[str, float] = {}

    def seconds(self, work: Callable[[], Any], repeats: int | None = None) -> float:
        """Median time of some work on the device, after two runs to warm up."""
        times = []
        for number in range(2 + (repeats or self.sizes.repeats)):
            if self.on_gpu:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                work()
                end.record()
                end.synchronize()
                taken = begin.elapsed_time(end) / 1e3
            else:
                begun = time.perf_counter()
                work()
                taken = time.perf_counter() - begun
            if number >= 2:
                times.append(taken)
        return statistics.median(times)

    # Floors -----------------------------------------------------------------------------------------------------

    def floors(self) -> Iterator[dict[str, Any]]:
        """What the card can do at most, measured: all other floors are counts over these rates."""
        place, n = self.device.place, self.sizes.copied
        source = torch.empty(n, dtype=torch.uint8, device=place).random_()
        target = torch.empty_like(source)
        self.rates["bytes"] = 2 * n / self.seconds(lambda: target.copy_(source))
        yield row("bytes read and written, a copy", rate=self.rates["bytes"], unit="B/s")
        del source, target
        yield row("compares from registers: |a - b| and a maximum", rate=self.compares(), unit="/s")
        size = 8192 if self.on_gpu else 128
        a, b = (torch.randn(size, size, device=place).to(torch.bfloat16) for _ in range(2))
        self.rates["flops"] = 2 * size**3 / self.seconds(lambda: a @ b)
        yield row(f"bfloat16 product of {size:,} x {size:,}", rate=self.rates["flops"], unit="flop/s")
        self.rates["launches"] = 1 / self.launch()
        yield row(
            "kernels of a graph, one after the other, that do next to nothing", rate=self.rates["launches"], unit="/s"
        )

    def compares(self) -> float:
        """Of float32, a second, where nothing is loaded."""
        if not self.on_gpu:
            x = torch.randn(1 << 16)
            self.rates["compares"] = x.numel() / self.seconds(lambda: torch.maximum(x, (x - x).abs()))
            return self.rates["compares"]
        import gpu_floor

        blocks, rounds = 132 * 16 * 8, 4096
        out = torch.zeros(blocks * gpu_floor.WIDE, device=self.device.place)
        taken = self.seconds(lambda: gpu_floor.compare[blocks,](out, rounds, enable_fp_fusion=False))
        self.rates["compares"] = blocks * gpu_floor.WIDE * rounds / taken
        return self.rates["compares"]

    def launch(self) -> float:
        """Seconds from one small kernel of a graph to the next."""
        from darkvocab.training.stack import captured

        x, many = torch.zeros(32, device=self.device.place), 200

        def small() -> None:
            for _ in range(many):
                x.add_(1)

        return self.seconds(captured(torch, self.device.place, small, [x])) / many

    # Snowballs --------------------------------------------------------------------------------------------------

    def snowballs(self) -> Iterator[dict[str, Any]]:
        """12.4b, 12.2a and 13.5a: whole records, as a run makes them, and their truth."""
        sizes, n = self.sizes, self.sizes.tokens
        pairs = n * (n - 1) // 2
        trial = Trials(SIGMA, trials=sizes.trials, n_tokens=n, epsilon=EPSILON, base=BASE)
        points = Sweep(np.linspace(1.5e-9, 5e-9, sizes.points), n_tokens=n, epsilon=EPSILON)
        asked = Questions(np.geomspace(1e-6, 1e-4, 10).tolist() * sizes.questions, n_tokens=n)
        compares = pairs * trial.hidden_dim
        yield self.whole("12.4b, a trial with every statistic", trial, compares, f"{compares:,} compares")
        yield self.whole("12.2a, a point of the sweep", points, None, "")
        yield self.whole("13.5a, a trial, mean of its ten sigma", asked, 2 * compares, f"2 x {compares:,} compares")

    def whole(self, what: str, settings: Any, compares: int | None, floor: str) -> dict[str, Any]:
        sigmas = settings.sigmas[:: max(1, len(settings.sigmas) // self.sizes.checked)]
        few = type(settings)(sigmas, **self.settings(settings))
        same = rows_of(run.records(few, device=self.device)) == rows_of(run.records(few, engine="serial"))
        list(run.records(few, device=self.device))
        taken = []
        for _ in range(3):
            begun = time.perf_counter()
            for _ in run.records(settings, device=self.device):
                pass
            taken.append((time.perf_counter() - begun) / len(settings))
        least = compares / self.rates["compares"] if compares else None
        return row(what, seconds=statistics.median(taken), floor=least, of=floor, same=same)

    def settings(self, whole: Any) -> dict[str, Any]:
        """Of a shorter run that is otherwise the same."""
        made = {"n_tokens": whole.n_tokens, "trials": min(whole.trials, self.sizes.checked)}
        return made if isinstance(whole, Questions) else {**made, "epsilon": whole.epsilon, "base": whole.base}

    def parts(self) -> Iterator[dict[str, Any]]:
        """What a trial of 12.4b is made of, many at once; and the draws of 12.2a."""
        device, t, grid = self.device, self.sizes.together, GRIDS["bfloat16"]
        shape = grid.mantissa_bits, grid.min_exponent, grid.max_code
        dense = Trials(SIGMA, trials=t, n_tokens=self.sizes.tokens, base=BASE, sampler="dense")
        n, dim, place = dense.n_tokens, dense.hidden_dim, device.place
        base = device.put(dense.base.vector.astype(np.float64))[None]
        codes = torch.empty(t, n, dim, dtype=torch.int16, device=place)
        which, numbers = torch.zeros(t, dtype=torch.int64, device=place), torch.arange(t, device=place)
        sigmas = torch.full((t,), SIGMA, dtype=torch.float64, device=place)

        def draw() -> None:
            device.drawing.draw_dense(
                *(base, which, sigmas, which, numbers, 42),
                **{"laplace": False, "float32": True, "stream": 0, "shape": shape, "out": codes},
            )

        written = codes.numel() * codes.itemsize
        yield self.part("draw", draw, t, written, "bytes written")
        few = dense.snowball(dense.base.vector, 5e-9).single_cells()
        yield self.part(
            "draw, by cells, of 12.2a at 5e-9", self.sparse(few, t), t, n * len(few.columns) * t, "bytes written"
        )
        keys = device.put(np.random.default_rng(1).integers(0, 2**63, dim))
        yield self.part("group", lambda: device.grouping.leaders(codes, keys, False), t, written, "bytes read")
        rows = torch.arange(n, device=place).expand(t, n).contiguous()
        home = torch.zeros(t, dim, dtype=torch.int64, device=place)
        yield self.part(
            "values of the rows",
            lambda: device.distances.values(codes, home, rows, "weight", shape),
            t,
            3 * written,
            "bytes read and written",
        )
        x, counts = device.distances.values(codes, home, rows, "weight", shape), torch.full((t,), n, device=place)
        compares = t * n * (n - 1) // 2 * dim
        apart = device.distances.all_pairs(x, counts)
        yield row(
            "all pairs",
            seconds=self.seconds(lambda: device.distances.all_pairs(x, counts)) / t,
            floor=compares / self.rates["compares"] / t,
            of=f"{compares // t:,} compares",
        )
        weights = torch.zeros(t, apart.shape[2], dtype=torch.int64, device=place)
        weights[:, :n] = 1
        equal, pairs = torch.zeros_like(counts), n * (n - 1) // 2
        ranks = torch.tensor([(pairs - 1) // 2, pairs // 2], device=place).expand(t, 2).contiguous()
        read = 4 * t * pairs
        limit = 2 * EPSILON
        for name, work in {
            "maximum and exact mean": lambda: device.distances.tally(apart, weights),
            "exact median": lambda: device.distances.ranked(apart, weights, equal, ranks),
            "graph: degrees and components": lambda: device.distances.connect(apart, weights, limit),
        }.items():
            yield self.part(name, work, t, read, "bytes read once")

    def sparse(self, cells: Any, t: int) -> Callable[[], None]:
        lanes = Lanes.of([cells] * t, [0] * t, list(range(t)))
        columns = len(cells.columns) + -len(cells.columns) % ALIGNED
        codes = torch.zeros(t, self.sizes.tokens, columns, dtype=torch.int8, device=self.device.place)
        return lambda: self.device.drawing.draw_sparse(lanes, 42, codes)

    def part(self, what: str, work: Callable[[], Any], t: int, n_bytes: int, of: str) -> dict[str, Any]:
        least = n_bytes / self.rates["bytes"] / t
        return row(f"  {what}", seconds=self.seconds(work) / t, floor=least, of=f"{n_bytes // t:,} {of}")

    # Matrices ---------------------------------------------------------------------------------------------------

    def matrices(self) -> Iterator[dict[str, Any]]:
        """All pairs of a matrix, and the census of a vocabulary, both resident."""
        device, (n, dim) = self.device, self.sizes.rows
        x, counts = self.rows_for(n, dim), torch.tensor([n], device=device.place)
        compares = n * (n - 1) // 2 * dim
        yield row(
            f"all pairs of {n:,} x {dim:,} bfloat16",
            seconds=self.seconds(lambda: device.distances.all_pairs(x, counts)),
            floor=compares / self.rates["compares"],
            of=f"{compares:,} compares",
        )
        n, dim = self.sizes.vocabulary
        words = torch.randn(n, dim, device=device.place).to(torch.bfloat16).view(torch.int16)
        words[torch.randint(n, (n // 70,), device=device.place)] = words[:13].repeat(n // 70 // 13 + 1, 1)[: n // 70]
        groups = groups_of(device, words)
        unique = len(torch.unique(words, dim=0)) == len(groups.counts)
        yield row(
            f"census of {n:,} x {dim:,} bfloat16",
            seconds=self.seconds(lambda: groups_of(device, words)),
            floor=words.numel() * 2 / self.rates["bytes"],
            of=f"{words.numel() * 2:,} bytes read",
            same=unique,
        )

    def rows_for(self, n: int, dim: int) -> torch.Tensor:
        grid = GRIDS["bfloat16"]
        index = torch.randn(1, n, dim, device=self.device.place).to(torch.bfloat16).view(torch.int16)
        index = torch.where(index < 0, -(index & 0x7FFF), index)
        home = torch.zeros(1, dim, dtype=torch.int64, device=self.device.place)
        rows = torch.arange(n, device=self.device.place)[None]
        shape = grid.mantissa_bits, grid.min_exponent, grid.max_code
        return self.device.distances.values(index, home, rows, "weight", shape)

    def shapes(self) -> Iterator[dict[str, Any]]:
        """All pairs by programs of other shapes: the fastest should be the default."""
        n, dim = self.sizes.rows
        x, counts = self.rows_for(n, dim), torch.tensor([n], device=self.device.place)
        if not self.on_gpu:
            return
        default = self.device.distances.SHAPES[torch.float32]
        for words in ((4, 4), (8, 4), (4, 8), (2, 4), (4, 2)):
            for across, warps in ((8, 1), (8, 2), (8, 4), (16, 2), (16, 4)):
                for unroll in (2, 4, 8):
                    shape = replace_shape(default, words, across, warps, unroll)
                    if max(shape.rows, shape.later) * 2 > x.shape[3]:
                        continue
                    taken = self.seconds(lambda s=shape: self.device.distances.all_pairs(x, counts, shape=s), 5)
                    yield row(f"  {tuple(shape)}", seconds=taken)

    # The lab ----------------------------------------------------------------------------------------------------

    def lab(self) -> Iterator[dict[str, Any]]:
        """11.2c's steps, recorded: one training, and several together."""
        settings = {"start": SnowballStart(), "precision": "pure-bf16", "label_shift": 2}
        training = Training(**settings, steps=10_000, device=str(self.device.place) if self.on_gpu else "cpu")
        flops = 3 * 2 * training.batch * training.architecture.context * (98_304 + 8_192 + 2 * 2 * 128 * 64)
        for n in self.sizes.replicas:
            stack = Stack([replace(training, seed=42 + k) for k in range(n)], self.device.place)
            steps = max(4, self.sizes.steps // max(1, n // 4))
            for segment in stack.segments(min(256, steps)):
                stack.read(segment)
            first, begun, before = stack.made, time.perf_counter(), None
            for segment in stack.segments(first + steps):
                if before is not None:  # while the next is made
                    stack.read(before)
                before = segment
            stack.read(before)
            taken = (time.perf_counter() - begun) / steps
            what = "11.2c, a step of one training" if n == 1 else f"11.2c, a step of {n} trainings together, for each"
            of = f"{flops:,} operations in bfloat16"
            yield row(what, seconds=taken / n, floor=flops / self.rates["flops"], of=of)


def replace_shape(default: Any, words: tuple[int, int], across: int, warps: int, unroll: int) -> Any:
    rows, later = words
    return default._replace(row_words=rows, later_words=later, across=across, warps=warps, unroll=unroll)


def rows_of(records: Any) -> list[dict[str, Any]]:
    return [asdict(record) for record in records]


def row(what: str, **columns: Any) -> dict[str, Any]:
    return {"what": what, **columns}


def machine(device: Device) -> dict[str, str]:
    found = {"torch": torch.__version__, "python": platform.python_version(), "processor": platform.processor()}
    if device.place.type != "cuda":
        return {**found, "card": "none: a rehearsal, whose times mean nothing"}
    import triton

    ask = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"]
    told = subprocess.run(ask, capture_output=True, text=True).stdout.strip() if shutil.which(ask[0]) else "unknown"
    card = torch.cuda.get_device_properties(device.place)
    return {
        **found,
        "card": f"{card.name}, {card.multi_processor_count} multiprocessors, {card.total_memory / 2**30:.0f} GiB",
        "driver, largest clock": told,
        "CUDA": str(torch.version.cuda),
        "triton": triton.__version__,
    }


def told(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at small sizes")
    parser.add_argument("--shapes", action="store_true", help="also all pairs by programs of other shapes")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    sections = ("snowballs", "parts", "matrices", "lab")
    parser.add_argument("--only", choices=sections, action="append", help="run only this section; repeat for more")
    arguments = parser.parse_args()
    if arguments.rehearse:
        sys.path.append(str(Path(__file__).parents[1] / "tests" / "importable"))
        from plain_drawing import PlainDevice

        device = PlainDevice()
        torch.set_num_threads(1)  # for tensors as small as these
    else:
        opened = open_device(arguments.device)
        assert opened is not None, "a GPU, or --rehearse"
        device = opened
    about = machine(device)
    bench = Bench(device, REHEARSED if arguments.rehearse else Sizes())
    with device.active():
        rows = list(bench.floors())
        for section in arguments.only or sections:
            rows += getattr(bench, section)()
        if arguments.shapes:
            rows += bench.shapes()
    if arguments.json:
        print(json.dumps({**about, "rows": rows}, indent=2))
        return
    console = Console(width=150)
    for name, value in about.items():
        console.print(f"{name}: {value}", highlight=False)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("", "here", "a second", "floor", "here / floor", "records as a core's", "floor of"):
        table.add_column(heading, justify="left" if heading in ("", "floor of") else "right", overflow="fold")
    for one in rows:
        taken, least = one.get("seconds"), one.get("floor")
        rate = 1 / taken if taken else one.get("rate")
        table.add_row(
            one["what"],
            told(taken),
            f"{rate:.3g} {one['unit'].partition('/')[0]}" if "unit" in one else f"{rate:,.0f}",
            told(least),
            f"{taken / least:.2f}" if taken and least else "",
            {True: "yes", False: "NO", None: ""}[one.get("same")],
            one.get("of", ""),
        )
    console.print(table)


if __name__ == "__main__":
    main()
