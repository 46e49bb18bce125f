"""GGUF: what it holds, against a writer of ours and the `gguf` package."""

import json
import struct
import sys

import gguf
import ggufs
import ml_dtypes
import numpy as np
import pytest

from darkvocab import EmbeddingMatrix, centroid, scan
from darkvocab.measures.neighbours import neighbours
from darkvocab.numerics import Touching
from darkvocab.sources import gguf as reader
from darkvocab.sources import open_source
from darkvocab.sources.tokenizer import tokenizer_of

TEXTS = [f"t{n}" for n in range(50)]


def rows(n=60, dim=32, seed=0):
    result = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    result[[9, 50]] = result[7]
    return result


def with_texts(texts=TEXTS):
    return [
        ("general.architecture", ggufs.value("text", "llama")),
        ("tokenizer.ggml.tokens", ggufs.value("text", texts)),
    ]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("kind", "dtype", "grid"),
    [
        ("F32", np.float32, "float32"),
        ("F16", np.float16, "float16"),
        ("BF16", ml_dtypes.bfloat16, "bfloat16"),
    ],
)
def test_rows_that_are_not_quantised_need_no_package(tmp_path, monkeypatch, kind, dtype, grid, version):
    monkeypatch.setitem(sys.modules, "gguf", None)
    matrix = rows().astype(dtype)
    tensors = {
        "output_norm.weight": np.ones(32, np.float32),
        "token_embd.weight": (kind, matrix.shape, matrix.tobytes()),
        "output.weight": (kind, matrix.shape, (matrix * 2).astype(dtype).tobytes()),
    }
    path = ggufs.saved(tmp_path / "m.gguf", tensors, with_texts(), version=version)
    result = EmbeddingMatrix.open(path)
    assert (result.grid.name, result.quantised, result.tensor, result.output) == (
        grid, None, "token_embd.weight", "output.weight"
    )  # fmt: skip
    assert isinstance(result.words, np.memmap)
    assert np.array_equal(result.rows(slice(None)), matrix.astype(np.float32))
    report = scan(path).to_json()
    assert (report["populations"], report["tied"], report["stored_grid"]) == ([3], False, grid)
    assert report["black_holes"][0]["tokens"] == ["t7", "t9", None]
    assert report["n_beyond_tokenizer"] == 10


def test_texts_of_the_file_yield_to_those_asked_for(tmp_path):
    path = ggufs.saved(tmp_path / "m.gguf", {"token_embd.weight": rows()}, with_texts())
    assert scan(path, tokenizer="none").to_json()["black_holes"][0]["tokens"] == [None] * 3
    model = {"type": "WordLevel", "vocab": {f"other{n}": n for n in range(60)}, "unk_token": "other0"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    asked = scan(path, tokenizer=tmp_path / "tokenizer.json").to_json()
    assert asked["black_holes"][0]["tokens"] == ["other7", "other9", "other50"]
    assert EmbeddingMatrix.open(path).label(7) == "7 't7'"


def test_values_of_every_type_are_passed_over(tmp_path):
    values = [(f"a.{kind}", ggufs.value(kind, 1)) for kind in ("u8", "u16", "u32", "i32", "f32", "bool", "u64")]
    values += [(f"b.{kind}", ggufs.value(kind, [1] * 5)) for kind in ("u8", "u16", "u32", "i32", "f32", "bool", "u64")]
    values += [
        ("c", ggufs.value("text", ["a b", "c d"])),
        ("tokenizer.ggml.tokens", ggufs.value("text", [b"\xc3", "é"])),
    ]
    path = ggufs.saved(tmp_path / "m.gguf", {"token_embd.weight": rows()}, values)
    assert EmbeddingMatrix.open(path).texts == {0: "\ufffd", 1: "é"}


def test_alignment_is_that_of_the_file(tmp_path):
    values = [("general.alignment", ggufs.value("u32", 128))]
    path = ggufs.saved(tmp_path / "m.gguf", {"token_embd.weight": rows()}, values, alignment=128)
    assert np.array_equal(EmbeddingMatrix.open(path).rows(slice(None)), rows())


def part(n, count=2):
    return [("split.no", ggufs.value("u16", n)), ("split.count", ggufs.value("u16", count))]


@pytest.mark.parametrize("asked", [1, 2])
def test_parts_of_a_file_are_read_together(tmp_path, asked):
    ggufs.saved(tmp_path / "m-00001-of-00002.gguf", {"token_embd.weight": rows()}, with_texts() + part(0))
    ggufs.saved(tmp_path / "m-00002-of-00002.gguf", {"output.weight": rows() * 2}, part(1))
    report = scan(tmp_path / f"m-0000{asked}-of-00002.gguf").to_json()
    assert (report["tied"], report["output_tensor"]) == (False, "output.weight")
    assert report["black_holes"][0]["tokens"][0] == "t7"
    assert report["source"]["path"].endswith("m-00001-of-00002.gguf")


def q8_0(matrix):
    """Blocks of 32 numbers: a scale in float16, then 32 signed bytes."""
    blocks = matrix.reshape(len(matrix), -1, 32)
    scales = (np.abs(blocks).max(axis=2, keepdims=True) / 127).astype(np.float16)
    steps = np.round(blocks / np.where(scales == 0, 1, scales).astype(np.float32)).clip(-127, 127).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), steps.view(np.uint8)], axis=2), scales.astype(np.float32) * steps


