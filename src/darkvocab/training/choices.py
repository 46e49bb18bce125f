"""Choices of a training as plain objects: architecture, start, noise, optimizer, precision."""

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InvalidInput, MissingFile, at_least, one_of

HELD = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
ERRORS: dict[str, str] = HELD["errors"]


def _positive(value: float, name: str, *, or_zero: bool = False) -> None:
    if not (math.isfinite(value) and (value >= 0 if or_zero else value > 0)):
        raise InvalidInput(f"{name} must be finite and {'>= 0' if or_zero else '> 0'}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Size of a GPT-2; the defaults are those of 11.2c."""

    layers: int = 2
    heads: int = 2
    width: int = 64
    context: int = 128
    norm: str = "layernorm"  # or "rmsnorm", as in 11.2a
    tied: bool = True  # the output matrix is the embedding

    def __post_init__(self) -> None:
        at_least(1, layers=self.layers, heads=self.heads, width=self.width)
        if self.context < 2:
            raise InvalidInput(f"context must be >= 2, or there is nothing to predict, got {self.context}")
        if self.width % self.heads:
            raise InvalidInput(f"width {self.width} is no multiple of {self.heads} heads")
        one_of(self.norm, "norm", ("layernorm", "rmsnorm"))


@dataclass(frozen=True, kw_only=True)
class NormalStart:
    """Start from transformers' initialisation: normal rows with standard deviation 0.02."""

    name: ClassVar[str] = "normal"

    def rows(self, torch: Any, shape: tuple[int, int], dtype: Any) -> Any | None:
        return None


@dataclass(frozen=True, kw_only=True)
class PointStart:
    """Start with one random vector for all rows (11.2a and 11.2b: a unit vector)."""

    name: ClassVar[str] = "point"
    unit: bool = True  # divided by its Euclidean norm

    def rows(self, torch: Any, shape: tuple[int, int], dtype: Any) -> Any:
        point = torch.randn(shape[1])
        return (point / point.norm() if self.unit else point).to(dtype).expand(shape)


@dataclass(frozen=True, kw_only=True)
class SnowballStart:
    """Start with a random vector plus normal noise of this sigma for every row (11.2c)."""

    name: ClassVar[str] = "snowball"
    sigma: float = 1e-5  # weight units, before rounding
    drawn: str = "float32"  # the sum is rounded once (11.2c); or "grid": vector, noise and sum are each rounded

    def __post_init__(self) -> None:
        _positive(self.sigma, "the start's sigma", or_zero=True)
        one_of(self.drawn, "way to draw a start", ("float32", "grid"))

    def rows(self, torch: Any, shape: tuple[int, int], dtype: Any) -> Any:
        working = dtype if self.drawn == "grid" else torch.float32
        base = torch.randn(shape[1]).to(working)
        noise = torch.randn(*shape).to(working) * self.sigma
        return (base + noise).to(dtype)


@dataclass(frozen=True, kw_only=True)
class ModelStart(NormalStart):
    """Start from all weights of a model that `train` or `repair` wrote."""

    name: ClassVar[str] = "model"
    model: str  # its folder

    @property
    def file(self) -> Path:
        """File of the weights; MissingFile where there is none."""
        if not (path := Path(self.model) / "model.safetensors").is_file():
            raise MissingFile(f"{self.model} has no model.safetensors; give the folder model of a training")
        return path

    def identity(self) -> dict[str, str]:
        """Return what identifies the weights, for a manifest."""
        return {"model": self.model, "sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()}


Start = NormalStart | PointStart | SnowballStart | ModelStart


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Normal noise on rows of the embedding after every step, in the weights' grid (11.2b: epsilon / 10 = 3e-6)."""

    sigma: float  # weight units
    rows: str = "all"  # or "unseen"

    def __post_init__(self) -> None:
        _positive(self.sigma, "the noise's sigma", or_zero=True)
        one_of(self.rows, "rows for noise", ("all", "unseen"))


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with weight decay of matrices, not of biases and norms, as in transformers' Trainer."""

    name: ClassVar[str] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _positive(self.learning_rate, "the learning rate", or_zero=True)
        _positive(self.weight_decay, "weight decay", or_zero=True)
        _positive(self.eps, "eps")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InvalidInput(f"betas must be >= 0 and < 1, got {self.betas}")


@dataclass(frozen=True, kw_only=True)
class CoupledAdam(AdamW):
    """AdamW in which all tokens share an embedding's second moments: their mean over the vocabulary.

    F. Stollenwerk and T. Stollenwerk, "Better embeddings with Coupled Adam", ACL 2025.
    """

    name: ClassVar[str] = "coupled-adam"


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent; decay of the same weights as `AdamW`, added to the gradient."""

    name: ClassVar[str] = "sgd"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _positive(self.learning_rate, "the learning rate", or_zero=True)
        _positive(self.weight_decay, "weight decay", or_zero=True)
        if not 0 <= self.momentum < 1:
            raise InvalidInput(f"momentum must be >= 0 and < 1, got {self.momentum!r}")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Number grids in which a training keeps weights and state; sums, norms and losses are always float32."""

    weights: str  # grid of the weights, and of the recording
    optimizer: str  # grid of gradients, optimizer state and the arithmetic of the update
    factors: str = "bfloat16"  # grid of the factors of matrix products

    @property
    def rounded(self) -> bool:
        """Tell whether updates are computed on master weights and then rounded to the weights' grid."""
        return self.weights != self.optimizer


PRECISIONS = {name: Precision(**grids) for name, grids in HELD["precisions"].items()}
NAMED = {"precision": tuple(PRECISIONS), **HELD["named"]}
STARTS = {kind.name: kind for kind in (NormalStart, PointStart, SnowballStart, ModelStart)}
NOISES = {"none": None, "gaussian": GaussianNoise}
OPTIMIZERS = {kind.name: kind for kind in (AdamW, SGD, CoupledAdam)}


def chosen(kinds: Mapping[str, Any], options: Mapping[str, Any], choice: str, prefix: str = "") -> Any:
    """Return the start, noise or optimizer that the option `choice` names, with its fields from the options."""
    kind = kinds[one_of(options[choice], choice, kinds)]
    if kind is None:
        return None
    names = [field.name for field in fields(kind) if options.get(prefix + field.name) is not None]
    if lacking := [field.name for field in fields(kind) if field.default is MISSING and field.name not in names]:
        raise InvalidInput(f"{choice} {kind.name} needs {' and '.join(prefix + name for name in lacking)}")
    return kind(**{name: options[prefix + name] for name in names})
