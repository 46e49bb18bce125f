"""L-infinity spectra: by hand, and against all pairs computed plainly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab.numerics import chebyshev, chebyshev_spectrum, index_values


def plain_spectrum(index, grid, unit, weights):
    """Every pair of tokens, the difference of each component taken in float32."""
    rows = np.repeat(index, weights, axis=0)
    x = rows.astype(np.float64) if unit == "steps" else index_values(rows, grid).astype(np.float32)
    pairs = np.triu_indices(len(rows), 1)
    with np.errstate(over="ignore"):
        return np.unique(np.abs(x[pairs[0]] - x[pairs[1]]).max(axis=1), return_counts=True)


def indices(low, high):
    return hnp.arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.integers(low, high))


@pytest.fixture(params=[0, chebyshev.FEW_COMPARISONS], ids=["by blocks", "listed"], autouse=True)
def few_comparisons(request):
    """Every test twice: small sets of rows are listed outright, here also cut into blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chebyshev, "FEW_COMPARISONS", request.param)
        yield


@pytest.mark.parametrize("unit", chebyshev.UNITS)
@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float8_e4m3fn"])
@given(data=st.data())
def test_spectrum_equals_all_pairs(grid, unit, data):
    # Few values far apart, many values, values around zero: every way in which columns can be cut into blocks.
    reach = data.draw(st.sampled_from([1, 3, 100]))
    index = data.draw(indices(-reach, reach))
    offsets = data.draw(hnp.arrays(np.int64, index.shape[1], elements=st.integers(-20, 20)))
    index = np.clip(index + offsets, -126, 126)
    weights = data.draw(hnp.arrays(np.int64, len(index), elements=st.integers(1, 3)))
    distances, counts = plain_spectrum(index, grid, unit, weights)
    spectrum = chebyshev_spectrum(index, grid, unit=unit, weights=weights)
    assert np.array_equal(spectrum.distances, distances)
    assert np.array_equal(spectrum.counts, counts)


@pytest.mark.parametrize("unit", chebyshev.UNITS)
def test_a_collapsed_cloud_equals_all_pairs(unit):
    # As among black holes: columns of very different ulp, most of them with two values, one with many.
    rng = np.random.default_rng(5)
    home = rng.integers(13000, 15500, 40)
    moves = (rng.random((150, 40)) < rng.random(40) ** 6) * 1
    moves[:, 0] += rng.integers(-20, 20, 150)
    index = np.unique(home + moves, axis=0)
    distances, counts = plain_spectrum(index, "bfloat16", unit, np.ones(len(index), int))
    spectrum = chebyshev_spectrum(index, "bfloat16", unit=unit)
    assert np.array_equal(spectrum.distances, distances)
    assert np.array_equal(spectrum.counts, counts)


def test_pairs_beyond_one_batch_are_all_counted(monkeypatch):
    monkeypatch.setattr(chebyshev, "BATCH", 7)
    monkeypatch.setattr(chebyshev, "MOST_UNITS", 0)
    index = np.random.default_rng(1).integers(-99, 99, (20, 3))
    distances, counts = plain_spectrum(index, "bfloat16", "steps", np.ones(20, int))
    spectrum = chebyshev_spectrum(index, "bfloat16", unit="steps")
    assert np.array_equal(spectrum.distances, distances)
    assert np.array_equal(spectrum.counts, counts)


@pytest.mark.parametrize("most_units", [0, chebyshev.MOST_UNITS])
@pytest.mark.parametrize("unit", chebyshev.UNITS)
@given(index=indices(-3000, 3000))
def test_counted_and_listed_distances_are_the_same(unit, most_units, index):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chebyshev, "MOST_UNITS", most_units)
        spectrum = chebyshev_spectrum(index, "bfloat16", unit=unit)
    distances, counts = plain_spectrum(index, "bfloat16", unit, np.ones(len(index), int))
    assert np.array_equal(spectrum.distances, distances)
    assert np.array_equal(spectrum.counts, counts)


@given(st.lists(st.integers(1, 2**40), min_size=1), st.integers(-60, 20))
def test_the_common_unit_divides_all_and_its_double_does_not(numbers, exponent):
    x = np.ldexp(np.array(numbers, np.float64), exponent)
    multiples = x / chebyshev._common_unit(x)
    assert (multiples == np.rint(multiples)).all()
    assert (multiples % 2 == 1).any()


def test_medians_by_hand():
    index = np.array([[0], [1], [3], [7]])  # distances 1 2 3 4 6 7
    spectrum = chebyshev_spectrum(index, "bfloat16", unit="steps")
    assert (spectrum.max, spectrum.mean, spectrum.lower_median, spectrum.median) == (7, 23 / 6, 3, 3.5)


@given(hnp.arrays(np.int64, st.tuples(st.integers(2, 9), st.just(2)), elements=st.integers(-9, 9)))
def test_summaries_are_those_of_the_list_of_pairs(index):
    spectrum = chebyshev_spectrum(index, "bfloat16", unit="steps")
    pairs = np.sort(np.repeat(spectrum.distances, spectrum.counts))
    assert spectrum.n_pairs == len(index) * (len(index) - 1) // 2
    assert spectrum.mean == pytest.approx(pairs.mean(), rel=1e-14)
    assert spectrum.lower_median == pairs[(len(pairs) - 1) // 2]
    assert spectrum.median == np.median(pairs)


def test_one_row_has_no_pairs():
    spectrum = chebyshev_spectrum(np.array([[3, 4]]), "bfloat16")
    assert (spectrum.n_pairs, spectrum.max, spectrum.mean, spectrum.lower_median, spectrum.median) == (0, 0, 0, 0, 0)


def test_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="choose one of weight, steps"):
        chebyshev_spectrum(np.array([[1]]), "bfloat16", unit="ulps")
