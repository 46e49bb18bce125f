"""Ask SmolLM2 through a server of llama.cpp and in this process: how far apart, and how fast beside a bare loop.

    python benches/serving.py [MODEL.gguf]

The server comes with the package xllamacpp. The bare loop sends the same requests by as many connections, reads the
answers and looks at nothing; batches of both take turns, so that what else the machine does slows both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl

from darkvocab.measures.verdict import Verification, judge
from darkvocab.runs.folder import read_manifest
from darkvocab.runs.records import read_records
from darkvocab.verification.run import Verify

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/importable"))
from llama_cpp import serving

SMOLLM2 = Path(__file__).parents[1] / "demo/SmolLM2-135M-Instruct.Q4_1.gguf"
ASKED: dict[str, Any] = {"controls": 167, "missed": 0}  # with the 33 that are graded: 200 tokens
BATCH = 32
BATCHES = 4


def served_rate(model: Path, address: str) -> dict[str, float]:
    """Return requests a second by a bare loop (`floor`) and by us, of the same requests in turn."""
    server, frames = Verify(source=str(model), endpoint=address, **ASKED).asking
    how = server.how
    client = httpx2.Client(timeout=300)
    seconds = {"floor": 0.0, "ours": 0.0}
    tokens = np.random.default_rng(0).integers(1000, 49_000, BATCH * BATCHES)

    def bare(body: dict[str, Any]) -> int:
        return len(client.post(f"{address}{how['path']}", json=body).content)

    for number, batch in enumerate(np.split(tokens, BATCHES)):
        for frame in frames:
            rows = np.concatenate([np.tile(frame.beginning, (BATCH, 1)), frame.rest(batch)], 1).tolist()
            asked = {**how["body"], "model": server.model, how["count"]: server.most_listed}
            bodies = [{**asked, "prompt": row} for row in rows]
            with ThreadPoolExecutor(server.connection.at_once) as pool:
                list(pool.map(bare, bodies[: server.connection.at_once]))  # each slot has the frame's beginning
                for name in sorted(seconds, reverse=number % 2 == 1):
                    begun = time.perf_counter()
                    list(pool.map(bare, bodies) if name == "floor" else server.answers(frame, batch))
                    seconds[name] += time.perf_counter() - begun
    return {name: len(tokens) * len(frames) / spent for name, spent in seconds.items()}


def verdict_of(model: Path, folder: Path, **given: Any) -> tuple[pl.DataFrame, Verification]:
    """Return the answers of a run, and what they come to."""
    Verify(source=str(model), **ASKED, **given).run(folder)
    return read_records(folder), judge(read_records(folder), read_manifest(folder)["parameters"])


def agreement(model: Path, address: str, folder: Path) -> list[str]:
    """Return sentences on how far the server's answers are from those of transformers on the same file."""
    local, verdict = verdict_of(model, folder / "local")
    said = []
    for door in ("", "/v1"):
        answers, other = verdict_of(model, folder / f"server{door[1:]}", endpoint=address + door)
        both = local.join(answers, on=["group", "token", "frame", "place"], suffix="_served")
        both = both.filter(pl.col("place") == 0)  # later places may continue another answer
        listed = both.filter(~pl.col("bound_served"))
        apart = (listed["p"].log10() - listed["p_served"].log10()).abs()
        tokens = verdict.tokens.join(other.tokens, on=["group", "token"], suffix="_served")
        same = tokens.filter(pl.col("verified") == pl.col("verified_served"))
        bounds = both.filter("bound_served")
        said.append(
            f"{door or 'llama.cpp'}: |log10 p| {apart.median():.3f} apart in the median of {len(listed):,} first "
            f"places that were listed, {apart.quantile(0.99):.2f} for 99%; of {len(bounds):,} bounds "
            f"{(bounds['p'] > bounds['p_served']).sum()} lie below the local p; "
            f"{len(same)} of {len(tokens)} verdicts equal, {other.n_undecided} undecided"
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=SMOLLM2)
    model = parser.parse_args().model
    with serving(model) as address, tempfile.TemporaryDirectory() as folder:
        rate = served_rate(model, address)
        print(f"requests a second: {rate['ours']:.1f}, by a bare loop {rate['floor']:.1f}", flush=True)
        print(*agreement(model, address, Path(folder)), sep="\n")


if __name__ == "__main__":
    main()
