"""Judge the answers of a verification: which tokens the model fails on, and how many of them the weights named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ..text import Shown

ASKED, CONTROL, MISSED = "asked control missed".split()  # why a token was asked for
LAND = {"strongly verified": 0.001, "verified": 0.01, "doubtful": 0.1}  # P_max below; else rejected
QUANTILE = 0.01  # of the controls, below which a token is verified
FEWEST_CONTROLS = 50  # of one kind, from which they have a threshold of their own
LEVEL = 0.9  # of intervals
SCHEMA_VERSION = 1
N_DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share, n of `of`, with its interval."""

    n: float
    of: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Verification(Shown):
    """Tokens that were asked for, each with its P_max, and how well the weights' grades agree with the answers."""

    tokens: pl.DataFrame  # by group and id; docs/files.md has the columns
    thresholds: dict[str, float]  # by kind of text; "all" for kinds with few controls
    n_controls: int
    precision: Share | None  # verified tokens among those that the weights grade untrained or weak
    recall: Share | None  # tokens that the weights named among those that the model fails on; None without a sample
    n_missed: tuple[float, float] | None  # interval of the number that the weights did not name
    n_undecided: int  # tokens whose bound is above the limit
    n_not_asked: int  # tokens that a server could not be asked for

    def facts(self) -> dict[str, Any]:
        """Return all but the tokens as JSON-ready data."""
        return {
            "n_verified": int(self.tokens.filter(self.tokens["group"] != CONTROL)["verified"].sum()),
            **{name: getattr(self, name) for name in "thresholds n_controls n_missed n_undecided n_not_asked".split()},
            **{"precision": self.precision and vars(self.precision), "recall": self.recall and vars(self.recall)},
        }

    def to_json(self) -> dict[str, Any]:
        """Return `facts`, and every token."""
        return {"schema_version": SCHEMA_VERSION, **self.facts(), "tokens": self.tokens.to_dicts()}

    def _shown(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("thresholds", "precision", "recall", "n_missed", "tokens")}


def judge(records: pl.DataFrame, parameters: Mapping[str, Any]) -> Verification:
    """Judge the answers of a run with these parameters.

    A token's P_max is its largest probability over frames and places (Land and Bartolo, arXiv:2405.05417). It is
    verified where P_max is below 0.1 and below the 1% quantile of the controls (of its own kind where there are 50).
    `glitch` is GlitchMiner's criterion: in every frame the first greedy answer is another token. Where `bound`, the
    probability is at most p_max, and `verified` and `land` are null where that does not decide them. All are null for a
    token that was not asked for.
    """
    if "bound" not in records.columns:  # of an earlier version, which asked no servers
        records = records.with_columns(bound=False)
    least = pl.col("p").filter(~pl.col("bound")).max().fill_null(0)
    first = pl.col("place") == 0
    tokens = records.group_by("group", "token", maintain_order=True).agg(
        pl.col("text", "kind", "grade", "stratum", "order").first(),
        p_max=pl.col("p").max(),
        bound=least < pl.col("p").max(),
        least=least,
        best_rank=pl.col("rank").min(),
        n_right=((pl.col("answer") == pl.col("token")) & first).sum(),
        instead=pl.col("answer_text").filter(first).first(),
    )
    thresholds = _thresholds(tokens.filter(pl.col("group") == CONTROL))
    limit = pl.col("kind").replace_strict(thresholds, default=thresholds["all"], return_dtype=pl.Float64)
    land = _land("p_max")
    tokens = tokens.with_columns(
        glitch=pl.when(pl.col("p_max").is_not_null()).then(pl.col("n_right") == 0),
        verified=pl.when((pl.col("p_max") < limit) | (pl.col("least") >= limit)).then(pl.col("p_max") < limit),
        land=pl.when((land == _land("least")) & pl.col("p_max").is_not_null()).then(land),
    ).drop("least")
    answered = tokens.filter(pl.col("p_max").is_not_null())
    return Verification(
        tokens=tokens,
        thresholds=thresholds,
        n_controls=int((tokens["group"] == CONTROL).sum()),
        **_agreement(answered, parameters),
        n_undecided=answered["verified"].null_count(),
        n_not_asked=len(tokens) - len(answered),
    )


def _agreement(answered: pl.DataFrame, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Estimate precision and recall of the weights' grades, and the number of tokens that they missed."""
    named = answered.filter(pl.col("group") == ASKED, pl.col("grade") != "trained")
    n_verified = int(named["verified"].sum())
    rng = np.random.default_rng(0)
    n_named = _n_verified(rng, named)
    precision = _share(n_verified, len(named), _drawn(rng, n_named, len(named))) if len(named) else None
    sampled = answered.filter(pl.col("group") == MISSED)
    if not len(sampled):
        return {"precision": precision, "recall": None, "n_missed": None}
    others = _missed(rng, sampled, parameters["strata"])
    recall = None
    if n_verified and parameters.get("tokens", "graded") == "graded":  # else some were not asked for
        recall = _share(n_verified, n_verified + float(np.median(others)), n_named / (n_named + others))
    return {"precision": precision, "recall": recall, "n_missed": _interval(others)}


def _land(column: str) -> pl.Expr:
    """Return the class of a probability by Land and Bartolo's thresholds."""
    classes = pl.lit("rejected")
    for name, below in reversed(LAND.items()):
        classes = pl.when(pl.col(column) < below).then(pl.lit(name)).otherwise(classes)
    return classes


def _thresholds(controls: pl.DataFrame) -> dict[str, float]:
    """Return the 1% quantile of P_max of all controls and of each kind, at most 0.1; without controls 0.01."""
    controls = controls.drop_nulls("p_max")
    if not len(controls):
        return {"all": LAND["verified"]}
    kinds: dict[str, Sequence[float]] = {"all": controls["p_max"].to_list()}
    kinds |= {str(kind): part["p_max"].to_list() for (kind,), part in controls.group_by("kind")}
    kept = {kind: p for kind, p in sorted(kinds.items()) if kind == "all" or len(p) >= FEWEST_CONTROLS}
    quantiles = {kind: float(np.quantile(p, QUANTILE, method="lower")) for kind, p in kept.items()}
    return {kind: min(p, LAND["doubtful"]) for kind, p in quantiles.items()}


def _n_verified(rng: np.random.Generator, tokens: pl.DataFrame) -> Any:
    """Count the verified; where some are undecided, draw the number with a uniform share of them."""
    n = int(tokens["verified"].sum())
    n_undecided = tokens["verified"].null_count()
    return n + n_undecided * rng.random(N_DRAWS) if n_undecided else n


def _drawn(rng: np.random.Generator, n: Any, of: int) -> np.ndarray:
    """Draw shares from their posterior by Jeffreys' prior."""
    return rng.beta(n + 0.5, of - n + 0.5, N_DRAWS)


def _missed(rng: np.random.Generator, sampled: pl.DataFrame, strata: Sequence[int]) -> np.ndarray:
    """Draw how many trained tokens are verified: in each stratum the sampled ones and a like share of the others."""
    total = np.zeros(N_DRAWS)
    for number, size in enumerate(strata):
        part = sampled.filter(sampled["stratum"] == number)
        n = _n_verified(rng, part)
        total += n + (size - len(part)) * _drawn(rng, n, len(part)) if len(part) else 0
    return total


def _share(n: float, of: float, drawn: np.ndarray) -> Share:
    low, high = _interval(drawn)
    return Share(n=n, of=of, low=low, high=high)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high