def test_quantised_rows_are_counted_by_what_they_mean(tmp_path):
    """By hand: rows 0 and 1 are the same bytes; 2 differs in them and means the same, since its scale is zero, too."""
    zero = struct.pack("<e", 0)
    stored = [zero + bytes(32), zero + bytes(32), zero + bytes([1] * 32), struct.pack("<e", 0.5) + bytes([2] * 32)]
    path = ggufs.saved(tmp_path / "m.gguf", {"token_embd.weight": ("Q8_0", (4, 32), b"".join(stored))})
    report = scan(path).to_json()
    assert (report["grid"], report["stored_grid"], report["populations"]) == ("float32", "Q8_0", [3])
    assert report["norms"]["max"] == pytest.approx(np.sqrt(32), rel=1e-12)
    assert centroid(path, tmp_path / "c.safetensors")["provenance"]["stored_grid"] == "Q8_0"
    assert scan(path, bitwise=True).to_json()["populations"] == [3]
    assert scan(path, grid="bfloat16").to_json()["populations"] == [3]


def test_neighbours_of_quantised_rows_are_those_of_their_values(tmp_path):
    rng = np.random.default_rng(0)
    blocks = np.zeros((40, 2, 34), np.uint8)  # Q8_0: a float16 scale, and 32 numbers
    blocks[:, :, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    blocks[:, :, 2:] = rng.integers(0, 2, (40, 2, 32))
    held = ("Q8_0", (40, 64), blocks.tobytes())
    matrix = EmbeddingMatrix.open(ggufs.saved(tmp_path / "model.gguf", {"token_embd.weight": held}))
    touching = Touching(0.5, "weight")
    ours, theirs = neighbours(matrix, touching), neighbours(matrix.rows(slice(None)), touching)
    assert ours.n_pairs == theirs.n_pairs == 40 * 39 // 2
    assert neighbours(matrix, Touching(0.5, "weight", strict=True)).n_pairs == 0


def test_quantised_rows_that_are_no_numbers_are_refused(tmp_path):
    stored = struct.pack("<e", np.nan) + bytes([1] * 32) + struct.pack("<e", 1) + bytes(32)
    path = ggufs.saved(tmp_path / "m.gguf", {"token_embd.weight": ("Q8_0", (2, 32), stored)})
    with pytest.raises(ValueError, match=r"1 of 2 rows of token_embd\.weight hold NaN"):
        scan(path)


def test_table_names_the_quantised_type(tmp_path, capsys):
    from darkvocab.reports.checkpoints import print_scan
    from darkvocab.reports.console import console

    path = ggufs.saved(tmp_path / "m.gguf", {"token_embd.weight": ("Q8_0", (60, 32), q8_0(rows())[0].tobytes())})
    scanned = scan(path)
    print_scan(scanned, console())
    assert "float32 (dequantised from the stored Q8_0)" in capsys.readouterr().out


def test_types_are_those_of_the_package():
    theirs = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert {number: reader.TENSOR_TYPES[number] for number in theirs} == theirs


@pytest.mark.parametrize(
    "kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "TQ1_0"]
)
def test_rows_and_tensors_are_those_of_the_package(tmp_path, kind):
    number = gguf.GGMLQuantizationType[kind]
    size, n_bytes = gguf.GGML_QUANT_SIZES[number]
    stored = np.random.default_rng(1).integers(0, 120, (300, 512 // size * n_bytes), dtype=np.uint8)
    stored[[3, 200]] = stored[8]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(TEXTS)
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(5, np.float32))
    writer.add_tensor("token_embd.weight", stored, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = open_source(tmp_path / "m.gguf")
    theirs = gguf.GGUFReader(tmp_path / "m.gguf")
    assert {name: (t.shape, t.offset, t.nbytes) for name, t in ours.tensors.items()} == {
        t.name: (tuple(t.shape.tolist())[::-1], t.data_offset, t.n_bytes) for t in theirs.tensors
    }
    assert list(tokenizer_of(ours).texts.values()) == theirs.get_field("tokenizer.ggml.tokens").contents()
    with np.errstate(all="ignore"):
        plain = gguf.quants.dequantize(stored, number)
    matrix = EmbeddingMatrix.open(tmp_path / "m.gguf")
    assert (matrix.dim, matrix.quantised) == (512, kind)
    assert np.array_equal(matrix.rows(slice(None)), plain, equal_nan=True)
    if np.isfinite(plain).all():
        assert matrix.groups().counts.max() == 3
        assert len(matrix.groups().first) == len(np.unique(plain + 0.0, axis=0))


def test_type_that_the_package_cannot_dequantise_is_a_sentence(tmp_path):
    _, size, n_bytes = reader.FORMATS["gguf"]["Q8_K"]
    path = ggufs.saved(tmp_path / "m.gguf", {"token_embd.weight": (15, (2, size), bytes(2 * n_bytes))})
    with pytest.raises(ValueError, match="makes no numbers of Q8_K"):
        scan(path)
