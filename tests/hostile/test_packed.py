"""Packed embeddings that lie: scales of another shape, groups that do not fit, configs that say anything at all."""

import json
from contextlib import suppress

import cases
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from darkvocab import EmbeddingMatrix
from darkvocab.errors import CorruptFile, InvalidInput, NoEmbedding

WEIGHT, SCALES, BIASES = (f"model.embed_tokens.{name}" for name in ("weight", "scales", "biases"))
WORDS = np.zeros((40, 8), np.uint32)
GROUPS = np.ones((40, 1), ml_dtypes.bfloat16)
EIGHT = np.ones((40, 16), ml_dtypes.float8_e4m3fn)
BFLOAT = ml_dtypes.bfloat16
MLX = {WEIGHT: WORDS, SCALES: GROUPS, BIASES: GROUPS}


def scaled(*shape, kind=np.float32, name="_scale"):
    return {WEIGHT: EIGHT, f"{WEIGHT}{name}": np.ones(shape, kind)}


def packed(*shape, words=WORDS, scales=GROUPS):
    """Return tensors of compressed-tensors, with this shape in a tensor of its own, if any."""
    said = {f"{WEIGHT}_shape": np.array(shape)} if shape else {}
    return {f"{WEIGHT}_packed": words, f"{WEIGHT}_scale": scales, **said}


def groups(*shape):
    return {**MLX, SCALES: np.ones(shape, BFLOAT), BIASES: np.ones(shape, BFLOAT)}


LIES = {
    "scales for other rows": (groups(39, 1), {}, 4, "there must be some for every row"),
    "scales without columns": (groups(40, 0), {}, 4, "there must be some for every row"),
    "scales in one row": (groups(40), {}, 4, "there must be some for every row"),
    "biases of another shape": ({**MLX, BIASES: np.ones((40, 2), BFLOAT)}, {}, 4, "biases are BF16 [40, 2]"),
    "biases of another type": ({**MLX, BIASES: np.ones((40, 1), np.float32)}, {}, 4, "biases are F32"),
    "scales of bytes": ({**MLX, SCALES: np.ones((40, 1), np.uint8)}, {}, 4, "they must be BF16, F16 or F32"),
    "groups that do not divide": (groups(40, 3), {}, 4, "no 2, 3, 4, 5, 6 or 8 bits for groups of 32 or 64 or 128 fit"),
    "a group of 2^60": (MLX, {"quantization": {"group_size": 1 << 60}}, 4, "fit"),
    "a million bits": (MLX, {"quantization": {"group_size": 64, "bits": 10**6}}, 4, "fit"),
    "groups in words": (MLX, {"quantization": {"group_size": "64", "bits": [4]}}, 2, "its config.json says which"),
    "no words": ({**MLX, WEIGHT: WORDS[:, :0]}, {}, 2, "is packed, U32 [40, 0]"),
    "a scale for each column": (scaled(1, 16), {}, 4, "neither one, nor for each row"),
    "no scales at all": (scaled(0, 1), {}, 4, "neither one, nor for each row"),
    "scales in three dimensions": (scaled(2, 2, 2), {}, 4, "neither one, nor for each row"),
    "scales of float64": (scaled(40, kind=np.float64), {}, 4, "they must be BF16, F16 or F32"),
    "a block of 2^80": (
        scaled(2, 2, name="_scale_inv"), {"quantization_config": {"weight_block_size": [1 << 80, 1]}}, 4, "neither one",
    ),
    "a shape for other rows": (packed(41, 64), {}, 4, "says 41 rows, the matrix has 40"),
    "a shape of 2^62 columns": (packed(40, 1 << 62), {}, 2, "a number of bits that is not read here"),
    "a shape below zero": (packed(40, -64), {}, 2, "a number of bits that is not read here"),
    "a shape in three": (packed(40, 64, 1), {}, 4, "must be the two sizes of a matrix"),
    "packed in floats": (packed(words=np.ones((40, 8), np.float32)), {"hidden_size": 64}, 2, "is packed, F32"),
    "packed without a size": (packed(), {}, 2, "is packed, U32"),
    "scales that do not divide": (
        packed(scales=np.ones((40, 7), BFLOAT)), {"hidden_size": 64}, 4, "for each row as divide its 64 numbers",
    ),
}  # fmt: skip


