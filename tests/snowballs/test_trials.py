"""Trials: seed 001's columns and its own code's values, whatever the engine; the sample of elements."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields

import notebooks
import numpy as np
import polars as pl
import pytest
import torch

from darkvocab.measures.geometry import topology
from darkvocab.numerics import Touching, decode, round_to, ulp
from darkvocab.runs.records import frame_of
from darkvocab.snowballs import experiments as module
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import TrialRecord, Trials, trials
from darkvocab.snowballs.run import Cost, clouds

EPSILON = 2.0**-16 * 1.01  # a little above the ulp of every component below, and no float32 number
BASE = ((1 + torch.rand(16, generator=torch.Generator().manual_seed(1))) * 2e-3).numpy()
SMALL = {"n_tokens": 90, "base": BASE, "epsilon": EPSILON}
SIGMAS = [5e-7, 2e-6, 1.4e-5, 2.5e-5, 3e-5]  # from a few black holes to singletons that hardly touch


def assert_equal(record, rows, threshold=2 * EPSILON):
    """A record against the notebook's statistics of float32 rows: to the bit but for what it rounds to float32."""
    theirs = notebooks.trial(rows, EPSILON, threshold)
    ours = {name: getattr(record, name) for name in theirs}
    for name in ("mean_bh_size", "gini_coefficient", "max_l_inf", "mean_l_inf", "median_l_inf"):
        theirs[name] = pytest.approx(theirs[name], rel=1e-6, abs=1e-6)
    assert ours == theirs
    largest, mean, median = notebooks.l_inf(torch.unique(rows, dim=0))
    assert (record.max_l_inf_weight, record.median_l_inf_weight) == (largest, median)
    assert record.mean_l_inf_weight == notebooks.float32_mean(mean)
    assert (record.max_l_inf, record.median_l_inf) == (largest / EPSILON, median / EPSILON)
    assert record.mean_l_inf == record.mean_l_inf_weight / EPSILON


def drawn_rows(settings):
    """Float32 rows of every snowball of a run."""
    for _, cloud in clouds(settings, range(len(settings))):
        yield torch.from_numpy(decode(cloud.words(), settings.grid))


# Against the notebook ------------------------------------------------------------------------------------------------


def test_columns_are_seed_001s_and_then_ours():
    names = [field.name for field in fields(TrialRecord)]
    assert names[:21] == notebooks.SEED_001
    ours = "sigma hidden_dim epsilon point trial max_l_inf_weight mean_l_inf_weight median_l_inf_weight"
    assert names[21:29] == ours.split()
    assert {"touching", "topology_rows", "l_inf_rows", "sampler", "seed", "schema_version"} < set(names)


def test_the_notebook_samplers_trials_are_the_notebooks():
    # In batches of three, as seed 001 draws them, with a batch that is not whole at the end of a sigma.
    settings = Trials(SIGMAS, trials=5, sampler="notebook", **SMALL)
    records = list(run.records(settings))
    assert [r.trial_id for r in records] == list(range(25))
    torch.manual_seed(42)
    rows = []
    for sigma in SIGMAS:
        for batch in (3, 2):
            noise = torch.randn(batch, 90, 16, dtype=torch.float32) * sigma
            rows += list((torch.from_numpy(BASE) + noise).to(torch.bfloat16).to(torch.float32))
    for record, inside in zip(records, rows, strict=True):
        assert_equal(record, inside)
    assert sum(r.n_black_holes for r in records) > 50  # all that there is to tell apart does occur
    assert len({r.n_components for r in records}) > 5
    assert len({r.largest_component_density for r in records}) > 5
    assert len({r.gini_coefficient for r in records}) > 5


@pytest.mark.parametrize("redraw", [False, True])
def test_a_drawn_base_comes_from_the_same_stream_before_the_noise(redraw):
    records = list(
        trials(
            [1e-3, 2e-3], trials=3, base="random", redraw_base=redraw, dim=32, n_tokens=40, epsilon=EPSILON,
            sampler="notebook", seed=7,
        )
    )  # fmt: skip
    torch.manual_seed(7)
    for record in records:
        if record.trial_id == 0 or (redraw and record.trial == 0):
            base = torch.randn(32)
        assert_equal(record, (base + torch.randn(40, 32) * record.sigma).to(torch.bfloat16).float())


