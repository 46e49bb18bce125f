"""The expected census: its points, its settings, the curve beside a sweep, and a run held against it."""

import dataclasses
import json
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

import darkvocab
from darkvocab import expect, report, sweep
from darkvocab.errors import CorruptFile
from darkvocab.snowballs import agreement
from darkvocab.snowballs.expect import FALSE_ALARM, STATISTICS, Expect, Expected, along, compared
from darkvocab.snowballs.experiments import Sweep, Trials
from darkvocab.snowballs.run import Cost, frame, land, records

CENTRED = {"base": "qwen3-4b-centred", "n_tokens": 300}
SIGMAS = np.geomspace(1e-9, 2e-8, 12)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    land(Sweep(SIGMAS, trials=20, measure=(), **CENTRED), folder)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    """The run, to be changed: its manifest, and its merged records."""

    def make(records=None, **changes):
        folder = tmp_path / "copy"
        folder.mkdir()
        for path in run.glob("*.*"):
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, value in changes.items():
            (manifest if name in manifest else manifest["parameters"])[name] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))
        if records is not None:
            records(pl.read_parquet(folder / "records.parquet")).write_parquet(folder / "records.parquet")
        return folder

    return make


# Points -------------------------------------------------------------------------------------------------------------


def test_names_are_those_of_a_sweeps_records():
    names = {field.name for field in dataclasses.fields(Expected)}
    shared = {"sigma", "sigma_over_median_ulp", "n_active_columns", "n_tokens", "hidden_dim", "base", "grid"}
    shared |= {"distribution", "arithmetic", "schema_version", *STATISTICS}
    assert shared <= names & {field.name for field in dataclasses.fields(darkvocab.snowballs.SweepRecord)}
    assert {f"{name}_std" for name in STATISTICS} <= names


def test_what_is_known_beforehand_is_that_of_a_sweeps_records():
    for point, record in zip(expect(SIGMAS, **CENTRED), sweep(SIGMAS, measure=(), **CENTRED), strict=True):
        for name in ("sigma", "sigma_over_median_ulp", "n_tokens", "hidden_dim", "base", "grid", "n_active_columns"):
            assert getattr(point, name) == getattr(record, name), name


def test_points_are_the_same_alone_and_several_at_a_time():
    settings = Expect(np.linspace(1e-9, 5e-9, 30), n_tokens=100)
    several = list(settings)
    assert several == [next(expect(sigma, n_tokens=100)) for sigma in settings.sigmas]


def test_nothing_moves_at_sigma_zero_and_all_is_apart_at_a_large_one():
    first, last = expect([0.0, 1.0], n_tokens=50)
    assert (first.n_black_holes, first.black_hole_population, first.largest_bh_low) == (1, 50, 50)
    assert (last.n_singletons, last.n_black_holes, last.coincident_pairs) == (50, 0, 0)
    assert (first.n_active_columns, last.n_active_columns) == (0, 2560)


@pytest.mark.parametrize("n_tokens", [1, 2, 2100, 10**12, 10**15])
def test_the_parts_make_the_whole_for_any_number_of_tokens(n_tokens):
    for point in expect([0.0, 1e-9, 3e-9, 1e-8, 1e-7, 1e-3], n_tokens=n_tokens):
        assert point.black_hole_population + point.n_singletons == pytest.approx(n_tokens, rel=1e-9)
        assert point.n_black_holes + point.n_singletons == pytest.approx(point.unique_vectors, rel=1e-6)
        assert point.largest_bh_low <= point.largest_bh_high * (1 + 1e-12)
        assert all(math.isfinite(v) for v in dataclasses.asdict(point).values() if isinstance(v, float))


@pytest.mark.slow
def test_a_redrawn_base_is_that_of_the_sweep_at_each_sigma(tmp_path):
    settings = {"base": "random-unit", "dim": 64, "n_tokens": 200, "redraw_base": True, "seed": 3}
    points = list(expect([2e-5] * 4, **settings))
    assert len({point.n_black_holes for point in points}) == 4
    land(Sweep([2e-5] * 4, trials=30, measure=(), **settings), tmp_path / "run")
    assert agreement(tmp_path / "run").agrees
    other = frame(Sweep([2e-5] * 4, trials=30, measure=(), **{**settings, "seed": 4}))
    means = other.group_by("point", maintain_order=True).agg(pl.col("unique_vectors").mean())["unique_vectors"]
    pairs = zip(points, means, strict=True)
    rows = [compared(number, point, "unique_vectors", 30, mean) for number, (point, mean) in enumerate(pairs)]
    assert min(row.p_value for row in rows) < FALSE_ALARM / 4


