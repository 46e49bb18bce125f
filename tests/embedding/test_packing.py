"""Packed rows: MLX's own values, arithmetic against numpy's, and every shape that scales come in."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from darkvocab import EmbeddingMatrix
from darkvocab.embedding.scales import Grouped
from darkvocab.errors import CorruptFile, InvalidInput
from darkvocab.numerics import GRIDS

MLX = Path(__file__).parent / "data" / "mlx.safetensors"  # mx.quantize and mx.dequantize of mlx 0.32 on a CPU
WEIGHT, SCALES, BIASES = (f"embed_tokens.{name}" for name in ("weight", "scales", "biases"))
TYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}


def opened(folder, tensors, config="{}"):
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(config)
    return EmbeddingMatrix.open(folder)


@pytest.mark.parametrize("kind", ["bf16", "f16"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_affine_groups_have_the_values_that_mlx_gives_them(tmp_path, kind, bits):
    held = load_file(MLX)
    tensors = {name: held[f"{kind}.{bits}.{name}"] for name in (WEIGHT, SCALES, BIASES)}
    values = held[f"{kind}.{bits}.values"].astype(np.float32)
    config = f'{{"quantization": {{"group_size": 64, "bits": {bits}}}}}'
    for said in (config, '{"hidden_size": 128}', config.replace(f', "bits": {bits}', "")):
        matrix = opened(tmp_path, tensors, said)
        assert (matrix.dim, matrix.stored, matrix.grid.name) == (128, f"mlx-{bits}bit-g64", "float32")
        assert np.array_equal(matrix.rows(slice(None)), values)


@given(
    grid=st.sampled_from(list(TYPES)),
    bits=st.integers(1, 8),
    offset=st.sampled_from([0, 8]),
    group=st.sampled_from([8, 64]),
    seed=st.integers(0, 99),
)
def test_codes_become_values_in_the_arithmetic_of_their_scales(grid, bits, offset, group, seed):
    rng = np.random.default_rng(seed)
    kind, word = TYPES[grid], GRIDS[grid].word_dtype
    scales, biases = rng.integers(0, np.iinfo(word).max, (2, 9, 3), dtype=word, endpoint=True)  # NaN, infinities, all
    biases[::2] = scales[::2]
    codes = rng.integers(0, 1 << bits, (9, 3 * group))
    stream = np.unpackbits(codes.astype(np.uint8)[:, :, None], axis=2, bitorder="little")[:, :, :bits]
    words = np.packbits(stream.reshape(9, -1), axis=1, bitorder="little").view(np.uint8)
    packing = Grouped(name="x", dim=3 * group, bits=bits, offset=offset, grid=GRIDS[grid], scales=scales, biases=biases)
    result = packing.values(words, slice(None))
    with np.errstate(all="ignore"):
        products = (codes.reshape(9, 3, group) - offset) * scales.view(kind).astype(np.float64)[:, :, None]
        sums = products.astype(kind).astype(np.float64) + biases.view(kind).astype(np.float64)[:, :, None]
        assert np.array_equal(result, sums.astype(kind).astype(np.float32).reshape(9, -1), equal_nan=True)
    some = np.array([7, 2])
    assert np.array_equal(packing.values(words[some], some), result[some], equal_nan=True)
    assert np.array_equal(packing.of(some).values(words[some], slice(None)), result[some], equal_nan=True)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{}", "may have 8 bits in groups of 32 or 4 bits in groups of 64 or 2 bits in groups of 128"),
        ('{"quantization": {"group_size": 48}}', "no 2, 3, 4, 5, 6 or 8 bits for groups of 48 fit"),
        ('{"quantization": {"group_size": 64, "bits": 8}}', "no 2, 3, 4, 5, 6 or 8 bits for groups of 64 fit"),
        ('{"quantization": {"group_size": 64, "mode": "mxfp4"}}', "is packed by MLX in mode 'mxfp4'"),
    ],
)
def test_groups_that_a_config_leaves_open_or_denies_are_refused(tmp_path, config, says):
    held = load_file(MLX)
    with pytest.raises((InvalidInput, CorruptFile), match=says):
        opened(tmp_path, {name: held[f"bf16.4.{name}"] for name in (WEIGHT, SCALES, BIASES)}, config)


def test_a_config_may_say_it_of_one_module(tmp_path):
    held = load_file(MLX)
    tensors = {name: held[f"bf16.8.{name}"] for name in (WEIGHT, SCALES, BIASES)}
    config = '{"quantization": {"group_size": 64, "bits": 4, "embed_tokens": {"group_size": 64, "bits": 8}}}'
    assert opened(tmp_path, tensors, config).stored == "mlx-8bit-g64"


def numbers(n=300, dim=260):
    return np.random.default_rng(3).standard_normal((n, dim)).astype(ml_dtypes.float8_e4m3fn)


@pytest.mark.parametrize("name", [f"{WEIGHT}_scale_inv", f"{WEIGHT}_scale", f"{WEIGHT}_scales", SCALES])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (300,), (300, 1), (300, 2), (3, 3)])
def test_scales_are_applied_by_tensor_row_group_or_block(tmp_path, name, shape):
    rows = numbers()
    scales = np.random.default_rng(4).random(shape).astype(np.float32)
    matrix = opened(tmp_path, {WEIGHT: rows, name: scales})
    by_block = shape == (3, 3)
    columns = scales.reshape(-1, shape[1] if len(shape) == 2 else 1)
    each = np.repeat(columns, 128 if by_block else 260 // columns.shape[1], axis=1)[:, :260]
    each = np.repeat(each, 128, axis=0)[:300] if by_block else np.broadcast_to(each, rows.shape)
    assert np.array_equal(matrix.rows(slice(None)), rows.astype(np.float32) * each)
    assert np.array_equal(matrix.rows([299, 5]), (rows.astype(np.float32) * each)[[299, 5]])
    assert (matrix.stored, matrix.chosen) == ("float8_e4m3fn x scale", f"by name; scaled by {name}")


def test_the_config_says_how_large_a_block_is(tmp_path):
    rows = numbers()
    scales = np.random.default_rng(4).random((5, 9)).astype(np.float32)
    config = '{"quantization_config": {"weight_block_size": [64, 32]}}'
    matrix = opened(tmp_path, {WEIGHT: rows, f"{WEIGHT}_scale_inv": scales}, config)
    each = np.repeat(np.repeat(scales, 64, axis=0), 32, axis=1)[:300, :260]
    assert np.array_equal(matrix.rows(slice(None)), rows.astype(np.float32) * each)


def test_rows_with_equal_words_and_other_scales_are_not_one(tmp_path):
    rows = numbers()
    rows[[1, 2, 3]] = rows[0]
    scales = np.full(300, 0.5, np.float32)
    scales[3] = 0.25
    groups = opened(tmp_path, {WEIGHT: rows, f"{WEIGHT}_scale": scales}).groups()
    assert groups.labels[:4].tolist() == [0, 0, 0, 1]


def test_scales_may_be_powers_of_two_in_a_byte(tmp_path):
    rows = numbers()
    exponents = np.random.default_rng(4).integers(100, 140, (3, 3), dtype=np.uint8)
    matrix = opened(tmp_path, {WEIGHT: rows, f"{WEIGHT}_scale_inv": exponents.view(ml_dtypes.float8_e8m0fnu)})
    each = np.repeat(np.repeat(2.0 ** (exponents.astype(np.int64) - 127), 128, axis=0), 128, axis=1)[:300, :260]
    assert np.array_equal(matrix.rows(slice(None)), (rows.astype(np.float64) * each).astype(np.float32))