@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "uniform-ball", "uniform-shell"])
@pytest.mark.parametrize("sampler", ["sparse", "dense"])
def test_a_record_is_what_the_notebook_says_of_the_drawn_rows(sampler, distribution):
    settings = Trials(SIGMAS, trials=2, sampler=sampler, distribution=distribution, **SMALL)
    records = list(run.records(settings))
    for record, rows in zip(records, drawn_rows(settings), strict=True):
        assert_equal(record, rows)
    assert {r.distribution for r in records} == {distribution}
    assert {r.sampler for r in records} == {sampler if distribution in ("gaussian", "laplace") else "dense"}
    assert len({(r.n_unique, r.max_l_inf, r.n_components) for r in records}) > 5


@pytest.mark.parametrize("grid", ["float16", "float32", "float8_e4m3fn", "float8_e5m2"])
def test_a_record_is_what_the_notebook_says_on_every_grid(grid):
    base = BASE if grid != "float8_e4m3fn" else BASE * np.float32(40)
    settings = Trials([1e-8, 1e-6, 1e-3], trials=2, **{**SMALL, "grid": grid, "base": base, "arithmetic": "exact"})
    for record, rows in zip(run.records(settings), drawn_rows(settings), strict=True):
        assert_equal(record, rows)
        assert record.grid == grid


def test_of_components_of_equal_size_the_first_row_decides_whatever_columns_are_drawn_how():
    # A component at zero has thousands of cells: the sparse sampler draws it densely, and appends it.
    base = BASE.copy()
    base[0] = 0
    settings = Trials([2e-5], trials=100, **{**SMALL, "base": base, "n_tokens": 20})
    for record, rows in zip(run.records(settings), drawn_rows(settings), strict=True):
        assert record.sampler == "sparse"
        assert record.largest_component_density == topology(rows.numpy(), settings.touching).largest_component_density


def test_distances_and_the_graph_over_tokens_count_every_token():
    settings = Trials([2e-6, 2.5e-5], trials=2, over="tokens", **SMALL)
    for record, rows in zip(run.records(settings), drawn_rows(settings), strict=True):
        largest, mean, median = notebooks.l_inf(rows)
        assert (record.max_l_inf_weight, record.median_l_inf_weight) == (largest, median)
        assert record.mean_l_inf_weight == notebooks.float32_mean(mean)
        graph = tuple(getattr(record, name) for name in notebooks.SEED_001[15:20])
        assert graph == notebooks.topology(rows, 2 * EPSILON)
        assert (record.l_inf_rows, record.topology_rows) == ("tokens", "tokens")
        assert record.mean_degree == pytest.approx(record.global_density * 89, rel=1e-12)


def test_distances_over_black_holes_leave_the_graph_over_unique_rows():
    settings = Trials([2e-6, 2.5e-5], trials=2, over="black_holes", **SMALL)
    for record, rows in zip(run.records(settings), drawn_rows(settings), strict=True):
        unique, counts = torch.unique(rows, dim=0, return_counts=True)
        largest, _, median = notebooks.l_inf(unique[counts >= 2])
        assert (record.max_l_inf_weight, record.median_l_inf_weight) == (largest, median)
        graph = tuple(getattr(record, name) for name in notebooks.SEED_001[15:20])
        assert graph == notebooks.topology(unique, 2 * EPSILON)
        assert (record.l_inf_rows, record.topology_rows) == ("black_holes", "unique")


def test_the_median_is_the_lower_of_two_and_touching_includes_the_threshold_where_that_matters():
    # Four tokens have six pairs, whose middle two differ; and a power of two is a distance that occurs.
    settings = Trials(SIGMAS[2:], trials=8, touching=Touching(2.0**-14), **{**SMALL, "n_tokens": 4})
    matters = []
    for record, rows in zip(run.records(settings), drawn_rows(settings), strict=True):
        assert_equal(record, rows, 2.0**-14)
        apart = np.sort([(rows[i] - rows[j]).abs().max().item() for i in range(4) for j in range(i)])
        matters.append((2.0**-14 in apart, apart[2] < apart[3]))
    assert np.any(matters, axis=0).all()


def test_one_token_follows_the_notebook():
    for sampler in ("sparse", "dense", "notebook"):
        (record,) = trials(1e-6, trials=1, sampler=sampler, **{**SMALL, "n_tokens": 1})
        assert_equal(record, torch.from_numpy(BASE)[None])
        assert (record.n_components, record.n_isolated, record.global_density) == (1, 1, 1.0)


