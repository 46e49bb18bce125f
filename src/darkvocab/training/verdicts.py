"""Draw the notebooks' conclusions from a finished training run, each beside what the numbers are on the grid.

11.2c (seed 002) and 11.2b (seed 004) compare distances and noise with one epsilon. The grid's spacing differs from
component to component, so a verdict of theirs may say more of the epsilon than of the tokens.
"""

import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ..measures.census import Census
from ..measures.tracking import State, cloud, extent, mean_distances
from ..numerics import Distances, round_to, ulp
from ..numerics.grouping import identical_rows
from ..text import finite

TIGHT_EPSILONS = 10  # the notebook calls a cluster tight where its largest distance is under so many epsilons
TIGHT_STEPS = 2  # and ours where it is at most so many grid steps, as in the notebook's 2-epsilon hypercube
REACH = 4.0  # standard deviations: one noise deviate in 16,000 goes further
SENTENCES = tomllib.loads(Path(__file__).with_name("verdicts.toml").read_text("utf-8"))


def geometry_of(state: State, tokens: np.ndarray, most_compared: int) -> dict[str, Any]:
    """Measure two or more tokens as the notebook's geometry section does, and the component in which they differ most.

    Distances are L-infinity over all pairs of tokens; min and mean are null with more than `most_compared` rows.
    """
    groups = identical_rows(state.words[tokens])
    census = Census(groups)
    farthest = extent(state, tokens)
    (mean,) = mean_distances(state, [tokens], most_compared)
    ulps = component_ulps(state, tokens)
    positions = state.index[tokens, farthest.column]
    nearest = 0.0 if mean else None  # two tokens that share a row
    if mean and not census.n_black_holes:
        nearest = float(Distances(state.index[tokens[groups.first]], state.grid).spectrum()[0][0])
    return {
        **{name: getattr(census, name) for name in ("n_tokens", "n_unique", "n_black_holes", "black_hole_population")},
        "min_l_inf": nearest and finite(nearest),
        "max_l_inf": finite(farthest.weight),
        "mean_l_inf": mean and finite(mean[0]),
        "component": farthest.column,
        "component_ulp": float(ulps[farthest.column]),
        "component_steps": int(positions.max()) - int(positions.min()),
        "max_l_inf_steps": farthest.steps,
        "mean_l_inf_steps": mean and mean[1],
        "component_of_steps": farthest.column_of_steps,
        "min_ulp": float(ulps.min()),
        "median_ulp": float(np.median(ulps)),
        "max_ulp": float(ulps.max()),
    }


def component_ulps(state: State, tokens: np.ndarray) -> Float64[np.ndarray, " dim"]:
    """Return the grid's spacing in each component, at the largest magnitude of these tokens."""
    return ulp(np.abs(state.values[tokens]).max(axis=0), state.grid)


def notebook_displacement(first: State, last: State) -> float | None:
    """Return the centroid's displacement as the notebooks compute it, in the grid's arithmetic; None on overflow."""
    tokens = np.arange(len(first.words))
    start, end = (round_to(cloud(state, tokens).centroid.astype(np.float32), state.grid) for state in (first, last))
    with np.errstate(over="ignore"):
        apart = round_to(end - start, first.grid).astype(np.float64)
    return finite(float(round_to(np.sqrt(apart @ apart), first.grid)))


def verdicts(
    first: State,
    last: State,
    unseen: np.ndarray,
    geometry: dict[str, Any],
    *,
    init_sigma: float | None,
    noise_epsilon: float | None,
) -> list[dict[str, Any]]:
    """Return the sentences of each notebook whose question the run answers: seed, epsilon, notebook, grid.

    `geometry` is that of the last state's unseen tokens; `init_sigma` and `noise_epsilon` are in weight units.
    """
    before, after = Census(first.groups), Census(last.groups)
    facts = {
        **geometry,
        "grid": last.grid.name,
        "dim": last.words.shape[1],
        "n_unseen": len(unseen),
        "steps": _steps(geometry["max_l_inf_steps"]),
        "steps_there": _steps(geometry["component_steps"]),
        "far": math.inf if geometry["max_l_inf"] is None else geometry["max_l_inf"],
        **{"c0": before.n_black_holes, "p0": before.black_hole_population},
        **{"c": after.n_black_holes, "p": after.black_hole_population},
    }
    ulps = component_ulps(last, unseen)
    answers = [_snowball(facts, ulps, init_sigma)] if init_sigma else []
    return answers + ([_jiggling(facts, ulps, noise_epsilon)] if noise_epsilon else [])


def _answer(seed: str, epsilon: float, said: list[str], facts: dict[str, Any]) -> dict[str, Any]:
    """Fill in the notebook's sentences that are named in `said`, and all sentences about the grid."""
    texts = SENTENCES[seed]
    notebook = [texts["notebook"][name].format(**facts, epsilon=epsilon) for name in said]
    grid = [text.format(**facts, epsilon=epsilon) for text in texts["grid"].values()]
    return {"seed": seed, "epsilon": epsilon, "notebook": notebook, "grid": grid}


def _snowball(facts: dict[str, Any], ulps: np.ndarray, epsilon: float) -> dict[str, Any]:
    c0, c = facts["c0"], facts["c"]
    tight = facts["far"] < TIGHT_EPSILONS * epsilon
    tight_in_steps = facts["max_l_inf_steps"] <= TIGHT_STEPS
    end = ("none", "one")[c] if c < 2 else "fewer" if c < c0 else "more" if c > c0 else "as_many"
    said = ["counts", end, "tight" if tight else "scattered", _hypothesis(c, tight)]
    more = {
        "in_epsilons": facts["far"] / epsilon,
        "n_coarse": int((ulps >= TIGHT_EPSILONS * epsilon).sum()),
        "shape": "a tight snowball" if tight_in_steps else "scattered",
        "hypothesis": SENTENCES["11.2c"]["notebook"][_hypothesis(facts["n_black_holes"], tight_in_steps)],
    }
    return _answer("11.2c", epsilon, said, {**facts, **more})


def _hypothesis(c: int, tight: bool) -> str:
    return "supported" if c > 1 and tight else "partial" if c == 1 else "challenged"


def _jiggling(facts: dict[str, Any], ulps: np.ndarray, epsilon: float) -> dict[str, Any]:
    n_escaped = facts["n_unseen"] - facts["p"]
    sigma = epsilon / 10
    effects = ["fragmented"] * (facts["c"] > 1) + ["escaped"] * (n_escaped > 0)
    said = ["counts", *(["positive", *effects, "breaks"] if effects else ["null", "insufficient"])]
    more = {
        "n_escaped": n_escaped,
        "sigma": sigma,
        "in_ulps": sigma / facts["median_ulp"],
        "n_reached": int((ulps / 2 <= REACH * sigma).sum()),
        "reach": REACH,
    }
    return _answer("11.2b", epsilon, said, {**facts, **more})


def _steps(n: int) -> str:
    return f"{n:,} grid step{'s' * (n != 1)}"
