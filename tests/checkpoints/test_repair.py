"""Repaired checkpoints: what is written, what stays the same, and that the libraries read it."""

import itertools
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from darkvocab import EmbeddingMatrix, census, diff, repair, scan
from darkvocab.checkpoints import selection
from darkvocab.measures.dark import judge
from darkvocab.numerics import encode, to_index
from darkvocab.reports.checkpoints import print_repair
from darkvocab.reports.console import console

MODEL = Path(__file__).parents[2] / "demo" / "all-MiniLM-L6-v2"
real = pytest.mark.skipif(not MODEL.is_dir(), reason="make test downloads it")
EMBEDDING = "model.embed_tokens.weight"
HOLES = [7, 9, 50, 3, 4]


def rows(n=60, dim=32, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def dark_rows(seed=0):
    matrix = rows(seed=seed)
    matrix[[9, 50]], matrix[4] = matrix[7], matrix[3]
    return matrix


def save(folder, *, texts=(), **tensors):
    folder.mkdir(parents=True, exist_ok=True)
    held = {"model.norm.weight": np.ones(32, "f4"), "model.layer.weight": rows(32, seed=9), **tensors}
    save_file(held, folder / "model.safetensors", metadata={"format": "pt", "made by": "a test"})
    if texts:
        model = {"type": "BPE", "vocab": {text: i for i, text in enumerate(texts)}, "merges": [["a", "b"]]}
        (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "config.json").write_text("{}")
    return folder


def other_bytes(path, tensor, tokens):
    """A file's bytes but for these rows of a tensor."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:start])[tensor]
    begin, end = entry["data_offsets"]
    size = (end - begin) // entry["shape"][0]
    for token in tokens:
        data[start + begin + token * size : start + begin + (token + 1) * size] = bytes(size)
    return bytes(data)


def steps_from(words, mean, grid="float32"):
    return np.abs(to_index(words, grid) - to_index(encode(mean, grid), grid))


def test_tokens_of_black_holes_get_rows_a_step_around_the_mean_of_all_others(tmp_path):
    source, out = save(tmp_path / "a", **{EMBEDDING: dark_rows()}), tmp_path / "b"
    report = repair(source, out)
    (part,) = report["matrices"]
    assert (part["token_ids"], part["n_repaired"], part["n_trained"]) == (sorted(HOLES), 5, 55)
    assert part["black_holes"] == {"before": [2, 5], "after": [0, 0]}
    kept = np.delete(dark_rows(), HOLES, axis=0)
    fresh = load_file(out / "model.safetensors")[EMBEDDING][sorted(HOLES)]
    assert (steps_from(fresh.view(np.uint32), kept.astype(np.float64).mean(axis=0)) == 1).all()
    assert census(fresh).n_unique == 5
    assert diff(source, out).parts[0].movers().size == 5
    assert part["norm"]["trained_rms"] == pytest.approx((np.linalg.norm(kept, axis=1) ** 2).mean() ** 0.5)
    assert part["norm"]["repaired_rms"] == pytest.approx((np.linalg.norm(fresh, axis=1) ** 2).mean() ** 0.5)


def test_every_other_byte_is_the_same(tmp_path):
    source, out = save(tmp_path / "a", **{EMBEDDING: dark_rows()}), tmp_path / "b"
    report = repair(source, out)
    old, new = source / "model.safetensors", out / "model.safetensors"
    assert old.read_bytes() != new.read_bytes()
    assert other_bytes(old, EMBEDDING, HOLES) == other_bytes(new, EMBEDDING, HOLES)
    assert report["n_bytes_compared"] == old.stat().st_size - 5 * 32 * 4
    with safe_open(new, "np") as file:
        assert file.metadata() == {"format": "pt", "made by": "a test"}
    assert (out / "config.json").read_text() == "{}"


@pytest.mark.parametrize("how", ["mean", "pieces", "gaussian"])
def test_the_same_again_is_the_same_bytes_and_another_seed_is_not(tmp_path, how):
    source = save(tmp_path / "a", texts=["a", "b", "ab"], **{EMBEDDING: dark_rows()})
    result = []
    for name, seed in (("b", 1), ("c", 1), ("d", 2)):
        repair(source, tmp_path / name, how=how, seed=seed)
        result.append((tmp_path / name / "model.safetensors").read_bytes())
    assert result[0] == result[1] != result[2]


def test_what_a_token_gets_does_not_depend_on_others_that_are_chosen(tmp_path):
    matrix = rows()
    matrix[30:] = matrix[29]  # the mean stays the same whichever of these are chosen, but for its last bits
    source = save(tmp_path / "a", **{EMBEDDING: matrix.astype(ml_dtypes.bfloat16)})
    signs = []
    for name, tokens in (("b", [5]), ("c", [5, 40]), ("d", range(6))):
        repair(source, tmp_path / name, tokens=tokens)
        words = load_file(tmp_path / name / "model.safetensors")[EMBEDDING].view(np.uint16)
        kept = np.delete(matrix.astype(ml_dtypes.bfloat16).astype(float), list(tokens), axis=0)
        away = to_index(words[5], "bfloat16") - to_index(encode(kept.mean(axis=0), "bfloat16"), "bfloat16")
        signs.append(away.tolist())
    assert signs[0] == signs[1] == signs[2]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("how", ["mean", "gaussian"])
def test_every_grid_keeps_its_type(tmp_path, dtype, how):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows().astype(dtype)})
    repair(source, tmp_path / "b", how=how)
    result = load_file(tmp_path / "b" / "model.safetensors")[EMBEDDING]
    assert result.dtype == dtype
    assert scan(tmp_path / "b").to_json()["n_black_holes"] == 0


def test_pieces_are_averaged_and_a_token_without_any_gets_the_mean(tmp_path):
    source = save(tmp_path / "a", texts=["a", "b", "ab", "c"], **{EMBEDDING: rows()})
    (part,) = repair(source, tmp_path / "b", tokens="2-3,59", how="pieces")["matrices"]
    assert part["without_pieces"] == [3, 59]
    fresh = load_file(tmp_path / "b" / "model.safetensors")[EMBEDDING].view(np.uint32)
    assert (steps_from(fresh[2], rows()[:2].astype(float).mean(axis=0)) == 1).all()
    mean = np.delete(rows(), [2, 3, 59], axis=0).astype(float).mean(axis=0)
    assert (steps_from(fresh[[3, 59]], mean) == 1).all()


def test_rows_that_are_alike_are_drawn_again(tmp_path):
    # Two columns, a step up or down in each: four rows for three tokens.
    matrix = np.stack([np.linspace(1, 2, 40), np.linspace(3, 5, 40)], axis=1).astype(np.float32)
    source = save(tmp_path / "a", **{EMBEDDING: matrix})
    redrawn = 0
    for seed in range(5):
        (part,) = repair(source, tmp_path / f"b{seed}", tokens="7-9", seed=seed)["matrices"]
        redrawn += part["n_redrawn"]
        assert census(load_file(tmp_path / f"b{seed}" / "model.safetensors")[EMBEDDING]).n_unique == 40
    assert redrawn > 0


def test_a_row_like_one_that_is_kept_is_drawn_again(tmp_path):
    # One column: around the mean of 0.5, 1 and 1.5 there are two rows, and a kept one is 1 and a step.
    above = np.nextafter(np.float32(1), np.float32(2))
    matrix = np.array([[0.5], [1], [1.5], [above], [9], [1]], np.float32)
    matrix[4] = 5 - matrix[:4].sum()  # so that the mean of the first five is 1
    source = save(tmp_path / "a", **{EMBEDDING: matrix})
    for seed in range(4):
        repair(source, tmp_path / f"b{seed}", tokens="5", seed=seed)
        result = load_file(tmp_path / f"b{seed}" / "model.safetensors")[EMBEDDING]
        assert result[5, 0] == np.nextafter(np.float32(1), np.float32(0))


def test_more_rows_than_there_is_room_for_are_refused(tmp_path):
    source = save(tmp_path / "a", **{EMBEDDING: np.ones((9, 2), np.float32)})
    with pytest.raises(ValueError, match="of 8 fresh rows are like another after 32 draws"):
        repair(source, tmp_path / "b", tokens="0-7")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# Tied and untied ----------------------------------------------------------------------------------------------------


def test_both_matrices_of_an_untied_model_each_from_its_own_rows(tmp_path):
    head = rows(64, seed=1)
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows(), "lm_head.weight": head})
    report = repair(source, tmp_path / "b", tokens="black-holes,62")
    assert [(part["matrix"], part["n_repaired"], part["n_tokens"]) for part in report["matrices"]] == [
        ("input", 5, 60),
        ("output", 6, 64),
    ]
    result = load_file(tmp_path / "b" / "model.safetensors")
    for name, matrix, tokens in ((EMBEDDING, dark_rows(), HOLES), ("lm_head.weight", head, [*HOLES, 62])):
        kept = np.delete(matrix, tokens, axis=0)
        assert (steps_from(result[name][tokens].view(np.uint32), kept.astype(float).mean(axis=0)) == 1).all()
        assert np.array_equal(np.delete(result[name], tokens, axis=0), kept)
    assert [part.movers().size for part in diff(source, tmp_path / "b").parts] == [5, 6]
    # The matrices are jittered each on its own.
    jitters = [
        to_index(result[name][7].view(np.uint32), "float32")
        > to_index(encode(np.delete(matrix, tokens, axis=0).astype(float).mean(axis=0), "float32"), "float32")
        for name, matrix, tokens in ((EMBEDDING, dark_rows(), HOLES), ("lm_head.weight", head, [*HOLES, 62]))
    ]
    assert (jitters[0] != jitters[1]).any()


@pytest.mark.parametrize(("matrix", "changed"), [("input", EMBEDDING), ("output", "lm_head.weight")])
def test_one_matrix_of_an_untied_model(tmp_path, matrix, changed):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows(), "lm_head.weight": dark_rows(seed=1)})
    repair(source, tmp_path / "b", matrix=matrix)
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert [name for name in old if not np.array_equal(old[name], new[name])] == [changed]


def test_two_copies_of_a_tied_matrix_stay_equal(tmp_path):
    copies = {EMBEDDING: dark_rows(), "lm_head.weight": dark_rows(), "decoder.embed_tokens.weight": dark_rows()}
    report = repair(save(tmp_path / "a", **copies), tmp_path / "b")
    (part,) = report["matrices"]
    assert sorted(part["tensors"]) == sorted(copies)
    result = load_file(tmp_path / "b" / "model.safetensors")
    assert all(np.array_equal(result[name], result[EMBEDDING]) for name in copies)
    assert census(result[EMBEDDING]).n_black_holes == 0
    assert EmbeddingMatrix.open(tmp_path / "b").tied


def test_an_untied_model_without_its_output_is_repaired_and_that_is_said(tmp_path):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows()})
    (source / "config.json").write_text('{"tie_word_embeddings": false}')
    report = repair(source, tmp_path / "b")
    assert len(report["matrices"]) == 1
    assert report["notes"] == ["the output matrix stays: untied, the config says, but no output tensor is here"]
    with pytest.raises(ValueError, match="holds no output tensor"):
        repair(source, tmp_path / "c", matrix="output")


def test_one_tensor_alone(tmp_path):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows(), "lm_head.weight": rows(seed=1)})
    (part,) = repair(source, tmp_path / "b", tensor="lm_head.weight", tokens="3")["matrices"]
    assert (part["matrix"], part["tensors"]) == ("as asked", ["lm_head.weight"])


# Files --------------------------------------------------------------------------------------------------------------


def test_of_shards_only_those_that_hold_the_matrix_are_rewritten(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    shards = {"1": {EMBEDDING: dark_rows()}, "2": {"model.norm.weight": rows()}, "3": {"lm_head.weight": rows(seed=1)}}
    for number, tensors in shards.items():
        save_file(tensors, folder / f"model-{number}.safetensors")
    places = {name: f"model-{number}.safetensors" for number, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    for source, out in ((folder, tmp_path / "b"), (folder / "model.safetensors.index.json", tmp_path / "c")):
        report = repair(source, out)
        assert report["files"]["rewritten"] == ["model-1.safetensors", "model-3.safetensors"]
        assert report["files"]["copied"] == ["model-2.safetensors", "model.safetensors.index.json"]
        assert (out / "model-2.safetensors").read_bytes() == (folder / "model-2.safetensors").read_bytes()
        assert scan(out).to_json()["n_black_holes"] == 0
    report = repair(folder / "model-1.safetensors", tmp_path / "d")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["model-1.safetensors"]


def test_what_lies_in_the_folder_comes_along_but_other_weights_do_not(tmp_path):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows()})
    for name in (
        "pytorch_model.bin",
        "old.safetensors",
        "README.md",
        "1_Dense/model.safetensors",
        ".git/config",
        ".hidden",
    ):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    (source / "model.safetensors.index.json").write_text("{}")  # beside model.safetensors it is not read
    (source / "round").symlink_to(source)
    (source / "link.txt").symlink_to(source / "README.md")
    report = repair(source, tmp_path / "b")
    assert report["files"] == {
        "rewritten": ["model.safetensors"],
        "copied": [".hidden", "1_Dense/model.safetensors", "README.md", "config.json", "link.txt"],
        "linked": [],
        "left_out": ["model.safetensors.index.json", "old.safetensors", "pytorch_model.bin", "round"],
    }
    assert (tmp_path / "b" / "link.txt").read_text() == "README.md"
    assert not (tmp_path / "b" / "link.txt").is_symlink()
    result = {str(path.relative_to(tmp_path / "b")) for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert result == {"model.safetensors", *report["files"]["copied"]}


def test_files_that_stay_the_same_can_be_linked(tmp_path):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows()})
    report = repair(source, tmp_path / "b", link=True)
    assert (report["files"]["copied"], report["files"]["linked"]) == ([], ["config.json"])
    assert (tmp_path / "b" / "config.json").samefile(source / "config.json")
    assert not (tmp_path / "b" / "model.safetensors").samefile(source / "model.safetensors")


def test_a_dry_run_writes_nothing_and_says_what_would_be_written(tmp_path):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows()})
    planned = repair(source, tmp_path / "b", dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    result = repair(source, tmp_path / "b")
    assert planned["files"] == result["files"]
    assert planned["matrices"][0].items() <= result["matrices"][0].items()


def test_progress_goes_on_to_the_end(tmp_path):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows(), "lm_head.weight": rows(seed=1)})
    for options in ("mean", "gaussian"):
        seen = []
        repair(source, tmp_path / options, how=options, progress=lambda done, total: seen.append((done, total)))  # noqa: B023
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1]


def test_the_table_says_what_was_done(tmp_path, capsys):
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows()})
    for dry_run in (True, False):
        print_repair(repair(source, tmp_path / "b", dry_run=dry_run), console())
    planned, result = capsys.readouterr().out.split("source")[1:]
    assert "dry run: nothing is written" in planned
    assert "would be rewritten  model.safetensors" in planned
    lines = [" ".join(line.split()) for line in result.splitlines()]
    assert "repaired 5 of 60 rows on float32: 3 4 7 9 50" in lines
    assert "black holes 2 with 5 tokens -> 0 with 0 tokens; no repaired row is like another" in lines
    assert "rewritten model.safetensors" in lines


# Real libraries -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_transformers_loads_a_repaired_model(tmp_path, tied, sharded):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    config = transformers.GPT2Config(
        vocab_size=70, n_embd=16, n_layer=1, n_head=2, n_positions=32, tie_word_embeddings=tied, **ends
    )
    model = transformers.GPT2LMHeadModel(config).to(torch.bfloat16)
    with torch.no_grad():
        model.transformer.wte.weight[20:25] = model.transformer.wte.weight[11]
    model.save_pretrained(tmp_path / "a", max_shard_size="5KB" if sharded else "5GB")
    report = repair(tmp_path / "a", tmp_path / "b", how="gaussian")
    assert len(report["matrices"]) == 1 + (not tied)
    assert sharded == (tmp_path / "b" / "model.safetensors.index.json").is_file()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.bfloat16)
    chosen, old, new = [11, *range(20, 25)], model.state_dict(), loaded.state_dict()
    for name in old:
        changed = (old[name] != new[name]).reshape(len(old[name]), -1).any(dim=1).nonzero().ravel().tolist()
        assert changed == (chosen if name in ("transformer.wte.weight", "lm_head.weight") else [])
    weight, head = loaded.get_input_embeddings().weight, loaded.get_output_embeddings().weight
    assert (weight.data_ptr() == head.data_ptr()) is tied
    assert len(torch.unique(weight.float(), dim=0)) == 70
    assert torch.isfinite(loaded(torch.tensor([chosen])).logits).all()


@pytest.mark.slow
@real
@pytest.mark.parametrize("how", ["mean", "pieces", "gaussian"])
def test_the_unused_tokens_of_the_real_checkpoint(tmp_path, how):
    tokens = [*range(1, 100), *range(104, 999)]
    report = repair(MODEL, tmp_path / "b", tokens=tokens, how=how)
    (part,) = report["matrices"]
    (result,) = diff(MODEL, tmp_path / "b").parts
    assert sorted(result.movers().tolist()) == tokens
    assert scan(tmp_path / "b", checksum=False).to_json()["n_unique"] == 30522
    norms = np.linalg.norm(EmbeddingMatrix.open(tmp_path / "b").rows(slice(None)).astype(np.float64), axis=1)
    trained = np.delete(norms, tokens)
    if how == "gaussian":
        assert norms[tokens].mean() == pytest.approx(trained.mean(), rel=0.02)
    assert part["norm"]["repaired_rms"] == pytest.approx((norms[tokens] ** 2).mean() ** 0.5, rel=1e-9)
    assert part["without_pieces"] == ([] if how == "pieces" else None)


@pytest.mark.parametrize("matrix", ["both", "input", "output"])
def test_dark_rows_of_each_matrix_are_mended_and_healthy_rows_beside_them_stay(matrix, tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    inputs, outputs = (rng.normal(0, 0.1, (3_000, 32)).astype(np.float32) for _ in range(2))
    inputs[100:140] *= 1e-17
    outputs[200:240] = outputs[200]
    (tmp_path / "model").mkdir()
    save_file(
        {"model.embed_tokens.weight": inputs, "lm_head.weight": outputs}, tmp_path / "model" / "model.safetensors"
    )
    judged = []
    monkeypatch.setattr(selection, "judge", lambda matrix: judged.append(matrix) or judge(matrix))
    done = repair(tmp_path / "model", tmp_path / "out", tokens="dark", matrix=matrix)
    dark = {"input": list(range(100, 140)), "output": list(range(200, 240))}
    wanted = dark if matrix == "both" else {matrix: dark[matrix]}
    assert {one["matrix"]: one["token_ids"] for one in done["matrices"]} == wanted
    assert len(judged) == 1


# By the output's direction, and by merges ---------------------------------------------------------------------------


def test_damaged_input_rows_take_the_direction_of_the_output_at_the_length_of_healthy_rows(tmp_path):
    head = rows(seed=3)
    matrix = rows(seed=1) * 2
    matrix[[7, 9]] = 1e-20
    source, out = save(tmp_path / "a", **{EMBEDDING: matrix, "lm_head.weight": head}), tmp_path / "b"
    report = repair(source, out, tokens=[7, 9], how="output")
    (part,) = report["matrices"]
    assert (part["matrix"], part["n_repaired"]) == ("input", 2)
    written = load_file(out / "model.safetensors")
    rms = (np.linalg.norm(np.delete(matrix, [7, 9], axis=0).astype(float), axis=1) ** 2).mean() ** 0.5
    wanted = head[[7, 9]] / np.linalg.norm(head[[7, 9]].astype(float), axis=1, keepdims=True) * rms
    np.testing.assert_allclose(written[EMBEDDING][[7, 9]], wanted, rtol=1e-6)
    np.testing.assert_array_equal(written["lm_head.weight"], head)
    np.testing.assert_array_equal(np.delete(written[EMBEDDING], [7, 9], 0), np.delete(matrix, [7, 9], 0))
    assert part["norm"]["repaired_rms"] == pytest.approx(rms, rel=1e-6)


def test_a_direction_is_refused_where_the_output_row_is_damaged_or_is_the_input_row(tmp_path):
    head = rows(seed=3)
    head[9] *= 1e-6
    source = save(tmp_path / "a", **{EMBEDDING: dark_rows(), "lm_head.weight": head})
    with pytest.raises(ValueError, match="the output rows of tokens 9 are damaged, too"):
        repair(source, tmp_path / "b", tokens=[7, 9], how="output")
    with pytest.raises(ValueError, match="has no output matrix of its own"):
        repair(save(tmp_path / "tied", **{EMBEDDING: dark_rows()}), tmp_path / "b", how="output")
    assert not (tmp_path / "b").exists()


def merging(folder, model=None, **more):
    """A model folder with a byte-level BPE of some merges: "ab", "abc" of "ab" and "c", "bd", "zz"."""
    texts = [*"abcdz", "ab", "abc", "bd", "zz", "<s>"]
    merges = [["a", "b"], ["ab", "c"], ["b", "d"], ["z", "z"]]
    result = {"type": "BPE", "vocab": {text: i for i, text in enumerate(texts[:-1])}, "merges": merges}
    added = [{"id": 9, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}]
    source = save(folder, **{EMBEDDING: rows(10)})
    held = {"version": "1.0", "added_tokens": [{**added[0], "normalized": False}], "model": model or {**result, **more}}
    (source / "tokenizer.json").write_text(json.dumps(held))
    return source


def test_a_token_without_its_merges_is_reached_by_no_text_and_all_else_encodes_as_before(tmp_path):
    from tokenizers import Tokenizer

    source, out = merging(tmp_path / "a"), tmp_path / "b"
    report = repair(source, out, tokens=[8, 9, 2], how="merges")
    assert (report["n_merges_deleted"], report["unmerged"], report["also_unreachable"]) == (1, [8], [])
    assert report["splits"] == [{"id": 8, "token": "zz", "ids": [4, 4], "tokens": ["z", "z"]}]
    assert report["n_texts_changed"] > 0
    assert report["files"]["rewritten"] == ["tokenizer.json"]
    assert (out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert tokenizer.encode("zzabcbd").ids == [4, 4, 6, 7]
    print_repair(report, console())


def test_tokens_that_are_made_of_one_without_its_merges_are_named_and_the_search_is_told_of(tmp_path):
    calls = []
    report = repair(
        merging(tmp_path / "a"),
        tmp_path / "b",
        tokens=[5],
        how="merges",
        dry_run=True,
        progress=lambda *so_far: calls.append(so_far),
    )
    assert report["also_unreachable"] == [6]
    assert not (tmp_path / "b").exists()
    assert {total for _, total in calls} == {10}  # tokens: nine in texts and an added one
    assert sum(b < a for (a, _), (b, _) in itertools.pairwise(calls)) >= 1  # the second tokenizer begins anew


def test_an_interruption_ends_the_search_without_merges_and_nothing_is_written(tmp_path):
    def interrupted(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(merging(tmp_path / "a"), tmp_path / "b", tokens=[8], how="merges", progress=interrupted)
    assert not (tmp_path / "b").exists()


def test_what_has_no_merges_to_delete_is_refused_in_a_sentence(tmp_path):
    pieces = [["<unk>", 0.0], *[[text, -1.0] for text in "abcdefghi"]]
    cases = {
        "is a Unigram tokenizer, which merges nothing": {"model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}},
        "looks whole words up before it merges": {"ignore_merges": True},
    }
    for number, (says, more) in enumerate(cases.items()):
        with pytest.raises(ValueError, match=says):
            repair(merging(tmp_path / str(number), **more), tmp_path / "b", tokens=[8], how="merges")
    with pytest.raises(ValueError, match=r"no merge of .* makes any of the 2 tokens"):
        repair(merging(tmp_path / "c"), tmp_path / "b", tokens=[0, 9], how="merges")
    with pytest.raises(ValueError, match=r"has no tokenizer.json"):
        repair(save(tmp_path / "d", **{EMBEDDING: rows()}), tmp_path / "b", tokens=[1], how="merges")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"type": "BPE"}}', '{"model": {"merges": 3}}'])
def test_a_tokenizer_that_is_none_is_a_sentence_whether_or_not_it_names_tokens(content, tmp_path, cli):
    source = merging(tmp_path / "a")
    (source / "tokenizer.json").write_text(content)
    for named in ([], ["--tokenizer", "none"]):
        ran = cli("repair", source, "-o", tmp_path / "b", "--how", "merges", "--tokens", "8", *named)
        assert (ran.code, ran.err.count("darkvocab: ")) == (4, 1)
    assert not (tmp_path / "b").exists()


SMOLLM2 = MODEL.parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """SmolLM2's embedding in bfloat16, as a model folder of safetensors with its tokenizer."""
    if not SMOLLM2.is_file():
        pytest.skip("make test downloads it")
    folder = tmp_path_factory.mktemp("smollm2")
    held = EmbeddingMatrix.open(SMOLLM2)
    values = held.rows(np.arange(held.n_tokens)).astype(ml_dtypes.bfloat16)
    save_file({EMBEDDING: values}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(held.tokenizer.rules.to_str())
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("how", "n_dark"), [("mean", 15), ("gaussian", 0)])
def test_repaired_rows_of_smollm2_are_equal_to_none_and_those_at_the_mean_still_look_untrained(
    how, n_dark, smollm2, tmp_path
):
    # Nothing has trained them yet: rows around the mean lie where untrained ones do, draws look like any trained row.
    report = repair(smollm2, tmp_path / "b", tokens="dark", how=how)
    after = scan(tmp_path / "b")
    (part,) = report["matrices"]
    assert len(part["token_ids"]) == 15
    assert after.census.n_black_holes == 0
    dark = after.tokens.filter(pl.col("dark"))["id"].to_list()
    assert dark == part["token_ids"][:n_dark]


@pytest.mark.slow
def test_weak_tokens_of_smollm2_are_reached_by_no_text_without_their_merges(smollm2, tmp_path):
    report = repair(smollm2, tmp_path / "b", tokens="weak", how="merges")
    assert report["also_unreachable"] == []
    after = scan(tmp_path / "b").tokens.filter(pl.col("id").is_in(report["unmerged"]))
    assert set(after["category"]) == {"unreachable"}
    assert {split["token"]: split["tokens"] for split in report["splits"]}["swigfaiss"] == ["swig", "faiss"]
