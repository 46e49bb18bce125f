"""The manifest of a training: every setting as data, and a command where one repeats it."""

import dataclasses
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import darkvocab
from darkvocab import Training
from darkvocab.cli import app
from darkvocab.training.choices import SGD, AdamW, Architecture, GaussianNoise, NormalStart, PointStart, SnowballStart
from darkvocab.training.corpus import Corpus, load_corpus
from darkvocab.training.replicas import Replicas
from darkvocab.training.settings import multiplies_bfloat16

SMALL = Architecture(layers=1, heads=2, width=16, context=12)
REPEATED = {
    "defaults": {},
    "architecture": {"architecture": Architecture(layers=3, heads=4, width=32, context=7, norm="rmsnorm", tied=False)},
    "normal start": {"start": NormalStart()},
    "point": {"start": PointStart(unit=False)},
    "snowball": {"start": SnowballStart(sigma=3e-7, drawn="grid")},
    "noise": {"noise": GaussianNoise(sigma=1e-3, rows="unseen")},
    "precision": {"precision": "pure-bf16", "schedule": "constant", "label_shift": 2, "record_every": 5},
    "products": {"products": "float32", "precision": "mixed"},
    "rounding": {"rounding": "stochastic", "record": ("moments", "gradients")},
    "no clipping": {"clip": None},
    "clipping": {"clip": 0.123456789},
    "adamw": {"optimizer": AdamW(learning_rate=1e-300, weight_decay=0.0)},
    "sgd": {"optimizer": SGD(learning_rate=0.1), "seed": 2**64 - 1, "batch": 3, "device": "cuda:1"},
}


def parsed(command, monkeypatch, tmp_path):
    """Return the settings that a command line gives `darkvocab.train`, or a run of replicas."""
    given = []

    def stop(settings, *_, **__):
        given.append(settings)
        raise darkvocab.errors.InvalidInput("seen")

    monkeypatch.setattr(darkvocab, "train", stop)
    monkeypatch.setattr(Replicas, "run", stop)
    CliRunner().invoke(app, [*shlex.split(command)[1:], "--out", str(tmp_path / "run")])
    return given[0]


@pytest.mark.parametrize("name", REPEATED)
def test_the_command_has_every_setting(name, monkeypatch, tmp_path):
    training = Training(**{"steps": 20, **REPEATED[name]})
    again = parsed(training.manifest()["command"], monkeypatch, tmp_path)
    assert again.manifest() == training.manifest()
    for field in dataclasses.fields(Training):
        if field.name != "corpus":
            assert getattr(again, field.name) == getattr(training, field.name)


def test_the_command_of_replicas_has_how_many(monkeypatch, tmp_path):
    replicas = Replicas(training=Training(architecture=SMALL, steps=20, clip=None), n=3)
    again = parsed(replicas.manifest()["command"], monkeypatch, tmp_path)
    assert again.manifest() == replicas.manifest()


