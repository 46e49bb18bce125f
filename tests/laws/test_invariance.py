"""No statistic depends on the order of tokens, and only one, where components tie, on that of columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab import census
from darkvocab.measures.geometry import geometry, topology
from darkvocab.numerics import Touching

VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.0078125, 1.0, 1.0078125, 3.0])
matrices = hnp.arrays(np.float32, st.tuples(st.integers(1, 14), st.integers(1, 4)), elements=VALUES)
touchings = st.builds(
    Touching,
    st.sampled_from([0.0078125, 1.0, 1.0078125, 2.0]),
    st.sampled_from(["weight", "steps"]),
    st.booleans(),
)
CENSUS = (
    "n_tokens n_unique n_black_holes n_singletons black_hole_population largest_group smallest_black_hole "
    "largest_black_hole mean_population lower_median_population top2_population gini"
).split()
TOPOLOGY = (
    "n_vertices n_edges n_components n_isolated largest_component_size global_density mean_degree max_degree"
).split()


def spread(measured):
    """Mean to the last digits but one: the order of a sum is not the same."""
    mean = pytest.approx(measured.mean, rel=1e-12)
    return measured.n_pairs, measured.max, measured.lower_median, measured.median, mean


def statistics(rows, touching, over):
    counted = census(rows)
    populations, sizes = counted.populations.tolist(), [x.tolist() for x in counted.population_spectrum()]
    g = geometry(rows, "bfloat16", over=over)
    t = topology(rows, touching, "bfloat16", over=over)
    return {
        "census": [getattr(counted, name) for name in CENSUS] + [populations, sizes],
        "geometry": [*spread(g.weight), *spread(g.steps), g.n_varying_columns],
        "spectra": [x.tolist() for unit in ("weight", "steps") for x in g.distances(unit).spectrum()],
        "extents": [sorted(g.extent), sorted(g.extent_steps)],
        "topology": [getattr(t, name) for name in TOPOLOGY] + [t.sizes.tolist(), sorted(t.degrees)],
        "tied": t.largest_component_density,
    }


@pytest.mark.slow
@given(
    rows=matrices,
    touching=touchings,
    over=st.sampled_from(["black_holes", "unique", "tokens"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_statistics_do_not_depend_on_the_order_of_tokens_and_columns(rows, touching, over, seed):
    rng = np.random.default_rng(seed)
    ours = statistics(rows, touching, over)
    assert statistics(rng.permutation(rows), touching, over) == ours
    turned = statistics(rng.permutation(rows, axis=1), touching, over)
    sizes = topology(rows, touching, "bfloat16", over=over).sizes
    if len(sizes) > 1 and sizes[0] == sizes[1]:
        del ours["tied"], turned["tied"]
    assert turned == ours


@pytest.mark.slow
@given(rows=matrices, touching=touchings, scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_a_power_of_two_scales_weights_and_leaves_steps_between_normal_numbers(rows, touching, scale):
    one, other = (geometry(x, "bfloat16") for x in (rows, rows * np.float32(scale)))
    assert (other.weight.max, other.weight.median) == (one.weight.max * scale, one.weight.median * scale)
    positive = np.abs(rows) + 1
    one, other = (geometry(x, "bfloat16").steps for x in (positive, positive * np.float32(scale)))
    assert one == other
    if touching.unit == "weight":
        wider = Touching(touching.threshold * scale, "weight", touching.strict)
        assert topology(rows * np.float32(scale), wider).n_edges == topology(rows, touching).n_edges


@pytest.mark.slow
@given(rows=matrices, touching=touchings)
def test_a_wider_threshold_never_loses_an_edge(rows, touching):
    t, wider = (topology(rows, Touching(touching.threshold * k, touching.unit, touching.strict)) for k in (1, 2))
    assert wider.n_edges >= t.n_edges
    assert wider.n_components <= t.n_components
    assert (wider.degrees >= t.degrees).all()
