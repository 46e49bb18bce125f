"""A device never changes a record: torch's operations against the compiled kernels, on a CPU, and on a GPU if any."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from darkvocab import scan
from darkvocab.errors import MissingExtra
from darkvocab.gpu import device as batching
from darkvocab.gpu.device import Device, open_device
from darkvocab.numerics import Touching, grouping
from darkvocab.snowballs import on_device as batches
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import Questions, Sweep, Trials

torch = pytest.importorskip("torch")

from plain_drawing import PlainDevice  # noqa: E402

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    """torch's operations on tensors of a CPU, which are the twins of those on a GPU; and the GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for tensors as small as these threads wait for each other
    yield open_device("cuda") if request.param == "cuda" else PlainDevice()
    torch.set_num_threads(threads)


SIGMAS = {"bfloat16": 1e-2, "float16": 1e-4, "float32": 1e-7, "float8_e4m3fn": 0.02, "float8_e5m2": 0.05}
ALL = ("geometry", "steps", "topology")
SMALL = {"n_tokens": 100, "dim": 60, "base": "random"}
RUNS = {
    "12.2a": Sweep(np.linspace(0, 5e-9, 6), n_tokens=250, epsilon=3e-5),
    "over tokens": Sweep([0, 3e-9], n_tokens=200, over="tokens", measure=ALL),
    "over unique rows": Sweep([2e-9, 5e-9], n_tokens=120, over="unique", measure=ALL, touching=Touching(3e-6)),
    "over black holes, the graph of unique rows": Trials(3e-9, trials=3, n_tokens=120, over="black_holes", measure=ALL),
    "12.4b": Trials(3.281911e-3, trials=3, epsilon=5.9604645e-5, **SMALL),
    "some columns by deviates": Trials(2e-3, trials=2, n_tokens=60, dim=300, base="random", measure=ALL),
    "13.5a": Questions(np.geomspace(1e-6, 1e-4, 4), n_tokens=120, dim=90),
    "touching steps": Trials(1e-3, trials=3, measure=("topology",), touching=Touching(40, "steps"), **SMALL),
    "one column": Trials([1e-3, 1e-2], trials=3, n_tokens=90, dim=1, base="random", measure=ALL),
    "two tokens": Trials(1e-2, trials=5, n_tokens=2, dim=3, base="random", measure=ALL),
    "no noise": Trials(0, trials=2, measure=ALL, **SMALL),
    "no tokens": Trials(1e-3, trials=2, n_tokens=0, dim=4, base="random", measure=ALL),
    "notebook": Trials([1e-3, 1e-2], trials=3, sampler="notebook", **SMALL),
    "a ball": Trials(1e-3, trials=3, distribution="uniform-ball", measure=ALL, **SMALL),
    "a base for each sigma": Sweep([1e-3, 1e-2], trials=2, redraw_base=True, measure=ALL, **SMALL),
    "a seed of 64 bits": Trials(1e-3, trials=2, seed=2**64 - 1, **SMALL),
}
RUNS |= {
    f"{sampler}, {distribution}, {arithmetic}, {grid}": Trials(
        sigma,
        trials=2,
        grid=grid,
        distribution=distribution,
        arithmetic=arithmetic,
        sampler=sampler,
        measure=ALL,
        **{**SMALL, "dim": 20},
    )
    for sampler, distribution, arithmetic in [
        ("sparse", "gaussian", "exact"),
        ("sparse", "laplace", "float32"),
        ("dense", "gaussian", "float32"),
        ("dense", "laplace", "exact"),
    ]
    for grid, sigma in [
        ("bfloat16", 1e-2),
        ("float16", 1e-4),
        ("float32", 1e-7),
        ("float8_e4m3fn", 0.02),
        ("float8_e5m2", 0.05),
    ]
}


def rows(records):
    return [dataclasses.asdict(record) for record in records]


@pytest.mark.parametrize("name", RUNS)
def test_a_device_never_changes_a_record(device, name):
    assert rows(run.records(RUNS[name], device=device)) == rows(run.records(RUNS[name], engine="serial"))


