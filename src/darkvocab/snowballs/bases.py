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
    """A base vector with its origin; two are equal if their names and numbers are."""

    name: str  # of a built-in or drawn base, or of the file
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
        """Value of ``--base`` that loads it (an array has none)."""
        if self.path is None:
            return self.name
        text = str(self.path)
        return f"./{text}" if text in (*BUILT_IN_BASES, *DRAWN_BASES) else text

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a manifest: the kind, and the path of a file or the numbers of an array."""
        kept: dict[str, Any] = {"kind": self.kind}
        if self.kind == "file":
            kept["path"] = str(self.path)
        if self.kind == "array":
            kept |= {"dtype": self.vector.dtype.name, "bytes": base64.b64encode(self.vector.tobytes()).decode()}
        return kept


@cache
def recorded() -> dict[str, Any]:
    """Return the published figures of Qwen3-4B's black holes."""
    return json.loads(resources.files(__package__).joinpath("data/qwen3_4b.json").read_text("utf-8"))


def qwen3_4b() -> Float32[np.ndarray, " dim"]:
    """Return the row of Qwen3-4B's largest black hole, reconstructed in bfloat16: 2,560 components.

    Recorded bit patterns, the histogram of exponents, norm, mean and extremes are the original's.
    Where each exponent stands, the other mantissas and the signs were drawn from a fixed seed.
    """
    return _stored("qwen3_4b")


def qwen3_4b_centred() -> Float32[np.ndarray, " dim"]:
    """Return a vector off the grid with the published statistics of the notebooks' centroid: 2,560 components.

    Percentiles of the magnitudes, norm, mean, median and extremes are the original's; order and signs
    were drawn from a fixed seed. Magnitudes between percentiles are interpolated, above the median
    on a power scale whose exponent is chosen for the norm.
    """
    return _stored("qwen3_4b_centred")


def _stored(name: str) -> Float32[np.ndarray, " dim"]:
    """Load a vector from the package; `tests/importable/base_recipes.py` generates it."""
    with resources.files(__package__).joinpath(f"data/{name}.npy").open("rb") as file:
        return np.load(file)


def random(dim: int, seed: int, point: int = 0) -> Float32[np.ndarray, " dim"]:
    """Draw standard normal components, rounded to float32."""
    return generator(seed, point, 0, purpose=BASE).standard_normal(dim).astype(np.float32)


def random_unit(dim: int, seed: int, point: int = 0) -> Float32[np.ndarray, " dim"]:
    """Draw a uniformly random direction of norm 1, in float32."""
    vector = random(dim, seed, point)
    return vector / np.linalg.norm(vector)


BUILT_IN_BASES = {"qwen3-4b": qwen3_4b, "qwen3-4b-centred": qwen3_4b_centred}
DRAWN_BASES = {"random": random, "random-unit": random_unit}


def load_base(spec: str | Path | np.ndarray | Base, dim: int | None = None, *, seed: int = 0, point: int = 0) -> Base:
    """Load a base vector by name, from a file, or from an array.

    Raises as `open_source`; CorruptFile also for NaN or infinity; InvalidInput for a file without a
    vector, or with several of which none is named `centroid`, or a size other than `dim`.

    Parameters
    ----------
    spec : "qwen3-4b", "qwen3-4b-centred", "random", "random-unit"; a `.safetensors` file with a 1-D
        float tensor (key `centroid` preferred) or a 1-D `.npy`; an array; or a `Base`
    dim : number of components of a drawn base, by default 2,560; checked for all others
    seed, point : of a drawn base
    """
    if isinstance(spec, str) and spec in DRAWN_BASES:
        return Base(name=spec, vector=DRAWN_BASES[spec](dim or DEFAULT_DIM, seed, point), kind="drawn")
    if isinstance(spec, Base):
        base = spec
    elif isinstance(spec, np.ndarray):
        base = Base(name="array", vector=np.asarray(spec, np.float64 if spec.dtype == np.float64 else np.float32))
    elif spec in BUILT_IN_BASES:
        base = Base(name=str(spec), vector=BUILT_IN_BASES[str(spec)](), kind="built-in")
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
        names = ", ".join([*BUILT_IN_BASES, *DRAWN_BASES])
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
    """Say whether a base, or the base of this name, is drawn from a run's seed."""
    return spec.kind == "drawn" if isinstance(spec, Base) else isinstance(spec, str) and spec in DRAWN_BASES


def varying_words() -> UInt16[np.ndarray, "holes dim"]:
    """Return the bit patterns of Qwen3-4B's 13 black holes: the built-in base with the recorded differences."""
    rows = np.tile(encode(qwen3_4b(), "bfloat16"), (13, 1))
    for dim, words in recorded()["varying_words"]["dims"].items():
        rows[:, int(dim)] = words
    return rows
