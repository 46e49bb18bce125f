"""Plots: print and page show the same numbers, and these are the records'."""

import json
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from darkvocab import report, sweep
from darkvocab.reports.plot import MOST_NAMELESS, PAGE_POINTS, Axis, Curve, Panel, Plot, around, top_of
from darkvocab.reports.snowballs import sweep_plot
from darkvocab.runs.records import read_records

MEAN = Curve(x=[1, 2, 3], y=[2, 3, float("nan")], label="mean", mark="o", band=([0, 1, 2], [4, 5, float("inf")]))
AXIS = Axis(ends=(0.0, 10.0))


def panel(*series, **settings):
    return Panel(**{"title": "rows", "x": AXIS, "y": AXIS, "series": series, **settings})


def on_page(series):
    return panel(series).to_json()["series"][0]


def drawn(*panels, **settings):
    """Axes of the figure for print."""
    return Plot(panels=panels, height=3.0, caption="c", **settings).draw().axes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots") / "run"
    list(sweep([1e-9, 3e-9, 9e-9], n_tokens=60, trials=3, out=folder))
    return folder


@pytest.mark.slow
def test_a_page_has_the_numbers_of_the_records(run):
    html = report(run)[0].read_text()
    panels = json.loads(re.search(r'id="curves-sweep">(.*?)</script>', html, re.DOTALL)[1])
    records = read_records(run)  # by sigma
    columns = ["n_black_holes", "black_hole_population", "n_singletons", "largest_bh", "l_inf", "l_inf_steps"]
    assert len(panels) == len(columns)
    for data, column in zip(panels, columns, strict=True):
        named = {one["label"]: one for one in data["series"]}
        for label in ("median", "mean", "max") if "l_inf" in column else ("simulated",):
            name = f"{label}_{column}" if "l_inf" in column else column
            known = records.filter(pl.col("n_black_holes") > 1) if "l_inf" in column else records
            value = pl.col(name)
            each = known.group_by("sigma", maintain_order=True).agg(
                mean=value.mean(), low=value.quantile(0.1), high=value.quantile(0.9)
            )
            assert named[label]["x"] == each["sigma"].to_list()
            assert named[label]["y"] == each["mean"].to_list()
            assert named[label]["band"] == [each["low"].to_list(), each["high"].to_list()]
    expected = pl.read_parquet(run / "expected.parquet")
    curve = panels[0]["series"][1]
    assert (curve["label"], curve["x"]) == ("expected", expected["sigma"].to_list())
    assert curve["y"] == pytest.approx(expected["n_black_holes"].to_list(), rel=1e-15)


def test_print_shows_the_numbers_of_the_page(run):
    plot = sweep_plot(read_records(run), pl.read_parquet(run / "expected.parquet"))
    axes = plot.draw().axes
    assert len(axes) == len(plot.panels) == 6
    for data, panel in zip(plot.to_json(), axes, strict=True):
        assert panel.get_title(loc="left") == data["title"]
        assert panel.get_xlim() == pytest.approx(data["x"]["ends"])
        assert panel.get_ylim() == pytest.approx(data["y"]["ends"])
        assert (panel.get_xscale(), panel.get_yscale()) == (data["x"]["scale"], data["y"]["scale"])
        for line, one in zip(panel.lines, data["series"], strict=True):
            assert [line.get_xdata().tolist(), line.get_ydata().tolist()] == [one["x"], one["y"]]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_band_of_few_points_is_a_band_on_the_page(n):
    series = Curve(x=[1, 2, 3][:n], y=[2, 3, 4][:n], band=([1, 2, 3][:n], [3, 4, 5][:n]))
    assert on_page(series)["band"] == [[1, 2, 3][:n], [3, 4, 5][:n]]


def test_a_band_with_a_gap_and_a_stepped_one_are_bands_on_the_page():
    assert on_page(MEAN)["band"] == [[0, 1, 2], [4, 5, None]]
    assert on_page(replace(MEAN, stepped=True))["band"] == [[0, 1, 2], [4, 5, None]]


