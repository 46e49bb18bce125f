"""Files of `torch.save`, read without torch, beside what `torch.load` makes of them."""

import collections
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkvocab import EmbeddingMatrix, centroid, scan
from darkvocab.sources import open_source

torch = pytest.importorskip("torch")

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def random_words(shape, dtype, seed=0):
    size = torch.empty((), dtype=dtype).element_size()
    data = np.random.default_rng(seed).bytes(int(np.prod(shape)) * size)
    return torch.frombuffer(bytearray(data), dtype=SIGNED[size]).view(dtype).reshape(shape)


def same_words(tensor, tensor_read):
    size = tensor.element_size()
    return tensor.contiguous().view(SIGNED[size]).numpy().tobytes() == tensor_read.words().tobytes()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", DTYPES)
def test_every_word_of_every_type_is_read(tmp_path, name, protocol):
    written = {"a": random_words((3, 5), DTYPES[name]), "b": random_words((2, 3, 4), DTYPES[name], seed=1)}
    torch.save(written, tmp_path / "m.pt", pickle_protocol=protocol)
    result = open_source(tmp_path / "m.pt").tensors
    assert result.keys() == written.keys()
    for key, tensor in written.items():
        assert (result[key].dtype, result[key].shape) == (name, tuple(tensor.shape))
        assert isinstance(result[key].words(), np.memmap)
        assert same_words(tensor, result[key])


def test_integers_are_listed_and_not_taken_for_rows(tmp_path):
    kinds = [
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint16",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
    ]
    torch.save({kind: torch.zeros(2, 3, dtype=getattr(torch, kind)) for kind in kinds}, tmp_path / "m.pt")
    result = open_source(tmp_path / "m.pt").tensors
    assert [tensor.dtype for tensor in result.values()] == "BOOL U8 I8 I16 I32 I64 U16 U32 U64 C64 C128".split()
    assert not any(tensor.is_float for tensor in result.values())


def test_views_see_their_part_of_a_storage(tmp_path):
    whole = torch.arange(60.0).reshape(12, 5)
    views = {"all": whole, "rows": whole[3:7], "one": whole[4], "column": whole[:, 1:2], "empty": whole[:0]}
    views |= {"turned": whole.t(), "left": whole[:, :2], "repeated": whole[:1].expand(9, 5), "scalar": whole[2, 2]}
    torch.save(views, tmp_path / "m.pt")
    assert (tmp_path / "m.pt").stat().st_size < 2 * 60 * 4 + 4000  # one storage for all
    result = open_source(tmp_path / "m.pt").tensors
    for name in ("all", "rows", "one", "empty", "scalar"):
        assert result[name].shape == tuple(views[name].shape)
        assert same_words(views[name], result[name])
    for name in ("column", "turned", "left", "repeated"):
        with pytest.raises(ValueError, match=rf"'{name}' is a view.*save a copy"):
            result[name].words()


def test_names_are_joined_and_what_is_no_tensor_is_left_out(tmp_path):
    rows = torch.nn.Parameter(torch.rand(6, 2))
    rows.note = "of its own"
    marked = torch.rand(2)
    marked.note = "a tensor with attributes"
    twice = {"wte.weight": rows}
    checkpoint = {
        "model": twice,
        "same": twice,
        "list": [torch.zeros(1), {"x": marked}],
        "optimizer": collections.OrderedDict(state={3: {"exp_avg": torch.zeros(6, 2)}}, size=rows.shape),
        "epoch": 3,
        "texts": {("a", "b"): torch.zeros(1), "c": {1, 2}, "d": b"bytes"[:0], "e": frozenset("f"), "g": 1.5, "h": None},
        "dtype": torch.float16,
        "device": torch.device("cpu"),
    }
    torch.save(checkpoint, tmp_path / "m.pt", pickle_protocol=4)
    result = open_source(tmp_path / "m.pt").tensors
    assert list(result) == ["model.wte.weight", "list.0", "list.1.x", "optimizer.state.3.exp_avg"]
    report = scan(tmp_path / "m.pt").to_json()
    assert (report["tensor"], report["chosen"], report["n_tokens"]) == ("model.wte.weight", "by name", 6)


