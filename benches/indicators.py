"""How well the indicators tell untrained tokens, and how true the stated share of wrong ones is.

    python benches/indicators.py [--grades]

First all-MiniLM-L6-v2 (`make demo/all-MiniLM-L6-v2`): area under the ROC curve of its 994 reserved names, and of these
with the pieces that no text reaches, by every indicator, its texts hidden. Then 40 made-up vocabularies. Last, and
alone with `--grades`, recall and precision of both grades in made-up worlds whose untrained, weak and trained rows are
known, four vocabularies each; how many are wrong or missed, as the law states and in truth, are means of the four.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/importable"))

from untrained import area, two_populations  # noqa: E402

from darkvocab import EmbeddingMatrix  # noqa: E402
from darkvocab.measures.census import Census  # noqa: E402
from darkvocab.measures.dark import TRAINED, UNTRAINED, WEAK, Judgement, Side, graded  # noqa: E402
from darkvocab.measures.indicators import BLACK_HOLES, indicators  # noqa: E402
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


@dataclass(frozen=True)
class World:
    """A made-up vocabulary: each row is a start, and a share of a displacement; a trained row's share is about 1."""

    n_trained: int = 10_000
    dim: int = 96
    n_untrained: int = 60
    n_known: int = 20  # of the untrained, by name
    weak: float = 0.005  # times as many weak as trained rows
    moved: tuple[float, float] = (0.05, 0.3)  # shares of weak rows
    law: str = "normal"  # of the logarithms of trained rows' shares; "beta": shares are beta(3, 1)
    spread: float = 0.08
    rare: float = 0.0  # part of the trained rows whose share is
    rare_moved: tuple[float, float] = (0.4, 0.6)  # times that of the others
    noise: float = 0.02  # in units of the displacement
    grid: str = "float32"
    mean: float = 0.0  # of all displacements, in units of their deviation
    decay: float = 0.0  # exponent with which the deviations of columns fall
    tied: bool = True  # else half of the weak rows are weak in the input and half in the output

    def shares(self, rng: np.random.Generator) -> np.ndarray:
        n = self.n_trained
        if self.law == "beta":
            shares = rng.beta(3, 1, n)
        else:
            draw = {"normal": rng.normal, "laplace": rng.laplace, "gumbel": lambda *size: -rng.gumbel(*size)}[self.law]
            shares = np.exp(draw(0, self.spread, n))
        n_rare = round(self.rare * n)
        shares[:n_rare] *= rng.uniform(*self.rare_moved, n_rare)
        return shares

    def side(self, seed: int, trained: slice) -> Side:
        """Return one matrix, graded, in which these of the weak rows are trained."""
        rng = np.random.default_rng(seed)
        weak, shares = rng.uniform(*self.moved, round(self.weak * self.n_trained)), self.shares(rng)
        weak[trained] = 1
        shares = np.concatenate([np.zeros(self.n_untrained), weak, shares])
        widths = np.arange(1.0, self.dim + 1) ** -self.decay
        widths *= 0.06 / np.sqrt(np.mean(widths**2))
        moves = (rng.normal(0, 1, (len(shares), self.dim)) + self.mean * rng.normal(0, 1, self.dim)) * widths
        rows = rng.normal(0, 0.02, self.dim) + shares[:, None] * moves + rng.normal(0, 0.06 * self.noise, moves.shape)
        matrix = EmbeddingMatrix.from_array(rows.astype(np.float32), self.grid)
        census = Census(matrix.groups())
        known = {"known": np.arange(self.n_known), BLACK_HOLES: np.flatnonzero(census.numbers)}
        return graded("both", matrix, census, indicators(matrix, known))

    def sides(self, seed: int) -> tuple[Side, ...]:
        if self.tied:
            return (self.side(seed, slice(0)),)
        half = round(self.weak * self.n_trained) // 2
        return self.side(seed, slice(half)), self.side(seed + 1_000, slice(half, None))

    @property
    def truth(self) -> np.ndarray:
        counts = self.n_untrained, round(self.weak * self.n_trained), self.n_trained
        return np.repeat([UNTRAINED, WEAK, TRAINED], counts)


