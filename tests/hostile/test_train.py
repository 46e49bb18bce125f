"""`darkvocab train` given what it cannot use: a sentence, an exit code, no folder."""

import json

import pytest

SMALL = ("--layers", 1, "--heads", 2, "--width", 8, "--context", 8, "--batch", 2, "--steps", 3)


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        (b"", (), "corpus text.txt is empty"),
        ("éé".encode(), (), "no tokens of the vocabulary of 128"),
        (b"12345678", (), "no more than a context of 8; give a longer text or a shorter --context"),
        (b"\xff" * 20, ("--vocabulary", 512), "1 to 256 tokens"),
        (b"a" * 20, ("--tokenizer", __file__), "not a tokenizer.json"),
    ],
)
def test_a_corpus_that_cannot_be_trained_on_is_refused(tmp_path, refuses, content, arguments, says):
    (tmp_path / "text.txt").write_bytes(content)
    refuses(
        "train", "--corpus", tmp_path / "text.txt", *SMALL, *arguments, "--out", tmp_path / "run", code=2, says=[says]
    )
    assert not (tmp_path / "run").exists()


def test_a_corpus_that_is_not_there_is_missing(tmp_path, refuses):
    refuses("train", "--corpus", tmp_path / "none", "--out", tmp_path / "run", code=3, says=["none", "No such file"])
    refuses("train", "--corpus", tmp_path, "--out", tmp_path / "run", code=3, says=["is a folder"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--start", "ball"), "unknown start 'ball'; choose one of normal, point, snowball"),
        (("--init-sigma", "nan"), "the start's sigma must be finite and >= 0, got nan"),
        (("--noise", "laplace"), "unknown noise 'laplace'"),
        (("--noise", "gaussian", "--noise-sigma", "-1"), "got -1.0"),
        (("--optimizer", "adam"), "choose one of adamw, sgd"),
        (("--lr", "inf"), "learning rate must be finite"),
        (("--precision", "bf16"), "pure-bf16, bf16-weights, mixed, float32"),
        (("--heads", "3"), "no multiple of 3 heads"),
        (("--record", "weights"), "cannot record 'weights'; choose of gradients, moments"),
        (("--record-every", "2"), "no multiple of record_every"),
        (("--device", "tpu"), "choose one of cpu, cuda, cuda:N, mps"),
        (("--seed", "-1"), "seed"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, refuses, arguments, says):
    refuses("train", *SMALL, *arguments, "--out", tmp_path / "run", code=2, says=[says])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_training_tells_its_start_and_its_end(tmp_path, cli):
    built = cli("train", *SMALL, "--out", tmp_path / "run", "--json")
    assert built.code == 0
    result = json.loads(built.out)
    assert (result["steps"], result["status"], result["n_unseen"]) == (3, "complete", 34)
    assert [state["step"] for state in result["states"]] == [0, 3]
    assert "unseen: 34 tokens (0-9, 11-31, 36, 96, 127)" in built.err
    shown = cli("train", *SMALL, "--out", tmp_path / "run", "--resume")
    assert "population P" in shown.out


@pytest.mark.slow
def test_a_training_that_diverges_is_a_finding(tmp_path, cli, refuses):
    diverging = ("--optimizer", "sgd", "--lr", "1e30", "--clip", 0)
    result = cli("train", *SMALL, *diverging, "--out", tmp_path / "run")
    assert result.code == 1
    assert "darkvocab: the training diverged at step" in result.err
    refuses("train", *SMALL, *diverging, "--out", tmp_path / "run", "--resume", code=1, says=["choose other settings"])


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused(tmp_path, cli, refuses):
    assert cli("train", *SMALL, "--out", tmp_path / "run").code == 0
    refuses("train", *SMALL, "--out", tmp_path / "run", code=2, says=["--resume goes on with it"])
    refuses("train", *SMALL, "--batch", 3, "--out", tmp_path / "run", "--resume", code=2, says=["batch was 2, now 3"])
    refuses("summary", tmp_path / "run", code=3, says=["training"])


def test_two_trainings_never_share_a_folder(tmp_path, start, refuses):
    long = ("train", *SMALL[:-1], 100_000, "--out", tmp_path / "run")
    with start(*long) as child:
        try:
            while not (tmp_path / "run" / "embedding_evolution.safetensors").exists():
                assert child.poll() is None
            refuses(*long, "--resume", code=2, says=["in use by another process"])
        finally:
            child.terminate()
            assert "interrupted (what has landed is kept" in child.communicate(timeout=60)[1]
    assert child.returncode == 130


def test_a_full_disk_ends_in_a_sentence(tmp_path, process):
    result = process("train", *SMALL, "--out", tmp_path / "run", largest=5000)
    assert result.code == 130
    assert "no space left to write" in result.err
    assert "Traceback" not in result.err
