"""How well the indicators tell untrained tokens, and how true the stated share of wrong ones is.

    python benches/indicators.py

First all-MiniLM-L6-v2 (`make demo/all-MiniLM-L6-v2`): area under the ROC curve of its 994 reserved names, and of these
with the pieces that no text reaches, by every indicator, its texts hidden. Then 40 made-up vocabularies.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/importable"))

from untrained import area, two_populations  # noqa: E402

from darkvocab import EmbeddingMatrix  # noqa: E402
from darkvocab.measures.indicators import indicators  # noqa: E402
from darkvocab.measures.vocabulary import vocabulary  # noqa: E402


def minilm() -> None:
    matrix = EmbeddingMatrix.open(ROOT / "demo/all-MiniLM-L6-v2")
    words = vocabulary(matrix.tokenizer, matrix.n_tokens)
    reserved = np.array([name is not None for name in words.reserved])
    both = reserved | (np.array(words.category) == "unreachable")
    found = indicators(matrix)
    rows = matrix.rows(slice(None)).astype(np.float64)
    to_themselves = np.linalg.norm(rows - rows[reserved].mean(0), axis=1)
    scores = {name: -column for name, column in found.columns.items()}
    scores |= {"norm": -found.norms, "score": found.score, "euclidean to their own mean": -to_themselves}
    print(
        f"{found.reference.kind}: {len(found.reference.tokens)} rows; {reserved.sum()} reserved, {both.sum()} with both"
    )
    for name, score in scores.items():
        print(f"{name:28} reserved {area(score, reserved):.4f}  with the unreachable {area(score, both):.4f}")


def made_up(n: int = 40) -> None:
    stated, true, found, unseen = [], [], [], []
    for seed in range(n):
        n_untrained = int(np.random.default_rng(seed).integers(50, 2_000))
        made = indicators(two_populations(seed, n_untrained), {"known": np.arange(40)} if seed % 2 else None)
        if made.expected_false_positives is None:
            unseen.append(n_untrained)
            continue
        stated.append(made.expected_false_positives)
        true.append(made.dark[n_untrained:].sum() / made.dark.sum())
        found.append(made.dark[:n_untrained].mean())
    worst = int(np.argmax(true))
    print(
        f"{len(stated)} of {n} made-up vocabularies: stated {np.mean(stated):.3f}, true {np.mean(true):.3f}, apart by "
        f"{np.mean(np.abs(np.subtract(stated, true))):.3f} in the mean; {np.mean(found):.1%} of the untrained found; "
        f"worst {true[worst]:.2f} where {stated[worst]:.2f} was stated; none seen with {unseen} untrained"
    )


if __name__ == "__main__":
    minilm()
    made_up()