def test_a_state_dict_with_its_metadata_is_read(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9)).state_dict(), tmp_path / "m.bin")
    assert list(open_source(tmp_path / "m.bin").tensors) == ["0.weight", "1.weight", "1.bias"]


def test_a_tensor_alone_is_named_after_its_file(tmp_path):
    torch.save(torch.zeros(4, 2), tmp_path / "rows.pth")
    assert scan(tmp_path / "rows.pth").to_json()["tensor"] == "rows"


def test_shards_are_read_through_their_index(tmp_path):
    rows = torch.rand(8, 4).bfloat16()
    rows[3] = rows[5]
    torch.save({"model.embed_tokens.weight": rows}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"lm_head.weight": rows * 2}, tmp_path / "pytorch_model-00002-of-00002.bin")
    places = {
        "model.embed_tokens.weight": "pytorch_model-00001-of-00002.bin",
        "lm_head.weight": "pytorch_model-00002-of-00002.bin",
    }
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    for path in (tmp_path, tmp_path / "pytorch_model.bin.index.json"):
        report = scan(path).to_json()
        assert (report["populations"], report["grid"], report["tied"]) == ([2], "bfloat16", False)
        assert report["output_tensor"] == "lm_head.weight"
        assert report["source"]["path"].endswith("00001-of-00002.bin")


def test_scan_and_centroid_are_those_of_the_same_rows_in_safetensors(tmp_path):
    from safetensors.torch import save_file

    rows = torch.randn(500, 16).bfloat16()
    rows[100:120] = rows[7]
    save_file({"wte.weight": rows}, tmp_path / "m.safetensors")
    torch.save({"wte.weight": rows}, tmp_path / "m.bin")
    reports = [scan(tmp_path / name).to_json() for name in ("m.safetensors", "m.bin")]
    for report in reports:
        del report["source"]
    assert reports[0] == reports[1]
    norms = [centroid(tmp_path / name, tmp_path / "c.safetensors")["norm"] for name in ("m.safetensors", "m.bin")]
    assert norms[0] == norms[1]
    with pytest.raises(ValueError, match="part of the source"):
        centroid(tmp_path / "m.bin", tmp_path / "m.bin")


@pytest.mark.slow
def test_torch_is_not_loaded(tmp_path):
    torch.save({"wte.weight": torch.zeros(4, 2)}, tmp_path / "m.bin")
    program = "import sys; from darkvocab import scan; scan(sys.argv[1]).to_json(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program, tmp_path / "m.bin"], check=True)


@settings(max_examples=60)
@given(data=st.data())
def test_what_torch_writes_reads_back_word_for_word(tmp_path_factory, data):
    written = {}
    for name in data.draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=4, unique=True)):
        dtype = DTYPES[data.draw(st.sampled_from(list(DTYPES)))]
        shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=3)))
        tensor = random_words(shape, dtype, seed=data.draw(st.integers(0, 99)))
        written[name] = tensor[data.draw(st.integers(0, shape[0] - 1)) :] if shape else tensor
    path = tmp_path_factory.mktemp("any") / "any.pt"
    torch.save(written, path, pickle_protocol=data.draw(st.integers(2, 5)))
    result = open_source(path).tensors
    assert result.keys() == written.keys()
    for name, tensor in written.items():
        assert DTYPES[result[name].dtype] == tensor.dtype
        assert result[name].shape == tuple(tensor.shape)
        assert same_words(tensor, result[name])


def test_rows_of_8_bits_are_on_their_grid(tmp_path):
    rows = torch.randn(40, 3).to(torch.float8_e5m2)
    torch.save({"wte.weight": rows}, tmp_path / "m.pt")
    matrix = EmbeddingMatrix.open(tmp_path / "m.pt")
    assert matrix.grid.name == "float8_e5m2"
    plain = rows.view(torch.uint8).numpy().view(ml_dtypes.float8_e5m2).astype(np.float32)
    assert np.array_equal(matrix.rows(slice(None)), plain)
