"""The recorder: the same rows, bit for bit, as a copy by hand after each step, whoever makes the steps."""

import copy
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import darkvocab
from darkvocab.embedding.history import History
from darkvocab.errors import CorruptFile, InvalidInput, RunFolderRefused

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from darkvocab.training import updates  # noqa: E402
from darkvocab.training.recorder import Alarm, Recorder  # noqa: E402 (needs torch)
from darkvocab.training.recording import recorded as count  # noqa: E402
from darkvocab.training.updates import UPDATE_COLUMNS, lost_updates  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:step")  # alarms of trainings that are not about them
VOCABULARY, CONTEXT = 48, 8
SIZES = {"n_positions": CONTEXT, "n_embd": 16, "n_layer": 1, "n_head": 2}
PLAIN = {"bos_token_id": None, "eos_token_id": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def tiny(dtype=torch.float32, tied=True, seed=0):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=VOCABULARY, tie_word_embeddings=tied, **SIZES, **PLAIN)
    model = transformers.GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"
    return model.to(dtype)


def texts(n, seed=1, below=40):
    """Texts of tokens, the last ones of the vocabulary in none."""
    drawn = torch.randint(0, below, (n, CONTEXT), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in drawn]


def batch(examples):
    return {name: torch.stack([example[name] for example in examples]) for name in ("input_ids", "labels")}


def embedding(model):
    return model.get_input_embeddings().weight.detach().clone()


