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

COUNTED = "n_unique n_black_holes black_hole_population largest_bh max_l_inf_steps".split()
MOMENTS = "exp_avg", "exp_avg_sq"
ALIKE = 0.99  # cosine


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
    ratio, expected = float((after / before).mean()), float(np.prod(1 - rates * training.optimizer.weight_decay))
    return {
        **{"norm_ratio": ratio, "expected_ratio": expected, "ratio_beyond_formula": ratio - expected},
        "mean_cosine": float(cosines.mean()),
    }


def fresh(path: Path, training: Training) -> dict[str, Any]:
    """Measure a training that fresh rows went into: its loss, how many dimensions rows fill, and which are alike.

    The effective rank is the exponential of the entropy of the centred rows' singular values (O. Roy and M. Vetterli,
    "The effective rank", EUSIPCO 2007); alike are pairs of tokens that the text has whose cosine is over 0.99.
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
    """Sum up which updates rounding lost; the training must record `updates`."""
    steps, tokens = lost_updates(path)
    tenth = max(1, len(steps) // 10)
    parts = {"": steps, "_first": steps[:tenth], "_last": steps[-tenth:], "_unseen": tokens[training.corpus.unseen]}
    sums = {name: part.select("lost", "asked").sum().row(0) for name, part in parts.items()}
    shares = {f"share_lost{name}": lost / asked for name, (lost, asked) in sums.items()}
    return {**shares, "lost_unseen_beyond_all": shares["share_lost_unseen"] - shares["share_lost"]}


def below(path: Path, training: Training) -> dict[str, Any]:
    """Return the share of updates that Adam's formula puts under half an ulp, beside those that were lost.

    The training must record every step's `gradients`, `moments` and `updates`.
    """
    n_below = n_asked = 0
    grid = training.precision_policy.weights
    for before, parts in _steps(path, training, range(training.corpus.n_vocabulary)):
        update = np.abs(parts["decay"] + parts["gradient"] + parts["momentum"])
        n_asked += int((update > 0).sum())
        n_below += int(((update > 0) & (update < ulp(before, grid) / 2)).sum())
    lost, asked = lost_updates(path)[0].select("lost", "asked").sum().row(0)
    return {"share_below": n_below / n_asked, "lost_beyond_formula": lost / asked - n_below / n_asked}


def causes(path: Path, training: Training) -> dict[str, Any]:
    """Divide the unseen rows' way by what makes it; the training must record every step's `gradients` and `moments`.

    A step is the sum of weight decay, the gradient of its batch, those of earlier ones (momentum), and rounding. The
    share of a part is its sum over the steps, projected onto the way from start to end: the shares add up to 1.
    """
    unseen = training.corpus.unseen
    sums: dict[str, Any] = dict.fromkeys(("decay", "gradient", "momentum"), 0.0)
    history, (first, last) = read_ends(path)
    start, end = (decode(words, history.grid)[unseen].astype(np.float64) for words in (first, last))
    for _, parts in _steps(path, training, unseen):
        sums = {name: sums[name] + part for name, part in parts.items()}
    way = end - start
    if not way.any():
        return {"displacement": 0.0}
    shares = {f"by_{name}": float((part * way).sum() / (way * way).sum()) for name, part in sums.items()}
    return {**shares, "by_rounding": 1 - sum(shares.values())}


def paths(path: Path, training: Training) -> dict[str, Any]:
    """Return the largest element of an unseen row's gradient by either path; a tied training must record `paths`."""
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
