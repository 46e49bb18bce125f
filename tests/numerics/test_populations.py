"""Two populations in one list of numbers."""

import numpy as np
import pytest

from darkvocab.numerics.populations import Law, densest, low_mode, membership


def test_no_mode_is_found_in_one_population():
    """2,000 lists of 2,000 normal numbers: a valley in any would fail this; the docstring's odds allow 0.2 of them."""
    rng = np.random.default_rng(3)
    assert sum(low_mode(rng.normal(5, 1, 2_000)) is not None for _ in range(2_000)) == 0


@pytest.mark.parametrize("numbers", [[], [1.0], [1.0] * 500, list(range(127))])
def test_few_or_equal_numbers_have_no_low_mode(numbers):
    assert low_mode(np.array(numbers, float)) is None


def test_a_mode_above_the_middle_is_not_low():
    rng = np.random.default_rng(4)
    assert low_mode(np.concatenate([rng.normal(0, 1, 5_000), rng.normal(9, 0.1, 500)])) is None


def test_densest_place_by_hand():
    assert densest(np.array([0.0, 5.0, 6.0, 6.5, 9.0, 20.0])) == pytest.approx(6.25)
    assert densest(np.array([3.0])) == 3.0


def test_one_number_predicts_widely():
    law = Law.of_sample(np.array([2.0]))
    assert (law.location, law.freedom) == (2.0, 1)
    assert law.quantile(0.99) - 2.0 == pytest.approx(0.3 * np.sqrt(2) * 31.82, rel=1e-3)  # Cauchy's 99% quantile


def test_lower_half_alone_shows_how_wide_a_law_is():
    rng = np.random.default_rng(5)
    low, above = rng.normal(0, 0.1, 4_000), rng.uniform(0.1, 3, 4_000)
    law = Law.of_lower_half(np.concatenate([low, above]), low)
    assert abs(law.location) < 0.05
    assert 0.08 < law.scale < 0.13


def test_chance_is_expected_over_counted_members():
    """600 members at one place and 200 a little above, where the law puts four fifths and one: all are members."""
    law = Law(location=0.0, scale=1.0)
    at, above = law.quantile(0.79), law.quantile(0.98)
    chance = membership(
        np.concatenate([np.full(800, at), np.full(200, above), np.full(4_000, 50.0)]), law, at_least=1_000
    )
    assert chance[:1000] == pytest.approx(0.97, abs=0.03)
    assert (chance[1000:] < 1e-9).all()


def test_a_crowd_that_the_law_does_not_expect_is_no_member():
    rng = np.random.default_rng(6)
    law = Law(location=0.0, scale=0.1)
    members, crowd = rng.normal(0, 0.1, 1_000), rng.uniform(0.1, 0.5, 4_000)
    chance = membership(np.concatenate([members, crowd]), law)
    assert chance[:1000].mean() > 0.75
    assert chance[1000:].mean() < 0.1
    assert chance.sum() == pytest.approx(1_000, rel=0.1)


def test_chance_falls_with_the_number():
    rng = np.random.default_rng(7)
    numbers = np.sort(np.concatenate([rng.normal(0, 0.1, 500), rng.normal(1, 0.3, 5_000)]))
    chance = membership(numbers, Law(location=0.0, scale=0.1))
    assert (np.diff(chance) <= 0).all()
    assert ((chance >= 0) & (chance <= 1)).all()
    assert (
        len(np.unique(chance[numbers > 0.3])) == (numbers > 0.3).sum()
    )  # beyond the law they are as good as 0, and still in order


def test_nothing_belongs_where_everything_is_beyond():
    assert (membership(np.full(10, 100.0), Law(location=0.0, scale=1.0)) == 0).all()
