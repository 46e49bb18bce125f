"""Landing, finishing and summing up a million synthetic records of a sweep: time, bytes, memory.

python benches/million.py [RECORDS] prints all three; benches/bench.py runs them in processes of their own.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darkvocab import summary
from darkvocab.runs.records import ROW_GROUP, RunFolder, frame_of
from darkvocab.snowballs.experiments import SweepRecord

PART, TRIALS = 1024, 1000


def synthetic(first: int, last: int) -> pl.DataFrame:
    """Records as random as those of a true sweep, or more: they compress no better."""
    n, rng = last - first, np.random.default_rng(first)
    numbers = np.arange(first, last)
    point = numbers // TRIALS
    sigma = 1.5e-9 + 3.5e-12 * point
    holes, singletons, steps = rng.poisson(20 + point % 300), rng.poisson(30, n), rng.integers(1, 40, n)
    columns: dict[str, Any] = {
        "sigma": sigma,
        "unique_vectors": holes + singletons,
        "n_black_holes": holes,
        "black_hole_population": 2100 - singletons,
        "n_singletons": singletons,
        "largest_bh": rng.poisson(1500, n),
        "max_l_inf": steps * 2.0**-17,
        "mean_l_inf": steps * 2.0**-17 * rng.random(n),
        "median_l_inf": steps * 2.0**-18,
        "sigma_over_epsilon": sigma / 6e-5,
        "max_l_inf_over_epsilon": steps * 2.0**-17 / 6e-5,
        "point": point,
        "trial": numbers % TRIALS,
        "smallest_bh": rng.integers(2, 5, n),
        "mean_bh_size": (2100 - singletons) / np.maximum(holes, 1),
        "median_bh_size": rng.integers(2, 9, n),
        "top2_population": rng.poisson(1700, n),
        "gini_coefficient": rng.random(n),
        "sigma_over_median_ulp": sigma / 1.5e-5,
        "max_l_inf_steps": steps,
        "mean_l_inf_steps": rng.random(n) * 10,
        "median_l_inf_steps": rng.integers(1, 9, n),
        "n_active_columns": rng.integers(20, 60, n),
        "neglected_probability": rng.random(n) * 1e-9,
    }
    same = {"n_tokens": 2100, "hidden_dim": 2560, "epsilon": 6e-5, "seed": 42, "schema_version": 1}
    same |= {"l_inf_rows": "black_holes", "base": "qwen3-4b-centred", "grid": "bfloat16", "arithmetic": "float32"}
    same |= {"distribution": "gaussian", "sampler": "sparse"}
    schema = frame_of(SweepRecord, []).schema
    same |= dict.fromkeys(schema.keys() - columns.keys() - same.keys())  # the graph, which a sweep leaves out
    made = pl.DataFrame(columns).with_columns(pl.lit(value).alias(name) for name, value in same.items())
    return made.select(schema.names()).cast(dict(schema))


def folder(path: str | Path, n: int, *, resume: bool = False) -> RunFolder[SweepRecord]:
    manifest = {"command": "", "parameters": {}, "seed": 42, "packages": {}, "inputs": [], "n_records": n}
    return RunFolder(path, SweepRecord, manifest, records_per_part=PART, resume=resume)


def land(path: str | Path, n: int) -> None:
    with folder(path, n) as run:
        frame = synthetic(0, 0)
        for part, first in enumerate(range(0, n, PART)):
            if first % ROW_GROUP == 0:
                frame = synthetic(first, min(first + ROW_GROUP, n))
            run.parts.land(part, frame[first % ROW_GROUP : first % ROW_GROUP + PART])


def finish(path: str | Path, n: int) -> None:
    with folder(path, n, resume=True) as run:
        run.finish()


def sum_up(path: str | Path, n: int) -> None:
    summary(path)


STEPS: dict[str, Callable[[str | Path, int], None]] = {"land": land, "finish": finish, "sum_up": sum_up}


def megabytes(path: Path) -> float:
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file()) / 1e6


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        for name, step in STEPS.items():
            start = time.perf_counter()
            step(path, n)
            seconds = time.perf_counter() - start
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            print(
                f"{name:8}{seconds:8.2f} s {megabytes(path):8.0f} MB in the folder {resident:8.0f} MB resident so far"
            )
        start = time.perf_counter()
        with closing(folder(path, n, resume=True)) as run:
            run.parts.missing()
        print(f"{'open':8}{time.perf_counter() - start:8.4f} s")
        for item in sorted(path.glob("records.*")):
            print(f"{item.name:16}{item.stat().st_size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
