"""Base vectors: built in, drawn, or from a file."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt16

from ..embedding.matrix import GRID_OF_DTYPE
from ..errors import CorruptFile, InvalidInput, MissingFile
from ..numerics import decode, encode
from ..runs.randomness import BASE, generator
from ..sources import open_source
from ..text import printable

DEFAULT_DIM = 2560


@dataclass(frozen=True, kw_only=True, eq=False)
class Base:
    """A vector, and where it comes from; equal to another of the same name and numbers."""

    name: str  # a built-in's, or the file's
    vector: Float[np.ndarray, " dim"] = field(repr=False)
    kind: str = "array"  # or "built-in", "drawn", "file"
    path: Path | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Base) and (self.name, self.sha256) == (other.name, other.sha256)

    def __hash__(self) -> int:
        return hash((self.name, self.sha256))

    @cached_property
    def sha256(self) -> str:
        """Hash of the vector's bytes, little-endian."""
        return hashlib.sha256(self.vector.tobytes()).hexdigest()

    @property
    def option(self) -> str:
        """The value of ``--base`` that loads it; of an array there is none."""
        if self.path is None:
            return self.name
        text = str(self.path)
        return f"./{text}" if text in (*FIXED, *DRAWN) else text

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest keeps: its kind; a file's path, an array's numbers."""
        kept: dict[str, Any] = {"kind": self.kind}
        if self.kind == "file":
            kept["path"] = str(self.path)
        if self.kind == "array":
            kept |= {"dtype": self.vector.dtype.name, "bytes": base64.b64encode(self.vector.tobytes()).decode()}
        return kept


@cache
def recorded() -> dict[str, Any]:
    """Return the recorded figures of Qwen3-4B's black holes."""
    return json.loads(resources.files(__package__).joinpath("data/qwen3_4b.json").read_text("utf-8"))


def _words(key: int, n: int) -> np.ndarray:
    """Raw 64-bit words of Philox: the same on every numpy, unlike its distributions."""
    return np.random.Philox(key=key).random_raw(n)


def qwen3_4b() -> Float32[np.ndarray, " dim"]:
    """Return the row of Qwen3-4B's largest black hole as far as it is recorded, in bfloat16.

    Every recorded word and exponent, the whole exponent histogram, and norm, mean and extremes of
    the original; the exponents' places, the other mantissas and the signs are drawn from a fixed
    seed. 2,560 components.
    """
    facts = recorded()["largest_black_hole"]
    dim = recorded()["hidden_dim"]
    words = np.zeros(dim, np.int64)
    known = np.array([int(d) for d in facts["words"]])
    words[known] = list(facts["words"].values())
    exponent = words >> 7 & 0xFF
    exponent[[int(d) for d in facts["exponents"]]] = list(facts["exponents"].values())
    left = np.repeat(
        [int(e) for e in facts["exponent_histogram_biased"]],
        [n - (exponent == int(e)).sum() for e, n in facts["exponent_histogram_biased"].items()],
    )
    open_places = np.flatnonzero(exponent == 0)
    exponent[open_places] = left[np.argsort(_words(1, len(left)))]
    free = np.setdiff1d(np.arange(dim), known)
    drawn = _words(2, len(free))
    mantissa = (drawn >> np.uint64(57)).astype(np.int64)
    sign = (drawn & np.uint64(1)).astype(np.int64)
    words[free] = sign << 15 | exponent[free] << 7 | mantissa

    # The norm: raise or lower mantissas of the two binades where the density falls, one step each,
    # until it is met.
    order = free[np.argsort(_words(3, len(free)))]
    goal = facts["scalars_float32"]["norm"] ** 2
    while True:
        excess = goal - np.square(_bfloat16(words)).sum()
        step = 1 if excess > 0 else -1
        movable = order[((words[order] & 0x7F) + step >> 7 == 0) & (exponent[order] > 119) & (exponent[order] < 122)]
        gain = np.square(_bfloat16(words[movable] + step)) - np.square(_bfloat16(words[movable]))
        moved = np.searchsorted(np.cumsum(np.abs(gain)), abs(excess))
        words[movable[:moved]] += step
        if moved < len(movable):
            break

    # The mean: flip signs, each only where that brings the sum nearer.
    error = facts["scalars_float32"]["mean"] * dim - _bfloat16(words).sum()
    for d in order:
        value = _bfloat16(words[d : d + 1])[0]
        if abs(error + 2 * value) < abs(error):
            words[d] ^= 0x8000
            error += 2 * value
    return _bfloat16(words).astype(np.float32)


def _bfloat16(words: np.ndarray) -> np.ndarray:
    return decode(words.astype(np.uint16), "bfloat16").astype(np.float64)