def words(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().reshape(len(tensor), -1)


def recorded(folder, name="embedding_evolution.safetensors", tensor=None):
    history = History.open(folder / name if name else folder, tensor=tensor)
    return [row.view(np.uint8).reshape(len(row), -1) for _, row in history.words(range(history.n_rows))]


def same(rows, copies):
    return len(rows) == len(copies) and all((row == words(copy)).all() for row, copy in zip(rows, copies, strict=True))


def loop(model, optimizer, recorder=None, *, steps=6, accumulate=1, amp=False, first=0, after=lambda k: None):
    """Train by a plain loop; return a copy of the embedding after each step."""
    if recorder:
        recorder.step(model, optimizer)
    examples, copies = texts(2 * steps * accumulate), [embedding(model)]
    for k in range(first * accumulate, steps * accumulate):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = model(**batch(examples[2 * k : 2 * k + 2])).loss
        (loss / accumulate).backward()
        if (k + 1) % accumulate == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            copies.append(embedding(model))
            after((k + 1) // accumulate)
        if recorder:
            recorder.step(model, optimizer)
    return copies


WAYS = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "amp": {"amp": True},
    "untied": {"tied": False},
}


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("way", WAYS)
def test_a_plain_loop_records_what_a_copy_by_hand_holds(way, accumulate, tmp_path):
    of = WAYS[way]
    model = tiny(of.get("dtype", torch.float32), of.get("tied", True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    heads = [model.get_output_embeddings().weight.detach().clone()]
    with Recorder(tmp_path / "r") as recorder:
        note = lambda k: heads.append(model.get_output_embeddings().weight.detach().clone())  # noqa: E731
        copies = loop(model, optimizer, recorder, accumulate=accumulate, amp=of.get("amp", False), after=note)
    assert same(recorded(tmp_path / "r"), copies)
    outputs = tmp_path / "r" / "output_evolution.safetensors"
    assert outputs.exists() == (way == "untied")
    if outputs.exists():
        assert same(recorded(tmp_path / "r", outputs.name), heads)
    assert darkvocab.evolve(tmp_path / "r").summary["last_step"] == 6


def trainer(model, folder, *callbacks, steps=6, accumulate=1, **of):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, gradient_accumulation_steps=accumulate,
        learning_rate=1e-2, report_to=[], disable_tqdm=True, use_cpu=True, seed=3, save_strategy="no", logging_steps=99,
        **of,
    )  # fmt: skip
    return transformers.Trainer(model, arguments, train_dataset=texts(64), callbacks=list(callbacks))


class ByHand(transformers.TrainerCallback):
    def __init__(self):
        self.copies = []

    def on_train_begin(self, args, state, control, *, model, **of):
        self.copies.append(embedding(model))

    on_step_end = on_train_begin


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("way", ["float32", "bfloat16", "amp"])
def test_transformers_trainer_records_what_a_copy_by_hand_holds(way, accumulate, tmp_path):
    hand = ByHand()
    model = tiny(WAYS[way].get("dtype", torch.float32))
    recorder = Recorder(tmp_path / "r", every=2, gradients=True, moments=True)
    trainer(model, tmp_path / "t", recorder.callback(), hand, accumulate=accumulate, bf16=way == "amp").train()
    assert same(recorded(tmp_path / "r"), hand.copies[::2])
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert (manifest["status"], manifest["parameters"]["record_every"]) == ("complete", 2)
    assert len(recorded(tmp_path / "r", "embedding_exp_avg.safetensors", "embedding_exp_avg")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_lightning_records_what_a_copy_by_hand_holds(precision, accumulate, tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.copies = tiny(), []

        def training_step(self, examples, _):
            return self.model(**examples).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

        def on_train_start(self):
            self.copies.append(embedding(self.model))

        def on_train_batch_end(self, *_):
            if self.trainer.global_step == len(self.copies):
                self.copies.append(embedding(self.model))

    module = Module()
    loader = torch.utils.data.DataLoader(texts(64), batch_size=2, collate_fn=batch)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    with warnings.catch_warnings(action="ignore"):
        lightning.Trainer(
            accelerator="cpu", max_steps=5, accumulate_grad_batches=accumulate, precision=precision, **quiet,
            callbacks=[Recorder(tmp_path / "r").lightning()], default_root_dir=tmp_path,
        ).fit(module, loader)  # fmt: skip
    assert len(module.copies) == 6
    assert same(recorded(tmp_path / "r"), module.copies)


def test_a_training_that_goes_on_from_its_checkpoint_leaves_the_bytes_of_one_that_was_not_stopped(tmp_path):
    def begin(seed=0):
        model = tiny(seed=seed)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    settings = {"every": 2, "gradients": True, "tokens": range(3, 40)}
    with Recorder(tmp_path / "whole", **settings) as recorder:
        loop(*begin(), recorder, steps=9)
    model, optimizer = begin()
    saved = {}

    def stop(k):
        if k == 4:
            recorder.flush()
            saved.update(copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))
        if k == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path / "cut", **settings) as recorder:
        loop(model, optimizer, recorder, steps=9, after=stop)
    model, optimizer = begin(seed=5)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    with Recorder(tmp_path / "cut", resume=True, **settings) as recorder:
        loop(model, optimizer, recorder, steps=9, first=4)
    whole, cut = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert [name for name in whole if whole[name] != cut[name]] == []


def test_a_step_is_lost_where_it_is_under_half_a_spacing(tmp_path):
    # One rounding a step: SGD without decay. The law is that of round-to-nearest on bfloat16's grid.
    model = tiny(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0**-7)  # which makes the step exact
    with Recorder(tmp_path / "r", gradients=True) as recorder:
        copies = loop(model, optimizer, recorder, steps=3)
    history = History.open(tmp_path / "r" / "embedding_gradient.safetensors", tensor="embedding_gradient")
    gradients = [(row.astype(np.uint32) << 16).view(np.float32) for _, row in history.words(range(3))]
    measured = [row.view(np.float32) for row in recorded(tmp_path / "r", "updates.safetensors", "updates")]
    for before, gradient, update in zip(copies, gradients, measured, strict=False):
        w = before.double().numpy()
        exact = w - 2.0**-7 * gradient.astype(np.float64)
        kept = torch.from_numpy(exact).bfloat16() == before
        asked = gradient != 0
        columns = dict(zip(UPDATE_COLUMNS, update.T, strict=True))
        assert (columns["asked"] == asked.sum(1)).all()
        assert (columns["lost"] == (asked & kept.numpy()).sum(1)).all()
        assert columns["lost"].sum() > 0
    by_step, by_token = lost_updates(tmp_path / "r")
    assert by_step["lost"].to_list() == [update[:, 1].sum() for update in measured]
    assert by_token["token"].to_list() == list(range(VOCABULARY))


@pytest.mark.slow  # compiles
@pytest.mark.parametrize(
    ("weights", "state"),
    [(dtype, dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)]
    + [(torch.bfloat16, torch.float32)],
)
def test_updates_are_counted_as_by_torch_alone(weights, state):
    # Zeros and subnormal numbers of both signs, infinities, NaN; rows that keep all words, or have no momentum.
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, torch.finfo(torch.half).tiny / 4])
    before, after, driving = special[torch.randint(8, (3, 61, 37), generator=torch.Generator().manual_seed(5))]
    before, after, driving = before.to(weights), after.to(weights), driving.to(state)
    after[::3] = before[::3]
    driving[::4] = special[:2].to(state).repeat(19)[:37]
    norms = special[torch.arange(61) % 8]
    some = torch.arange(61) % 5 < 2
    if weights is torch.float16:
        before, after, driving = (torch.cat((each, each), 1)[:, :37] for each in (before, after, driving))  # apart
    for seen, decays in itertools.product([None, some], [False, True]):
        counted = updates.compare(before, after, driving, norms, seen, decays=decays)
        plain = updates.compare_by_torch(before, after, driving, norms, seen, decays=decays)
        assert counted.dtype == plain.dtype == torch.float32
        assert torch.equal(counted.view(torch.int32), plain.view(torch.int32))
        assert len(counted[:, :4].unique(dim=0)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "momentum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_updates_of_every_optimizer_are_counted_as_by_torch_alone(monkeypatch, optimizer, dtype):
    model = tiny(dtype, tied=False)
    kind, options = ("SGD", {"momentum": 0.9}) if optimizer == "momentum" else (optimizer, {})
    steps = getattr(torch.optim, kind)(model.parameters(), lr=1e-3, weight_decay=0.1, **options)
    weight = model.get_input_embeddings().weight
    for _ in range(3):
        model(**batch(texts(2))).loss.backward()
        before = embedding(model)
        steps.step()
        measured = []
        for compare in (updates.compare, updates.compare_by_torch):
            monkeypatch.setattr(updates, "compare", compare)
            measured.append(updates.measure_update(steps, weight, None, before, embedding(model), None))
        assert torch.equal(*(each.view(torch.int32) for each in measured))
        monkeypatch.undo()


def test_rows_outside_of_the_batch_move_by_the_output_gradient_only_where_it_is_tied(tmp_path):
    for tied in (True, False):
        model = tiny(tied=tied)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        with Recorder(tmp_path / str(tied)) as recorder:
            loop(model, optimizer, recorder, steps=5)
        by_step, by_token = lost_updates(tmp_path / str(tied))
        never = by_token.filter(by_token["token"] >= 40)
        assert never["n_in_batch"].sum() == 0
        assert never["n_by_gradient"].to_list() == [5 * tied] * 8
        assert never["n_moved"].to_list() == [5 * tied] * 8
        assert (by_step["n_by_momentum"][1:] > 0).all() is not tied


def test_decay_alone_moves_rows_that_nothing_else_does(tmp_path):
    model = tiny(tied=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with Recorder(tmp_path / "r", tokens=[41, 45]) as recorder:
        copies = loop(model, optimizer, recorder, steps=4)
    assert same(recorded(tmp_path / "r"), [copy[[41, 45]] for copy in copies])
    _, by_token = lost_updates(tmp_path / "r")
    assert by_token["token"].to_list() == [41, 45]
    assert by_token["n_by_decay"].to_list() == [4, 4]
    assert darkvocab.evolve(tmp_path / "r").tokens["token"].to_list() == [41, 45]


def test_alarms_are_said_once_and_kept(tmp_path):
    model = tiny(tied=False)
    with torch.no_grad():
        model.transformer.wte.weight[5] = model.transformer.wte.weight[6]  # in the batch, and equal at the start
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def spoil(k):
        with torch.no_grad():
            if k == 2:
                model.transformer.wte.weight[44] = model.transformer.wte.weight[43]
            if k == 3:
                model.transformer.wte.weight[45] = 0
                model.transformer.wte.weight[46, 0] = torch.nan

    with pytest.warns(RuntimeWarning) as said, Recorder(tmp_path / "r") as recorder:
        loop(model, optimizer, recorder, steps=5, after=spoil)
    alarms = [json.loads(line) for line in (tmp_path / "r" / "alarms.jsonl").read_text().splitlines()]
    kinds = {alarm["kind"]: alarm for alarm in alarms}
    assert {5, 6} <= {token for alarm in alarms if alarm["kind"] == "untrained" for token in alarm["tokens"]}
    assert kinds["short"] == {"step": 4, "kind": "short", "tokens": [45]}
    assert 46 in kinds["broken"]["tokens"]
    assert len(said) == len(alarms)


def test_an_alarm_stops_the_training_where_that_is_asked(tmp_path):
    model = tiny(tied=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recorder = Recorder(tmp_path / "r", on_alarm="stop")

    def spoil(k):
        with torch.no_grad():
            model.transformer.wte.weight[45] *= 1e-9 if k == 2 else 1

    with pytest.raises(Alarm, match=r"step 3: rows that have become near zero: 45"), recorder:
        loop(model, optimizer, recorder, after=spoil)
    assert len(recorded(tmp_path / "r")) == 4


def test_a_vocabulary_that_grows_begins_a_segment(tmp_path, capsys):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with Recorder(tmp_path / "r", every=2) as recorder:
        first = loop(model, optimizer, recorder, steps=4)
        model.resize_token_embeddings(VOCABULARY + 3)
        second = loop(model, torch.optim.AdamW(model.parameters(), lr=1e-2), recorder, steps=4)
    assert "another embedding" in capsys.readouterr().err
    assert same(recorded(tmp_path / "r"), first[::2])
    segment = tmp_path / "r" / "segment-000000004"
    assert same(recorded(segment), second[::2])
    assert History.open(segment).step(1) == 6


def test_a_full_disk_ends_the_recording_and_not_the_training(tmp_path, monkeypatch):
    from darkvocab.errors import DiskFull
    from darkvocab.training.recording import Recording

    extend = Recording.extend

    def fails(self, rows):
        if self.n == 3:
            raise DiskFull(28, "no space left")
        extend(self, rows)

    monkeypatch.setattr(Recording, "extend", fails)
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with pytest.warns(RuntimeWarning, match="the disk is full"), Recorder(tmp_path / "r") as recorder:
        copies = loop(model, optimizer, recorder)
    assert len(copies) == 7
    assert same(recorded(tmp_path / "r"), copies[:3])


def refused(model, optimizer, folder, error=InvalidInput, **settings):
    with pytest.raises(error) as raised:
        Recorder(folder, **settings).step(model, optimizer)
    return str(raised.value)


def test_what_cannot_be_recorded_is_refused_in_a_sentence(tmp_path):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    folder = tmp_path / "r"
    assert "there is no token 99: the embedding has 48 rows" in refused(model, optimizer, folder, tokens=[1, 99])
    assert "there is no token -1" in refused(model, optimizer, folder, tokens=[-1])
    assert "give embedding=, the name of one" in refused(model, optimizer, folder, embedding="wte")
    assert "list is none" in refused(model, [], folder)
    other = torch.optim.AdamW(tiny().parameters())
    assert "does not change the embedding" in refused(model, other, folder)
    with torch.device("meta"):
        ghost = tiny()
    assert "meta device" in refused(ghost, torch.optim.AdamW(ghost.parameters()), folder)
    bias = refused(model, optimizer, folder, embedding="transformer.ln_f.bias")
    assert "the embedding has the shape [16], not [tokens, dim]" in bias
    for settings, says in (({"every": 0}, "every must be >= 1"), ({"on_alarm": "cry"}, "unknown on_alarm 'cry'")):
        with pytest.raises(InvalidInput, match=says):
            Recorder(folder, **settings)
    assert not folder.exists()


@pytest.mark.slow
def test_a_report_of_a_recording_is_that_of_its_evolution(tmp_path, cli):
    model = tiny()
    with Recorder(tmp_path / "run") as recorder:
        loop(model, torch.optim.AdamW(model.parameters()), recorder, steps=3)
    refused = cli("report", tmp_path / "run")
    assert (refused.code, "which evolve takes" in refused.err) == (3, True)
    assert cli("evolve", tmp_path / "run").code == 0
    assert cli("report", tmp_path / "run").code == 0
    assert "GPT2LMHeadModel" in (tmp_path / "run" / "report.html").read_text()


def test_two_recorders_do_not_share_a_folder_and_a_step_before_the_recording_is_refused(tmp_path):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with Recorder(tmp_path / "r") as recorder:
        loop(model, optimizer, recorder)
        assert "in use by another process" in refused(model, optimizer, tmp_path / "r", RunFolderRefused)
    fresh = tiny()
    again = torch.optim.AdamW(fresh.parameters(), lr=1e-2)
    assert "--resume" in refused(fresh, again, tmp_path / "r", RunFolderRefused)
    with pytest.raises(CorruptFile, match=r"holds 7 rows, fewer than the 10 up to step 9"):
        Recorder(tmp_path / "r", resume=True).step(fresh, again, done=9)


# Several processes, compilation, kills -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_leave_one_recording(way, tmp_path):
    script = Path(__file__).parents[1] / "importable" / "recorded_by_two.py"
    words_of = [[sys.executable, str(script), way, str(rank), str(tmp_path)] for rank in (0, 1)]
    processes = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for line in words_of]
    ends = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends
    copies = torch.load(tmp_path / "copies.pt")
    assert same(recorded(tmp_path / "r"), [copy[[0, 3, 25, 26, 50]] if way == "fsdp" else copy for copy in copies])


@pytest.mark.slow
@pytest.mark.parametrize("door", ["plain_loop", "transformers_trainer", "lightning"])
def test_the_example_of_each_door_runs_and_leaves_a_recording(door, tmp_path):
    if door == "lightning":
        pytest.importorskip("lightning.pytorch")
    script = Path(__file__).parents[2] / "examples" / f"record_{door}.py"
    ran = subprocess.run([sys.executable, script, tmp_path / "r"], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "shape: (4, " in ran.stdout
    assert darkvocab.evolve(tmp_path / "r").summary["n_recorded"] in (4, 5)


@pytest.mark.slow
def test_a_compiled_model_is_recorded_as_it_is(tmp_path):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    compiled = torch.compile(model, backend="aot_eager")
    with Recorder(tmp_path / "r") as recorder:
        copies = loop(compiled, optimizer, recorder, steps=3)
    assert same(recorded(tmp_path / "r"), copies)


LOOP = """
import os, sys
import torch
sys.path.insert(0, sys.argv[1])
from test_recorder import Recorder, loop, tiny
torch.set_num_threads(1)
for line in sys.stdin:
    if not (child := os.fork()):
        out, saved = line.strip(), line.strip() + ".pt"
        model, first = tiny(), 0
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        if os.path.exists(saved):
            held = torch.load(saved)
            first = held["first"]
            model.load_state_dict(held["model"])
            optimizer.load_state_dict(held["optimizer"])
        recorder = Recorder(out, every=2, moments=True, resume=os.path.exists(out), on_alarm="record")

        def save(k):
            if k % 7 == 0:
                recorder.flush()
                held = {"first": k, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(held, saved + ".new")
                os.replace(saved + ".new", saved)

        with recorder:
            loop(model, optimizer, recorder, steps=80, first=first, after=save)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_killed_at_ten_moments_and_resumed_it_leaves_the_same_bytes(tmp_path):
    # By a process that has imported what takes long, and forks for every attempt; killed after a random time.
    rng, kills = np.random.default_rng(5), 0
    command = [sys.executable, "-c", LOOP, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as trainer:

        def attempt(out, kill_at=None):
            print(out, file=trainer.stdin, flush=True)
            child = int(trainer.stdout.readline())
            end = time.monotonic() + 300
            while kill_at is not None and count(out / "embedding_evolution.safetensors") < kill_at:
                assert time.monotonic() < end
                time.sleep(0.002)
            if kill_at is not None:
                os.kill(child, signal.SIGKILL)
            return int(trainer.stdout.readline())

        assert attempt(tmp_path / "whole") == 0
        while kills < 10:
            further = count(tmp_path / "cut" / "embedding_evolution.safetensors") + int(rng.integers(1, 6))
            kills += attempt(tmp_path / "cut", further) == signal.SIGKILL
        assert attempt(tmp_path / "cut") == 0
    whole, cut = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert [name for name in whole if whole[name] != cut[name]] == []
