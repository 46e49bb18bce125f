"""Number grids: the representable values of a floating-point format, their spacing and their order.

Four views of a row, and one word for each: *values* (weight units), *words* (the unsigned bit patterns a file stores),
*indices* (signed integers in the order of the values; both zeros are 0), *steps* (a difference of indices).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt

from ..errors import InvalidInput, one_of
from . import _backends

ArrayLike = float | int | list | tuple | np.generic | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One binary floating-point format: sign, exponent, `mantissa_bits`; `max_code` is its largest finite number."""

    name: str
    bits: int  # of a word
    mantissa_bits: int
    min_exponent: int  # of the smallest normal number, as a power of two
    max_code: int  # word of the largest finite value; the next code is infinity, or NaN in float8_e4m3fn

    @property
    def word_dtype(self) -> np.dtype:
        return np.dtype(f"u{self.bits // 8}")

    @property
    def sign(self) -> int:
        """Word of -0.0: the sign bit alone."""
        return 1 << (self.bits - 1)

    @property
    def constants(self) -> tuple[int, int, int]:
        """`mantissa_bits`, `min_exponent` and `max_code`, as kernels take them."""
        return self.mantissa_bits, self.min_exponent, self.max_code

    @cached_property
    def max_value(self) -> float:
        """Largest finite value, weight units."""
        return float(decode(np.array([self.max_code], self.word_dtype), self)[0])


GRIDS = {
    grid.name: grid
    for grid in (
        Grid(name="bfloat16", bits=16, mantissa_bits=7, min_exponent=-126, max_code=0x7F7F),
        Grid(name="float16", bits=16, mantissa_bits=10, min_exponent=-14, max_code=0x7BFF),
        Grid(name="float32", bits=32, mantissa_bits=23, min_exponent=-126, max_code=0x7F7FFFFF),
        Grid(name="float8_e4m3fn", bits=8, mantissa_bits=3, min_exponent=-6, max_code=0x7E),
        Grid(name="float8_e5m2", bits=8, mantissa_bits=2, min_exponent=-14, max_code=0x7B),
    )
}


def as_grid(grid: str | Grid) -> Grid:
    """Return the `Grid` of this name, or raise InvalidInput; a `Grid` passes through."""
    return grid if isinstance(grid, Grid) else GRIDS[one_of(grid, "grid", GRIDS)]


