"""Dequantise packed rows, by scales within their blocks or in other tensors.

Each packing has the `name` of the stored type, the numbers in a row (`dim`), `values`, which decodes the stored words
of rows, and `of`, the packing of a matrix that has only these rows.
"""

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, Int64, UInt

from ..errors import CorruptFile, InvalidInput
from ..numerics import GRIDS, Grid, decode
from ..sources import Source, Tensor
from ..sources.gguf import dequantised, n_numbers
from ..sources.tensors import FORMATS
from ..text import printable

_TEXTS = (Path(__file__).with_name(f"{name}.toml").read_text("utf-8") for name in ("names", "sentences"))
TENSOR_NAMES, SENTENCES = map(tomllib.loads, _TEXTS)
NAME_PATTERNS = {name: re.compile(pattern) for name, pattern in TENSOR_NAMES["patterns"].items()}
GRID_OF_DTYPE: dict[str, str] = FORMATS["grids"]
MLX_BITS = (2, 3, 4, 5, 6, 8)
MLX_GROUPS = (32, 64, 128)
TENSORS_BITS = (2, 4, 8)  # of compressed-tensors; its earlier versions left gaps between codes of other sizes
SCALE_BLOCK = (128, 128)  # rows and columns that share a scale, unless a config says otherwise
Rows = slice | list[int] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Blocks of a GGUF file, which contain their scales."""

    name: str  # Q4_K, ...
    stored: int  # bytes of a row

    @property
    def dim(self) -> int:
        return n_numbers(self.stored, self.name)

    def values(self, words: UInt[np.ndarray, "k stored"], rows: Rows) -> Float32[np.ndarray, "k dim"]:
        return dequantised(words, self.name)

    def of(self, rows: Rows) -> Self:
        return self


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """Codes of a few bits, lowest bit first, with a scale and a bias for each group of numbers in a row.

    A value is ``scale * (code - offset) + bias``, with product and sum rounded to the type of the scales, as MLX [1]_
    (offset 0) and compressed-tensors [2]_ (no bias, offset half the number of codes) compute it.

    References
    ----------
    .. [1] `mlx.core.dequantize`, mode "affine".
    .. [2] `compressed_tensors.compressors.pack_quantized`, symmetric.
    """

    name: str
    dim: int
    bits: int
    offset: int
    grid: Grid  # of scales and biases
    scales: UInt[np.ndarray, "n_tokens groups"]  # words on that grid
    biases: UInt[np.ndarray, "n_tokens groups"] | None

    def values(self, words: UInt[np.ndarray, "k stored"], rows: Rows) -> Float32[np.ndarray, "k dim"]:
        from ..numerics._backends.rounding import unpack

        with np.errstate(all="ignore"):  # a scale of NaN makes a row of NaN, which is reported later
            scales = decode(self.scales[rows], self.grid).astype(np.float64)
            biases = np.zeros_like(scales)
            if self.biases is not None:
                biases[:] = decode(self.biases[rows], self.grid)
        data = np.ascontiguousarray(words).view(np.uint8)
        out = np.empty((len(words), self.dim), np.float32)
        shape = self.grid.mantissa_bits, self.grid.min_exponent, self.grid.max_value
        unpack(data, self.bits, self.offset, scales, biases, *shape, out)
        return out

    def of(self, rows: Rows) -> Self:
        return replace(self, scales=self.scales[rows], biases=None if self.biases is None else self.biases[rows])


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """Floating-point or int8 numbers of 8 bits, multiplied in float32 by the scale of their tensor, row or block."""

    name: str
    dim: int
    grid: Grid | None  # of the numbers; None: int8
    scales: Float32[np.ndarray, "r c"]
    places: Int64[np.ndarray, " n_tokens"]  # row of `scales` for each row
    width: int  # columns that share a scale

    def values(self, words: UInt[np.ndarray, "k dim"], rows: Rows) -> Float32[np.ndarray, "k dim"]:
        numbers = words.view(np.int8).astype(np.float32) if self.grid is None else decode(words, self.grid)
        scales = self.scales[self.places[rows]]
        if scales.shape[1] > 1:
            scales = np.repeat(scales, self.width, axis=1)[:, : self.dim]
        with np.errstate(all="ignore"):  # a product beyond float32 is infinite, which is reported later
            return numbers * scales

    def of(self, rows: Rows) -> Self:
        return replace(self, places=self.places[rows])


Packing = Blocks | Grouped | Scaled


def _module(tensor: Tensor) -> str:
    """Return the module name of a weight, with the dot at its end."""
    return NAME_PATTERNS["packed"].sub("weight", tensor.name).removesuffix("weight")


def find_companions(source: Source, tensor: Tensor) -> dict[str, Tensor]:
    """Return the tensors that are needed to decode this one: `scales`, `biases`, `shape`, found by name alone.

    Empty for plain numbers, and for numbers that are packed in a way that is not read here.
    """
    module = _module(tensor)

    def first(names: list[str]) -> Tensor | None:
        full = (name.format(module=module, name=tensor.name) for name in names)
        return next((source.tensors[name] for name in full if name in source.tensors), None)

    for rule in TENSOR_NAMES["companions"]:
        if tensor.name.endswith(rule["ending"]) and tensor.dtype in rule.get("dtypes", (tensor.dtype,)):
            beside = {role: held for role, names in rule["roles"].items() if (held := first(names))}
            return {} if first(rule["unless"]) or len(beside) < rule["needs"] else beside
    return {}


def find_scales(source: Source, tensor: Tensor) -> str:
    """Name the tensors of scales and biases of this one; empty without any."""
    return " and ".join(beside.name for role, beside in find_companions(source, tensor).items() if role != "shape")


def find_packing(source: Source, tensor: Tensor) -> Packing | None:
    """Return how the stored words of a matrix become values; None where they are the words of its grid.

    Raises CorruptFile where scales do not belong to such a matrix, InvalidInput where its numbers cannot be read here.
    """
    if tensor.block:
        return Blocks(name=tensor.dtype, stored=tensor.words_shape[-1])
    beside = find_companions(source, tensor)
    if "scales" not in beside:
        if tensor.is_float:
            return None
        raise refusal(source, tensor)
    if tensor.name.endswith("weight_packed"):
        return _compressed(source, tensor, beside)
    if "biases" in beside:
        return _affine(source, tensor, beside["scales"], beside["biases"])
    return _scaled(source, tensor, beside["scales"])


def is_packed(source: Source, tensor: Tensor) -> bool:
    """Say whether a tensor's integers stand for other numbers: scales or the like exist in its module."""
    module = _module(tensor)
    return any(name.startswith(module) and NAME_PATTERNS["no_embedding"].fullmatch(name) for name in source.tensors)


