"""Models on the Hub: the same as from disk, by as few bytes as hold what is asked for."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import ggufs
import hubs
import numpy as np
import pytest
import tokenizer_files
from huggingface_hub import constants, hf_hub_download
from safetensors.numpy import save

from darkvocab import EmbeddingMatrix, centroid, scan
from darkvocab.checkpoints.plan import plan
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.sources import RemoteFile, open_source
from darkvocab.sources.hub import repo
from darkvocab.sources.tokenizer import open_tokenizer

MINILM = Path(__file__).parents[2] / "demo/all-MiniLM-L6-v2"
ROWS = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
ROWS[[7, 2000]] = ROWS[5]
LAYERS = {f"layers.{n}.weight": np.full((300, 300), n, np.float32) for n in range(8)}


def sharded(*, untied=True):
    """A model in five shards: layers, the embedding in the fourth, the output in the last."""
    shards = {f"model-{n}.safetensors": {f"layers.{n}.weight": LAYERS[f"layers.{n}.weight"]} for n in range(3)}
    shards["model-3.safetensors"] = {"model.embed_tokens.weight": ROWS, "layers.3.weight": LAYERS["layers.3.weight"]}
    shards["model-4.safetensors"] = {"lm_head.weight": ROWS * 2} if untied else {"norm.weight": ROWS[0]}
    places = {name: shard for shard, tensors in shards.items() for name in tensors}
    index = {"model.safetensors.index.json": json.dumps({"weight_map": places}).encode()}
    return {shard: save(tensors) for shard, tensors in shards.items()} | index


# Beside the weights: what the tokenizer's files are.
READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def same_census(one, other):
    """All but where it was read."""
    placed = [
        {**report, "source": None, "vocabulary": report["vocabulary"] and {**report["vocabulary"], "tokenizer": None}}
        for report in (one, other)
    ]
    return placed[0] == placed[1]


@pytest.mark.slow
@pytest.mark.skipif(not MINILM.is_dir(), reason="make test downloads it")
def test_a_real_checkpoint_is_the_same_as_from_disk_by_one_percent_more_than_its_tensor(hub):
    commit = hub.add("org/mini", {path.name: path for path in MINILM.iterdir() if path.is_file()})
    remote, local = scan("org/mini").to_json(), scan(MINILM).to_json()
    assert same_census(remote, local)
    size = 30_522 * 384 * 4
    served = sum(end - begin for begin, end in ranges(hub, "model.safetensors"))
    assert size <= served <= 1.01 * size
    others = sum((MINILM / name).stat().st_size for name in READ)
    assert hub.served <= served + others + 20_000
    assert remote["source"] == {
        "asked": "org/mini",
        "path": f"org/mini@{commit}/model.safetensors",
        "sha256": local["source"]["sha256"],
        "sha256_by": "the Hub",
        "bytes": local["source"]["bytes"],
        "repo": "org/mini",
        "revision": "main",
        "commit": commit,
        "url": f"{hub.endpoint}/org/mini/resolve/{commit}/model.safetensors",
        "bytes_read": served + others,
    }


def ranges(hub, name):
    """Bytes from and to that were asked of the Hub itself of this file."""
    asked = [headers["range"] for _, path, headers in hub.asked if path.endswith("/" + name)]
    return [(int(begin), int(end) + 1) for begin, end in (text.removeprefix("bytes=").split("-") for text in asked)]


@pytest.mark.slow
def test_what_was_read_is_not_read_again(hub):
    hub.add("org/model", {"model.safetensors": save({"embed_tokens.weight": ROWS, **LAYERS})})
    first = scan("org/model").to_json()
    hub.asked.clear()
    again = scan("org/model").to_json()
    assert same_census(first, again)
    assert again["source"]["bytes_read"] == 0
    assert len(hub.asked) == 1  # which commit the branch is at
    assert scan(f"org/model@{first['source']['commit']}").to_json()["source"]["bytes_read"] == 0
    assert len(hub.asked) == 1  # a commit does not change


def test_only_the_shards_of_the_embedding_and_the_output_are_looked_into(hub):
    hub.add("org/model", sharded())
    report = scan("org/model").to_json()
    assert (report["tied"], report["output_tensor"], report["populations"]) == (False, "lm_head.weight", [3])
    assert not any(ranges(hub, f"model-{n}.safetensors") for n in range(3))
    assert max(end for _, end in ranges(hub, "model-3.safetensors")) <= ROWS.nbytes + 400_000


def test_tensors_elsewhere_are_known_by_name_until_they_are_asked_for(hub):
    hub.add("org/model", sharded(untied=False))
    opened = open_source("org/model")
    assert "layers.1.weight" in opened.tensors
    assert len(opened.tensors) == 6
    assert len(hub.asked_for("resolve")) == 1  # the index
    assert opened.tensors["layers.1.weight"].shape == (300, 300)
    assert isinstance(opened.tensors["layers.1.weight"].path, RemoteFile)
    with pytest.raises(ValueError, match=r"no tensor 'x'.*\n.*embed_tokens"):
        EmbeddingMatrix.open("org/model", tensor="x")
    with pytest.raises(KeyError):
        opened.tensors["x"]


def test_pieces_are_asked_for_side_by_side_and_the_words_are_the_file_s(hub, monkeypatch):
    monkeypatch.setattr(repo, "REQUEST_BYTES", 100_000)
    hub.add("org/model", {"model.safetensors": save({"embed_tokens.weight": ROWS, **LAYERS})})
    calls = []
    opened = open_source("org/model", lambda done, total: calls.append((done, total)))
    assert np.array_equal(opened.tensors["embed_tokens.weight"].words(), ROWS.view(np.uint32))
    assert len(ranges(hub, "model.safetensors")) >= ROWS.nbytes // 100_000
    done = [done for done, _ in calls]
    assert done == sorted(done)
    assert calls[-1][0] == calls[-1][1]


def test_torch_files_are_read_by_their_directory(hub):
    torch = pytest.importorskip("torch")
    tensors = {"wte.weight": ROWS, **LAYERS}
    saved = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, saved)
    hub.add("org/model", {"pytorch_model.bin": saved.getvalue()})
    report = scan("org/model").to_json()
    assert (report["tensor"], report["populations"]) == ("wte.weight", [3])
    read = ranges(hub, "pytorch_model.bin")
    assert sum(end - begin for begin, end in read) <= ROWS.nbytes + 5 * repo.HEADER_BLOCK
    assert len(read) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_gguf_s_header_is_read_ahead(tmp_path, hub, kind):
    block = b"\x00\x3c" + bytes(range(32))  # a scale of 1
    content = ROWS.tobytes() if kind == "F32" else block * (3000 * 2)
    texts = [("tokenizer.ggml.tokens", ggufs.value("text", [f"a long text {n}" * 20 for n in range(3000)]))]
    tensors = {"token_embd.weight": (kind, (3000, 64), content), "b": ROWS}
    ggufs.saved(tmp_path / "m.gguf", tensors, texts)
    hub.add("org/model-GGUF", {"m.gguf": (tmp_path / "m.gguf").read_bytes(), "README.md": b"# m"})
    report = scan("org/model-GGUF").to_json()
    assert same_census(report, scan(tmp_path / "m.gguf").to_json())
    assert len(ranges(hub, "m.gguf")) <= 8


def test_of_several_weights_one_must_be_asked_for(tmp_path, hub):
    one = ggufs.saved(tmp_path / "a.gguf", {"token_embd.weight": ROWS}).read_bytes()
    parts = {"b-00001-of-00002.gguf": one, "b-00002-of-00002.gguf": one}
    hub.add("org/model", {"a.gguf": one, **parts})
    with pytest.raises(FileNotFoundError, match=r"it has a\.gguf, b-00001-of-00002\.gguf.*give one of these"):
        scan("org/model")
    assert scan("org/model/a.gguf").to_json()["populations"] == [3]
    assert scan("org/model@main/a.gguf").to_json()["source"]["path"].endswith("/a.gguf")
    with pytest.raises(FileNotFoundError, match=r"has no file or folder 'c\.gguf'"):
        scan("org/model/c.gguf")
    hub.add("org/parts", parts)  # the first of them stands for all
    assert open_source("org/parts").tensors["token_embd.weight"].shape == (3000, 64)


@pytest.mark.slow
def test_a_folder_of_a_repository_is_a_model_folder(hub):
    hub.add("org/model", {"README.md": b"", "step-1/model.safetensors": save({"wte.weight": ROWS})})
    assert scan("org/model/step-1").to_json()["n_tokens"] == 3000
    assert scan(f"{hub.endpoint}/org/model/tree/main/step-1").to_json()["n_tokens"] == 3000
    assert scan("hf://org/model/step-1/model.safetensors").to_json()["n_tokens"] == 3000
    with pytest.raises(FileNotFoundError, match=r"org/model@\w+ has none of model\.safetensors"):
        scan("org/model")


def test_a_tokenizer_is_brought_without_weights_and_with_what_lies_beside(hub, tmp_path):
    vocab = tokenizer_files.vocab_and_merges(tmp_path, added_tokens_decoder={"259": {"content": "<x>"}})
    hub.add("org/words", {path.name: path.read_bytes() for path in tmp_path.iterdir()} | {"model.safetensors": b"x"})
    for name in ("org/words", "org/words/vocab.json"):
        result = vocabulary(open_tokenizer(name))
        assert result.text == vocabulary(vocab).text
        assert result.text[258:] == ["Ġthe", "<x>"]
    assert not hub.asked_for("model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"org/words@\w+ has no file"):
        open_tokenizer("org/words/nothing")


def test_a_local_path_wins_and_a_path_is_never_asked_for_elsewhere(tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS})})
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        scan(Path("org/model"))
    assert not hub.asked
    Path("org/model").mkdir(parents=True)
    Path("org/model/model.safetensors").write_bytes(save({"wte.weight": ROWS[:9]}))
    assert scan("org/model").to_json()["n_tokens"] == 9
    assert scan("hf://org/model").to_json()["n_tokens"] == 3000


@pytest.mark.parametrize("text", ["nowhere", "./org/model", "../x", "org/model/", "org//model", "o rg/model", "/org/m"])
def test_what_cannot_be_a_name_there_is_not_asked_for(hub, text, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        scan(text)
    assert not hub.asked


@pytest.mark.parametrize("text", ["datasets/org/data", "https://example.com/org/model", "org/na--me", "hf://x"])
def test_what_is_no_name_of_a_model_is_refused_with_the_reason(hub, text):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .* here, and no name of a model"):
        scan(text)
    assert not hub.asked


def test_a_revision_is_pinned_when_it_is_opened(hub):
    first = hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS})})
    hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS[:99]})}, "v1", tag=True)
    opened = open_source("org/model")
    hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS + 1})})  # the branch moves on
    assert np.array_equal(opened.tensors["wte.weight"].words(), ROWS.view(np.uint32))
    assert scan("org/model@v1").to_json()["n_tokens"] == 99
    report = scan(f"org/model@{first}").to_json()
    assert (report["n_tokens"], report["source"]["revision"], report["source"]["commit"]) == (3000, first, first)


# Tokens --------------------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_to_no_other_host(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hubs.TOKEN)
    hub.private.add("org/secret")
    hub.gated.add("org/secret")
    hub.add("org/secret", {"model.safetensors": save({"wte.weight": ROWS})})
    assert scan("org/secret").to_json()["n_tokens"] == 3000
    authorized = {path.split("/")[1]: "authorization" in headers for _, path, headers in hub.asked}
    assert authorized["blobs"] is False
    assert authorized["org"] is True


# The caches ----------------------------------------------------------------------------------------------------------


def test_a_file_that_the_hub_s_cache_has_is_read_from_there(hub, monkeypatch):
    hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS}), "config.json": b"{}"})
    for name in ("model.safetensors", "config.json"):
        hf_hub_download("org/model", name)
    hub.asked.clear()
    assert scan("org/model").to_json()["source"]["bytes_read"] == 0
    assert not hub.asked_for("resolve")
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    report = scan("org/model").to_json()
    assert (report["n_tokens"], report["source"]["bytes_read"]) == (3000, 0)
    assert report["source"]["sha256"] == hub.commits["org/model", report["source"]["commit"]]["model.safetensors"].oid
    assert not hub.asked


def test_offline_a_blob_in_the_library_s_shared_store_keeps_its_hash(hub, monkeypatch):
    commit = hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS})})
    blob = Path(hf_hub_download("org/model", "model.safetensors")).resolve()
    stored = hub.home / "hub/blobs/ab" / ("ab" * 32)  # by another hash, which is not the SHA-256
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    sha256 = hub.commits["org/model", commit]["model.safetensors"].sha256
    assert scan("org/model").to_json()["source"]["sha256"] == sha256


def test_offline_a_snapshot_that_lacks_files_gives_what_it_has(hub, monkeypatch):
    hub.add("org/model", sharded())
    for name in ("model.safetensors.index.json", "model-3.safetensors"):
        hf_hub_download("org/model", name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    opened = open_source("org/model")
    assert opened.tensors["model.embed_tokens.weight"].words().shape == (3000, 64)
    with pytest.raises(FileNotFoundError, match=r"names 5 shards, and model-4\.safetensors not there"):
        opened.tensors["lm_head.weight"]


def test_offline_what_was_scanned_is_scanned_again(hub, monkeypatch):
    hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS, **LAYERS}), "config.json": b"{}"}, "a/b")
    first = scan("org/model@a%2Fb").to_json()
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same_census(scan("org/model@a%2Fb").to_json(), first)
    with pytest.raises(FileNotFoundError, match=r"bytes of it are not in the cache, and HF_HUB_OFFLINE is set"):
        scan("org/model@a%2Fb", tensor="layers.1.weight")
    with pytest.raises(FileNotFoundError, match="no revision 'main' of org/model is in the cache"):
        scan("org/model")
    assert not hub.asked


# What would be read --------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_read_and_reads_no_tensor(hub):
    hub.add("org/model", {**sharded(), "tokenizer.json": b"{}" * 1000})
    dry = plan("org/model")
    assert [(read["purpose"], read["tensor"], read["bytes"]) for read in dry["reads"]] == [
        ("embedding", "model.embed_tokens.weight", ROWS.nbytes),
        ("output", "lm_head.weight", ROWS.nbytes),
        ("tokenizer", None, 2000),
    ]
    assert dry["bytes_to_transfer"] > ROWS.nbytes  # of the blocks that hold the headers, some bytes are the tensor's
    assert not hub.asked_for("tokenizer.json")
    assert dry["source"]["bytes_read"] <= 3 * repo.HEADER_BLOCK + 1000
    hub.add("org/model", sharded())
    scan("org/model")
    assert plan("org/model")["bytes_to_transfer"] == 0


def test_the_command_prints_what_would_be_read(hub, tmp_path):
    from typer.testing import CliRunner

    from darkvocab.cli import app

    hub.add("org/model", sharded())
    shown = CliRunner().invoke(app, ["scan", "org/model", "--dry-run"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "model.embed_tokens.weight  F32 [3000, 64]" in shown.stdout
    assert "MB of it from the Hub; no tensor was read" in shown.stdout
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"wte.weight": ROWS}))
    local = json.loads(CliRunner().invoke(app, ["scan", str(path), "--dry-run", "--json"]).stdout)
    assert [(read["purpose"], read["bytes"]) for read in local["reads"]] == [
        ("embedding", ROWS.nbytes),
        ("sha256", path.stat().st_size),
    ]
    assert (local["source"], local["bytes_to_transfer"]) == ({}, 0)


# Processes -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_reads_through_the_variables_of_the_hub(hub, tmp_path):
    hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS})})
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    command = [Path(sys.executable).parent / "darkvocab", "scan", "org/model", "--json"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (run.returncode, json.loads(run.stdout)["populations"]) == (0, [3]), run.stderr
    assert (tmp_path / "home/assets/darkvocab/models--org--model/files").is_dir()


@pytest.mark.slow
def test_nothing_of_the_hub_is_loaded_where_it_is_not_asked(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"wte.weight": ROWS[:9]}))
    code = (
        "import sys; from typer.testing import CliRunner; from darkvocab.cli import app\n"
        f"for line in (['--help'], ['scan', {str(path)!r}], ['scan', 'nowhere']): CliRunner().invoke(app, line)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('huggingface_hub', 'httpx2')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_centroid_is_made_of_a_model_on_the_hub(hub, tmp_path):
    commit = hub.add("org/model", {"model.safetensors": save({"wte.weight": ROWS})})
    written = centroid("org/model", tmp_path / "c.safetensors")
    assert written["provenance"]["source"] == f"org/model@{commit}/model.safetensors"
    assert written["provenance"]["source_sha256"] == hub.commits["org/model", commit]["model.safetensors"].oid
