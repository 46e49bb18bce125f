"""Base vectors: built in, drawn, or from a file."""

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

from ..embedding.scales import GRID_OF_DTYPE
from ..errors import CorruptFile, InvalidInput, MissingFile
from ..numerics import decode, encode
from ..runs.randomness import BASE, generator
from ..sources import open_source
from ..text import printable
from .snowball import SENTENCES

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


def qwen3_4b() -> Float32[np.ndarray, " dim"]:
    """Return the row of Qwen3-4B's largest black hole as far as it is recorded, in bfloat16.

    Every recorded word and exponent, the whole exponent histogram, and norm, mean and extremes of
    the original; the exponents' places, the other mantissas and the signs were drawn from a fixed
    seed. 2,560 components.
    """
    return _stored("qwen3_4b")


def qwen3_4b_centred() -> Float32[np.ndarray, " dim"]:
    """Return a vector with the published statistics of the notebooks' centroid, off the lattice.

    Percentiles of the magnitudes, norm, mean, median, smallest and largest component are the
    original's; places and signs were drawn from a fixed seed. Magnitudes between percentiles are
    interpolated, above the median on a power scale whose exponent the norm sets. 2,560 components.
    """
    return _stored("qwen3_4b_centred")


def _stored(name: str) -> Float32[np.ndarray, " dim"]:
    """Load a vector from the package; `tests/importable/base_recipes.py` makes it anew."""
    with resources.files(__package__).joinpath(f"data/{name}.npy").open("rb") as file:
        return np.load(file)


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

    Raises as `open_source`; CorruptFile for NaN or infinity, too, and InvalidInput for no vector in
    the file, several without one named `centroid`, or a size other than `dim`.

    Parameters
    ----------
    spec : "qwen3-4b", "qwen3-4b-centred", "random", "random-unit"; a `.safetensors` file with a 1-D
        float tensor (key `centroid` preferred) or a 1-D `.npy`; or an array; or a `Base`, as it is
    dim : its size; needed by none, must agree with a vector that has its own (drawn: 2,560 by
        default)
    seed, point : of the drawn ones
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
        raise InvalidInput(SENTENCES["other_dim"].format(base=base, dim=dim))
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
        names = ", ".join(sorted(vectors)[:8])
        raise InvalidInput(SENTENCES["no_centroid"].format(path=path, n=len(vectors), names=names))
    tensor = vectors.get("centroid") or next(iter(vectors.values()))
    words = tensor.words()
    if tensor.dtype == "F64":
        vector = np.array(words).view(np.float64)
    else:
        vector = np.array(decode(np.array(words), GRID_OF_DTYPE[tensor.dtype]))
    return Base(name=printable(path.name), vector=vector, kind="file", path=path)


def is_drawn(spec: Any) -> bool:
    """Return whether a base, or what names one, is drawn from a run's seed."""
    return spec.kind == "drawn" if isinstance(spec, Base) else isinstance(spec, str) and spec in DRAWN


def varying_words() -> UInt16[np.ndarray, "holes dim"]:
    """Words of Qwen3-4B's 13 black holes: the built-in base, recorded words where they differ."""
    rows = np.tile(encode(qwen3_4b(), "bfloat16"), (13, 1))
    for dim, words in recorded()["varying_words"]["dims"].items():
        rows[:, int(dim)] = words
    return rows
