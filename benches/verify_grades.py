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
from darkvocab.checkpoints.scan_result import Scan
from darkvocab.measures.verdict import Verdict, judge
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


def named(tokens: pl.DataFrame) -> Iterator[tuple[str, set[int]]]:
    """Yield who names tokens, and which."""
    graded = tokens.filter(pl.col("grade") != "trained")
    yield "untrained", set(tokens.filter(pl.col("grade") == "untrained")["id"])
    yield "untrained and weak", set(graded["id"])
    for n in (round(SHARE * len(tokens)), len(graded)):
        for column, name in INDICATORS.items():
            yield f"{name}, first {n:,}", set(tokens.sort(column, "id")["id"][:n])


def show(scanned: Scan, candidates: dict[str, set[int]], verdict: Verdict) -> None:
    """Print a row for each who names tokens: how many the model fails on, of its own and of all that are known."""
    asked = verdict.tokens.filter(pl.col("group") != "control").unique("token", keep="first", maintain_order=True)
    fails = set(asked.filter(pl.col("verified"))["token"])
    strong = set(asked.filter(pl.col("p_max") < 0.001)["token"])
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "tokens", "fails on", "of these", "P_max < 0.001", "of all known"):
        table.add_column(heading, justify="right" if heading else "left")
    rng = np.random.default_rng(0)
    for name, ids in candidates.items():
        n = len(ids & fails)
        low, high = np.quantile(rng.beta(n + 0.5, len(ids) - n + 0.5, 20_000), [0.05, 0.95])
        share = f"{n / len(ids):.0%} ({low:.0%} to {high:.0%})"
        table.add_row(name, f"{len(ids):,}", f"{n:,}", share, f"{len(ids & strong):,}", f"{n / len(fails):.0%}")
    console = Console(width=120, highlight=False)
    console.print(table)
    others = asked.filter(pl.col("group") == "missed")
    console.print(
        f"known: {len(fails):,} of {len(asked):,} tokens asked for; of these {len(others):,} that none names at 2%, "
        f"of which it fails on {int(others['verified'].sum())}"
    )
    if verdict.n_missed:
        console.print("of all the others: {:,.0f} to {:,.0f} (90%)".format(*verdict.n_missed))
    limits = ", ".join(f"{p:.3g} ({kind})" for kind, p in verdict.thresholds.items())
    console.print(f"fails on: P_max below the 1% quantile of {verdict.n_controls:,} controls, {limits}")
    console.print(scanned.source.path)


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
    verdict = judge(read_records(options.out), read_manifest(options.out)["parameters"])
    show(scanned, candidates, verdict)


if __name__ == "__main__":
    main()
