"""Number grids: hand-worked cases, agreement with ml_dtypes, and laws that hold on every grid."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from gridding import steps
from hypothesis import given
from hypothesis import strategies as st

from darkvocab.numerics import (
    GRIDS,
    boundaries,
    decode,
    encode,
    from_index,
    index_values,
    round_to,
    to_index,
    ulp,
)
from darkvocab.numerics.grids import regrid

ALL = list(GRIDS.values())
SMALL = [grid for grid in ALL if grid.bits <= 16]
DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "float32": np.float32,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
by_name = pytest.mark.parametrize("grid", ALL, ids=lambda g: g.name)
small = pytest.mark.parametrize("grid", SMALL, ids=lambda g: g.name)


def every_word(grid):
    return np.arange(1 << grid.bits, dtype=grid.word_dtype)


def finite_words(grid):
    words = every_word(grid)
    return words[(words & (grid.sign - 1)) <= grid.max_code]


@small
def test_every_word_decodes_as_in_ml_dtypes(grid):
    words = every_word(grid)
    theirs = words.view(DTYPES[grid.name]).astype(np.float32)
    assert np.array_equal(decode(words, grid), theirs, equal_nan=True)
    assert np.array_equal(np.signbit(decode(words, grid)), np.signbit(theirs)) or np.isnan(theirs).any()


@small
def test_every_finite_word_encodes_to_itself(grid):
    words = finite_words(grid)
    assert np.array_equal(encode(decode(words, grid), grid), words)


@small
def test_rounding_agrees_with_ml_dtypes_at_boundaries_and_beside_them(grid):
    # Midpoints of all neighbours, and the float32 values just below and above: ties, overflow, subnormals, zeros.
    values = decode(np.sort(finite_words(grid)), grid).astype(np.float64)
    values = np.unique(values)
    middle = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    over = np.float32(grid.max_value + float(ulp(grid.max_value, grid)) / 2)
    middle = np.concatenate([middle, [over, -over]]) if np.isfinite(over) else middle
    beside = [middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf))]
    x = np.concatenate([*beside, np.array([0.0, -0.0, np.inf, -np.inf], np.float32)])
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = x.astype(DTYPES[grid.name]).astype(np.float32)
    ours = round_to(x, grid)
    assert np.array_equal(ours, theirs, equal_nan=True)
    same = ~np.isnan(theirs)
    assert np.array_equal(np.signbit(ours[same]), np.signbit(theirs[same]))


def exact_neighbours(x: Fraction, grid) -> Fraction:
    """Nearest grid value to a rational number, ties to even, in exact arithmetic."""
    exponent = grid.min_exponent
    while Fraction(2) ** (exponent + 1) <= abs(x):
        exponent += 1
    spacing = Fraction(2) ** (exponent - grid.mantissa_bits)
    return Fraction(round(x / spacing)) * spacing  # Python rounds halves to even


@by_name
@given(x=st.floats(-400, 400))
def test_rounding_from_float64_rounds_once(grid, x):
    assert Fraction(float(round_to(x, grid))) == exact_neighbours(Fraction(x), grid)


def test_rounding_from_float64_does_not_go_through_float32():
    # One float64 ulp above the midpoint of 1 and its bfloat16 successor: through float32 it would become a tie.
    x = np.nextafter(1 + 2.0**-8, 2)
    assert float(np.float32(x)) == 1 + 2.0**-8
    assert float(round_to(x, "bfloat16")) == 1 + 2.0**-7


def test_ulp_by_hand():
    assert float(ulp(1.0)) == 2.0**-7
    assert float(ulp(0.0094)) == 2.0**-14
    assert float(ulp(np.nextafter(1.0, 0))) == 2.0**-8  # it doubles at a power of two
    assert float(ulp(0.0)) == float(ulp(2.0**-126)) == 2.0**-133  # subnormals are evenly spaced
    assert float(ulp(-3.0, "float16")) == 2.0**-9
    assert float(ulp(448, "float8_e4m3fn")) == 32
    assert float(ulp(1.5, "float8_e5m2")) == 0.25
    assert float(ulp(1.0, "float32")) == np.finfo(np.float32).eps


@small
def test_ulp_is_the_gap_to_the_next_larger_magnitude(grid):
    values = np.unique(np.abs(decode(finite_words(grid), grid))).astype(np.float64)
    assert np.array_equal(ulp(values[:-1], grid), np.diff(values))


@by_name
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_ulp_of_no_number_is_refused(grid, bad):
    with pytest.raises(ValueError, match="finite"):
        ulp([1.0, bad], grid)


def test_ulp_beyond_the_largest_value_is_refused():
    with pytest.raises(ValueError, match="beyond 448"):
        ulp(449.0, "float8_e4m3fn")


@small
def test_indices_are_monotone_and_consecutive(grid):
    words = finite_words(grid)
    index = to_index(words, grid)
    order = np.argsort(index, kind="stable")
    values = decode(words[order], grid)
    assert (np.diff(values) >= 0).all()
    assert np.array_equal(np.unique(index), np.arange(-grid.max_code, grid.max_code + 1))
    assert np.array_equal(np.unique(np.diff(values)[np.diff(index[order]) == 0]), [0.0])  # only the two zeros share one


@by_name
@given(data=st.data())
def test_index_and_words_are_inverse(grid, data):
    index = data.draw(st.integers(-grid.max_code, grid.max_code))
    assert int(to_index(from_index(index, grid), grid)) == index
    assert float(index_values(index, grid)) == float(decode(from_index(np.array([index]), grid), grid)[0])


def test_an_index_beyond_the_largest_value_is_refused():
    with pytest.raises(ValueError, match="32639"):
        from_index(32640, "bfloat16")


def test_steps_by_hand():
    assert int(steps(1.0, 1.0 + 2.0**-7, "bfloat16")) == 1
    assert int(steps(1.0 - 2.0**-8, 1.0 + 2.0**-7, "bfloat16")) == 2  # across a power of two
    assert int(steps(-(2.0**-133), 2.0**-133, "bfloat16")) == 2  # across zero
    assert int(steps(-0.0, 0.0, "bfloat16")) == 0
    assert int(steps(2.0**-126, 2.0**-126 - 2.0**-133, "bfloat16")) == -1  # across the smallest normal number


def test_steps_between_values_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="not on the bfloat16 grid"):
        steps(1.0, 1.001, "bfloat16")


@pytest.mark.slow
@by_name
@given(data=st.data())
def test_what_lies_between_the_boundaries_rounds_to_the_same_value(grid, data):
    index = data.draw(st.integers(-grid.max_code, grid.max_code))
    value = float(index_values(index, grid))
    lower, upper = boundaries(value, grid)
    assert lower < value < upper
    assert (
        float(round_to(np.nextafter(lower, np.inf), grid))
        == value
        == float(round_to(np.nextafter(upper, -np.inf), grid))
    )
    ties = {float(round_to(lower, grid)) == value, float(round_to(upper, grid)) == value}
    assert ties == {index % 2 == 0}  # both ties go to the even one
    beyond = float(round_to(np.nextafter(upper, np.inf), grid))
    assert beyond > value or np.isnan(beyond)


@by_name
def test_unknown_grids_are_refused_by_name(grid):
    with pytest.raises(ValueError, match=f"unknown grid 'bf16'.*{grid.name}"):
        ulp(1.0, "bf16")


@pytest.mark.parametrize("source", ALL, ids=lambda g: g.name)
@by_name
def test_regrid_rounds_values(source, grid):
    rng = np.random.default_rng(1)
    words = encode((rng.standard_normal(500) * 2.0 ** rng.integers(-12, 8, 500)).astype(np.float32), source)
    assert np.array_equal(regrid(words, source, grid), encode(decode(words, source), grid))
