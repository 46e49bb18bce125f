"""Facts of the lab that only a GPU can show: a captured step is the step, and runs there end as they should."""

import numpy as np
import polars as pl
import pytest

from darkvocab import Training, train
from darkvocab.runs.folder import read_manifest
from darkvocab.sources.safetensors import read_tensors
from darkvocab.training import stack
from darkvocab.training.choices import Architecture
from darkvocab.training.replicas import Replicas

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
PRECISIONS = ["pure-bf16", "bf16-weights", "float32"]


def small(**settings):
    architecture = Architecture(layers=1, heads=2, width=16, context=12)
    return Training(**{"architecture": architecture, "batch": 4, "steps": 40, "device": "cuda", **settings})


def states(trainings):
    result = stack.Stack(trainings, span=16)
    kinds, metrics = zip(*(result.read(segment) for segment in result.segments(40)), strict=True)
    return np.concatenate([kind[0] for kind in kinds]), np.concatenate(metrics)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_captured_step_is_the_step(precision, monkeypatch):
    trainings = [small(precision=precision, seed=seed) for seed in (1, 2, 3)]
    replayed = states(trainings)
    monkeypatch.setattr(stack, "captured", lambda torch, device, function, state: function)
    called = states(trainings)
    for one, other in zip(replayed, called, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_on_a_gpu_learns_as_one_on_a_cpu(precision, tmp_path):
    losses = []
    for device in ("cuda", "cpu"):
        train(small(precision=precision, device=device), tmp_path / device)
        losses.append(pl.read_parquet(tmp_path / device / "metrics.parquet")["loss"].to_numpy())
        (history,) = read_tensors(tmp_path / device / "embedding_evolution.safetensors").values()
        assert history.shape[0] == 41
    assert np.abs(losses[0] - losses[1]).max() < 2e-2


def test_an_interrupted_training_goes_on(tmp_path):
    def stop(done, _):
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "run", progress=stop)
    train(small(), tmp_path / "run", resume=True)
    assert read_manifest(tmp_path / "run")["status"] == "complete"


def test_replicas_end_together(tmp_path):
    Replicas(training=small(), n=5).run(tmp_path / "run")
    assert pl.read_parquet(tmp_path / "run" / "records.parquet")["status"].to_list() == ["complete"] * 5
