"""The law of a snowball: what is drawn, what is expected and which cells are listed come from one and the same."""

from dataclasses import fields

import numpy as np
import pytest
from twin import chances

from darkvocab.cli.options import options_of
from darkvocab.numerics.cells import DISTRIBUTIONS, DRAWN, INDEPENDENT
from darkvocab.snowballs.bases import qwen3_4b_centred
from darkvocab.snowballs.fit.run import FAMILIES
from darkvocab.snowballs.snowball import Snowball, SnowballLaw, draw


def law(**changes):
    return SnowballLaw(**{"base": qwen3_4b_centred()[:400], "sigma": 3e-9, **changes})


def test_a_snowball_is_its_law_and_a_number_of_tokens():
    laws = law(grid="float16", arithmetic="exact", distribution="laplace")
    ball = laws.snowball(7)
    assert (type(ball), ball.n_tokens) == (Snowball, 7)
    assert all(getattr(ball, one.name) is getattr(laws, one.name) for one in fields(SnowballLaw))
    assert ball.occupancy(50).n_unique == laws.occupancy(50).n_unique


@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("distribution", [name for name in INDEPENDENT if name in DRAWN])
def test_what_is_drawn_is_what_is_expected(distribution, arithmetic):
    # Single cells: the words that tokens are drawn by, and the probabilities that theory sums, from one list of
    # deviates. Theory keeps 2**-53 of each, words 2**-64 in all.
    laws = law(distribution=distribution, arithmetic=arithmetic)
    drawn, listed = laws.snowball(2100).single_cells(), laws.cells(2100)
    assert np.array_equal(drawn.columns, listed.columns)
    assert np.array_equal(drawn.first, listed.first)
    assert np.array_equal(drawn.deviates, listed.deviates)
    assert drawn.neglected == listed.neglected > 0
    drawn_p = np.concatenate([chances(drawn, j) for j in range(len(drawn.columns))])
    assert len(drawn_p) > 20
    assert drawn_p == pytest.approx(listed.p, rel=1e-9, abs=2.0**-53)


def test_every_distribution_is_known_in_one_place():
    # The kernels draw by number; what has a distribution function has a closed form. The commands offer these names.
    assert [DISTRIBUTIONS[name].number for name in DRAWN] == [0, 1, 2, 3]
    assert set(DRAWN) | set(INDEPENDENT) == set(DISTRIBUTIONS)
    for command, names in {"expect": INDEPENDENT, "fit": FAMILIES, "sweep": DRAWN}.items():
        assert f"{', '.join(names)};" in options_of(command)["distribution"]["help"]
    for name in DRAWN:
        assert draw(law(distribution=name).snowball(3), sampler="dense").n_drawn == 400
    for name in INDEPENDENT:
        assert law(distribution=name).occupancy(3).n_unique.mean > 0


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_noise_that_cannot_be_drawn_is_refused(name):
    with pytest.raises(ValueError, match=f"unknown distribution '{name}'; choose one of {', '.join(DRAWN)}"):
        law(distribution=name).snowball(3)


def test_unknown_noise_has_no_closed_form():
    with pytest.raises(ValueError, match=f"unknown distribution 'normal'; choose one of {', '.join(INDEPENDENT)}"):
        law(distribution="normal").cells(3)
