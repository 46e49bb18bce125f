"""Small files of records and of a scan, written to the folder that is named: `tests/kept/machine` has them of AVX-512.

Long enough for vectors of 512 bits, and for windows of distances to be chosen.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np

from darkvocab.cli import app
from darkvocab.numerics import encode
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import Questions, Sweep, Trials

EVERY = {"trials": 2, "base": "random", "measure": ("geometry", "steps", "topology")}
RUNS = {
    "sweep": lambda: Sweep([0, 1.5e-9, 3e-9, 5e-9, 1e-8], n_tokens=1100, epsilon=3e-5),
    "trials": lambda: Trials(3e-3, n_tokens=230, dim=700, epsilon=0.0142, **EVERY),
    "laplace": lambda: Trials(3e-3, n_tokens=60, dim=70, distribution="laplace", grid="float32", **EVERY),
    "ball": lambda: Trials(1e-3, n_tokens=60, dim=70, distribution="uniform-ball", **EVERY),
    "questions": lambda: Questions([1e-6, 1e-5, 1e-4], n_tokens=230, dim=700),
}


def write_rows(path: Path) -> None:
    """Write a bfloat16 vocabulary of 700 x 96 with a snowball of 50 tokens, and rows near it."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((700, 96)) * 0.02
    rows[300:350] = rows[0] * 0.05 + 3e-9 * rng.standard_normal((50, 96))
    words = encode(rows.astype(np.float32), "bfloat16")
    spec = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [700, 96], "data_offsets": [0, words.nbytes]}}
    head = json.dumps(spec).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + words.tobytes())


def write(folder: Path) -> None:
    """Write all files."""
    for name, settings in RUNS.items():
        run.frame(settings(), engine="serial").write_csv(folder / f"{name}.csv")
    write_rows(folder / "rows.safetensors")
    with contextlib.chdir(folder), Path("scan.json").open("w") as out, contextlib.redirect_stdout(out):
        app(["scan", "rows.safetensors", "--json", "--csv", "scan.csv"], standalone_mode=False)
    (folder / "rows.safetensors").unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