def refusal(source: Source, tensor: Tensor) -> InvalidInput:
    """Return the error for a matrix with an unsupported packing."""
    module = _module(tensor)
    others = [name for name in source.tensors if name.startswith(module) and name != tensor.name]
    beside = f", beside {', '.join(map(printable, others[:4]))}" if module and others else ""
    return _unread("packed", tensor, beside=beside)


def _unread(key: str, tensor: Tensor, **facts: Any) -> InvalidInput:
    """Return the error about a packed matrix that `sentences.toml` has under this key."""
    facts |= {"tensor": tensor, "name": printable(tensor.name), "shape": list(tensor.shape)}
    return InvalidInput(SENTENCES[key].format(**facts))


def _wrong(tensor: Tensor, scales: Tensor, what: str) -> CorruptFile:
    named = {"name": printable(scales.name), "shape": list(scales.shape)}
    of = {"of": printable(tensor.name), "of_shape": list(tensor.shape)}
    return CorruptFile(SENTENCES["wrong_scales"].format(scales=scales, tensor=tensor, what=what, **named, **of))


def _grid_of(tensor: Tensor, scales: Tensor) -> Grid:
    if scales.dtype not in ("BF16", "F16", "F32"):
        raise _wrong(tensor, scales, "they must be BF16, F16 or F32")
    return GRIDS[GRID_OF_DTYPE[scales.dtype]]


def _whole(value: Any) -> int | None:
    """Return a config's value if it is a positive integer, else None."""
    return value if type(value) is int and value > 0 else None


def _hidden_size(source: Source) -> int | None:
    nested = [part for part in source.config.values() if isinstance(part, dict) and "vocab_size" in part]
    sizes = (_whole(part.get("hidden_size")) for part in (source.config, *nested))
    return next((size for size in sizes if size), None)