def test_bands_of_one_colour_stay_with_their_curves():
    other = replace(MEAN, label="other", band=([7, 7, 7], [8, 8, 8]))
    bands = [one["band"] for one in panel(MEAN, other).to_json()["series"]]
    assert bands == [[[0, 1, 2], [4, 5, None]], [[7, 7, 7], [8, 8, 8]]]


def test_a_sweep_that_is_beyond_float_at_one_sigma_keeps_its_bands(run):
    records = read_records(run)
    beyond = pl.when(pl.col("sigma") == 3e-9).then(float("inf")).otherwise(pl.col("mean_l_inf"))
    means = sweep_plot(records.with_columns(mean_l_inf=beyond)).to_json()[4]["series"][1]
    assert means["label"] == "mean"
    assert [low is None for low in means["band"][0]] == [y is None for y in means["y"]]
    assert sum(y is None for y in means["y"]) == 1


def test_curves_marks_and_scales_are_those_of_the_figure():
    log = Axis(ends=(1.0, 1000.0), scale="log", label="sigma")
    steps = Curve(x=[1, 3], y=[10, 1000], line="--", colour="#000000", stepped=True)
    above, below = drawn(panel(MEAN, x=log), panel(steps, x=log, y=log))
    (mean,), (stepped,) = above.lines, below.lines
    assert (mean.get_label(), mean.get_marker(), mean.get_color()) == ("mean", "o", "#0072b2")
    assert (stepped.get_drawstyle(), stepped.get_linestyle()) == ("steps-post", "--")
    assert (above.get_xlabel(), below.get_xlabel()) == ("", "sigma")  # shared, and said once
    assert (above.get_yscale(), below.get_yscale(), above.get_xscale()) == ("linear", "log", "log")
    assert len(above.collections) == 1


def test_of_many_nameless_series_a_page_has_some_and_every_named_one():
    one = replace(MEAN, label="")
    series = panel(*[one] * 200, MEAN).to_json()["series"]
    assert [bool(one["label"]) for one in series] == [False] * MOST_NAMELESS + [True]


def test_a_long_series_is_thinned_to_its_ends():
    long = on_page(Curve(x=range(100_000), y=range(100_000)))
    assert len(long["x"]) == PAGE_POINTS
    assert (long["x"][0], long["x"][-1]) == (0, 99_999)


def test_a_symmetric_logarithm_says_where_it_is_linear():
    (axes,) = drawn(panel(MEAN, x=Axis(ends=(0.0, 500.0), scale="symlog", linear=10)))
    assert axes.xaxis.get_transform().linthresh == 10
    assert panel(MEAN, x=Axis(ends=(0.0, 500.0), scale="symlog", linear=10)).to_json()["x"]["linear"] == 10


@pytest.mark.parametrize(
    ("values", "scale", "ends"),
    [
        ([0, 10], "linear", (-0.5, 10.5)),
        ([1, 10, float("nan"), float("inf")], "linear", (0.55, 10.45)),
        ([0, 1, 100], "log", (10**-0.1, 10**2.1)),
        ([2, 2], "linear", (1.89, 2.11)),
        ([0], "linear", (-0.055, 0.055)),
        ([10], "log", (10**-0.1, 10**2.1)),
        ([], "linear", (-0.05, 1.05)),
    ],
)
def test_an_axis_has_a_margin_as_matplotlib_gives_it(values, scale, ends):
    axis = around(values, "x", scale)
    assert axis.ends == pytest.approx(ends)
    if len(finite := [value for value in values if np.isfinite(value)]) > 1:
        (plain,) = drawn(panel(MEAN))
        plain.clear()
        plain.set_xscale(scale)
        plain.plot(finite, finite)
        assert plain.get_xlim() == pytest.approx(ends)


def test_an_axis_from_zero_shows_the_greatest_value_and_band():
    assert top_of([MEAN]) == pytest.approx(1.06 * 5)
    assert top_of([MEAN], least=10) == pytest.approx(10.6)
    assert top_of([Curve(x=[], y=[])]) == pytest.approx(1.06)