def written(folder, tensors, config):
    (folder / "model.safetensors").write_bytes(tensors if isinstance(tensors, bytes) else save(tensors))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("tensors", "config", "code", "says"), LIES.values(), ids=LIES)
def test_scales_that_do_not_belong_to_their_matrix_are_refused(tmp_path, refuses, tensors, config, code, says):
    refuses("scan", written(tmp_path, tensors, config), code=code, says=[says])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scales_that_are_no_numbers_make_rows_that_are_none(tmp_path, refuses, value):
    scales = GROUPS.copy()
    scales[[5, 8]] = value
    refuses("scan", written(tmp_path, {**MLX, SCALES: scales}, {"hidden_size": 64}), code=4, says=["tokens 5, 8"])


def test_an_adapters_config_may_say_anything(tmp_path, refuses):
    for base in (None, 3, ["a"], {"b": 1}, "up\x1b[2J\ndarkvocab: no problem"):
        folder = cases.saved(tmp_path / "lora", "lora")
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        assert "\x1b" not in refuses("scan", folder, code=3, says=["is a LoRA adapter"]).err
    (folder / "adapter_config.json").write_text("[]")
    refuses("scan", folder, code=4, says=["not a JSON object"])


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
KEYS = st.sampled_from(["group_size", "bits", "mode", "model.embed_tokens", "weight_block_size", "hidden_size", "a"])
ANYTHING = st.recursive(JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))
SIZES = st.integers(0, 9) | st.sampled_from([16, 32, 40, 64, 128])


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data())
def test_any_scales_with_any_config_are_read_or_refused(scratch, data):
    """Rows are read in full where a matrix opens."""
    kinds = (np.uint32, np.int32, np.int8, np.uint8, np.int64, np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn)
    names = [WEIGHT, SCALES, BIASES, f"{WEIGHT}_packed", f"{WEIGHT}_scale", f"{WEIGHT}_shape", f"{WEIGHT}_scale_inv"]
    names += ["model.embed_tokens.SCB", f"{WEIGHT}_zero_point", "lm_head.weight", "model.embed_tokens.lora_embedding_A"]
    tensors = {}
    for name in data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=5)):
        shape = data.draw(st.lists(SIZES, min_size=0, max_size=3) | st.just([40, 8]) | st.just([40, 1]))
        kind = np.dtype(data.draw(st.sampled_from(kinds)))
        n_bytes = int(np.prod(shape)) * kind.itemsize
        tensors[name] = np.frombuffer(np.random.default_rng(n_bytes).bytes(n_bytes), kind).reshape(shape)
    config = {
        key: data.draw(ANYTHING)
        for key in data.draw(st.sets(st.sampled_from(["quantization", "quantization_config", "hidden_size"])))
    }
    read_or_refused(written(scratch, tensors, config), data.draw(st.none() | st.sampled_from(names)))


@pytest.mark.slow
@settings(max_examples=400)
@given(data=st.data(), name=st.sampled_from(["mlx", "compressed", "fp8", "int8", "lora", "codebooks", "padded"]))
def test_changed_files_are_read_or_refused(scratch, mutated, data, name):
    held = cases.files(name)
    weights = next(file for file in held if file.endswith(".safetensors"))
    length = 8 + int.from_bytes(held[weights][:8], "little")
    content = mutated(data, held[weights][:length]) + held[weights][length:]
    with suppress(json.JSONDecodeError, UnicodeDecodeError):
        config = json.loads(mutated(data, held.get("config.json", b"{}")))
        read_or_refused(written(scratch, content, config))


def read_or_refused(folder, tensor=None):
    with suppress(CorruptFile, InvalidInput, NoEmbedding):
        matrix = EmbeddingMatrix.open(folder, tensor=tensor)
        assert matrix.rows(slice(None)).shape == (matrix.n_tokens, matrix.dim)
        assert matrix.n_tokens * matrix.dim <= 20 * (folder / "model.safetensors").stat().st_size
        assert matrix.output_shape is None or len(matrix.output_shape) == 2
        matrix.without(matrix.nonfinite())
        matrix.tying  # noqa: B018
