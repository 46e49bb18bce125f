"""A GPT-2 that `darkvocab train` trains, whose unseen tokens are known: the model fails on these, and on no others."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import bytewise  # noqa: E402

pytestmark = pytest.mark.slow  # trains for seconds
SEEN = range(33, 126)


def test_a_trained_model_fails_on_the_tokens_that_it_never_saw_and_repeats_the_others(cli, tmp_path):
    # A toy learns to repeat where its text does little else, runs of one byte, and the frame is such a run. On the
    # default text, or between quotes, so small a model repeats nothing: at a chance of one in 26 letters none is above.
    rng = np.random.default_rng(0)
    runs = [bytes([token]) * int(rng.integers(6, 12)) for token in rng.choice(SEEN, 4000)]
    (tmp_path / "text").write_bytes(b"".join(runs))
    size = ["--vocabulary", 128, "--layers", 1, "--heads", 2, "--width", 32, "--context", 16]
    training = ["train", "--corpus", tmp_path / "text", "--out", tmp_path / "run", "--steps", 400, "--lr", 0.01]
    assert cli(*training, *size).code == 0
    folder = tmp_path / "run" / "model"
    transformers.PreTrainedTokenizerFast(tokenizer_object=bytewise.ascii_tokenizer()).save_pretrained(folder)
    (tmp_path / "frames.toml").write_text('[run]\ntext = "b{token}{token}{token}"\nanswer = ""\n')
    asked = cli("verify", folder, "--tokens", "0-127", "--controls", 0, "--frames", tmp_path / "frames.toml", "--json")
    assert asked.code == 0
    tokens = json.loads(asked.out)["tokens"]
    unseen = json.loads((tmp_path / "run" / "corpus.json").read_text())["unseen"]
    assert unseen == sorted({*range(128)} - {*SEEN})
    assert [one["token"] for one in tokens if one["verified"]] == unseen
    assert all(one["land"] == "rejected" and not one["glitch"] for one in tokens if one["token"] in SEEN)
    assert min(one["p_max"] for one in tokens if one["token"] in SEEN) > 0.5