def test_one_sigma_needs_no_list():
    assert list(expect(3e-9, n_tokens=20)) == list(Expect([3e-9], n_tokens=20))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"n_tokens": 0}, "n_tokens must be 1 to 1e15, got 0"),
        ({"n_tokens": 10**16}, "n_tokens must be 1 to 1e15"),
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"dim": 5}, "has 2,560 components, --dim says 5; leave --dim out"),
        ({"arithmetic": "float64"}, "unknown arithmetic 'float64'; choose one of float32, exact"),
        ({"grid": "bf16"}, "unknown grid 'bf16'; choose one of bfloat16"),
        ({"seed": -1}, "seed must be from 0"),
        ({"redraw_base": True}, "only a drawn base"),
        ({"distribution": "cauchy"}, "unknown distribution 'cauchy'; choose one of gaussian, laplace, uniform"),
        ({"distribution": "uniform-ball"}, "uniform-ball noise depend on one another"),
        ({"base": np.array([1e6]), "grid": "float16"}, "beyond float16's largest value 65504; choose a wider grid"),
    ],
)
def test_settings_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        expect([1e-9], **bad)


@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "uniform"])
@pytest.mark.parametrize("sigma", [-1e-9, math.inf, math.nan, 3e38])
def test_sigmas_that_cannot_be_are_refused_before_any_is_looked_at(sigma, distribution):
    with pytest.raises(ValueError, match="sigma"):
        Expect([1e-9, sigma, 2e-9], distribution=distribution)


# The curve beside a sweep -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_leaves_its_expected_census(run):
    left = pl.read_parquet(run / "expected.parquet")
    assert left["sigma"].to_list() == along(SIGMAS)
    assert left.equals(Expect(along(SIGMAS), **CENTRED).frame())


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"distribution": "uniform-ball", "base": "random", "dim": 20},
        {"n_tokens": 0},
        {"base": "random", "dim": 20, "redraw_base": True},
    ],
)
def test_a_sweep_without_a_curve_leaves_none(settings, tmp_path):
    land(Sweep([1e-9, 2e-9], **{"n_tokens": 10, **settings}), tmp_path / "run")
    assert not (tmp_path / "run" / "expected.parquet").exists()
    report(tmp_path / "run")


@pytest.mark.slow
def test_a_report_without_a_curve_is_as_it_was_and_with_one_shows_it(run, copy):
    folder = copy()
    with_curve = report(folder)[0].read_text()
    assert '"label":"expected"' in with_curve.replace(": ", ":")
    assert '"label":"expected, between bounds"' in with_curve.replace(": ", ":")
    assert 'href="expected.parquet"' in with_curve
    (folder / "expected.parquet").unlink()
    without = report(folder)[0].read_text()
    assert "expected" not in without.replace("expected_", "")


@pytest.mark.parametrize("content", [b"", b"nothing", "frame", "nan", "empty"])
def test_a_damaged_curve_is_named(content, run, copy):
    folder = copy()
    path = folder / "expected.parquet"
    frame = pl.read_parquet(path)
    result = {"frame": frame.drop("n_singletons"), "nan": frame.with_columns(n_singletons=math.nan), "empty": frame[:0]}
    if isinstance(content, str):
        result[content].write_parquet(path)
    else:
        path.write_bytes(content)
    with pytest.raises(CorruptFile, match=r"expected\.parquet: not the expected census"):
        report(folder)


def test_a_curve_goes_through_few_sigma_and_thins_many():
    assert along([3e-9]) == [3e-9]
    few = along([1e-9, 1e-8, 1e-6])
    assert {1e-9, 1e-8, 1e-6} <= set(few)
    assert 40 <= len(few) <= 80
    many = along(np.linspace(1e-9, 5e-9, 1000))
    assert (len(many), many[0], many[-1]) == (80, 1e-9, 5e-9)
    assert along([2e-9, 2e-9, 1e-9, 1e-9]) == along([1e-9, 2e-9])


# A run held against theory ------------------------------------------------------------------------------------------


def test_a_sweep_agrees_with_theory(run):
    result = agreement(run)
    assert result.agrees
    assert result.p_value > 1e-3
    assert len(result.expected) == len(result.largest) == len(SIGMAS)
    assert len(result.comparisons) == 4 * len(SIGMAS)
    records = pl.read_parquet(run / "records.parquet")
    for row in result.comparisons:
        values = records.filter(pl.col("point") == row.point)[row.statistic]
        assert (row.trials, row.simulated) == (20, pytest.approx(values.mean(), rel=1e-14))
        assert row.standard_error == row.std / math.sqrt(20)
        if row.z is not None:
            assert row.z == (row.simulated - row.expected) / row.standard_error
    assert result.n_beyond_3 <= 2
    assert 10 < len(result.scores) < len(result.comparisons)
    for point, largest in zip(result.expected, result.largest, strict=True):
        assert point.largest_bh_low * 0.8 - 1 < largest < point.largest_bh_high * 1.2 + 1


def test_trials_agree_with_theory_in_their_own_names(tmp_path):
    land(Trials([2e-9, 1e-6], trials=40, measure=(), **CENTRED), tmp_path / "run")
    result = agreement(tmp_path / "run")
    assert result.agrees
    assert result.largest[1] == 1  # where there is no black hole a trial's record says 0
    assert {row.statistic for row in result.comparisons} == set(STATISTICS)


