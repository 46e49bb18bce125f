"""The numbers of a figure's curves, for pages."""

from matplotlib.figure import Figure

from darkvocab.reports.curves import MOST_POINTS, curves


def test_curves_marks_bands_and_scales_are_those_of_the_figure():
    figure = Figure()
    above, below = figure.subplots(2, 1, sharex=True)
    above.fill_between([1, 2, 3], [0, 1, 2], [4, 5, 6], color="#0072B2", alpha=0.2)
    above.plot([1, 2, 3], [2, 3, float("nan")], "o-", color="#0072B2", label="mean")
    above.set_title("rows", loc="left")
    below.plot([1, 3], [10, 1000], "--", color="black", drawstyle="steps-post")
    below.set_yscale("log")
    below.set_xlabel("sigma")
    first, second = curves(figure)
    assert (first["title"], first["x"]["title"], second["x"]["title"]) == ("rows", "sigma", "sigma")
    assert (first["y"]["scale"], second["y"]["scale"]) == ("linear", "log")
    (mean,) = first["series"]
    assert (mean["label"], mean["mark"], mean["line"], mean["colour"]) == ("mean", "o", True, "#0072b2")
    assert (mean["x"], mean["y"]) == ([1, 2, 3], [2, 3, None])
    assert mean["band"] == [[0, 1, 2], [4, 5, 6]]
    (steps,) = second["series"]
    assert (steps["stepped"], steps["dash"], steps["band"], steps["named"]) == (True, "6 3", None, True)


def test_what_stands_behind_named_curves_is_faint():
    figure = Figure()
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1])
    panel.plot([0, 1], [0, 2], label="mean")
    behind, mean = curves(figure)[0]["series"]
    assert (behind["faint"], behind["named"], mean["faint"], mean["named"]) == (True, False, False, True)


def test_a_long_curve_is_thinned_to_its_ends():
    figure = Figure()
    figure.subplots().plot(range(100_000), range(100_000))
    (series,) = curves(figure)[0]["series"]
    assert len(series["x"]) == MOST_POINTS
    assert (series["x"][0], series["x"][-1]) == (0, 99_999)


def test_a_symmetric_logarithm_names_where_it_is_linear():
    figure = Figure()
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1])
    panel.set_xscale("symlog", linthresh=10)
    assert curves(figure)[0]["x"]["linear"] == 10