def qwen3_4b_centred() -> Float32[np.ndarray, " dim"]:
    """Return a vector with the published statistics of the notebooks' centroid, off the lattice.

    Percentiles of the magnitudes, norm, mean, median, smallest and largest component are the
    original's; places and signs are drawn from a fixed seed. Magnitudes between percentiles are
    interpolated, above the median on a power scale whose exponent the norm sets. 2,560 components.
    """
    facts = recorded()["centred_centroid"]
    dim = recorded()["hidden_dim"]
    percent = np.array([float(q) for q in facts["magnitude_percentiles"]])
    knots = np.array(list(facts["magnitude_percentiles"].values()))
    at = np.linspace(0, 100, dim)

    def magnitudes(power: float) -> np.ndarray:
        size = np.interp(at, percent, knots)
        upper = at > 50
        size[upper] = np.interp(at[upper], percent, knots**power) ** (1 / power)
        size[-2:] = abs(facts["min"]), facts["max"]
        size[np.abs(size - abs(facts["median"])).argmin()] = abs(facts["median"])
        return size

    low, high = -8.0, 8.0001  # the norm grows with the power
    for _ in range(60):
        middle = (low + high) / 2
        if np.linalg.norm(magnitudes(middle)) < facts["norm"]:
            low = middle
        else:
            high = middle
    size = magnitudes(low)

    # Signs: the lower median is the recorded one, so 1,279 components lie below it; then the mean,
    # by swaps.
    ranks = np.argsort(_words(4, dim))
    below = np.flatnonzero(size > abs(facts["median"]))
    negative = np.zeros(dim, bool)
    lowest = dim - 2
    middle_one = np.flatnonzero(size == abs(facts["median"]))[0]
    choice = below[np.argsort(_words(5, len(below)))]
    choice = choice[(choice < lowest)]
    negative[[lowest, middle_one, *choice[: (dim - 1) // 2 - 1]]] = True
    error = facts["mean"] * dim - np.where(negative, -size, size).sum()
    plus, minus = choice[~negative[choice]], choice[negative[choice]]
    for p, m in zip(plus, minus, strict=False):
        change = 2 * (size[m] - size[p])  # p turns negative, m positive
        if abs(error - change) < abs(error):
            negative[[p, m]] = True, False
            error -= change
    values = np.where(negative, -size, size)
    return values[ranks].astype(np.float32)


def random(dim: int, seed: int, point: int = 0) -> Float32[np.ndarray, " dim"]:
    """Standard normal components, rounded to float32."""
    return generator(seed, point, 0, purpose=BASE).standard_normal(dim).astype(np.float32)


def random_unit(dim: int, seed: int, point: int = 0) -> Float32[np.ndarray, " dim"]:
    """A uniformly random direction of norm 1, in float32."""
    vector = random(dim, seed, point)
    return vector / np.linalg.norm(vector)


FIXED = {"qwen3-4b": qwen3_4b, "qwen3-4b-centred": qwen3_4b_centred}
DRAWN = {"random": random, "random-unit": random_unit}


def load_base(spec: str | Path | np.ndarray | Base, dim: int | None = None, *, seed: int = 0, point: int = 0) -> Base:
    """Load the base vector of this name, from this file, or of this array.

    Parameters
    ----------
    spec : "qwen3-4b", "qwen3-4b-centred", "random", "random-unit"; a `.safetensors` file with a 1-D
        float tensor (key `centroid` preferred) or a 1-D `.npy`; or an array; or a `Base`, as it is
    dim : its size; needed by none, must agree with a vector that has its own (drawn: 2,560 by
        default)
    seed, point : of the drawn ones

    Raises
    ------
    MissingFile, CorruptFile
        As `open_source`; NaN or infinity in the vector.
    InvalidInput
        No vector in the file, several without one named `centroid`, or a size other than `dim`.
    """
    if isinstance(spec, Base):
        base = spec
    elif isinstance(spec, np.ndarray):
        base = Base(name="array", vector=np.asarray(spec, np.float64 if spec.dtype == np.float64 else np.float32))
    elif spec in DRAWN:
        return Base(name=str(spec), vector=DRAWN[str(spec)](dim or DEFAULT_DIM, seed, point), kind="drawn")
    elif spec in FIXED:
        base = Base(name=str(spec), vector=FIXED[str(spec)](), kind="built-in")
    else:
        base = _read(Path(spec))
    if base.vector.ndim != 1 or not base.vector.size:
        raise InvalidInput(f"base {base.name!r} must be a vector, got shape {list(base.vector.shape)}")
    if dim is not None and dim != base.vector.size:
        raise InvalidInput(
            f"base {base.name!r} has {base.vector.size:,} components, --dim says {dim:,}; leave --dim out"
        )
    if not np.isfinite(base.vector).all():
        bad = np.flatnonzero(~np.isfinite(base.vector))
        raise CorruptFile(f"base {base.name!r}: component {bad[0]} is {base.vector[bad[0]]} ({len(bad)} such in all)")
    return base


def _read(path: Path) -> Base:
    if not path.exists():
        names = ", ".join([*FIXED, *DRAWN])
        raise MissingFile(f"no base {str(path)!r}: neither built in ({names}) nor a file")
    vectors = {n: t for n, t in open_source(path).tensors.items() if t.is_float and not t.block and len(t.shape) == 1}
    if not vectors:
        raise InvalidInput(f"{path} holds no 1-D tensor of floating-point numbers to use as base")
    if "centroid" not in vectors and len(vectors) > 1:
        raise InvalidInput(
            f"{path} holds {len(vectors)} vectors ({', '.join(sorted(vectors)[:8])}), none named 'centroid'"
        )
    tensor = vectors.get("centroid") or next(iter(vectors.values()))
    words = tensor.words()
    if tensor.dtype == "F64":
        vector = np.array(words).view(np.float64)
    else:
        vector = np.array(decode(np.array(words), GRID_OF_DTYPE[tensor.dtype]))
    return Base(name=printable(path.name), vector=vector, kind="file", path=path)


def is_drawn(spec: Any) -> bool:
    """Whether a base, or what names one, is drawn from a run's seed."""
    return spec.kind == "drawn" if isinstance(spec, Base) else isinstance(spec, str) and spec in DRAWN


def varying_words() -> UInt16[np.ndarray, "holes dim"]:
    """Words of Qwen3-4B's 13 black holes: the built-in base, recorded words where they differ."""
    rows = np.tile(encode(qwen3_4b(), "bfloat16"), (13, 1))
    for dim, words in recorded()["varying_words"]["dims"].items():
        rows[:, int(dim)] = words
    return rows
