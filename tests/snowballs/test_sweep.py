"""Sweeps: the records, that nothing changes them, and that a killed run ends with the same bytes."""

import csv
import io
import os
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from forking import forking, killed_until_whole, with_more_entries

from darkvocab import report, sweep
from darkvocab.notebooks.recipes import SEED_000_COLUMNS
from darkvocab.numerics import Touching
from darkvocab.runs.records import RunFolder
from darkvocab.snowballs import experiments, run
from darkvocab.snowballs.experiments import Sweep, SweepRecord
from darkvocab.snowballs.run import Cost
from darkvocab.snowballs.settings import parse_sigmas

DARKVOCAB = Path(sys.executable).parent / "darkvocab"
SMALL = {"n_tokens": 300, "base": "qwen3-4b-centred", "epsilon": 6e-5}
SIGMAS = np.linspace(1.5e-9, 9e-9, 40)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def plain_record(rows: np.ndarray) -> dict:
    """Seed 000's measurements of float32 rows, by numpy's sort and a cube of differences."""
    unique, counts = np.unique(rows + 0.0, axis=0, return_counts=True)
    holes = unique[counts >= 2]
    cube = np.abs(holes[:, None] - holes[None]).max(axis=2)
    pairs = np.sort(cube[np.triu_indices(len(holes), 1)]) if len(holes) > 1 else np.zeros(1)
    return {
        "unique_vectors": len(unique),
        "n_black_holes": len(holes),
        "black_hole_population": int(counts[counts >= 2].sum()),
        "n_singletons": int((counts == 1).sum()),
        "largest_bh": int(counts.max()),
        "max_l_inf": float(pairs.max()),
        "mean_l_inf": pytest.approx(float(pairs.astype(np.float64).mean()), rel=1e-12),
        "median_l_inf": float(pairs[(len(pairs) - 1) // 2]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["sparse", "dense"])
def test_a_record_is_what_a_plain_census_of_the_rows_says(sampler):
    from darkvocab import draw
    from darkvocab.numerics import decode

    settings = Sweep(SIGMAS, sampler=sampler, trials=3, **SMALL)
    assert Cost(settings).part_size > 2 * settings.trials or sampler == "dense"  # a part has several points
    for record in list(run.records(settings))[::9]:
        ball = settings.snowball(settings.base.vector, record.sigma)
        cloud = draw(ball, seed=42, point=record.point, trial=record.trial, sampler=sampler)
        plain = plain_record(decode(cloud.words(), "bfloat16"))
        assert {name: getattr(record, name) for name in plain} == plain


def test_columns_are_seed_000s_and_then_ours():
    names = [field.name for field in fields(SweepRecord)]
    assert names[:14] == SEED_000_COLUMNS
    assert names[14:16] == ["point", "trial"]
    ours = "sampler arithmetic distribution n_active_columns neglected_probability max_l_inf_steps l_inf_rows n_edges"
    assert {*ours.split(), "gini_coefficient", "touching", "topology_rows"} < set(names)


DISTANCES = ["max_l_inf", "mean_l_inf", "median_l_inf", "max_l_inf_over_epsilon"]
STEPS = ["max_l_inf_steps", "mean_l_inf_steps", "median_l_inf_steps"]
GRAPH = [*experiments.GRAPH, "touching", "topology_rows"]


@pytest.mark.parametrize(
    ("measure", "null"),
    [
        ((), [*DISTANCES, *STEPS, "l_inf_rows", *GRAPH]),
        (("census",), [*DISTANCES, *STEPS, "l_inf_rows", *GRAPH]),
        (("geometry",), [*STEPS, *GRAPH]),
        (("steps",), [*DISTANCES, *GRAPH]),
        (("topology",), [*DISTANCES, *STEPS, "l_inf_rows"]),
        (("topology", "steps", "geometry"), []),
    ],
)
def test_what_is_not_measured_is_null_and_changes_nothing_else(measure, null):
    whole = Sweep([3e-9], measure=("geometry", "steps", "topology"), **SMALL)
    part = Sweep([3e-9], measure=measure, **SMALL)
    (ours,), (all_of_it,) = ([asdict(next(run.records(settings)))] for settings in (part, whole))
    assert [name for name, value in ours.items() if value is None] == [name for name in all_of_it if name in null]
    assert {name: value for name, value in ours.items() if name not in null} == {
        name: value for name, value in all_of_it.items() if name not in null
    }


def test_without_epsilon_its_columns_are_null():
    (record,) = sweep([3e-9], n_tokens=50)
    assert (record.epsilon, record.sigma_over_epsilon, record.max_l_inf_over_epsilon) == (None, None, None)
    assert record.max_l_inf > 0


def test_rows_and_touching_are_named_in_the_record():
    for over in ("black_holes", "unique", "tokens"):
        record = next(sweep([3e-9], measure=("geometry", "topology"), over=over, **SMALL))
        assert (record.l_inf_rows, record.touching) == (over, f"<= {2 * 6e-5!r} weight")
        assert record.topology_rows == ("tokens" if over == "tokens" else "unique")
    record = next(sweep([3e-9], measure=["topology"], n_tokens=50))
    assert record.touching == "<= 2 steps"  # where there is no epsilon to scale with
    record = next(sweep([3e-9], measure=["topology"], touching=Touching(1e-5, strict=True), n_tokens=50))
    assert record.touching == "< 1e-05 weight"


def test_no_tokens_are_nothing():
    (record,) = sweep([1e-8], n_tokens=0, measure=("geometry", "steps", "topology"))
    assert (record.unique_vectors, record.n_black_holes, record.n_singletons, record.largest_bh) == (0, 0, 0, 0)
    assert (record.max_l_inf, record.n_components, record.global_density) == (0, 0, 0)


def test_sigma_zero_is_one_black_hole():
    (record,) = sweep([0.0], n_tokens=7)
    assert (record.n_black_holes, record.black_hole_population, record.unique_vectors) == (1, 7, 1)
    assert (record.max_l_inf, record.n_active_columns) == (0.0, 0)


def test_one_token_is_one_singleton():
    (record,) = sweep([1e-8], n_tokens=1)
    assert (record.n_black_holes, record.n_singletons, record.largest_bh) == (0, 1, 1)


def test_every_grid_can_be_swept():
    for grid in ("bfloat16", "float16", "float32", "float8_e4m3fn", "float8_e5m2"):
        record = next(sweep([1e-3], n_tokens=50, grid=grid, base="random-unit", dim=200))
        assert record.n_singletons + record.black_hole_population == 50


@pytest.mark.slow
def test_records_are_the_same_for_any_number_of_workers_and_any_engine():
    one = list(sweep(SIGMAS, trials=3, workers=1, **SMALL))
    assert len({r.unique_vectors for r in one}) > 20
    for workers in (2, 4):
        assert list(sweep(SIGMAS, trials=3, workers=workers, **SMALL)) == one
    for engine in ("serial", "threads", "processes"):
        assert list(sweep(SIGMAS, trials=3, engine=engine, workers=2, **SMALL)) == one
    with ThreadPoolExecutor(3) as threads:
        assert list(sweep(SIGMAS, trials=3, engine=threads, **SMALL)) == one
    with ProcessPoolExecutor(2) as processes:
        assert list(sweep(SIGMAS, trials=3, engine=processes, **SMALL)) == one


@pytest.mark.slow
def test_a_redrawn_base_is_another_at_each_sigma_and_the_same_in_each_run():
    settings = {"base": "random-unit", "dim": 64, "n_tokens": 200, "redraw_base": True}
    records = list(sweep([2e-6] * 8, workers=2, **settings))
    assert records == list(sweep([2e-6] * 8, workers=1, **settings))
    assert len({(r.unique_vectors, r.largest_bh, r.max_l_inf) for r in records}) == 8


@pytest.mark.parametrize("sampler", ["sparse", "dense"])
def test_a_base_can_be_an_array(sampler):
    vector = np.linspace(0.01, 0.02, 40)
    records = list(sweep([1e-5], base=vector, n_tokens=50, sampler=sampler))
    assert (records[0].base, records[0].hidden_dim) == ("array", 40)
    with pytest.raises(ValueError, match="only a drawn base"):
        sweep([1e-5], base=vector, redraw_base=True)


def test_a_point_does_not_depend_on_the_points_around_it():
    alone = Sweep([SIGMAS[0]], trials=5, **SMALL)
    among = Sweep(SIGMAS, trials=5, **SMALL)
    assert [asdict(r) for r in run.records(alone)] == [asdict(r) for r in list(run.records(among))[:5]]


@pytest.mark.slow
def test_a_run_folder_is_the_same_bytes_for_any_number_of_workers(tmp_path):
    for folder, workers in (("one", 1), ("again", 1), ("two", 2), ("four", 4)):
        list(sweep(SIGMAS, workers=workers, out=tmp_path / folder, **SMALL))
        report(tmp_path / folder)
        assert files(tmp_path / folder) == files(tmp_path / "one")


@pytest.mark.slow
def test_a_run_folder_holds_what_the_design_names(tmp_path):
    records = list(sweep(SIGMAS, out=tmp_path / "run", **SMALL))
    report(tmp_path / "run")
    names = set(files(tmp_path / "run"))
    assert {"manifest.json", "records.parquet", "records.csv", "report.html", "figures/sweep.png"} < names
    assert not [name for name in names if "partial" in name]
    assert pl.read_parquet(tmp_path / "run" / "records.parquet").rows(named=True) == [asdict(r) for r in records]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run" / "records.csv").read_text())))
    for row, record in zip(rows, records, strict=True):
        # Floats read back the same; what was not measured is empty.
        read = {k: (row[k] or None) if v is None else type(v)(row[k]) for k, v in asdict(record).items()}
        assert read == asdict(record)


def test_the_seeds_analysis_reads_our_csv(tmp_path):
    list(sweep(SIGMAS, out=tmp_path / "run", **SMALL))
    head = (tmp_path / "run" / "records.csv").read_text().splitlines()[0].split(",")
    assert head[:14] == SEED_000_COLUMNS


SWEEPER = """
import contextlib
from darkvocab import cli, report, sweep
import matplotlib.backends.backend_pdf
list(sweep([1e-9], n_tokens=5, workers=1))  # kernels take long to load, and so do modules
COMMAND = "sweep --sigma 1e-9:9e-9:160 --trials 2 --tokens 400 --base qwen3-4b-centred --workers 2 --resume --out"
def attempt(out):
    sys.argv[1:] = [*COMMAND.split(), out]
    sys.stdout = sys.stderr = open(os.devnull, "w")
    with contextlib.suppress(SystemExit):
        cli.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_run_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path):
    # Killed as soon as its folder has one to six entries more than at its start: of the folder itself, 16 parts, and
    # what is written at the end, some half-written.
    moments = random.Random(2)
    with forking(SWEEPER) as attempt:
        assert not attempt(tmp_path / "undisturbed")
        wholes = killed_until_whole(attempt, tmp_path, 20, lambda out: with_more_entries(out, moments.randint(1, 6)))
    for out in wholes:
        assert files(out) == files(tmp_path / "undisturbed")


def test_resume_reads_what_has_landed_and_draws_only_the_rest(tmp_path, monkeypatch):
    settings = Sweep(SIGMAS, **SMALL)
    running = run.records(settings, workers=1, out=tmp_path / "run")
    first = [next(running) for _ in range(Cost(settings).part_size * 4)]
    running.close()
    landed = sorted(p.name for p in (tmp_path / "run" / "records").iterdir())
    assert len(landed) >= 4
    drawn = []
    measure = run._measure
    monkeypatch.setattr(run, "_measure", lambda settings, task: drawn.extend(task.trials) or measure(settings, task))
    records = list(run.records(settings, workers=1, out=tmp_path / "run", resume=True))
    assert records[: len(first)] == first
    assert drawn == list(range(len(landed) * Cost(settings).part_size, len(settings)))


def test_a_frame_is_resumed_without_reading_what_has_landed(tmp_path, monkeypatch):
    settings = Sweep(SIGMAS, **SMALL)
    whole = run.frame(settings, out=tmp_path / "whole")
    running = run.records(settings, workers=1, out=tmp_path / "run")
    for _ in range(Cost(settings).part_size * 4):
        next(running)
    running.close()
    monkeypatch.setattr(RunFolder, "read", None)
    reports = []
    frame = run.frame(settings, out=tmp_path / "run", resume=True, progress=lambda *done: reports.append(done))
    assert frame.equals(whole)
    assert files(tmp_path / "run") == files(tmp_path / "whole")
    assert reports[0] == (Cost(settings).part_size * 4, len(settings))  # what has landed counts at once
    assert reports == sorted(set(reports))
    assert reports[-1] == (len(settings), len(settings))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed"), ({"n_tokens": 301}, "n_tokens"), ({"base": "qwen3-4b"}, "base"), ({"trials": 2}, "trials")],
)
def test_another_run_is_not_resumed_into_the_folder(change, named, tmp_path):
    list(sweep(SIGMAS[:3], out=tmp_path / "run", **SMALL))
    before = files(tmp_path / "run")
    with pytest.raises(ValueError, match=rf"holds another run: .*{named} was"):
        list(sweep(SIGMAS[:3], out=tmp_path / "run", resume=True, **{**SMALL, **change}))
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("text", "spacing", "sigmas"),
    [
        ("1.5e-9:5e-9:1000", "linear", np.linspace(1.5e-9, 5e-9, 1000)),
        ("1e-6:1e-4:10", "log", np.geomspace(1e-6, 1e-4, 10)),
        ("3e-9", "linear", [3e-9]),
        ("0, 1e-9,2e-9", "linear", [0, 1e-9, 2e-9]),
        ("5e-9:1e-9:3", "linear", [5e-9, 3e-9, 1e-9]),
    ],
)
def test_sigmas_are_read_as_the_notebooks_make_them(text, spacing, sigmas):
    assert parse_sigmas(text, spacing) == pytest.approx(list(sigmas), rel=0, abs=0)


@pytest.mark.parametrize(
    "text", ["", "a", "1:2", "1:2:0", "1:2:x", "nan", "inf", "-1e-9", "1e-9:nan:3", "1:2:3:4", "1,,2"]
)
def test_sigmas_that_cannot_be_are_refused(text):
    with pytest.raises(ValueError, match="sigma"):
        parse_sigmas(text)


def test_a_log_spacing_from_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        parse_sigmas("0:1e-9:5", "log")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"trials": 0}, "trials must be >= 1"),
        ({"n_tokens": -1}, "n_tokens must be >= 0"),
        ({"dim": 0}, "dim must be >= 1"),
        ({"sampler": "quick"}, "choose one of sparse, dense, notebook"),
        ({"arithmetic": "float64"}, "choose one of float32, exact"),
        ({"grid": "bf16"}, "choose one of bfloat16"),
        ({"epsilon": -1.0}, "epsilon must be"),
        ({"epsilon": float("nan")}, "epsilon must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**64}, "seed must be"),
        ({"redraw_base": True}, "only a drawn base"),
        ({"dim": 5}, "leave --dim out"),
        ({"distribution": "cauchy"}, "choose one of gaussian, laplace, uniform-ball, uniform-shell"),
        ({"distribution": "laplace", "sampler": "notebook"}, "notebook sampler draws gaussian noise, not laplace"),
        ({"measure": ["geometry", "norms"]}, "unknown measure 'norms'; choose among census, geometry, steps, topology"),
        ({"measure": "topology"}, "unknown measure 't'"),
        ({"over": "all"}, "unknown rows 'all'; choose one of black_holes, unique, tokens"),
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"epsilon": float("inf")}, "epsilon must be"),
        ({"epsilon": 1e-300}, "epsilon must be"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_drawn(bad, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sweep([1e-9], out=tmp_path / "run", **bad)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "uniform-ball", "uniform-shell"])
@pytest.mark.parametrize(
    "sigma",
    [
        *(-1e-9, float("inf"), 1e38),
        float("nan"),
    ],
)
def test_sigmas_that_cannot_be_drawn_are_refused_before_anything_is_drawn(sigma, distribution):
    with pytest.raises(ValueError, match="sigma"):
        Sweep([1e-9, sigma, 2e-9], distribution=distribution)


def test_measures_can_come_from_an_iterator():
    assert Sweep([1e-9], measure=iter(["steps", "topology"])).measure == ("steps", "topology")


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="unknown engine 'slurm'; choose local, serial, threads, processes, dask"):
        next(sweep([1e-9], engine="slurm"))


def test_no_sigma_and_no_workers_are_refused():
    with pytest.raises(ValueError, match="at least one sigma"):
        sweep([])
    with pytest.raises(ValueError, match="workers must be >= 1"):
        next(sweep([1e-9], workers=0))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_trial_of_a_whole_vocabulary_stays_small():
    code = (
        "import darkvocab; r = next(darkvocab.sweep([1e-8], n_tokens=151_936, base='qwen3-4b-centred'));"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'));"
        "print(r.unique_vectors, status['VmHWM'].split()[0])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert int(printed[0]) > 10_000
    assert int(printed[1]) < 500_000  # kB