WORLDS = {
    "as it stands": World(),
    "none weak": World(weak=0),
    "0.1% weak": World(weak=0.001),
    "1% weak": World(weak=0.01),
    "5% weak": World(weak=0.05),
    "untied": World(tied=False),
    "no name known": World(n_known=0),
    "bfloat16": World(grid="bfloat16"),
    "bfloat16, untrained within rounding": World(noise=2e-5, grid="bfloat16", n_known=0),
    "2 untrained": World(n_untrained=2, n_known=2),
    "15 untrained": World(n_untrained=15, n_known=15),
    "4,000 untrained": World(n_untrained=4_000),
    "displacements' mean 1": World(mean=1),
    "displacements' mean 3": World(mean=3),
    "columns' widths fall as d^-0.5": World(decay=0.5),
    "columns' widths fall as d^-1": World(decay=1),
    "trained: normal, 0.04": World(spread=0.04),
    "trained: normal, 0.15": World(spread=0.15),
    "trained: normal, 0.3": World(spread=0.3),
    "trained: normal, 0.5": World(spread=0.5),
    "trained: Laplace, 0.1": World(law="laplace", spread=0.1),
    "trained: Laplace, 0.2": World(law="laplace", spread=0.2),
    "trained: Gumbel, 0.15": World(law="gumbel", spread=0.15),
    "trained: beta(3, 1)": World(law="beta"),
    "5% trained by half": World(rare=0.05),
    "20% trained by half": World(rare=0.2),
    "0.2% trained as little as the weak": World(rare=0.002, rare_moved=(0.05, 0.3)),
    "weak moved 0.01 to 0.1": World(moved=(0.01, 0.1)),
    "weak moved 0.2 to 0.5": World(moved=(0.2, 0.5)),
    "noise of 0.1": World(noise=0.1),
}


def by_grade(world: World, n: int = 4) -> list[float]:
    """Return recall and precision of untrained, then of weak, and counts: weak, wrong by law and truly, missed."""
    counts = []
    for seed in range(n):
        sides = world.sides(seed)
        truth = world.truth
        grade = Judgement(sides=sides, n_tokens=len(truth)).grade
        tails = [side.tail for side in sides if side.tail]
        untrained, weak = grade == UNTRAINED, grade == WEAK
        right = ((truth == UNTRAINED) & untrained).sum(), ((truth == WEAK) & (grade > TRAINED)).sum()
        wrong, missed = (weak & (truth == TRAINED)).sum(), ((truth == WEAK) & (grade == TRAINED)).sum()
        stated = sum(tail.expected for tail in tails), sum(tail.missed for tail in tails)
        sizes = (truth == UNTRAINED).sum(), untrained.sum(), (truth == WEAK).sum(), weak.sum()
        counts.append([*right, *sizes, stated[0], wrong, stated[1], missed])
    found, weak_found, real, called, weak_real, weak_called, *errors = np.sum(counts, 0)
    with np.errstate(invalid="ignore"):
        rates = found / real, found / called, weak_found / weak_real, 1 - errors[1] / weak_called
    return [*rates, *(np.array([weak_called, *errors]) / n)]


def grades() -> None:
    print(
        f"\n{'':38}{'untrained':^16}{'weak':^16}{'called':>8}{'wrong of them':^18}{'missed':^18}\n"
        f"{'':38}{'recall':>8}{'prec.':>8}{'recall':>8}{'prec.':>8}{'weak':>8}" + f"{'stated':>9}{'true':>9}" * 2
    )
    for name, world in WORLDS.items():
        recall, precision, weak_recall, weak_precision, *numbers = by_grade(world)
        rates = "".join(f"{rate:8.3f}" for rate in (recall, precision, weak_recall, weak_precision))
        print(f"{name:38}{rates}{numbers[0]:8.1f}" + "".join(f"{number:9.2f}" for number in numbers[1:]), flush=True)


if __name__ == "__main__":
    if "--grades" not in sys.argv:
        minilm()
        made_up()
    grades()
