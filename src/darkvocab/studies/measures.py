"""Measures of a training that has ended, for a study: columns of its record, from what its folder holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..embedding.history import History
from ..measures import tracking
from ..numerics import decode, identical_rows, ulp
from ..training.evolve import evolve
from ..training.outcome import read_ends, read_metrics
from ..training.settings import PATHS, Training
from ..training.updates import lost_updates

COUNTED = "n_unique n_black_holes black_hole_population largest_bh max_l_inf_steps".split()
MOMENTS = "exp_avg", "exp_avg_sq"


def census(path: Path, training: Training) -> dict[str, Any]:
    """Count the unseen tokens' rows at the end, and what happened to their black holes on the way."""
    evolution, unseen = evolve(path), training.corpus.unseen
    records = evolution.records.filter(pl.col("tokens") == "unseen")
    first, last = records.row(0, named=True), records.row(-1, named=True)
    inside = evolution.events.filter(pl.col("tokens").list.set_difference(unseen.tolist()).list.len() == 0)
    kinds = Counter(inside["kind"].to_list())
    _, (_, words) = read_ends(path)
    shares = identical_rows(words[unseen]).counts / len(unseen)
    return {
        **{name: last[name] for name in COUNTED},
        "loss": float(read_metrics(path)["loss"][-100:].mean()),  # type: ignore[arg-type]
        "entropy": float(abs((shares * np.log(shares)).sum())),
        "start_n_unique": first["n_unique"],
        "first_split": records.filter(pl.col("n_unique") > first["n_unique"])["step"].first(),
        "n_splits": kinds[tracking.SPLIT],
        "n_merges": kinds[tracking.MERGE],
        "last_change": evolution.tokens.filter(~pl.col("seen"))["last_change"].max() or 0,
        "displacement": last["centroid_displacement"],
    }


def lengths(path: Path, training: Training) -> dict[str, Any]:
    """Compare the unseen rows' lengths at start and end, and with what weight decay alone makes of them."""
    history, ends = read_ends(path)
    start, end = (decode(words, history.grid).astype(np.float64) for words in ends)
    before, after = (np.linalg.norm(rows[training.corpus.unseen], axis=1) for rows in (start, end))
    mean, rates = end.mean(axis=0), read_metrics(path)["learning_rate"].to_numpy()
    cosines = end @ mean / (np.linalg.norm(end, axis=1) * np.linalg.norm(mean))
    return {
        "norm_ratio": float((after / before).mean()),
        "expected_ratio": float(np.prod(1 - rates * training.optimizer.weight_decay)),
        "mean_cosine": float(cosines.mean()),
    }


def lost(path: Path, training: Training) -> dict[str, Any]:
    """Sum up which updates rounding lost; the training must record `updates`."""
    steps, tokens = lost_updates(path)
    tenth = max(1, len(steps) // 10)
    parts = {"": steps, "_first": steps[:tenth], "_last": steps[-tenth:], "_unseen": tokens[training.corpus.unseen]}
    sums = {name: part.select("lost", "asked").sum().row(0) for name, part in parts.items()}
    return {f"share_lost{name}": lost / asked for name, (lost, asked) in sums.items()}


def below(path: Path, training: Training) -> dict[str, Any]:
    """Return the share of updates that Adam's formula puts under half an ulp; the training must record `moments`."""
    n_below = n_asked = 0
    grid = training.precision_policy.weights
    for before, parts in _steps(path, training, range(training.corpus.n_vocabulary)):
        update = np.abs(parts["decay"] + parts["gradient"] + parts["momentum"])
        n_asked += int((update > 0).sum())
        n_below += int(((update > 0) & (update < ulp(before, grid) / 2)).sum())
    return {"share_below": n_below / n_asked}


def causes(path: Path, training: Training) -> dict[str, Any]:
    """Divide the unseen rows' way by what makes it; the training must record every step's `gradients` and `moments`.

    A step is the sum of weight decay, the gradient of its batch, those of earlier ones (momentum), and rounding. The
    share of a part is its sum over the steps, projected onto the way from start to end: the shares add up to 1.
    """
    unseen = training.corpus.unseen
    sums = dict.fromkeys(("decay", "gradient", "momentum"), np.zeros(()))
    history, (first, last) = read_ends(path)
    start, end = (decode(words, history.grid)[unseen].astype(np.float64) for words in (first, last))
    for _, parts in _steps(path, training, unseen):
        sums = {name: sums[name] + part for name, part in parts.items()}
    way = end - start
    shares = {f"by_{name}": float((part * way).sum() / (way * way).sum()) for name, part in sums.items()}
    return {**shares, "by_rounding": 1 - sum(shares.values())}


def paths(path: Path, training: Training) -> dict[str, Any]:
    """Return the largest element of an unseen row's gradient by either path; the training must record `paths`."""
    largest = {}
    for kind in PATHS:
        history = _recorded(path, kind)
        states = history.words(range(history.n_rows))
        values = (np.abs(decode(words, history.grid)[training.corpus.unseen]).max() for _, words in states)
        largest[f"largest_{kind}"] = float(max(values))
    return largest


def _recorded(path: Path, kind: str) -> History:
    return History.open(path / f"embedding_{kind}.safetensors", tensor=f"embedding_{kind}")


def _steps(path: Path, training: Training, tokens: Any) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield rows [k, dim] of tokens before each step of AdamW, and the parts of its update.

    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
    """
    optimizer: Any = training.optimizer
    (first, second), eps, tokens = optimizer.betas, optimizer.eps, list(tokens)
    kinds = [_recorded(path, kind) for kind in ("gradient", *MOMENTS)]
    metrics = read_metrics(path)

    def states(history: History) -> Iterator[np.ndarray]:
        for _, words in history.words(range(history.n_rows)):
            yield decode(words, history.grid)[tokens].astype(np.float64)

    walk = zip(states(History.open(path)), *map(states, kinds), strict=False)  # the last row is before no step
    for step, (before, gradient, mean, square) in enumerate(walk, 1):
        rate, norm = metrics["learning_rate"][step - 1], metrics["gradient_norm"][step - 1]
        scale = -rate / (1 - first**step) / (np.sqrt(square / (1 - second**step)) + eps)
        clipped = gradient * (min(1.0, training.clip / (norm + 1e-6)) if training.clip else 1.0)
        by_gradient = (1 - first) * clipped * scale
        by_decay = -rate * optimizer.weight_decay * before
        yield before, {"decay": by_decay, "gradient": by_gradient, "momentum": mean * scale - by_gradient}