def _finite(x: ArrayLike) -> np.ndarray:
    values = np.asarray(x, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput("needs finite values, got NaN or infinity")
    return values


def ulp(x: ArrayLike, grid: str | Grid = "bfloat16") -> Float64[np.ndarray, " ..."]:
    """Spacing of `grid` at ``|x|``, weight units: the gap to the next larger magnitude [1]_.

    x need not lie on the grid; below the smallest normal number the spacing is the smallest subnormal. Raises
    InvalidInput for an unknown grid, and for NaN, infinity or a value beyond the largest finite one of the grid.

    References
    ----------
    .. [1] J.-M. Muller, "On the definition of ulp(x)", INRIA RR-5504, 2005.

    Examples
    --------
    >>> float(ulp(1.0)), float(ulp(0.0094))
    (0.0078125, 6.103515625e-05)
    """
    grid = as_grid(grid)
    magnitudes = np.asarray(np.abs(_finite(x)))
    if (magnitudes > grid.max_value).any():
        raise InvalidInput(f"{grid.name} has no spacing beyond {grid.max_value:g}, got {magnitudes.max():g}")
    binade = np.maximum(np.frexp(magnitudes)[1] - 1, grid.min_exponent)
    return np.asarray(np.ldexp(1.0, np.where(magnitudes == 0, grid.min_exponent, binade) - grid.mantissa_bits))


def to_index(words: UInt[np.ndarray, " ..."], grid: str | Grid) -> Int64[np.ndarray, " ..."]:
    """Ordered index of each word: monotone in the value, consecutive on neighbours, 0 for both zeros.

    Examples
    --------
    >>> to_index(np.array([0x8001, 0x8000, 0x0000, 0x0001], np.uint16), "bfloat16")
    array([-1,  0,  0,  1])
    """
    grid = as_grid(grid)
    signed = np.asarray(words).astype(np.int64)
    code = signed & (grid.sign - 1)
    return np.asarray(np.where(signed & grid.sign, -code, code))


def from_index(index: ArrayLike, grid: str | Grid) -> UInt[np.ndarray, " ..."]:
    """Words of ordered indices up to the largest finite value: the inverse of `to_index` (0 becomes +0.0)."""
    grid = as_grid(grid)
    index = np.asarray(index, dtype=np.int64)
    if (np.abs(index) > grid.max_code).any():
        raise InvalidInput(
            f"{grid.name} indices lie within +-{grid.max_code}, got {index.flat[np.abs(index).argmax()]}"
        )
    return np.asarray(np.abs(index) | np.where(index < 0, grid.sign, 0), grid.word_dtype)


def decode(words: UInt[np.ndarray, " ..."], grid: str | Grid) -> Float32[np.ndarray, " ..."]:
    """Values of words, exactly (float32 holds every grid here); infinities and NaN come through."""
    grid = as_grid(grid)
    words = np.asarray(words)
    if words.dtype != grid.word_dtype:
        raise InvalidInput(f"{grid.name} words are {grid.word_dtype}, got {words.dtype}")
    if grid.name == "float32":
        return words.view(np.float32)
    if grid.name == "bfloat16":
        return np.asarray(np.left_shift(words, 16, dtype=np.uint32)).view(np.float32)
    return np.asarray(_table(grid)[words])


@lru_cache(maxsize=8)
def _table(grid: Grid) -> Float32[np.ndarray, " codes"]:
    """Value of every word of an 8- or 16-bit grid."""
    values = index_values(np.arange(grid.sign), grid)
    values[grid.max_code + 1 :] = np.nan
    if grid.name != "float8_e4m3fn":
        values[grid.max_code + 1] = np.inf
    return np.concatenate([values, -values]).astype(np.float32)


def encode(values: ArrayLike, grid: str | Grid) -> UInt[np.ndarray, " ..."]:
    """Words of values rounded to nearest, ties to even: one rounding, from float64 too.

    Beyond the largest finite value (by half a step or more) the word is infinity, in float8_e4m3fn NaN; NaN stays NaN.

    Examples
    --------
    >>> [hex(w) for w in encode([1.0, -0.0, 1 + 2**-8, 1e39], "bfloat16")]
    ['0x3f80', '0x8000', '0x3f80', '0x7f80']
    """
    grid = as_grid(grid)
    x = np.asarray(values)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    if grid.name == "float32" and x.dtype == np.float32:
        return x.view(np.uint32)
    finite = np.isfinite(x)
    code = np.abs(_round(np.where(finite, x, 0), grid))
    code = np.where(finite, code, np.where(np.isinf(x), grid.max_code + 1, grid.sign - 1))
    return np.asarray(code | np.where(np.signbit(x), grid.sign, 0), grid.word_dtype)


def _round(x: np.ndarray, grid: Grid) -> Int64[np.ndarray, " ..."]:
    """Ordered indices of finite values, rounded to nearest even; +-(max_code + 1) beyond the largest finite value."""
    index = np.empty(x.shape, np.int64)
    _backends.rounding.round_to_index(np.ascontiguousarray(x).ravel(), *grid.constants, index.ravel())
    return index


def round_to(values: ArrayLike, grid: str | Grid) -> Float32[np.ndarray, " ..."]:
    """Nearest values of the grid, ties to even: ``decode(encode(values))``.

    Examples
    --------
    >>> round_to([0.1, 3e-41], "bfloat16")
    array([0.10009766, 0.        ], dtype=float32)
    """
    return decode(encode(values, grid), grid)


def boundaries(x: ArrayLike, grid: str | Grid) -> tuple[Float64[np.ndarray, " ..."], Float64[np.ndarray, " ..."]]:
    """Rounding boundaries around each value, weight units: what lies strictly between them rounds where `x` rounds.

    They are exact: midpoints between neighbouring grid values; beyond the largest finite value, the point of overflow.
    A value on a boundary goes to the even neighbour. Raises InvalidInput for NaN, infinity or overflowing values.

    Examples
    --------
    >>> [float(b) for b in boundaries(1.0, "bfloat16")]
    [0.998046875, 1.00390625]
    """
    grid = as_grid(grid)
    index = _round(_finite(x), grid)
    if (np.abs(index) > grid.max_code).any():
        raise InvalidInput(f"a value overflows {grid.name} (largest finite value {grid.max_value:g})")
    below, at, above = (index_values(index + k, grid) for k in (-1, 0, 1))
    return np.asarray((below + at) / 2), np.asarray((at + above) / 2)


def index_values(index: ArrayLike, grid: str | Grid, dtype: type = np.float64) -> Float[np.ndarray, " ..."]:
    """Values of ordered indices, float64 or float32, exactly; beyond the largest finite one as if binades went on."""
    grid = as_grid(grid)
    index = np.asarray(index, order="C")
    values: np.ndarray = np.empty(index.shape, dtype)
    _backends.rounding.values_of(index.ravel(), *grid.constants[:2], values.ravel())
    return values


def regrid(words: UInt[np.ndarray, " ..."], source: str | Grid, target: str | Grid) -> UInt[np.ndarray, " ..."]:
    """Words of `target` nearest to words of `source` (ties to even, one rounding)."""
    source = as_grid(source)
    target = as_grid(target)
    if source == target:
        return words
    if source.bits <= 16:
        return _regrid_table(source, target)[words]
    return encode(decode(words, source), target)


@lru_cache(maxsize=8)
def _regrid_table(source: Grid, target: Grid) -> np.ndarray:
    return encode(decode(np.arange(1 << source.bits, dtype=source.word_dtype), source), target)