@pytest.fixture(scope="module")
def interpreted():
    """Runs by Triton's kernels, without a GPU, in a process of their own: whether their records are a core's."""
    pytest.importorskip("triton")
    line = [sys.executable, Path(__file__).parent.parent / "importable" / "interpreted_records.py"]
    result = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.xdist_group("interpreted records")
@pytest.mark.parametrize("name", ["12.2a", "12.4b, by deviates", "13.5a", "a notebook's noise", "float32's grid"])
def test_kernels_in_tritons_interpreter_never_change_a_record(interpreted, name):
    assert interpreted[name]


@pytest.mark.parametrize("name", ["12.2a", "12.4b", "notebook", "a ball", "dense, laplace, exact, float16"])
def test_beside_mps_which_has_no_float64_cores_draw_and_measure(monkeypatch, name):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(batches, "measured_clouds", None)
    assert open_device("mps") is None
    assert rows(run.records(RUNS[name], device="mps")) == rows(run.records(RUNS[name], engine="serial"))


def test_beside_mps_steps_of_a_wide_grid_are_measured(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for measure in ("steps", "geometry"):
        plain = Trials(1e-7, trials=2, grid="float32", measure=(measure,), **SMALL)
        assert rows(run.records(plain, device="mps")) == rows(run.records(plain, engine="serial"))


@pytest.mark.parametrize("most", [1, 3, 5])
def test_records_do_not_depend_on_the_size_of_batches(device, monkeypatch, most):
    settings = Trials([1e-3, 1e-2], trials=4, measure=ALL, **SMALL)
    whole = rows(run.records(settings, device=device))
    monkeypatch.setattr(batches, "MOST_TRIALS", most)
    assert rows(run.records(settings, device=device)) == whole
    monkeypatch.setattr(batches, "SHARE", 0.0)  # no room: one at a time
    assert rows(run.records(settings, device=device)) == whole


def full_beyond(monkeypatch, most):
    """Let a batch of more trials than this find the device full; the sizes that were tried."""
    tried, measure = [], batching.Batch.measure

    def measured(self, asked):
        tried.append(len(self.codes))
        if len(self.codes) > most:
            raise torch.OutOfMemoryError("out of memory")
        return measure(self, asked)

    monkeypatch.setattr(batching.Batch, "measure", measured)
    return tried


def test_a_full_device_halves_the_batch_and_goes_on(device, monkeypatch):
    settings = Trials([1e-3, 1e-2], trials=6, measure=ALL, **SMALL)
    plain = rows(run.records(settings, engine="serial"))
    tried = full_beyond(monkeypatch, 3)
    assert rows(run.records(settings, device=device)) == plain
    assert tried[:3] == [6, 3, 3]  # a sigma at a time
    assert sum(tried[1:]) == 12


def test_no_room_for_one_snowball_is_said(device, monkeypatch):
    full_beyond(monkeypatch, 0)
    with pytest.raises(MemoryError, match="a snowball of 100 tokens"):
        list(run.records(Trials(1e-3, trials=2, **SMALL), device=device))


def test_other_errors_of_torch_are_not_taken_for_a_full_device(device, monkeypatch):
    monkeypatch.setattr(batching.Batch, "measure", lambda *_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        list(run.records(Trials(1e-3, trials=2, **SMALL), device=device))


def test_rows_whose_hashes_collide_are_grouped_again(device, monkeypatch):
    settings = Trials(1e-3, trials=3, measure=ALL, **SMALL)
    plain, keys, asked = rows(run.records(settings, engine="serial")), grouping.row_keys, []

    class Keys:
        """Keys that send every row to one hash, until others are asked for."""

        def __call__(self, dim):
            asked.append(dim)
            return np.zeros(dim + 1, np.uint64) if len(asked) == 1 else keys(dim)

        def cache_clear(self):
            asked.append("other keys")

    monkeypatch.setattr(batching, "row_keys", Keys())
    assert rows(run.records(settings, device=device)) == plain
    assert asked == [64, "other keys", 64]  # padded


def test_a_run_begun_on_cores_goes_on_on_a_device_to_the_same_bytes(device, tmp_path):
    settings = Trials([1e-3, 1e-2], trials=20, measure=ALL, **SMALL)

    class Enough(Exception):
        pass

    def stop(done, total):
        if done >= total // 2:
            raise Enough

    for options, other in (({"device": device}, {}), ({}, {"device": device})):
        mixed, plain = tmp_path / f"mixed{len(options)}", tmp_path / f"plain{len(options)}"
        with pytest.raises(Enough):
            run.land(settings, mixed, progress=stop, **options)
        assert json.loads((mixed / "manifest.json").read_text())["status"] == "interrupted"
        run.land(settings, mixed, resume=True, **other)
        run.land(settings, plain)
        for name in ("records.parquet", "records.csv", "elements.parquet"):
            assert (mixed / name).read_bytes() == (plain / name).read_bytes()


def test_noise_that_overflows_the_grid_is_refused(device):
    settings = Trials(1.0, trials=2, n_tokens=2, dim=3, base=np.full(3, 3.0), grid="float8_e4m3fn", sampler="notebook")
    object.__setattr__(settings, "sigmas", [400.0])  # beyond what the settings let through
    with pytest.raises(ValueError, match="overflows float8_e4m3fn"):
        list(run.records(settings, device=device))


def test_a_scan_on_a_device_is_the_scan(device, tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(5)
    rows = rng.standard_normal((400, 32)).astype(np.float32)
    rows[rng.integers(0, 400, 150)] = rows[rng.integers(0, 30, 150)]
    rows[7:9] = 0.0
    rows[8, 3] = -0.0
    save_file({"model.embed_tokens.weight": rows}, tmp_path / "model.safetensors")
    for options in ({}, {"bitwise": True}, {"grid": "float8_e5m2"}):
        ours, plain = (scan(tmp_path / "model.safetensors", device=where, **options) for where in (device, "cpu"))
        assert ours.to_json() == plain.to_json()
        assert ours.to_json()["n_black_holes"] > 10
        assert ours.tokens.equals(plain.tokens)


def test_a_scan_compares_on_cores_what_a_device_has_no_room_for(device, monkeypatch, tmp_path):
    from safetensors.numpy import save_file

    rows = np.random.default_rng(6).standard_normal((60, 16)).astype(np.float32)
    rows[30:] = rows[:30]
    save_file({"model.embed_tokens.weight": rows}, tmp_path / "model.safetensors")
    plain = scan(tmp_path / "model.safetensors")
    tried = full_beyond(monkeypatch, 0)
    assert scan(tmp_path / "model.safetensors", device=device).to_json() == plain.to_json()
    assert tried == [1]
    monkeypatch.setattr(Device, "free", lambda _: 0)
    assert scan(tmp_path / "model.safetensors", device=device).to_json() == plain.to_json()
    assert tried == [1]  # not even begun


# What is not there ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CUDA", "", "cpu:0"])
def test_a_device_that_nobody_knows_is_named(name):
    with pytest.raises(ValueError, match="choose one of cpu, cuda, cuda:N, mps"):
        open_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_cuda_is_said_with_what_torch_there_is(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ValueError, match="built without CUDA; install a CUDA build"):
        open_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ValueError, match=r"no driver or no card, though .* was built for CUDA 13\.0"):
        open_device("cuda:1")


def test_a_card_of_another_number_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda n: "A Card")
    with pytest.raises(ValueError, match=r"no cuda:3 here; choose one of cuda:0 \(A Card\)"):
        open_device("cuda:3")


def test_what_must_be_installed_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("darkvocab.gpu.device.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install triton"):
        open_device("cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'darkvocab\[gpu\]'"):
        open_device("cuda")


def test_cpu_needs_no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert open_device("cpu") is None


@pytest.mark.parametrize("running", [{"workers": 2}, {"engine": "serial"}])
def test_a_device_takes_no_workers(device, running):
    with pytest.raises(ValueError, match="leave out --engine and --workers"):
        list(run.records(Trials(1e-3, trials=2, **SMALL), device=device, **running))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("command", ["sweep --sigma 1e-9", "trials --sigma 1e-9", "questions", "scan demo"])
def test_the_command_says_that_there_is_none(command, tmp_path):
    line = [BIN / "darkvocab", *command.split(), "--device", "cuda"]
    result = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("darkvocab: torch sees no cuda device here")
    assert not list(tmp_path.iterdir())
