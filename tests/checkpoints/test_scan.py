"""Scans: how the embedding is found, what is reported, and the real checkpoint against numpy and ml_dtypes."""

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from qwen import FIRST, qwen_words
from safetensors.numpy import load_file, save_file
from untrained import area

from darkvocab import EmbeddingMatrix, census, centroid, scan
from darkvocab.checkpoints.scan import MOST_EXACT, _largest_two
from darkvocab.errors import CorruptFile, NoEmbedding
from darkvocab.measures import vocabulary
from darkvocab.reports.checkpoints import scan_facts
from darkvocab.snowballs.bases import load_base

MODEL = Path(__file__).parents[2] / "demo" / "all-MiniLM-L6-v2"
real = pytest.mark.skipif(not MODEL.is_dir(), reason="make test downloads it")


def rows(n=60, dim=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def dark_rows():
    """Sixty tokens: 7, 9, 50 share a row; 3 and 4 share another, one of them with -0.0 for 0.0."""
    matrix = rows()
    matrix[[9, 50]] = matrix[7]
    matrix[4] = matrix[3]
    matrix[3, 2], matrix[4, 2] = 0.0, -0.0
    return matrix


def save_tokenizer(path: Path, texts: list[str]) -> None:
    model = {"type": "WordLevel", "vocab": {text: i for i, text in enumerate(texts)}, "unk_token": texts[0]}
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))


def test_a_scan_reports_the_census_with_the_texts_of_each_black_hole(tmp_path):
    save_file(
        {"model.embed_tokens.weight": dark_rows(), "model.norm.weight": np.ones(8, "f4")},
        tmp_path / "model.safetensors",
    )
    save_tokenizer(tmp_path / "tokenizer.json", [f"t{i}" for i in range(55)])
    report = scan(tmp_path).to_json()
    assert {
        k: report[k] for k in ("n_tokens", "hidden_dim", "grid", "tensor", "tied", "n_unique", "n_black_holes")
    } == {
        **{"n_tokens": 60, "hidden_dim": 8, "grid": "float32", "tensor": "model.embed_tokens.weight", "tied": True},
        **{"n_unique": 57, "n_black_holes": 2},
    }
    assert (report["black_hole_population"], report["n_singletons"], report["populations"]) == (5, 55, [3, 2])
    assert [(h["population"], h["token_ids"], h["tokens"]) for h in report["black_holes"]] == [
        (3, [7, 9, 50], ["t7", "t9", "t50"]),
        (2, [3, 4], ["t3", "t4"]),
    ]
    assert report["n_beyond_tokenizer"] == 5
    data = (tmp_path / "model.safetensors").read_bytes()
    assert report["source"] == {
        "asked": str(tmp_path),
        "path": str(tmp_path / "model.safetensors"),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    norms = np.linalg.norm(dark_rows().astype(np.float64), axis=1)
    assert report["norms"]["p50"] == pytest.approx(np.median(norms), rel=1e-12)
    assert (report["norms"]["min"], report["norms"]["max"]) == pytest.approx((norms.min(), norms.max()), rel=1e-12)
    distance = np.abs(dark_rows()[7] - dark_rows()[3]).max()
    assert report["l_inf"]["max"] == pytest.approx(float(distance), rel=1e-7)


def test_bitwise_tells_the_zeros_apart(tmp_path):
    np.save(tmp_path / "rows.npy", dark_rows())
    assert scan(tmp_path / "rows.npy").to_json()["populations"] == [3, 2]
    assert scan(tmp_path / "rows.npy", bitwise=True).to_json()["populations"] == [3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "name", "grid"),
    [
        (np.float32, "F32", "float32"),
        (np.float16, "F16", "float16"),
        (ml_dtypes.bfloat16, "BF16", "bfloat16"),
        (ml_dtypes.float8_e4m3fn, "F8_E4M3", "float8_e4m3fn"),
        (ml_dtypes.float8_e5m2, "F8_E5M2", "float8_e5m2"),
    ],
)
def test_every_stored_grid_is_read_without_torch(dtype, name, grid, tmp_path):
    matrix = dark_rows().astype(dtype)
    header = {"wte.weight": {"dtype": name, "shape": list(matrix.shape), "data_offsets": [0, matrix.nbytes]}}
    head = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + matrix.tobytes())
    result = EmbeddingMatrix.open(tmp_path / "m.safetensors")
    assert result.grid.name == grid
    assert isinstance(result.words.base, np.memmap) or isinstance(result.words, np.memmap)
    assert np.array_equal(result.rows(slice(None)), matrix.astype(np.float32))
    unique = np.unique(matrix.astype(np.float32) + 0.0, axis=0)
    assert scan(tmp_path / "m.safetensors").to_json()["n_unique"] == len(unique) == census(matrix).n_unique