def test_no_token_follows_the_notebook():
    for sampler in ("sparse", "dense", "notebook"):
        settings = Trials(1e-6, trials=1, sampler=sampler, **{**SMALL, "n_tokens": 0})
        (record,) = run.records(settings)
        graph = tuple(getattr(record, name) for name in notebooks.SEED_001[15:20])
        assert graph == notebooks.topology(torch.empty(0, 16), 1.0)
        assert (record.n_unique, record.largest_bh, record.max_l_inf) == (0, 0, 0)
        assert len(settings.elements()) == 0


def test_steps_are_measured_when_asked_for():
    settings = Trials(SIGMAS, trials=1, measure=("geometry", "steps"), **SMALL)
    for record, (_, cloud) in zip(run.records(settings), clouds(settings, range(len(settings))), strict=True):
        index = np.unique(cloud.index().astype(np.int64), axis=0)
        pairs = np.sort(np.abs(index[:, None] - index[None]).max(axis=2)[np.triu_indices(len(index), 1)])
        assert (record.max_l_inf_steps, record.median_l_inf_steps) == (pairs[-1], pairs[(len(pairs) - 1) // 2])
        assert record.mean_l_inf_steps == pytest.approx(pairs.mean(), rel=1e-12)
        assert record.n_components is record.touching is None
    assert next(trials(1e-6, trials=1, **SMALL)).max_l_inf_steps is None  # and only then


# Whatever runs them --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["sparse", "notebook"])
def test_records_are_the_same_for_any_engine(sampler):
    settings = Trials(SIGMAS, trials=9, sampler=sampler, **SMALL)
    one = list(run.records(settings, engine="serial"))
    assert len(one) == len(settings) == 45
    assert len(settings) > 4 * Cost(settings).part_size
    for engine in ("local", "threads", "processes"):
        assert list(run.records(settings, engine=engine, workers=2)) == one
    with ThreadPoolExecutor(2) as pool:
        assert list(run.records(settings, engine=pool)) == one
    assert run.frame(settings, engine="threads", workers=2).equals(frame_of(TrialRecord, one))


@pytest.mark.parametrize("sampler", ["sparse", "dense", "notebook"])
def test_records_are_the_same_for_any_size_of_part(sampler, monkeypatch):
    base = {"base": "random", "dim": 16, "redraw_base": True}
    settings = Trials(SIGMAS, trials=5, sampler=sampler, **{**SMALL, **base})
    whole = list(run.records(settings))
    for size in (1, 3, 20):
        monkeypatch.setattr(Cost, "part_size", size)
        assert list(run.records(settings, engine="threads", workers=2)) == whole


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("sampler", ["sparse", "notebook"])
def test_sigma_is_held_against_the_ulp_of_the_base_that_was_drawn(sampler, redraw):
    settings = Trials(
        SIGMAS, trials=2, n_tokens=4, base="random", dim=1, redraw_base=redraw, sampler=sampler, grid="float16"
    )
    ulps = []
    for record, (draw, _) in zip(run.records(settings), clouds(settings, range(len(settings))), strict=True):
        ulps.append(np.median(ulp(round_to(draw.snowball.base, "float16"), "float16")))
        assert record.sigma_over_median_ulp == record.sigma / ulps[-1]
    assert (len(set(ulps)) > 1) == redraw


def test_a_trial_does_not_depend_on_how_many_there_are():
    few, many = (list(trials(SIGMAS[:1], trials=n, **SMALL)) for n in (3, 8))
    assert few == many[:3]


# The elements --------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_elements(monkeypatch):
    monkeypatch.setattr(module, "ELEMENTS", 4000)
    monkeypatch.setattr(module, "PER_TRIAL", 500)


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("sampler", ["sparse", "dense", "notebook"])
def test_elements_are_row_minus_base_of_the_runs_own_snowballs(sampler, redraw, few_elements):
    base = {"base": "random", "dim": 17} if redraw else {"base": np.append(BASE, np.float32(0))}
    sigmas = [1e-2, 3e-2] if redraw else [3e-5, 6e-5]  # without redrawing, the last column is drawn densely
    settings = Trials(sigmas, trials=7, sampler=sampler, **{**SMALL, **base, "redraw_base": redraw, "seed": 5})
    elements = settings.elements()
    assert elements.columns == ["point", "sigma", "value"]
    assert elements.schema["value"] == pl.Float32
    points = [0] if sampler == "notebook" else [0, 1]
    assert elements["point"].unique().sort().to_list() == points
    assert len(elements) <= 4000
    assert elements["point"].value_counts()["count"].n_unique() == 1  # of each sigma the same number
    for point in points:
        inside = elements.filter(pl.col("point") == point)
        assert inside["sigma"].unique().to_list() == [settings.sigmas[point]]
        of_trial = []
        for draw, cloud in clouds(settings, range(len(settings))):
            if draw.point == point:
                of_trial.append((decode(cloud.words(), "bfloat16") - draw.snowball.base).ravel())
        values = inside["value"].to_numpy()
        n_trials = min(7, 4000 // len(points) // 500)
        for part, trial in zip(np.array_split(values, n_trials), of_trial, strict=False):
            assert np.isin(part, trial).all()  # values of the first trials, in their order
        assert values.std() == pytest.approx(settings.sigmas[point], rel=0.1)
        assert len(np.unique(values)) > 100


def test_elements_with_the_notebook_sampler_are_torchs(few_elements):
    settings = Trials([3e-5, 6e-5], trials=7, sampler="notebook", **SMALL)
    torch.manual_seed(42)
    rows = (torch.from_numpy(BASE) + torch.randn(7, 90, 16) * 3e-5).to(torch.bfloat16).float() - torch.from_numpy(BASE)
    assert np.isin(settings.elements()["value"].to_numpy(), rows.numpy()).all()


def test_elements_are_few_and_always_the_same(few_elements):
    for n_trials in (1, 3, 100):
        settings = Trials(SIGMAS, trials=n_trials, **SMALL)
        elements = settings.elements()
        assert 3900 < len(elements) <= 4000
        assert elements.equals(settings.elements())
    other = Trials(SIGMAS, trials=100, seed=1, **SMALL).elements()
    assert not elements["value"].equals(other["value"])


def test_elements_lie_in_the_run_folder(tmp_path, few_elements):
    settings = Trials(SIGMAS, trials=3, **SMALL)
    records = list(run.records(settings, out=tmp_path / "run"))
    assert pl.read_parquet(tmp_path / "run" / "elements.parquet").equals(settings.elements())
    landed = pl.read_parquet(tmp_path / "run" / "records.parquet").rows(named=True)
    assert landed == [asdict(record) for record in records]
    assert (tmp_path / "run" / "records.csv").read_text().split("\n")[0].split(",")[:21] == notebooks.SEED_001


# Settings ------------------------------------------------------------------------------------------------------------


def test_one_sigma_needs_no_list():
    assert Trials(1e-6, base="random", dim=8).sigmas == Trials([1e-6], base="random", dim=8).sigmas == (1e-6,)
    assert len(Trials(1e-6, base="random", dim=8)) == 1000


def test_the_threshold_is_twice_epsilon_unless_given():
    assert Trials(1e-6, **SMALL).touching == Touching(2 * EPSILON)
    assert Trials(1e-6, **{**SMALL, "epsilon": None}).touching == Touching(2, "steps")
    assert Trials(1e-6, touching=Touching(1e-5), **SMALL).touching == Touching(1e-5)


def test_without_epsilon_only_what_it_scales_is_null():
    (record,) = trials(1e-6, trials=1, **{**SMALL, "epsilon": None})
    null = {name for name, value in asdict(record).items() if value is None}
    steps = {"max_l_inf_steps", "mean_l_inf_steps", "median_l_inf_steps"}
    assert null == {"epsilon", "max_l_inf", "mean_l_inf", "median_l_inf"} | steps


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"trials": 0}, "trials must be >= 1"),
        ({"sampler": "quick"}, "choose one of sparse, dense, notebook"),
        ({"distribution": "uniform"}, "choose one of gaussian"),
        ({"measure": ("populations",)}, "choose among census, geometry, steps, topology"),
        ({"over": "unseen"}, "choose one of black_holes, unique, tokens"),
        ({"epsilon": -EPSILON}, "epsilon must be"),
        ({"redraw_base": True}, "only a drawn base"),
    ],
)
def test_settings_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Trials(1e-6, **{**SMALL, **bad})
