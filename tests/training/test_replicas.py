"""Replicas: each is the training of its seed; their record, their statistics, interrupted and gone on with."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from scipy import stats

import darkvocab
from darkvocab import Training, evolve, report, train
from darkvocab.errors import CorruptFile, RunFolderRefused
from darkvocab.reports.console import console
from darkvocab.reports.training import print_replicas, replicas_json, statistics
from darkvocab.runs.folder import read_manifest
from darkvocab.runs.records import CURVES, read_records
from darkvocab.training.choices import SGD, Architecture
from darkvocab.training.corpus import Corpus
from darkvocab.training.outcome import outcome
from darkvocab.training.recording import recorded
from darkvocab.training.replicas import Replicas

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SMALL = Architecture(layers=1, heads=2, width=16, context=12)
COMMAND = "train --layers 1 --width 16 --context 12 --batch 4 --replicas 3 --seed 7".split()


def small(**settings):
    return Training(**{"architecture": SMALL, "batch": 4, "steps": 20, "seed": 7, **settings})


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Replicas(training=small(), n=3).run(tmp_path_factory.mktemp("replicas") / "run", engine="serial")


def test_a_replica_is_the_training_of_its_seed(run, tmp_path):
    for seed in (7, 8, 9):
        train(small(seed=seed), tmp_path / "one")
        assert content(tmp_path / "one") == content(run / f"seed-{seed}")
        (tmp_path / "one").rename(tmp_path / f"done-{seed}")


def test_replicas_multiply_as_they_are_asked(tmp_path):
    Replicas(training=small(products="float32", steps=2), n=2).run(tmp_path / "run", engine="serial")
    for seed in (7, 8):
        assert read_manifest(tmp_path / "run" / f"seed-{seed}")["products"] == "float32"
    with pytest.raises(RunFolderRefused, match="products"):
        train(small(products="bfloat16", steps=2), tmp_path / "run" / "seed-7", resume=True)


def test_a_record_says_where_its_replica_started_and_ended(run):
    records = read_records(run)
    assert records["replica"].to_list() == [0, 1, 2]
    assert records["seed"].to_list() == [7, 8, 9]
    for record in records.iter_rows(named=True):
        path = run / f"seed-{record['seed']}"
        result, evolution = outcome(path), evolve(path)
        losses = pl.read_parquet(path / "metrics.parquet")["loss"]
        assert (record["status"], record["steps"], record["n_unseen"]) == ("complete", 20, 34)
        assert (record["loss_first"], record["loss_last"]) == (losses[0], losses[-1])
        assert record["loss_last_100"] == pytest.approx(losses.mean())
        assert record["centroid_displacement"] == result.centroid_displacement > 0
        for step, when in ((0, "start_"), (20, "")):
            for tokens, of in (("all", ""), ("unseen", "unseen_")):
                (row,) = evolution.records.filter(step=step, tokens=tokens).to_dicts()
                for name in ("n_unique", "n_black_holes", "black_hole_population", "n_singletons"):
                    assert record[f"{when}{of}{name}"] == row[name]
        (row,) = evolution.records.filter(step=20, tokens="unseen").to_dicts()
        assert record["unseen_max_l_inf"] == row["max_l_inf"]
        assert record["unseen_max_l_inf_steps"] == row["max_l_inf_steps"]
    assert len({record["centroid_displacement"] for record in records.iter_rows(named=True)}) == 3


def test_curves_are_the_census_along_the_way(run):
    curves = pl.read_parquet(run / CURVES)
    assert curves["step"].unique().sort().to_list() == list(range(21))
    for seed in (7, 9):
        result = evolve(run / f"seed-{seed}").records
        for tokens in ("all", "unseen"):
            ours = curves.filter(seed=seed, tokens=tokens)
            theirs = result.filter(tokens=tokens)
            for name in ("step", "n_unique", "n_black_holes", "black_hole_population", "n_singletons"):
                assert ours[name].to_list() == theirs[name].to_list()


def test_means_have_students_interval(run):
    result = statistics(read_records(run))
    values = np.array(read_records(run)["centroid_displacement"])
    row = result["centroid_displacement"]
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (row["n"], row["min"], row["max"]) == (3, values.min(), values.max())
    assert row["mean"] == pytest.approx(values.mean())
    assert row["std"] == pytest.approx(values.std(ddof=1))
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))
    one = statistics(read_records(run)[:1])["n_unique"]
    assert (one["std"], one["low"], one["high"]) == (None, None, None)
    json.dumps(replicas_json(run, read_records(run)), allow_nan=False)


def test_the_page_can_be_made_again(run, capsys):
    written = report(run)
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in report(run)] == before
    page = written[0].read_text()
    assert "3 trainings of 20 steps from a snowball start; 34 of 128 tokens" in page
    assert "3 replicas, seeds 7 to 9" in page.lower()
    assert "corpus sha256" in page
    print_replicas(read_records(run), console())
    printed = capsys.readouterr().out
    assert "every unseen token (34) in a black hole in" in printed
    for name in (*(path.name for path in written[:1]), "figures"):
        item = run / name
        item.unlink() if item.is_file() else [file.unlink() for file in item.iterdir()] and item.rmdir()


@pytest.mark.parametrize("damaged", [b"", b"PAR1 no", None])
def test_damaged_curves_are_named(run, damaged):
    whole = (run / CURVES).read_bytes()
    try:
        (run / CURVES).unlink()
        if damaged is not None:
            (run / CURVES).write_bytes(damaged)
        with pytest.raises(CorruptFile, match=CURVES):
            report(run)
    finally:
        (run / CURVES).write_bytes(whole)


def test_those_that_diverge_are_left_out_of_the_means(tmp_path, capsys):
    wild = small(optimizer=SGD(learning_rate=1e30), clip=None, schedule="constant")
    run = Replicas(training=wild, n=2).run(tmp_path / "run", engine="serial")
    records = read_records(run)
    assert records["status"].to_list() == ["diverged", "diverged"]
    assert (records["steps"] < 20).all()
    assert statistics(records) == {}
    print_replicas(records, console())
    assert "diverged, and left out here: seed 7, 8" in capsys.readouterr().out
    mixed = pl.concat([records[:1], read_records_of_good(tmp_path)])
    assert statistics(mixed)["n_unique"]["n"] == 1
    assert replicas_json(run, mixed)["diverged"] == [7]
    assert report(run)[0].is_file()


def read_records_of_good(tmp_path):
    return read_records(Replicas(training=small(steps=2), n=1).run(tmp_path / "good", engine="serial"))


def test_interrupted_and_killed_it_goes_on_by_processes_to_the_same_bytes(tmp_path, cli):
    command = [*COMMAND, "--steps", "1000"]  # so many that a busy machine does not make them between two looks
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it, and so would its children
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert cli(*command, "--engine", "serial", "--out", tmp_path / "whole").code == 0
    resume = []
    for number in (signal.SIGINT, signal.SIGKILL):
        line = ["nice", "-n", "5", sys.executable, "-c", "from darkvocab.cli import main; main()"]  # we look first
        line += [*command, "--out", tmp_path / "cut"]
        child = subprocess.Popen([*line, *resume], stderr=subprocess.PIPE, start_new_session=True)
        folder = tmp_path / "cut" / ("seed-7" if number == signal.SIGINT else "seed-9")  # the last to begin
        before = recorded(folder / "metrics.safetensors")
        while child.poll() is None and recorded(folder / "metrics.safetensors") < before + 20:
            time.sleep(0.002)
        with child.stderr:
            assert child.poll() is None
            os.kill(child.pid, number)
            assert child.wait(60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        resume = ["--resume"]
        wait_until_free(tmp_path / "cut")
    status = read_manifest(tmp_path / "cut")["status"]
    assert status == "running"  # killed
    assert cli(*command, "--workers", 2, "--out", tmp_path / "cut", "--resume").code == 0
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def wait_until_free(out):
    """Until processes whose parent was killed have seen it."""
    import fcntl

    for folder in (out, *out.glob("seed-*")):
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.close(lock)


def test_what_cannot_be_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="replicas must be >= 1"):
        Replicas(training=small(), n=0)
    with pytest.raises(ValueError, match="seed"):
        Replicas(training=small(seed=2**64 - 1), n=2)
    for threads in ("threads", ThreadPoolExecutor(2)):
        with pytest.raises(ValueError, match="processes, or serial"):
            Replicas(training=small(), n=2).run(tmp_path / "run", engine=threads)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunFolderRefused, match=r"parameters\.replicas was 3, now 2"):
        Replicas(training=small(), n=2).run(run, resume=True)
    with pytest.raises(RunFolderRefused, match="--resume"):
        Replicas(training=small(), n=3).run(run)
    with pytest.raises(FileNotFoundError, match="seed-7, seed-8, seed-9 in it have one"):
        evolve(run)


@pytest.mark.parametrize(
    ("asked", "gets"),
    [
        (("local", None), ("processes", 3, 2)),
        (("local", 1), ("serial", 1, None)),
        (("local", 2), ("processes", 2, 3)),
        (("serial", None), ("serial", None, None)),
        (("processes", None), ("processes", 3, 2)),
        (("processes", 12), ("processes", 12, 1)),
        (("dask://host:1", None), ("dask://host:1", None, 1)),
    ],
)
def test_processes_share_the_cores(asked, gets, monkeypatch):
    monkeypatch.setattr("darkvocab.training.replicas.n_cores", lambda: 6)
    assert Replicas(training=small(), n=3)._spread(*asked) == gets
    on_a_gpu = Replicas(training=small(device="cuda"), n=3)  # by this process
    assert on_a_gpu._spread("local", None) == ("serial", 1, None)


def test_a_text_with_every_token_leaves_none_unseen(tmp_path, capsys):
    corpus = Corpus(name="all", sha256="", n_vocabulary=32, ids=np.arange(320) % 32)
    run = Replicas(training=small(corpus=corpus, steps=2), n=2).run(tmp_path / "run", engine="serial")
    records = read_records(run)
    assert records["unseen_n_unique"].to_list() == [0, 0]
    assert records["unseen_max_l_inf"].null_count() == 2
    print_replicas(records, console())
    assert "no token is unseen" in capsys.readouterr().out
    report(run)


def test_progress_counts_the_steps_of_all(tmp_path):
    reports = []
    Replicas(training=small(), n=2).run(
        tmp_path / "run", engine="serial", progress=lambda done, total: reports.append((done, total))
    )
    assert reports[0] == (0, 40)
    assert reports[-1] == (40, 40)
    assert reports == sorted(reports)


def test_a_run_of_replicas_is_summed_up(run):
    result = darkvocab.summary(run, ["centroid_displacement"])
    assert result["n_landed"] == 3
    assert math.isfinite(result["columns"]["centroid_displacement"]["mean"])


def test_a_command_repeats_the_run(tmp_path, cli):
    out = tmp_path / "run"
    first = cli(*COMMAND, "--steps", "3", "--workers", "1", "--json", "--out", out)
    result = json.loads(first.out)
    assert result["replicas"] == len(result["records"]) == 3
    words = read_manifest(out)["command"].split()
    assert cli(*words[1:], "--engine", "serial", "--out", tmp_path / "again").code == 0
    assert content(tmp_path / "again") == content(out)
