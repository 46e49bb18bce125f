"""Packed rows: what the bytes of a quantised row mean, by the scales that lie in its blocks or in other tensors.

Each packing has the name of the type that rows are stored in, the numbers in a row (`dim`), `values` of rows whose
stored words are given, and `of`, the packing of a matrix of some rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Float32, Int64, UInt

from ..numerics import Grid, decode
from ..sources.gguf import dequantised, n_numbers

Rows = slice | list[int] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Blocks of a GGUF file, which hold their own scales."""

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
    """Codes of a few bits, the lowest bit first, with a scale and a bias for each group of a row's numbers.

    A value is ``scale * (code - offset) + bias`` in the arithmetic of the scales' type: product and sum are rounded to
    it, as MLX computes them [1]_ (offset 0), and compressed-tensors (no bias, offset half the number of codes) [2]_.

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

        with np.errstate(all="ignore"):  # a scale that is no number makes a row that is none, which is found later
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
    """Numbers of 8 bits, floating-point or int8, multiplied in float32 by the scale of their tensor, row or block."""

    name: str
    dim: int
    grid: Grid | None  # of the numbers; None: int8
    scales: Float32[np.ndarray, "r c"]
    places: Int64[np.ndarray, " n_tokens"]  # the row of `scales` that each row has
    width: int  # columns that share a scale

    def values(self, words: UInt[np.ndarray, "k dim"], rows: Rows) -> Float32[np.ndarray, "k dim"]:
        numbers = words.view(np.int8).astype(np.float32) if self.grid is None else decode(words, self.grid)
        scales = self.scales[self.places[rows]]
        if scales.shape[1] > 1:
            scales = np.repeat(scales, self.width, axis=1)[:, : self.dim]
        with np.errstate(all="ignore"):  # a product beyond float32 is infinite, which is found later
            return numbers * scales

    def of(self, rows: Rows) -> Self:
        return replace(self, places=self.places[rows])


Packing = Blocks | Grouped | Scaled
