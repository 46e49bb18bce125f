"""The notebooks' conclusions from a finished training run, each beside what the same numbers are on the grid.

11.2c (seed 002) and 11.2b (seed 004) hold distances and noise against one epsilon. The grid's spacing is another in
every component, so a verdict of theirs may say more of the epsilon than of the tokens.
"""

from __future__ import annotations

import math
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
        "n_tokens": len(tokens),
        "n_unique": census.n_unique,
        "n_black_holes": census.n_black_holes,
        "black_hole_population": census.black_hole_population,
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
    answers = [_snowball(first, last, unseen, geometry, init_sigma)] if init_sigma else []
    return answers + ([_jiggling(last, unseen, geometry, noise_epsilon)] if noise_epsilon else [])


def _snowball(
    first: State, last: State, unseen: np.ndarray, geometry: dict[str, Any], epsilon: float
) -> dict[str, Any]:
    before, after = Census(first.groups), Census(last.groups)
    c0, c = before.n_black_holes, after.n_black_holes
    far = math.inf if geometry["max_l_inf"] is None else geometry["max_l_inf"]
    notebook = [
        f"Black hole count: initial {c0:,}, final {c:,}. Black hole population: initial "
        f"{before.black_hole_population:,}, final {after.black_hole_population:,}. Dead tokens: {len(unseen):,}."
    ]
    if c > 1:
        change = "Consolidation" if c < c0 else "Fragmentation" if c > c0 else ""
        moved = f"{change}: {c0:,} -> {c:,} black holes" if change else f"Stable: {c:,} black holes maintained"
        notebook.append(f"Multiple black holes present. {moved}.")
    elif c == 1:
        notebook.append("Collapsed to single black hole. Initial snowball merged during training.")
    else:
        notebook.append("All tokens escaped black holes! Training dispersed the snowball completely.")
    tight = far < TIGHT_EPSILONS * epsilon
    notebook += [
        "Dead tokens form tight snowball (max L-inf < 10 epsilon). Matches Qwen's observed black hole geometry."
        if tight
        else f"Dead tokens scattered widely (max L-inf = {far / epsilon:.0f}x epsilon). "
        "Does not match Qwen's tight clustering.",
        _hypothesis(c, tight),
    ]
    steps, component_steps = geometry["max_l_inf_steps"], geometry["component_steps"]
    coarse = int((component_ulps(last, unseen) >= TIGHT_EPSILONS * epsilon).sum())
    dim = last.words.shape[1]
    grid = [
        f"The largest distance, {far:.3g}, is {_steps(component_steps)} in component {geometry['component']}, "
        f"where the spacing of {last.grid.name} is {geometry['component_ulp']:.3g}, not {epsilon:.3g}.",
        f"In {coarse:,} of {dim:,} components a single step is 10 epsilon or more: two tokens that differ there at all "
        "count as scattered.",
        f"On the grid the unseen tokens lie at most {_steps(steps)} apart in any component; held against "
        f"{TIGHT_STEPS} steps (the notebook's 2-epsilon hypercube) they are "
        f"{'a tight snowball' if steps <= TIGHT_STEPS else 'scattered'}.",
        f"In steps, and among unseen tokens alone (C = {geometry['n_black_holes']:,}): "
        + _hypothesis(geometry["n_black_holes"], steps <= TIGHT_STEPS),
    ]
    return {"seed": "11.2c", "epsilon": epsilon, "notebook": notebook, "grid": grid}


def _hypothesis(c: int, tight: bool) -> str:
    if c > 1 and tight:
        return (
            "HYPOTHESIS SUPPORTED. Primordial snowball initialization reproduces Qwen-like black hole structure; "
            "black holes remain stable/consolidate during training."
        )
    if c == 1:
        return (
            "PARTIAL SUPPORT. Snowball initialization worked, but training merged clusters; may need larger initial "
            "sigma or different training dynamics."
        )
    return "HYPOTHESIS CHALLENGED. Initial clustering did not produce stable snowball structure."


def _jiggling(last: State, unseen: np.ndarray, geometry: dict[str, Any], epsilon: float) -> dict[str, Any]:
    after, n_dead = Census(last.groups), len(unseen)
    c, p = after.n_black_holes, after.black_hole_population
    notebook = [
        f"Black hole count (C): {c:,}. Total black hole population (P): {p:,}. Dead tokens in corpus: {n_dead:,}."
    ]
    if c > 1 or p < n_dead:
        notebook.append("POSITIVE RESULT: Synthetic noise causes black hole diffusion!")
        if c > 1:
            notebook.append(f"Black holes fragmented: {c:,} distinct clusters.")
        if p < n_dead:
            notebook.append(f"Tokens escaped: {n_dead - p:,} tokens rescued from black holes.")
        notebook.append(f"Synthetic noise CAN break black hole symmetry at scale epsilon ~ {epsilon:.2e}.")
    else:
        notebook.append("NULL RESULT: Even synthetic noise doesn't break black holes.")
        notebook.append(f"Noise at epsilon ~ {epsilon:.2e} insufficient to cause diffusion.")
    ulps = component_ulps(last, unseen)
    sigma = epsilon / 10
    moved = int((ulps / 2 <= REACH * sigma).sum())
    grid = [
        f"Among unseen tokens alone: C = {geometry['n_black_holes']:,}, P = {geometry['black_hole_population']:,} of "
        f"{n_dead:,}, at most {_steps(geometry['max_l_inf_steps'])} apart in any component.",
        f"The noise of one step (epsilon / 10 = {sigma:.2e} in every component) is {sigma / np.median(ulps):.2g} of "
        f"the median spacing of {last.grid.name} at these tokens, {np.median(ulps):.2e}.",
        f"In {moved:,} of {len(ulps):,} components half a step of the grid lies within {REACH:g} standard deviations "
        "of the noise; in the others rounding to nearest undoes the noise alone, step after step.",
    ]
    return {"seed": "11.2b", "epsilon": epsilon, "notebook": notebook, "grid": grid}


def _steps(n: int) -> str:
    return f"{n:,} grid step{'s' * (n != 1)}"