def _affine(source: Source, tensor: Tensor, scales: Tensor, biases: Tensor) -> Grouped:
    """Read groups of MLX: `bits = 32 * columns / (groups * size)`, the size by the config or the one that fits."""
    grid = _grid_of(tensor, scales)
    n, columns = tensor.shape
    if len(scales.shape) != 2 or scales.shape[0] != n or not scales.shape[1]:
        raise _wrong(tensor, scales, "there must be some for every row")
    if (biases.dtype, biases.shape) != (scales.dtype, scales.shape):
        raise _wrong(tensor, scales, f"biases are {biases.dtype} {list(biases.shape)}")
    groups = scales.shape[1]
    settings = _mlx_settings(source, tensor)
    if settings.get("mode", "affine") != "affine":
        raise _unread("mlx_mode", tensor, mode=str(settings["mode"])[:40])
    hidden = _hidden_size(source)
    said = _whole(settings.get("group_size"))
    sizes = (said,) if said else (hidden // groups,) if hidden and hidden % groups == 0 else MLX_GROUPS
    bits_said = _whole(settings.get("bits"))
    fitting = [
        (bits, size)
        for size in sizes
        for bits in MLX_BITS
        if bits * size * groups == 32 * columns and bits_said in (None, bits)
    ]
    if not fitting:
        raise _wrong(tensor, scales, f"no 2, 3, 4, 5, 6 or 8 bits for groups of {' or '.join(map(str, sizes))} fit")
    if len(fitting) > 1:
        either = " or ".join(f"{bits} bits in groups of {size}" for bits, size in fitting)
        raise _unread("mlx_either", tensor, either=either)
    (bits, size), *_ = fitting
    name = f"mlx-{bits}bit-g{size}"
    words = {"scales": scales.words(), "biases": biases.words()}
    return Grouped(name=name, dim=groups * size, bits=bits, offset=0, grid=grid, **words)


def _mlx_settings(source: Source, tensor: Tensor) -> dict[str, Any]:
    """Return the config's quantisation settings of this tensor's module."""
    settings = source.config.get("quantization", source.config.get("quantization_config"))
    if not isinstance(settings, dict):
        return {}
    of_module = settings.get(_module(tensor).removesuffix("."))
    return {**settings, **of_module} if isinstance(of_module, dict) else settings


def _compressed(source: Source, tensor: Tensor, beside: dict[str, Tensor]) -> Grouped:
    """Read symmetric groups of compressed-tensors; another tensor or the config gives the number of columns."""
    scales = beside["scales"]
    grid = _grid_of(tensor, scales)
    n, columns = tensor.shape
    dim = _hidden_size(source)
    if shape := beside.get("shape"):
        if (shape.dtype, shape.shape) != ("I64", (2,)):
            raise CorruptFile(f"{shape.path}: {printable(shape.name)} must be the two sizes of a matrix, I64 [2]")
        rows, dim = shape.packed().tolist()
        if rows != n:
            raise CorruptFile(f"{shape.path}: {printable(shape.name)} says {rows:,} rows, the matrix has {n:,}")
    if tensor.dtype not in ("I32", "U32") or dim is None:
        raise refusal(source, tensor)
    fitting = [bits for bits in TENSORS_BITS if -(-dim * bits // 32) == columns]
    if len(fitting) != 1:
        raise _unread("unread_bits", tensor, dim=dim, columns=columns, read=", ".join(map(str, TENSORS_BITS)))
    if len(scales.shape) != 2 or scales.shape[0] != n or not scales.shape[1] or dim % scales.shape[1]:
        raise _wrong(tensor, scales, f"there must be as many for each row as divide its {dim:,} numbers")
    (bits,) = fitting
    name = f"packed-int{bits}-g{dim // scales.shape[1]}"
    return Grouped(name=name, dim=dim, bits=bits, offset=1 << (bits - 1), grid=grid, scales=scales.words(), biases=None)


def _scaled(source: Source, tensor: Tensor, scales: Tensor) -> Scaled:
    """Read 8-bit numbers with one scale for the tensor, or one for each row, group of a row, or block."""
    n, dim = tensor.shape
    values = _values(tensor, scales)
    settings = source.config.get("quantization_config")
    said = settings.get("weight_block_size") if isinstance(settings, dict) else None
    block = SCALE_BLOCK
    if isinstance(said, list) and len(said) == 2 and all(_whole(size) for size in said):
        block = min(said[0], n), min(said[1], dim)
    sharing = block  # rows and columns that share a scale
    if values.size == 1:
        values = values.reshape(1, 1)
        sharing = (n, dim)
    elif values.ndim in (1, 2) and len(values) == n and values.size and dim % (values.size // n) == 0:
        values = values.reshape(n, -1)
        sharing = (1, dim // values.shape[1])
    elif values.shape != (-(-n // block[0]), -(-dim // block[1])):
        raise _wrong(tensor, scales, f"neither one, nor for each row, nor for each block of {block[0]} x {block[1]}")
    if scales.name.endswith("SCB"):  # bitsandbytes: the largest magnitude of each row, which int8 has at 127
        values = values / np.float32(127)
    grid = None if tensor.dtype == "I8" else GRIDS[GRID_OF_DTYPE[tensor.dtype]]
    name = f"{'int8' if grid is None else grid.name} x scale"
    return Scaled(name=name, dim=dim, grid=grid, scales=values, places=np.arange(n) // sharing[0], width=sharing[1])


def _values(tensor: Tensor, scales: Tensor) -> np.ndarray:
    if scales.dtype == "F8_E8M0":  # a power of two; 255 is NaN
        exponents = scales.packed().astype(np.int64)
        return np.where(exponents == 255, np.nan, np.ldexp(1.0, exponents - 127)).astype(np.float32)
    return decode(scales.words(), _grid_of(tensor, scales))