def word_level(path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"the": 0, "cat": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


def test_the_command_names_the_files_that_were_read_wherever_they_lie(monkeypatch, tmp_path):
    folder = tmp_path / "a folder's name"
    folder.mkdir()
    (folder / "text.txt").write_text("the cat " * 100)
    tokenizer = word_level(folder / "tokenizer.json")
    for options in ({}, {"vocabulary": 256}, {"tokenizer": tokenizer}, {"tokenizer": tokenizer, "vocabulary": 9}):
        training = Training(corpus=load_corpus(folder / "text.txt", **options), architecture=SMALL, steps=2)
        again = parsed(training.manifest()["command"], monkeypatch, tmp_path)
        assert again.manifest() == training.manifest()
        assert np.array_equal(again.corpus.ids, training.corpus.ids)


def test_a_manifest_has_the_tokenizer_by_its_hash(tmp_path):
    (tmp_path / "text.txt").write_text("the cat " * 100)
    corpus = load_corpus(tmp_path / "text.txt", tokenizer=word_level(tmp_path / "tokenizer.json"))
    manifest = Training(corpus=corpus, architecture=SMALL, steps=2).manifest()
    text, tokenizer = manifest["inputs"]
    assert text["corpus"] == "text.txt"
    assert tokenizer["tokenizer"] == "tokenizer.json"
    assert len(tokenizer["sha256"]) == 64
    paths = {"corpus": str(tmp_path / "text.txt"), "tokenizer": str(tmp_path / "tokenizer.json")}
    assert manifest["paths"] == paths


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"optimizer": AdamW(betas=(0.8, 0.99))}, "no option sets betas of the optimizer"),
        ({"optimizer": AdamW(eps=1e-6)}, "no option sets eps of the optimizer"),
        ({"optimizer": SGD(momentum=0.9)}, "no option sets momentum of the optimizer"),
        (
            {"corpus": Corpus(name="made", sha256="", n_vocabulary=8, ids=np.arange(400) % 8)},
            "the corpus was given as token ids",
        ),
    ],
)
def test_where_no_command_repeats_it_the_manifest_says_why(settings, reason):
    training = Training(**{"architecture": SMALL, "steps": 2, **settings})
    for manifest in (training.manifest(), Replicas(training=training, n=2).manifest()):
        assert manifest["command"] is None
        assert manifest["no_command"].startswith(reason)
        constants = dataclasses.asdict(training.optimizer)
        assert {name: manifest["parameters"][name] for name in constants} == constants


def test_settings_are_readable_and_in_a_notebook_a_table():
    training = Training(steps=3, noise=GaussianNoise(sigma=1e-3))
    assert repr(training).startswith("Training(corpus=Corpus(name='pydoc-topics")
    assert "start=SnowballStart(sigma=1e-05, drawn='float32')" in repr(training)
    assert "<th style='text-align:left'>precision</th>" in training._repr_html_()
    assert "n=2)" in repr(Replicas(training=training, n=2))


@pytest.mark.parametrize("in_hardware", [True, False])
def test_bfloat16_numbers_are_multiplied_in_float32_where_a_cpu_lacks_their_products(in_hardware, monkeypatch):
    monkeypatch.setattr("darkvocab.training.settings.multiplies_bfloat16", lambda: in_hardware)
    for precision in ("pure-bf16", "bf16-weights", "mixed"):
        for products in ("float32", "bfloat16"):
            assert Training(precision=precision, products=products).multiplied_in == products
        assert Training(precision=precision).multiplied_in == ("bfloat16" if in_hardware else "float32")
        assert Training(precision=precision, device="cuda").multiplied_in == "bfloat16"
    assert Training(precision="float32").multiplied_in == "float32"


@pytest.mark.parametrize(
    ("has_library", "library_takes_it", "features", "multiplies"),
    [
        (True, True, {"avx512bf16": True}, True),
        (True, True, {"avx512bf16": False}, False),  # AVX-512 without bfloat16: it is imitated
        (True, False, {"avx512bf16": False}, False),  # AVX2
        (True, True, {"neon": True}, True),  # Arm with BF16: no word of AVX
        (True, False, {"neon": True}, False),
        (False, False, {}, False),  # macOS
    ],
)
def test_the_machine_is_asked_whether_it_multiplies_bfloat16(
    has_library, library_takes_it, features, multiplies, monkeypatch
):
    torch = SimpleNamespace(
        backends=SimpleNamespace(mkldnn=SimpleNamespace(is_available=lambda: has_library)),
        ops=SimpleNamespace(mkldnn=SimpleNamespace(_is_mkldnn_bf16_supported=lambda: library_takes_it)),
    )
    monkeypatch.setattr("darkvocab.training.settings.import_torch", lambda _: torch)
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: features)
    assert multiplies_bfloat16() is multiplies


def test_torch_and_llvm_answer_the_question():
    pytest.importorskip("torch")
    assert multiplies_bfloat16() in (True, False)
