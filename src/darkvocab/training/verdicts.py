"""The notebooks' conclusions from a finished training run, each beside what the same numbers are on the grid.

11.2c (seed 002) and 11.2b (seed 004) hold distances and noise against one epsilon. The grid's spacing is another in
every component, so a verdict of theirs may say more of the epsilon than of the tokens.
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

TIGHT_EPSILONS, TIGHT_STEPS = 10, 2  # the notebook's test (strict), and its 2-epsilon hypercube in steps of the grid
REACH = 4.0  # standard deviations: one noise deviate in 16,000 goes further
SENTENCES = tomllib.loads(Path(__file__).with_name("verdicts.toml").read_text("utf-8"))


def geometry_of(state: State, tokens: np.ndarray, most_compared: int) -> dict[str, Any]:
    """Measure the notebook's geometry section of these tokens (two or more), and their farthest component.

    Distances are L-infinity over all pairs of tokens; min and mean are null with more distinct rows than
    `most_compared`.
    """
    groups = identical_rows(state.words[tokens])
    census, farthest = Census(groups), extent(state, tokens)
    (mean,) = mean_distances(state, [tokens], most_compared)
    ulps = component_ulps(state, tokens)
    positions = state.index[tokens, farthest.column]
    nearest = 0.0 if mean else None  # as it is where two tokens share a row
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
    """Return the grid's spacing in each component, at the largest magnitude of these tokens there."""
    return ulp(np.abs(state.values[tokens]).max(axis=0), state.grid)


def notebook_displacement(first: State, last: State) -> float | None:
    """Return the centroid's displacement as the notebooks take it, every intermediate result rounded to the grid.

    None where the grid cannot hold it.
    """
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
    """Return `{"seed", "notebook": sentences, "grid": sentences}` for each notebook whose question the run answers.

    `geometry` is that of the last state's unseen tokens; the lengths are the notebooks', in weight units.
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
    """Return an answer: of the notebook's sentences those that are `said`, and all about the grid."""
    texts = SENTENCES[seed]
    notebook = [texts["notebook"][name].format(**facts, epsilon=epsilon) for name in said]
    grid = [text.format(**facts, epsilon=epsilon) for text in texts["grid"].values()]
    return {"seed": seed, "epsilon": epsilon, "notebook": notebook, "grid": grid}


def _snowball(facts: dict[str, Any], ulps: np.ndarray, epsilon: float) -> dict[str, Any]:
    c0, c, far = facts["c0"], facts["c"], facts["far"]
    tight, tight_in_steps = far < TIGHT_EPSILONS * epsilon, facts["max_l_inf_steps"] <= TIGHT_STEPS
    end = ("none", "one")[c] if c < 2 else "fewer" if c < c0 else "more" if c > c0 else "as_many"
    said = ["counts", end, "tight" if tight else "scattered", _hypothesis(c, tight)]
    more = {
        "in_epsilons": far / epsilon,
        "n_coarse": int((ulps >= TIGHT_EPSILONS * epsilon).sum()),
        "shape": "a tight snowball" if tight_in_steps else "scattered",
        "hypothesis": SENTENCES["11.2c"]["notebook"][_hypothesis(facts["n_black_holes"], tight_in_steps)],
    }
    return _answer("11.2c", epsilon, said, {**facts, **more})


def _hypothesis(c: int, tight: bool) -> str:
    return "supported" if c > 1 and tight else "partial" if c == 1 else "challenged"


def _jiggling(facts: dict[str, Any], ulps: np.ndarray, epsilon: float) -> dict[str, Any]:
    n_escaped, sigma = facts["n_unseen"] - facts["p"], epsilon / 10
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
