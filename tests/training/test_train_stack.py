"""Trainings on a device, in their folders: recorded meanwhile, interrupted, diverged, too many. It is the CPU here."""

import errno
import threading
from functools import partial

import numpy as np
import polars as pl
import pytest

from darkvocab import Training, train
from darkvocab.errors import CorruptFile, DiskFull, Diverged, RunFolderRefused
from darkvocab.runs.folder import read_manifest
from darkvocab.runs.records import read_records
from darkvocab.sources.safetensors import read_tensors
from darkvocab.training import run as running
from darkvocab.training import stack
from darkvocab.training.choices import SGD, Architecture, GaussianNoise
from darkvocab.training.outcome import outcome
from darkvocab.training.recording import Recording, recorded
from darkvocab.training.replicas import Replicas
from darkvocab.training.run import steps_made
from darkvocab.training.stack import Stack

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SMALL = Architecture(layers=1, heads=2, width=16, context=12)
FIND = [f"darkvocab.training.{name}.torch_device" for name in ("stack", "run", "replicas")]


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """Call the CPU cuda, on one thread, and look at what was made every 8 steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in FIND:
        monkeypatch.setattr(name, lambda *_: torch.device("cpu"))
    monkeypatch.setattr(stack, "SPAN", 8)
    yield
    torch.set_num_threads(before)


def small(**settings):
    return Training(**{"architecture": SMALL, "batch": 4, "steps": 20, "seed": 7, "device": "cuda", **settings})


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def history(path, name="embedding_evolution.safetensors"):
    (tensor,) = read_tensors(path / name).values()
    return tensor.words()


def interrupt_at(step):
    def progress(done, _):
        if done >= step:
            raise KeyboardInterrupt

    return progress


SETTINGS = {
    "plain": {},
    "pure": {"precision": "pure-bf16", "noise": GaussianNoise(sigma=1e-3), "record_every": 5},
    "stochastic": {"rounding": "stochastic", "optimizer": SGD(momentum=0.9), "record": ("gradients",)},
    "moments": {"precision": "float32", "record": ("moments",), "record_every": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_on_a_device_leaves_what_one_on_the_cpu_leaves(name, tmp_path):
    # The same files with the same first state, and numbers that differ by rounding: over 12 seeds losses by up to
    # 0.018 +- 0.006 where both also round at random, each with its own numbers, and by 0.014 +- 0.006 with noise.
    reports = []
    train(small(**SETTINGS[name]), tmp_path / "device", progress=lambda *now: reports.append(now))
    train(small(**SETTINGS[name], device="cpu"), tmp_path / "cpu")
    ours, theirs = content(tmp_path / "device"), content(tmp_path / "cpu")
    assert ours.keys() == theirs.keys()
    assert {file: len(held) for file, held in ours.items() if file.suffix == ".safetensors"} == {
        file: len(held) for file, held in theirs.items() if file.suffix == ".safetensors"
    }
    assert np.array_equal(history(tmp_path / "device")[0], history(tmp_path / "cpu")[0])
    assert read_manifest(tmp_path / "device")["status"] == "complete"
    assert reports == [(0, 20), (8, 20), (16, 20), (20, 20)]
    losses, reference = (pl.read_parquet(tmp_path / where / "metrics.parquet") for where in ("device", "cpu"))
    assert losses["step"].to_list() == reference["step"].to_list()
    assert losses["learning_rate"].to_list() == reference["learning_rate"].to_list()
    assert losses["loss"].to_numpy() == pytest.approx(reference["loss"].to_numpy(), abs=0.06)
    outcome(tmp_path / "device")


@pytest.mark.parametrize("name", SETTINGS)
def test_row_k_is_the_state_after_k_steps(name, tmp_path):
    training = small(**SETTINGS[name])
    train(training, tmp_path / "run")
    rows, one = history(tmp_path / "run"), Stack([training], span=1)
    assert np.array_equal(rows[0], one.rows(0))
    for number, segment in enumerate(one.segments(20), 1):
        segment.wait()
        if number % training.record_every == 0:
            assert np.array_equal(rows[number // training.record_every], one.rows(0))
    assert len(rows) == 20 // training.record_every + 1
    saved = read_tensors(tmp_path / "run" / "model" / "model.safetensors")["transformer.wte.weight"]
    assert np.array_equal(saved.words(), rows[-1])


@pytest.mark.parametrize("name", SETTINGS)
def test_an_interrupted_run_goes_on_to_the_same_bytes(name, tmp_path, monkeypatch):
    training = small(**SETTINGS[name])
    train(training, tmp_path / "whole")
    for seconds in (0, 1000):  # a checkpoint at every look, and none
        monkeypatch.setattr(running, "SECONDS", seconds)
        for stop, span in ((8, 8), (9, 3), (16, 8), (20, 7)):
            monkeypatch.setattr(stack, "SPAN", span)
            out = tmp_path / f"cut-{seconds}"
            with pytest.raises(KeyboardInterrupt):
                train(training, out, resume=stop > 8, progress=interrupt_at(stop))
            assert read_manifest(out)["status"] == "interrupted"
            assert steps_made(out) == (0 if seconds and stop < 20 else stop)
        train(training, out, resume=True)
        assert content(out) == content(tmp_path / "whole")
        train(training, out, resume=True)  # there is nothing left to do
        assert content(out) == content(tmp_path / "whole")


def test_what_it_cannot_go_on_with_is_named(tmp_path, monkeypatch):
    train(small(), tmp_path / "run")
    with pytest.raises(RunFolderRefused, match=r'parameters\.device was "cuda", now "cpu"'):
        train(small(device="cpu"), tmp_path / "run", resume=True)
    monkeypatch.setattr(running, "SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "cut", progress=interrupt_at(8))
    path = tmp_path / "cut" / "checkpoint.safetensors"
    for damaged in (b"", path.read_bytes()[:100]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match="not a checkpoint"):
            train(small(), tmp_path / "cut", resume=True)


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_one_that_diverges_keeps_what_it_recorded(tmp_path):
    training = small(optimizer=SGD(learning_rate=1e30), clip=None, schedule="constant")
    with pytest.raises(Diverged, match=r"diverged at step \d"):
        train(training, tmp_path / "run")
    assert read_manifest(tmp_path / "run")["status"] == "diverged"
    metrics = pl.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert 1 <= len(metrics) < 20
    assert len(history(tmp_path / "run")) == len(metrics) + 1
    assert np.isfinite(metrics["loss"].to_numpy()).all()
    with pytest.raises(Diverged, match="holds a training that diverged"):
        train(training, tmp_path / "run", resume=True)


@pytest.mark.parametrize(("step", "record_every"), [(0, 1), (8, 4), (9, 4), (19, 1)])
def test_where_one_diverges_the_other_goes_on(step, record_every, tmp_path, monkeypatch):
    Replicas(training=small(record_every=record_every), n=2).run(tmp_path / "whole")
    spread = Stack._spread  # the last of an update

    def spoil(self):
        spread(self)
        if int(self._done) == step - 1:
            spoil_place(self)

    def begin(self, *settings, **named):
        init(self, *settings, **named)
        if step == 0:
            spoil_place(self)

    init = Stack.__init__
    monkeypatch.setattr(Stack, "_spread", spoil)
    monkeypatch.setattr(Stack, "__init__", begin)
    run = Replicas(training=small(record_every=record_every), n=2).run(tmp_path / "run")
    assert content(run / "seed-7") == content(tmp_path / "whole" / "seed-7")
    records = read_records(run)
    assert records["status"].to_list() == ["complete", "diverged"]
    assert records["steps"].to_list() == [20, step]
    part, whole = (history(folder / "seed-8") for folder in (run, tmp_path / "whole"))
    assert np.array_equal(part, whole[: step // record_every + 1])
    metrics = pl.read_parquet(run / "seed-8" / "metrics.parquet")
    assert metrics.equals(pl.read_parquet(tmp_path / "whole" / "seed-8" / "metrics.parquet")[:step])


def spoil_place(stack):
    """Make a weight of the second replica infinite, that every batch needs and no recording has."""
    stack._shown[1, stack._layout.places["transformer.wpe.weight"][0].start] = torch.inf


@pytest.mark.parametrize("call", [1, 3, 4, 5])
def test_a_full_disk_leaves_a_run_that_goes_on(call, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SECONDS", 0)
    train(small(), tmp_path / "whole")
    extend, calls = Recording.extend, []

    def full(self, rows):
        calls.append(threading.current_thread() is threading.main_thread())
        if len(calls) >= call:
            raise DiskFull(errno.ENOSPC, f"no space left to write {self.path}")
        extend(self, rows)

    monkeypatch.setattr(Recording, "extend", full)
    with pytest.raises(DiskFull, match="no space left"):
        train(small(), tmp_path / "run")
    assert calls[0]
    assert not any(calls[1:])  # the first state, then what a thread of its own writes
    assert read_manifest(tmp_path / "run")["status"] == "interrupted"
    monkeypatch.setattr(Recording, "extend", extend)
    train(small(), tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_what_could_not_be_written_is_not_written_over(tmp_path, monkeypatch):
    # The next segment is on its way when the first fails.
    extend, calls = Recording.extend, []

    def full(self, rows):
        calls.append(self.path)
        if len(calls) == 2:
            raise DiskFull(errno.ENOSPC, f"no space left to write {self.path}")
        extend(self, rows)

    monkeypatch.setattr(Recording, "extend", full)
    with pytest.raises(DiskFull, match="no space left"):
        train(small(), tmp_path / "run")
    assert len(calls) == 2
    assert recorded(tmp_path / "run" / "embedding_evolution.safetensors") == 1


def hold(monkeypatch, most):
    """A device with room for so many; returns how many it was asked to hold."""
    asked, begin = [], Stack.__init__

    def limited(self, trainings, *rest, **named):
        asked.append(len(trainings))
        if len(trainings) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        begin(self, trainings, *rest, **named)

    monkeypatch.setattr(Stack, "__init__", limited)
    return asked


def test_where_there_is_no_room_for_all_they_are_trained_in_rounds(tmp_path, monkeypatch):
    Replicas(training=small(), n=3).run(tmp_path / "whole")
    asked = hold(monkeypatch, 1)
    Replicas(training=small(), n=3).run(tmp_path / "rounds")
    assert asked == [3, 1, 1, 1]
    assert content(tmp_path / "rounds") == content(tmp_path / "whole")


def test_where_there_is_no_room_for_one_it_is_said(tmp_path, monkeypatch):
    hold(monkeypatch, 0)
    with pytest.raises(MemoryError, match="cuda has no room for this training; take a smaller --batch"):
        train(small(), tmp_path / "run")
    with pytest.raises(MemoryError, match="cuda has no room"):
        Replicas(training=small(), n=3).run(tmp_path / "replicas")


# Replicas -------------------------------------------------------------------------------------------------------------


def test_replicas_on_a_device_are_the_runs_of_their_seeds(tmp_path):
    reports = []
    run = Replicas(training=small(), n=3).run(tmp_path / "run", progress=lambda *now: reports.append(now))
    for seed in (7, 8, 9):
        train(small(seed=seed), tmp_path / f"{seed}")
        assert content(tmp_path / f"{seed}") == content(run / f"seed-{seed}")
    assert read_records(run)["seed"].to_list() == [7, 8, 9]
    assert (reports[0], reports[-1]) == ((0, 60), (60, 60))
    assert (run / "curves.parquet").is_file()


def test_those_that_an_interruption_left_behind_catch_up_first(tmp_path, monkeypatch):
    # Killed while checkpoints were written: two after 8 steps, two after 16, one not begun, one that has ended.
    replicas = Replicas(training=small(), n=6)
    replicas.run(tmp_path / "whole")
    monkeypatch.setattr(running, "SECONDS", 0)
    for seed, stop in ((7, 8), (8, 16), (9, 8), (10, 16), (12, None)):
        training, out = small(seed=seed), tmp_path / "run" / f"seed-{seed}"
        if stop is None:
            train(training, out)
            continue
        with pytest.raises(KeyboardInterrupt):
            train(training, out, progress=interrupt_at(stop))
    steps, result = Stack.segments, []

    def watched(self, until):
        result.append(([each.seed for each in self.trainings], self.made, until))
        return steps(self, until)

    monkeypatch.setattr(Stack, "segments", watched)
    ours = [replicas.folder(tmp_path / "run", number) for number in range(6)]
    aside = [folder.rename(tmp_path / folder.name) if folder.exists() else None for folder in ours]
    (tmp_path / "run").rmdir()
    with monkeypatch.context() as patch:  # a run that had not begun with any

        def stop(*_):
            raise KeyboardInterrupt

        patch.setattr(Replicas, "_train_in_stacks", stop)
        with pytest.raises(KeyboardInterrupt):
            replicas.run(tmp_path / "run")
    for folder, where in zip(ours, aside, strict=True):
        if where:
            where.rename(folder)
    replicas.run(tmp_path / "run", resume=True)
    assert result == [([11], 0, 8), ([7, 9, 11], 8, 16), ([7, 8, 9, 10, 11], 16, 20)]
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_engines_are_for_replicas_on_the_cpu(tmp_path):
    for options in ({"engine": "processes"}, {"engine": "serial"}, {"workers": 2}):
        with pytest.raises(ValueError, match="replicas on cuda are trained together by this process"):
            Replicas(training=small(), n=2).run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_without_the_device_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.undo()
    for run in (partial(train, small()), Replicas(training=small(), n=2).run):
        with pytest.raises(ValueError, match=r"sees no cuda device here.* choose --device cpu"):
            run(tmp_path / "run")
        assert not (tmp_path / "run").exists()
