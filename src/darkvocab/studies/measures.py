"""Measures of a training that has ended, for a study: columns of its record, from what its folder holds."""

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

CENSUS_COLUMNS = "n_unique n_black_holes black_hole_population largest_bh max_l_inf_steps".split()
MOMENTS = "exp_avg", "exp_avg_sq"
ALIKE = 0.99  # cosine


def census(path: Path, training: Training) -> dict[str, Any]:
    """Count the unseen tokens' rows at the end, and the events of their black holes."""
    evolution = evolve(path)
    unseen = training.corpus.unseen
    records = evolution.records.filter(pl.col("tokens") == "unseen")
    first, last = (records.row(at, named=True) for at in (0, -1))
    inside = evolution.events.filter(pl.col("tokens").list.set_difference(unseen.tolist()).list.len() == 0)
    kinds = Counter(inside["kind"].to_list())
    _, (_, words) = read_ends(path)
    shares = identical_rows(words[unseen]).counts / len(unseen)
    return {
        **{name: last[name] for name in CENSUS_COLUMNS},
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
    """Compare the unseen rows' norms at start and end with the shrinkage by weight decay alone."""
    history, ends = read_ends(path)
    start, end = (decode(words, history.grid).astype(np.float64) for words in ends)
    before, after = (np.linalg.norm(rows[training.corpus.unseen], axis=1) for rows in (start, end))
    mean = end.mean(axis=0)
    cosines = end @ mean / (np.linalg.norm(end, axis=1) * np.linalg.norm(mean))
    ratio = float((after / before).mean())
    rates = read_metrics(path)["learning_rate"].to_numpy()
    expected = float(np.prod(1 - rates * training.optimizer.weight_decay))
    ratios = {"norm_ratio": ratio, "expected_ratio": expected, "ratio_beyond_formula": ratio - expected}
    return {**ratios, "mean_cosine": float(cosines.mean())}


def fresh(path: Path, training: Training) -> dict[str, Any]:
    """Measure a training with fresh rows: loss, effective rank, and pairs of similar rows (cosine over `ALIKE`).

    Only tokens of the text count. The effective rank is the exponential of the entropy of the centred rows' singular
    values: O. Roy and M. Vetterli, "The effective rank", EUSIPCO 2007.
    """
    history, (_, words) = read_ends(path)
    rows = np.delete(decode(words, history.grid), training.corpus.unseen, axis=0).astype(np.float64)
    singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    shares = singular[singular > 0] / singular.sum()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    losses = read_metrics(path)["loss"]
    return {
        "loss_first": losses[0],
        "loss": losses[-100:].mean(),
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "n_alike": int((np.triu(unit @ unit.T, 1) > ALIKE).sum()),
    }


def lost(path: Path, training: Training) -> dict[str, Any]:
    """Return the shares of updates lost to rounding; the training must record `updates`."""
    steps, tokens = lost_updates(path)
    tenth = max(1, len(steps) // 10)
    parts = {"": steps, "_first": steps[:tenth], "_last": steps[-tenth:], "_unseen": tokens[training.corpus.unseen]}
    sums = {name: part.select("lost", "asked").sum().row(0) for name, part in parts.items()}
    shares = {f"share_lost{name}": lost / asked for name, (lost, asked) in sums.items()}
    return {**shares, "lost_unseen_beyond_all": shares["share_lost_unseen"] - shares["share_lost"]}


def below(path: Path, training: Training) -> dict[str, Any]:
    """Return the share of updates under half an ulp by Adam's formula; needs `gradients`, `moments` and `updates`."""
    n_below = n_asked = 0
    grid = training.precision_policy.weights
    for before, parts in _steps(path, training, range(training.corpus.n_vocabulary)):
        update = np.abs(parts["decay"] + parts["gradient"] + parts["momentum"])
        n_asked += int((update > 0).sum())
        n_below += int(((update > 0) & (update < ulp(before, grid) / 2)).sum())
    lost, asked = lost_updates(path)[0].select("lost", "asked").sum().row(0)
    return {"share_below": n_below / n_asked, "lost_beyond_formula": lost / asked - n_below / n_asked}


def causes(path: Path, training: Training) -> dict[str, Any]:
    """Return each cause's share of the unseen rows' displacement; needs every step's `gradients` and `moments`.

    A step is the sum of weight decay, the gradient of its batch, gradients of earlier batches (momentum), and rounding.
    The share of a cause is its sum over the steps, projected onto the displacement: the shares add up to 1.
    """
    unseen = training.corpus.unseen
    sums: dict[str, Any] = dict.fromkeys(("decay", "gradient", "momentum"), 0.0)
    history, ends = read_ends(path)
    start, end = (decode(words, history.grid)[unseen].astype(np.float64) for words in ends)
    for _, parts in _steps(path, training, unseen):
        sums = {name: sums[name] + part for name, part in parts.items()}
    moved = end - start
    if not moved.any():
        return {"displacement": 0.0}
    shares = {f"by_{name}": float((part * moved).sum() / (moved * moved).sum()) for name, part in sums.items()}
    return {**shares, "by_rounding": 1 - sum(shares.values())}


def paths(path: Path, training: Training) -> dict[str, Any]:
    """Return the largest gradient element of unseen rows by each path; a tied training must record `paths`."""
    largest: dict[str, Any] = {}
    for kind in PATHS if training.architecture.tied else ():
        history = _recorded(path, kind)
        states = history.words(range(history.n_rows))
        values = (np.abs(decode(words, history.grid)[training.corpus.unseen]).max() for _, words in states)
        largest[f"largest_{kind}"] = float(max(values))
    return largest


def _recorded(path: Path, kind: str) -> History:
    return History.open(path / f"embedding_{kind}.safetensors", tensor=f"embedding_{kind}")


def _steps(path: Path, training: Training, tokens: Any) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield rows [k, dim] of tokens before each step of AdamW, and the terms that its update is the sum of.

    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
    """
    optimizer: Any = training.optimizer
    first, second = optimizer.betas
    kinds = [_recorded(path, kind) for kind in ("gradient", *MOMENTS)]
    metrics = read_metrics(path).select("gradient_norm", "learning_rate")

    def states(history: History) -> Iterator[np.ndarray]:
        for _, words in history.words(range(history.n_rows)):
            yield decode(words, history.grid)[list(tokens)].astype(np.float64)

    walk = zip(states(History.open(path)), *map(states, kinds), strict=False)  # no step follows the last row
    for step, (before, gradient, mean, square) in enumerate(walk, 1):
        norm, rate = metrics.row(step - 1)
        scale = -rate / (1 - first**step) / (np.sqrt(square / (1 - second**step)) + optimizer.eps)
        clipped = gradient * (min(1.0, training.clip / (norm + 1e-6)) if training.clip else 1.0)
        by_gradient = (1 - first) * clipped * scale
        by_decay = -rate * optimizer.weight_decay * before
        yield before, {"decay": by_decay, "gradient": by_gradient, "momentum": mean * scale - by_gradient}