@pytest.mark.parametrize(
    ("tensors", "config", "tensor", "how"),
    [
        (
            {"transformer.wte.weight": (9, 4), "transformer.wpe.weight": (99, 4)},
            {},
            "transformer.wte.weight",
            "by name",
        ),
        ({"gpt_neox.embed_in.weight": (9, 4), "embed_out.weight": (9, 4)}, {}, "gpt_neox.embed_in.weight", "by name"),
        (
            {"language_model.model.embed_tokens.weight": (9, 4)},
            {},
            "language_model.model.embed_tokens.weight",
            "by name",
        ),
        ({"a": (9, 4), "b": (8, 4), "c": (8, 9)}, {"vocab_size": 9}, "a", "by shape: the only matrix of 9 rows"),
        ({"a": (9, 4), "b": (8, 4)}, {"text_config": {"vocab_size": 8}}, "b", "by shape: the only matrix of 8 rows"),
        ({"a": (9, 4), "b": (9,)}, {}, "a", "by shape: the only matrix"),
        ({"a": (40, 4), "b": (16, 4), "c": (4, 16)}, {}, "a", "by shape: 40 rows"),
    ],
)
def test_the_embedding_is_found_by_name_else_by_shape(tensors, config, tensor, how, tmp_path):
    save_file({name: np.ones(shape, np.float32) for name, shape in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = EmbeddingMatrix.open(tmp_path)
    assert result.tensor == tensor
    assert result.chosen.startswith(how)


def test_where_no_choice_is_plain_the_candidates_are_listed(tmp_path):
    save_file(
        {"a": np.ones((9, 4), "f4"), "b": np.ones((8, 4), "f4"), "n": np.ones(9, "f4")}, tmp_path / "m.safetensors"
    )
    with pytest.raises(NoEmbedding, match=r"--tensor NAME:\n  a  F32 9 x 4\n  b  F32 8 x 4"):
        scan(tmp_path / "m.safetensors")
    assert scan(tmp_path / "m.safetensors", tensor="b").to_json()["n_tokens"] == 8
    assert scan(tmp_path / "m.safetensors", tensor="b").to_json()["chosen"] == "as asked"


HEADS = {
    "same": rows(),
    "other": rows(seed=1),
    "other dtype": rows().astype("f2"),
    "padded": np.concatenate([rows(), rows(4)]),  # more rows than the embedding, the first of them the same
    "shorter": rows(n=50),
    "wider": rows(dim=16),
}


@pytest.mark.parametrize(("output", "tied"), [(output, output == "same") for output in HEADS])
def test_tied_is_told_by_the_tensors_not_by_the_config(output, tied, tmp_path):
    tensors = {"model.embed_tokens.weight": rows(), "lm_head.weight": HEADS[output]}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": not tied}))
    report = scan(tmp_path).to_json()
    assert (report["tied"], report["output_tensor"]) == (tied, "lm_head.weight")
    assert report["output_shape"] == list(HEADS[output].shape)
    unembedding = EmbeddingMatrix.open(tmp_path).unembedding()
    assert np.array_equal(unembedding.rows(slice(None)), HEADS[output].astype(np.float32))
    assert unembedding.tensor == ("model.embed_tokens.weight" if tied else "lm_head.weight")
    asked = scan(tmp_path, tensor="lm_head.weight").to_json()
    assert (asked["tied"], asked["output_tensor"]) == (tied, "lm_head.weight")


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({}, True),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": "no"}, True),
        ({"text_config": {"vocab_size": 60, "tie_word_embeddings": False}}, False),
        ({"tie_word_embeddings": False, "text_config": {"vocab_size": 60, "tie_word_embeddings": True}}, False),
        ({"vision_config": {"tie_word_embeddings": False}}, True),  # what has no vocabulary ties no words
    ],
)
def test_where_no_tensor_is_the_output_the_config_says_whether_it_is_tied(config, tied, tmp_path):
    save_file({"model.embed_tokens.weight": rows()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = scan(tmp_path).to_json()
    assert (report["tied"], report["output_tensor"], report["output_shape"]) == (tied, None, None)
    matrix = EmbeddingMatrix.open(tmp_path)
    assert matrix.unembedding() is (matrix if tied else None)


def test_a_layer_that_is_named_output_is_no_output_matrix(tmp_path):
    tensors = {"wte.weight": rows(), "vision.output.weight": rows(8)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert scan(tmp_path).to_json()["output_tensor"] is None
    save_file({**tensors, "output.weight": rows(64)}, tmp_path / "model.safetensors")
    assert scan(tmp_path).to_json()["output_tensor"] == "output.weight"


def test_rows_in_memory_are_their_own_output():
    matrix = EmbeddingMatrix.from_array(rows())
    assert matrix.unembedding() is matrix


def test_shards_are_found_through_their_index(tmp_path):
    save_file({"model.embed_tokens.weight": dark_rows()}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"lm_head.weight": dark_rows() * 2}, tmp_path / "model-00002-of-00002.safetensors")
    places = {
        "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    report = scan(tmp_path).to_json()
    assert (report["populations"], report["tied"], report["output_tensor"]) == ([3, 2], False, "lm_head.weight")
    assert report["source"]["path"].endswith("model-00001-of-00002.safetensors")


def test_the_checksum_is_of_the_file_that_the_tokenizer_decides_for(tmp_path):
    # By shape alone the taller matrix would be taken, whose file is hashed while the tokenizer is read.
    shards = {"tall": "model-00001-of-00002.safetensors", "low": "model-00002-of-00002.safetensors"}
    for (name, file), n in zip(shards.items(), (100, 30), strict=True):
        save_file({name: rows(n)}, tmp_path / file)
    index = {"weight_map": shards}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_tokenizer(tmp_path / "tokenizer.json", [chr(0x61 + n) for n in range(30)])
    scanned = scan(tmp_path)
    assert scanned.matrix.tensor == "low"
    assert scanned.source.sha256 == hashlib.sha256((tmp_path / shards["low"]).read_bytes()).hexdigest()


def test_the_checksum_can_be_left_out(tmp_path):
    np.save(tmp_path / "rows.npy", rows())
    assert scan(tmp_path / "rows.npy", checksum=False).to_json()["source"]["sha256"] is None


@pytest.mark.slow
def test_distances_of_very_many_black_holes_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("darkvocab.checkpoints.scan.MOST_HOLES_COMPARED", 3000)
    matrix = np.repeat(rows(3001, 4), 2, axis=0)
    np.save(tmp_path / "rows.npy", matrix)
    assert scan(tmp_path / "rows.npy").to_json()["l_inf"] is None
    np.save(tmp_path / "rows.npy", matrix[2:])
    assert scan(tmp_path / "rows.npy").to_json()["l_inf"]["max"] > 0


@pytest.mark.parametrize("error", [CorruptFile("the tokenizer breaks down"), KeyboardInterrupt()])
def test_a_search_that_fails_ends_the_rows_that_wait_for_it(tmp_path, monkeypatch, error):
    def fail(*given):
        raise error

    monkeypatch.setattr(vocabulary, "vocabulary", fail)
    np.save(tmp_path / "rows.npy", rows(500, 16))
    with pytest.raises(type(error)):
        scan(tmp_path / "rows.npy")


def test_progress_reaches_the_end(tmp_path):
    np.save(tmp_path / "rows.npy", rows(3000, 500))
    seen = []
    scan(tmp_path / "rows.npy", progress=lambda done, total: seen.append((done, total)))
    assert max(seen) == (seen[0][1], seen[0][1])


def test_progress_of_an_untied_model_counts_the_rows_of_both_matrices(tmp_path):
    rng = np.random.default_rng(3)
    inputs, outputs = (rng.normal(0, 0.05, (n, 32)).astype(np.float32) for n in (2_000, 5_000))
    inputs[1_900:] = inputs[0]
    outputs[4_900:] = outputs[4_900] + rng.normal(0, 1e-3, (100, 32))
    outputs[4_950:4_952] = outputs[4_950]
    save_file({"model.embed_tokens.weight": inputs, "lm_head.weight": outputs}, tmp_path / "model.safetensors")
    seen = []
    scanned = scan(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert scanned.indicators.by is not None
    *_, before_the_end, end = seen
    assert before_the_end == end == (end[1], end[1])  # all that was announced was read, and no more


def test_a_coarser_grid_makes_rows_coincide(tmp_path):
    matrix = rows(500, 3)
    matrix[250:] = matrix[:250] * np.float32(1 + 2.0**-13)
    np.save(tmp_path / "rows.npy", matrix)
    assert scan(tmp_path / "rows.npy").to_json()["n_black_holes"] == 0
    report = scan(tmp_path / "rows.npy", grid="bfloat16").to_json()
    plain = np.unique(matrix.astype(ml_dtypes.bfloat16).astype(np.float32), axis=0)
    assert (report["grid"], report["stored_grid"], report["n_unique"]) == ("bfloat16", "float32", len(plain))
    assert report["n_black_holes"] > 100


def test_census_takes_torch_tensors_of_any_float_type():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        tensor = torch.from_numpy(dark_rows()).to(dtype)
        unique = torch.unique(tensor.float() + 0.0, dim=0)
        assert census(tensor).n_unique == len(unique)
    assert census(torch.nn.Parameter(torch.ones(3, 2))).populations.tolist() == [3]


def test_census_of_an_array_that_is_on_no_grid_needs_one():
    with pytest.raises(ValueError, match="float64 is no grid"):
        census(dark_rows().astype(np.float64))
    with pytest.raises(ValueError, match=r"needs rows, \[n_tokens, dim\]"):
        census(np.zeros(3, np.float32))


def test_the_centroid_is_the_mean_over_the_tokens_of_black_holes(tmp_path):
    np.save(tmp_path / "rows.npy", dark_rows())
    result = centroid(tmp_path / "rows.npy", tmp_path / "c.safetensors")
    vector = load_file(tmp_path / "c.safetensors")["centroid"]
    expected = dark_rows()[[7, 9, 50, 3, 4]].astype(np.float64).mean(axis=0)
    assert vector.dtype == np.float32
    assert vector == pytest.approx(expected, rel=1e-6)
    assert result["norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-6)
    assert load_base(tmp_path / "c.safetensors").vector.tolist() == vector.tolist()
    assert result["provenance"]["source_sha256"] == hashlib.sha256((tmp_path / "rows.npy").read_bytes()).hexdigest()
    assert result["provenance"] == json.loads(header(tmp_path / "c.safetensors")["__metadata__"]["provenance"])
    centroid(tmp_path / "rows.npy", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def header(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def test_the_seeds_load_the_centroid_as_they_do(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_torch

    np.save(tmp_path / "rows.npy", dark_rows())
    centroid(tmp_path / "rows.npy", tmp_path / "c.safetensors")
    assert load_torch(tmp_path / "c.safetensors")["centroid"].to(torch.float32).shape == (8,)


def test_without_black_holes_there_is_no_centroid(tmp_path):
    np.save(tmp_path / "rows.npy", rows())
    with pytest.raises(ValueError, match="no black holes"):
        centroid(tmp_path / "rows.npy", tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()


@pytest.mark.slow
@real
@pytest.mark.parametrize("grid", ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_the_real_checkpoint_against_numpy(grid):
    report = scan(MODEL, grid=grid, checksum=False).to_json()
    stored = load_file(MODEL / "model.safetensors")["embeddings.word_embeddings.weight"]
    dtype = {"float32": np.float32, "float16": np.float16}.get(grid) or getattr(ml_dtypes, grid)
    unique, counts = np.unique(stored.astype(dtype).astype(np.float32) + 0.0, axis=0, return_counts=True)
    assert (report["n_tokens"], report["hidden_dim"], report["tensor"]) == (
        30522,
        384,
        "embeddings.word_embeddings.weight",
    )
    assert report["n_unique"] == len(unique)
    assert report["populations"] == sorted(counts[counts > 1].tolist(), reverse=True)


@pytest.mark.slow
@real
def test_the_real_checkpoint_has_a_text_for_every_row():
    report = scan(MODEL, checksum=False).to_json()
    assert report["n_beyond_tokenizer"] == 0
    assert EmbeddingMatrix.open(MODEL).label(1) == "1 '[unused0]'"


# Histories and arrays -----------------------------------------------------------------------------------------------


def history(folder, *, recorded=None, key="embedding_history"):
    """Four states of sixty tokens; in each, as many tokens share a row as its number says."""
    states = np.stack([rows(seed=n) for n in range(4)])
    for n in range(1, 4):
        states[n, : n + 1] = states[n, 0]
    if recorded is not None:
        states[recorded:] = 0
    metadata = {"record_every": "5"} | ({} if recorded is None else {"recorded": str(recorded)})
    path = folder / "embedding_evolution.safetensors"
    save_file({key: states.astype(ml_dtypes.bfloat16)}, path, metadata=metadata)
    return path


@pytest.mark.parametrize("recorded", [None, 3, 1])
def test_of_a_history_the_last_recorded_row_is_taken(tmp_path, recorded):
    path = history(tmp_path, recorded=recorded)
    last = 3 if recorded is None else recorded - 1
    for source, tensor in ((tmp_path, None), (path, None), (path, "embedding_history")):
        report = scan(source, tensor=tensor).to_json()
        assert report["tensor"] == f"embedding_history[{last}]"
        options = "as asked" if tensor else "by name"
        assert report["chosen"] == f"{options}: the last of {last + 1} recorded rows"
        assert report["populations"] == ([last + 1] if last else [])
        assert (report["grid"], report["output_tensor"], report["tied"]) == ("bfloat16", None, True)


def test_any_row_of_a_history_can_be_asked_for(tmp_path):
    path = history(tmp_path, recorded=3)
    report = scan(path, tensor="embedding_history[1]").to_json()
    assert (report["tensor"], report["populations"]) == ("embedding_history[1]", [2])
    assert report["chosen"] == "as asked: row 1 of 3 recorded"
    assert scan(path, tensor=report["tensor"]).to_json() == report
    result = centroid(path, tmp_path / "c.safetensors", tensor="embedding_history[2]")
    assert (result["provenance"]["tensor"], result["provenance"]["black_hole_population"]) == (
        "embedding_history[2]",
        3,
    )


@pytest.mark.parametrize(("row", "says"), [(3, "3 rows of 'embedding_history' are recorded"), (99, "no row 99")])
def test_row_that_is_not_recorded_is_refused(tmp_path, row, says):
    with pytest.raises(ValueError, match=says):
        scan(history(tmp_path, recorded=3), tensor=f"embedding_history[{row}]")


def test_history_under_another_name_is_read_by_row(tmp_path):
    path = history(tmp_path, key="w")
    with pytest.raises(
        ValueError, match=r"'w' is BF16 \[4, 60, 8\], not a matrix of floating-point numbers; w\[0\] is one"
    ):
        scan(path, tensor="w")
    assert scan(path, tensor="w[3]").to_json()["populations"] == [4]


def test_model_in_a_folder_comes_before_a_history(tmp_path):
    history(tmp_path)
    save_file({"wte.weight": rows()}, tmp_path / "model.safetensors")
    assert scan(tmp_path).to_json()["tensor"] == "wte.weight"


def test_arrays_of_an_npz_are_read_by_name(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(
        path,
        **{"embedding.weight": dark_rows(), "output": rows(70).astype(ml_dtypes.bfloat16), "half": rows().astype("f2")},
        turned=np.asfortranarray(rows()),
        ids=np.arange(60),
        objects=np.array([{}], object),
        names=np.array(["a"]),
        history=np.stack([rows(), dark_rows()]),
    )
    report = scan(path).to_json()
    assert (report["tensor"], report["populations"]) == ("embedding.weight", [3, 2])
    matrix = EmbeddingMatrix.open(path, tensor="output")
    assert matrix.grid.name == "bfloat16"
    assert isinstance(matrix.words, np.memmap)
    assert np.array_equal(matrix.rows(slice(None)), rows(70).astype(ml_dtypes.bfloat16).astype(np.float32))
    assert scan(path, tensor="half").to_json()["grid"] == "float16"
    assert scan(path, tensor="history[1]").to_json()["populations"] == [3, 2]
    with pytest.raises(ValueError, match=r"'turned' is a view.*numpy\.ascontiguousarray"):
        scan(path, tensor="turned")
    for name in ("ids", "objects", "names"):
        with pytest.raises(ValueError, match=f"tensor '{name}' is .* not a matrix of floating-point numbers"):
            scan(path, tensor=name)
    assert centroid(path, tmp_path / "c.safetensors")["provenance"]["black_hole_population"] == 5


# Dark tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_checkpoint_with_the_recorded_rows_gives_the_published_figures(tmp_path):
    """151,936 x 2,560 bfloat16, as Qwen3-4B's: census and `published_geometry_of_the_13` of the recorded figures."""
    words, members, single = qwen_words()
    save_file({"model.embed_tokens.weight": words.view(ml_dtypes.bfloat16)}, tmp_path / "model.safetensors")
    scanned = scan(tmp_path, checksum=False)
    report = scanned.to_json()
    assert (report["n_tokens"], report["hidden_dim"], report["grid"]) == (151_936, 2_560, "bfloat16")
    assert (report["n_unique"], report["n_black_holes"], report["black_hole_population"]) == (149_849, 13, 2_100)
    assert report["populations"] == [814, 704, 306, 228, 11, 10, 6, 5, 4, 4, 3, 3, 2]
    assert report["top2_population"] == 1_518
    assert round(report["gini_coefficient"], 3) == 0.753
    assert f"{report['l_inf']['max']:.6e} {report['l_inf']['mean']:.6e}" == "6.103516e-05 2.895315e-05"
    assert [hole["token_ids"][0] for hole in report["black_holes"]] == FIRST
    tokens = scanned.tokens
    assert tokens.filter("dark")["id"].to_list() == sorted([*single, *(token for hole in members for token in hole)])
    assert tokens.filter("dark")["steps"].max() < 128
    assert tokens.filter(~tokens["dark"])["steps"].min() > 10_000
    assert tokens.filter(tokens["black_hole"] == 1)["id"].to_list() == sorted(members[0])
    assert report["neighbours"]["n_pairs"] > 0


def untied(folder, n=3_000, dim=32):
    """Input rows all trained; of the output rows the last 100 are as they began, and two share a row."""
    rng = np.random.default_rng(3)
    inputs, outputs = (rng.normal(0, 0.05, (n, dim)).astype(np.float32) for _ in range(2))
    outputs[-100:] = rng.normal(0.1, 0.002, (100, dim))
    outputs[-1] = outputs[-2]
    save_file({"model.embed_tokens.weight": inputs, "lm_head.weight": outputs}, folder / "model.safetensors")
    save_tokenizer(folder / "tokenizer.json", [f"t{i}" for i in range(n - 50)])


def test_of_an_untied_model_both_matrices_are_counted_and_the_output_is_scored(tmp_path):
    untied(tmp_path)
    report = scan(tmp_path).to_json("all")
    assert (report["n_black_holes"], report["output"]["n_black_holes"]) == (0, 1)
    assert report["output"]["tensor"] == report["indicators"]["matrix"] == "lm_head.weight"
    assert report["indicators"]["reference"]["kind"] == "rows beyond the tokenizer, black holes"
    assert [token["id"] for token in report["tokens"] if token["dark"]] == list(range(2_900, 3_000))
    token = report["tokens"][2_950]
    assert (token["text"], token["category"], token["black_hole"], token["population"]) == (
        None,
        "beyond_tokenizer",
        None,
        1,
    )
    assert token["output_norm"] == pytest.approx(0.1 * np.sqrt(32), rel=0.1) != token["norm"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_dark_tokens_are_listed_the_surest_first(tmp_path):
    untied(tmp_path)
    scanned = scan(tmp_path)
    listed = scanned.to_json("dark")["tokens"]
    assert len(listed) == scanned.to_json()["indicators"]["n_dark"] == 100
    scores = [token["score"] for token in listed]
    assert scores == sorted(scores, reverse=True)
    assert "tokens" not in scanned.to_json()
    with pytest.raises(ValueError, match="unknown tokens 'light'; choose one of dark, weak, graded, all"):
        scan(tmp_path).to_json("light")


def test_tokens_are_written_with_all_that_is_known(tmp_path):
    (tmp_path / "model").mkdir()
    untied(tmp_path / "model")
    scanned = scan(tmp_path / "model")
    scanned.write_tokens(tmp_path / "all.csv", "all")
    written = pl.read_csv(tmp_path / "all.csv")
    assert written.columns == scanned.tokens.columns
    assert written["score"].to_list() == scanned.tokens["score"].to_list()
    with pytest.raises(ValueError, match="part of the source"):
        scanned.write_tokens(tmp_path / "model" / "tokenizer.json", "all")


def test_where_nothing_stands_apart_no_token_is_dark(tmp_path):
    np.save(tmp_path / "rows.npy", rows(2_000, 16))
    report = scan(tmp_path / "rows.npy").to_json("dark")
    assert (report["tokens"], report["indicators"]["n_dark"], report["indicators"]["reference"]["kind"]) == (
        [],
        0,
        "none",
    )


def test_steps_are_to_the_nearest_of_all_black_holes(tmp_path):
    np.save(tmp_path / "rows.npy", dark_rows())
    tokens = scan(tmp_path / "rows.npy", checksum=False).tokens
    assert tokens.filter(pl.col("steps") == 0)["id"].to_list() == [3, 4, 7, 9, 50]
    assert tokens.filter(pl.col("black_hole") == 2)["id"].to_list() == [3, 4]


def test_tokens_of_the_tokenizer_without_a_row_are_told(tmp_path):
    untied(tmp_path)
    save_tokenizer(tmp_path / "tokenizer.json", [f"t{i}" for i in range(3_010)])
    scanned = scan(tmp_path)
    assert scanned.to_json()["vocabulary"]["n_texts_beyond_matrix"] == 10
    reports = dict(scan_facts(scanned))
    assert reports["beyond the matrix"] == "10 tokens of the tokenizer, for which there are no rows"
    assert reports["beyond tokenizer"] == "0 rows"


@pytest.mark.slow
@real
def test_minilm_s_three_populations_are_found_without_and_with_its_texts():
    """Ground truth: 994 tokens `[unused...]`, and pieces that no text reaches; hidden from the first scan."""
    hidden, reports = scan(MODEL, tokenizer="none", checksum=False), scan(MODEL, checksum=False)
    tokens = reports.tokens
    unused = tokens["reserved"].is_not_null().to_numpy()
    unreachable = (tokens["category"] == "unreachable").to_numpy()
    assert (unused.sum(), (unreachable & ~unused).sum()) == (994, 337)
    assert tokens.filter(text="##劉")["category"].item() == "unreachable"
    for scanned in (hidden, reports):
        score = scanned.tokens["score"].to_numpy()
        assert area(score, unused) > 0.9925
        assert area(score, unused | unreachable) > 0.998
    surest = tokens.filter((pl.col("category") == "reachable") & pl.col("dark"))
    assert {"ⱼ", "ಾ"} <= set(surest["text"])
    assert 100 < len(surest) < 250


@pytest.mark.parametrize("n", [MOST_EXACT, MOST_EXACT + 1, 900])
def test_the_two_largest_eigenvectors_are_those_of_all(n):
    rows = np.random.default_rng(n).normal(size=(n, 40)) * np.geomspace(3, 0.1, 40)
    rows -= rows.mean(0)  # as the cluster's: the vector of ones is of no eigenvalue but 0
    gram = rows @ rows.T
    values, vectors = _largest_two(gram)
    all_values, all_vectors = np.linalg.eigh(gram)
    np.testing.assert_allclose(values[-2:], all_values[-2:], rtol=1e-12)
    np.testing.assert_allclose(np.abs((vectors[:, -2:] * all_vectors[:, -2:]).sum(0)), 1, rtol=1e-12)