def test_a_wrong_sigma_does_not_agree(copy):
    # By a hundredth at 20 trials of 300 tokens nobody could tell; by a tenth anyone.
    folder = copy(lambda frame: frame.with_columns(pl.col("sigma") * 1.1), sigmas=[float(s) * 1.1 for s in SIGMAS])
    result = agreement(folder)
    assert not result.agrees
    assert result.p_value < 1e-12
    assert "DOES NOT agree" in result.sentences()[0]
    assert np.sum(np.abs(result.scores) > 3) == result.n_beyond_3 > 5


def test_other_tokens_do_not_agree(copy):
    assert not agreement(copy(n_tokens=310)).agrees


def test_records_that_contradict_the_manifest_are_corrupt(copy):
    with pytest.raises(CorruptFile, match="another sigma than the manifest"):
        agreement(copy(sigmas=[float(s) * 1.1 for s in SIGMAS]))


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop("n_singletons"),
        lambda frame: frame.with_columns(point=pl.col("point") - 12),
        lambda frame: frame.with_columns(point=pl.col("point") + 12),
        lambda frame: frame.with_columns(n_singletons=pl.lit(None, pl.Int64)),
        lambda frame: frame.with_columns(n_singletons=pl.lit("many")),
    ],
)
def test_damaged_records_are_corrupt(change, copy):
    with pytest.raises(CorruptFile):
        agreement(copy(change))


@pytest.mark.parametrize(
    "change",
    [{"sigmas": 3}, {"sigmas": ["1"]}, {"n_tokens": "many"}, {"grid": None}, {"inputs": [{}]}, {"base": {}}],
)
def test_a_damaged_manifest_is_corrupt(change, copy):
    with pytest.raises(CorruptFile, match="not the manifest of a run"):
        agreement(copy(**change))


def test_an_unfinished_run_is_held_against_theory_as_far_as_it_is(tmp_path):
    settings = Sweep(SIGMAS, trials=20, measure=(), **CENTRED)
    running = records(settings, out=tmp_path / "run", workers=1)
    for _ in range(5 * Cost(settings).part_size):
        next(running)
    running.close()
    result = agreement(tmp_path / "run")
    landed = sum(row.trials for row in result.comparisons) // 4
    assert 5 * Cost(settings).part_size <= landed < len(settings)
    assert result.agrees


@pytest.mark.slow
def test_a_base_from_a_file_is_read_again_and_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("base.npy", np.linspace(0.001, 0.02, 50, dtype=np.float32))
    land(Sweep([1e-6, 1e-5], base="base.npy", n_tokens=50, measure=()), "run")
    assert agreement("run").agrees
    np.save("base.npy", np.linspace(0.002, 0.02, 50, dtype=np.float32))
    with pytest.raises(ValueError, match=r"its base base\.npy is another now"):
        agreement("run")
    (tmp_path / "base.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"its base base\.npy is not there any more; put it back"):
        agreement("run")


def test_noise_without_a_closed_form_is_refused(tmp_path):
    land(Sweep([1e-6], base="random", dim=20, n_tokens=50, distribution="uniform-shell", measure=()), tmp_path / "run")
    with pytest.raises(ValueError, match="uniform-shell noise depend on one another"):
        agreement(tmp_path / "run")


def test_p_values_of_rare_events_are_poissons():
    # Where one black hole of two is expected in 100 snowballs the law of 50 trials is Poisson's.
    (point,) = expect([1.2e-8], base="qwen3-4b-centred", n_tokens=900)
    rate = 50 * point.n_black_holes
    assert 0.1 < rate < 1
    for n in (1, 2, 5, 9):
        row = compared(0, point, "n_black_holes", 50, n / 50)
        assert row.z is None
        assert row.p_value == pytest.approx(min(1, 2 * stats.poisson.sf(n - 1, rate)), rel=1e-2)
        assert compared(0, point, "black_hole_population", 50, 2 * n / 50).p_value == pytest.approx(
            row.p_value, rel=0.05
        )
    assert compared(0, point, "n_black_holes", 50, point.n_black_holes).p_value == 1


def test_p_values_are_the_normal_ones_where_counts_are_many():
    (point,) = expect([2e-9], base="qwen3-4b-centred", n_tokens=2100)
    for z in (0.5, 2.0, 4.0):
        mean = point.unique_vectors + z * point.unique_vectors_std / 100
        row = compared(0, point, "unique_vectors", 10_000, mean)
        assert row.z == pytest.approx(z)
        assert row.p_value == pytest.approx(2 * stats.norm.sf(z), rel=0.05)


def test_what_cannot_happen_and_does_is_seen():
    # No column moves, and yet a token is alone: once in 1e9 snowballs, as far as theory neglects tails.
    (point,) = expect([0.0], n_tokens=100)
    assert compared(0, point, "n_singletons", 10, 0.0).p_value == 1
    assert compared(0, point, "n_singletons", 10, 3.0).p_value < 1e-50
