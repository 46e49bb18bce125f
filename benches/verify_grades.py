"""Who names the tokens that a language model fails on: the grades, or Land & Bartolo's indicators at 2% [1]_?

    python benches/verify_grades.py [MODEL.gguf] --out RUN

`darkvocab verify` asks the model for all candidates: graded tokens, and the 2% most extreme by each indicator and by
the norm, with 200 controls, and 1,000 other tokens that say how many failures none of them names. Each indicator is
held against the answers twice: at 2%, and at as many tokens as the grades name. A RUN that was made before is read
instead (of `--tokens all`, too). SmolLM2: 4,900 tokens.

References
----------
.. [1] S. Land, M. Bartolo, "Fishing for Magikarp: Automatically Detecting Under-trained Tokens in Large Language
   Models", EMNLP 2024, arXiv:2405.05417, section 3.2.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

import darkvocab
from darkvocab.measures.verdict import Verification, judge
from darkvocab.runs.folder import read_manifest
from darkvocab.runs.records import read_records

SMOLLM2 = Path(__file__).parents[1] / "demo/SmolLM2-135M-Instruct.Q4_1.gguf"
INDICATORS = {  # columns of a scan, the smallest first
    "euclidean": "Euclidean distance",
    "cosine": "cosine distance",
    "cosine_mean_removed": "cosine, mean removed",
    "cosine_pc_removed": "cosine, first component removed",
    "norm": "norm",
}
SHARE = 0.02
FAILS = 0.01  # P_max below, Land & Bartolo's


def named(tokens: pl.DataFrame) -> Iterator[tuple[str, set[int]]]:
    """Yield who names tokens, and which."""
    graded = tokens.filter(pl.col("grade") != "trained")
    yield "untrained", set(tokens.filter(pl.col("grade") == "untrained")["id"])
    yield "untrained and weak", set(graded["id"])
    for n in (round(SHARE * len(tokens)), len(graded)):
        for column, name in INDICATORS.items():
            yield f"{name}, first {n:,}", set(tokens.sort(column, "id")["id"][:n])


def between(rng: np.random.Generator, n: int, of: int) -> np.ndarray:
    """Draw shares from their posterior by Jeffreys' prior."""
    return rng.beta(n + 0.5, of - n + 0.5, 20_000)


def show(candidates: dict[str, set[int]], verdict: Verification, strata: list[int]) -> None:
    """Print a row for each who names tokens: on how many the model fails, and the part of all known failures."""
    asked = verdict.tokens.filter(pl.col("group") != "control").unique("token", keep="first", maintain_order=True)
    below = {limit: set(asked.filter(pl.col("p_max") < limit)["token"]) for limit in (FAILS, 0.001)}
    fails = below[FAILS]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "tokens", f"P_max < {FAILS}", "of these (90%)", "< 0.001", "of the known"):
        table.add_column(heading, justify="right" if heading else "left")
    rng = np.random.default_rng(0)
    for name, ids in candidates.items():
        n = len(ids & fails)
        low, high = np.quantile(between(rng, n, len(ids)), [0.05, 0.95])
        share = f"{n / len(ids):.1%} ({low:.1%} to {high:.1%})"
        found = f"{n / len(fails):.0%}"
        table.add_row(name, f"{len(ids):,}", f"{n:,}", share, f"{len(ids & below[0.001]):,}", found)
    console = Console(width=120, highlight=False)
    console.print(table)
    console.print(f"known: {len(fails):,} of {len(asked):,} tokens asked for, {len(below[0.001])} of them below 0.001")
    others = asked.filter(pl.col("group") == "missed")
    if len(others):
        parts = [others.filter(pl.col("stratum") == number)["p_max"].to_numpy() for number in range(len(strata))]
        rest = sum(
            (size - len(p)) * between(rng, int((p < FAILS).sum()), len(p))
            for size, p in zip(strata, parts, strict=True)
        )
        low, high = np.quantile(rest, [0.05, 0.95])
        n = int((others["p_max"] < FAILS).sum())
        console.print(
            f"of {len(others):,} drawn from the {sum(strata):,} that none names at 2%, it fails on {n}: on {low:,.0f} "
            f"to {high:,.0f} of the others (90%)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=SMOLLM2)
    parser.add_argument("--out", type=Path, required=True, help="run folder of verify")
    options = parser.parse_args()
    scanned = darkvocab.scan(options.model)
    candidates = dict(named(scanned.tokens))
    if not (options.out / "records.parquet").exists():
        tokens = sorted(set().union(*candidates.values()))
        darkvocab.verify(options.model, options.out, tokens=tokens, missed=1_000, resume=options.out.exists())
    parameters = read_manifest(options.out)["parameters"]
    show(candidates, judge(read_records(options.out), parameters), parameters["strata"])


if __name__ == "__main__":
    main()
