"""Names of columns for people: in tables, above panels, and the terms that a page explains."""

from __future__ import annotations

LABELS = {
    "n_unique": "unique rows",
    "unique_vectors": "unique rows",
    "n_black_holes": "black holes C",
    "black_hole_population": "population P",
    "n_singletons": "singletons",
    "largest_bh": "largest black hole",
    "coincident_pairs": "coincident pairs",
    "max_l_inf_steps": "max L-inf in grid steps",
    "n_components": "components of the graph",
    "n_isolated": "isolated rows",
    "global_density": "density of the graph",
    "largest_component_density": "density of the largest component",
    "gini_coefficient": "Gini coefficient",
}
TITLES = {
    **LABELS,
    "n_black_holes": "black holes, C",
    "black_hole_population": "tokens in black holes, P",
    "largest_bh": "tokens in the largest group",
    "max_l_inf_steps": "largest L-infinity of all pairs (grid steps)",
}


def labels(*columns: str) -> dict[str, str]:
    """Return the label of each column for a table."""
    return {column: LABELS[column] for column in columns}


COUNTS = labels("n_unique", "n_black_holes", "black_hole_population", "n_singletons", "largest_bh")
SWEEP = {
    **labels("unique_vectors", "n_black_holes", "black_hole_population", "n_singletons"),
    "largest_bh": "largest group",  # of one token, where there is no black hole
    "max_l_inf": "max L-inf among {rows}",
    "max_l_inf_over_epsilon": "max L-inf / epsilon",
    **labels("max_l_inf_steps", "n_components", "global_density"),
}
# The notebook's key metrics in its order. Without epsilon, lengths are in weight units.
TRIALS = {
    **labels("n_unique", "n_black_holes", "n_singletons", "black_hole_population", "largest_bh", "gini_coefficient"),
    "max_l_inf": "max L-inf / epsilon, {rows}",
    "mean_l_inf": "mean L-inf / epsilon",
    "median_l_inf": "median L-inf / epsilon",
    "max_l_inf_weight": "max L-inf, {rows}",
    "mean_l_inf_weight": "mean L-inf",
    **labels("max_l_inf_steps", "n_components", "n_isolated", "largest_component_density", "global_density"),
}
STATES = ["", "at the start", "of them unseen", "at the end", "of them unseen"]
CENSUS_TERMS = ("black hole", "singleton", "L-infinity", "step")
TERMS = {
    "black hole": "two or more tokens whose rows are equal, element by element, on the grid; its population is how "
    "many it holds",
    "singleton": "a row that one token has alone",
    "L-infinity": "the largest difference of two rows in any one component",
    "step": "from one number of the grid to the next",
    "bulk motion": "length of the mean displacement of the tokens, in weight units",
    "thermal motion": "root mean square of what is left of each token's displacement when the mean is taken away",
    "touching": "two rows touch where their L-infinity distance is within the threshold; density is the part of all "
    "pairs that do",
}
