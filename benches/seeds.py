"""Whether trainings here end as transformers' Trainer's do: 11.2c from the same starts, over several seeds.

Each seed's start is the same bit for bit; batches come in another order. Trainer's states are those that our recorder
leaves, which must be those that a callback copies by hand. Distances between the two sets of ends are
held against all ways to deal the ends out to the two (an exact permutation test of the means).
"""

import argparse
import json
import sys
import tempfile

import numpy as np
import recipes
from scipy.stats import permutation_test

from darkvocab.embedding.history import History
from darkvocab.measures.census import counts
from darkvocab.notebooks.recipes import training_11_2
from darkvocab.training.cpu_passes import array
from darkvocab.training.recorder import Recorder
from darkvocab.training.stack import Stack


def figures(words: np.ndarray, unseen: np.ndarray, loss: float) -> dict[str, float]:
    selections = {"all": words, "unseen": words[unseen]}
    counted = {f"{name} of {of}": n for of, rows in selections.items() for name, n in counts(rows).items()}
    return {"loss": loss, **counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=42, help="seed")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    here, there = [], []
    for seed in range(asked.first, asked.first + asked.seeds):
        training = training_11_2("11.2c", steps=asked.steps, seed=seed)
        unseen = training.corpus.unseen
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(f"{folder}/recorded", on_alarm="record")
            history, _, losses = recipes.train(asked.steps, folder, seed, recorder.callback())
            states = History.open(f"{folder}/recorded")
            words = [state.copy() for _, state in states.words(range(states.n_rows))]
        if not np.array_equal(np.stack(words), array(history)):
            sys.exit(f"seed {seed}: the recorder has other states than a copy by hand")
        there.append(figures(words[-1], unseen, losses[-1] * 128 / 127))  # it divides by 128 labels
        stack = Stack([training])
        if not np.array_equal(stack.rows(0), words[0]):
            sys.exit(f"seed {seed}: the starts differ")
        losses_here = [stack.read(segment)[1][0, 0, 0] for segment in stack.segments(asked.steps)]
        here.append(figures(stack.rows(0), unseen, float(np.mean(losses_here[-100:]))))
        print(f"seed {seed}: here {here[-1]}, there {there[-1]}", file=sys.stderr, flush=True)
    rows = []
    for figure in here[0]:
        ours, theirs = (np.array([made[figure] for made in side]) for side in (here, there))
        test = permutation_test((ours, theirs), lambda a, b, axis: a.mean(axis) - b.mean(axis), n_resamples=np.inf)
        rows.append({"figure": figure, "here": ours.tolist(), "trainer": theirs.tolist(), "p": float(test.pvalue)})
    if asked.json:
        print(json.dumps(rows))
        return
    print(f"{'':30}  {'here':>14}  {'Trainer':>14}     p")
    for row in rows:
        sides = [f"{np.mean(row[side]):7.2f} ± {np.std(row[side], ddof=1):4.2f}" for side in ("here", "trainer")]
        print(f"{row['figure']:30}  {sides[0]:>14}  {sides[1]:>14}  {row['p']:.3f}")


if __name__ == "__main__":
    main()
