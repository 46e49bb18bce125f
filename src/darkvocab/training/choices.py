"""Choices of a training as plain objects: its architecture, its start, its noise, its optimizer, its precision."""

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
    """A GPT-2. 11.2c's: 2 layers, 2 heads, width 64, context 128, tied."""

    layers: int = 2
    heads: int = 2
    width: int = 64
    context: int = 128
    norm: str = "layernorm"  # or "rmsnorm": 11.2a's
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
    """Start from the model's own rows: normal with standard deviation 0.02."""

    name: ClassVar[str] = "normal"

    def rows(self, torch: Any, shape: tuple[int, int], dtype: Any) -> Any | None:
        return None


@dataclass(frozen=True, kw_only=True)
class PointStart:
    """Start from one random vector for all rows (11.2a, 11.2b: `unit`)."""

    name: ClassVar[str] = "point"
    unit: bool = True  # divided by its Euclidean norm

    def rows(self, torch: Any, shape: tuple[int, int], dtype: Any) -> Any:
        point = torch.randn(shape[1])
        return (point / point.norm() if self.unit else point).to(dtype).expand(shape)


@dataclass(frozen=True, kw_only=True)
class SnowballStart:
    """Start from a random vector, and noise of this sigma for every row (11.2c)."""

    name: ClassVar[str] = "snowball"
    sigma: float = 1e-5  # weight units, before rounding
    drawn: str = "float32"  # the sum, rounded once (11.2c); or "grid": vector, noise and sum each rounded

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
    """Start from all weights of a model that `train` left, or that `repair` made of it."""

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
    """Normal deviates for rows of the embedding after every step, in the weights' grid (11.2b: epsilon / 10 = 3e-6)."""

    sigma: float  # weight units
    rows: str = "all"  # or "unseen"

    def __post_init__(self) -> None:
        _positive(self.sigma, "the noise's sigma", or_zero=True)
        one_of(self.rows, "rows for noise", ("all", "unseen"))


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Decoupled weight decay of all but vectors (biases and norms), as transformers' Trainer has it."""

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
    """AdamW whose second moments of an embedding are one for all tokens: their mean over the vocabulary.

    F. Stollenwerk and T. Stollenwerk, "Better embeddings with Coupled Adam", ACL 2025.
    """

    name: ClassVar[str] = "coupled-adam"


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent; weight decay as of `AdamW`, but through the gradient."""

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
    """Grids of a training's numbers from step to step; sums, norms and losses are float32 in all of them."""

    weights: str  # their grid, which is the recording's
    optimizer: str  # grid of gradients and optimizer state, and of the arithmetic of the update
    factors: str = "bfloat16"  # grid of what matrix products multiply

    @property
    def rounded(self) -> bool:
        """Tell whether the update is made in float32 and then rounded to the weights' grid."""
        return self.weights != self.optimizer


PRECISIONS = {name: Precision(**grids) for name, grids in HELD["precisions"].items()}
NAMED = {"precision": tuple(PRECISIONS), **HELD["named"]}
STARTS = {kind.name: kind for kind in (NormalStart, PointStart, SnowballStart, ModelStart)}
NOISES = {"none": None, "gaussian": GaussianNoise}
OPTIMIZERS = {kind.name: kind for kind in (AdamW, SGD, CoupledAdam)}


def chosen(kinds: Mapping[str, Any], options: Mapping[str, Any], choice: str, prefix: str = "") -> Any:
    """Return the start, noise or optimizer that the option `choice` names, made of those options that it has."""
    kind = kinds[one_of(options[choice], choice, kinds)]
    if kind is None:
        return None
    names = [field.name for field in fields(kind) if options.get(prefix + field.name) is not None]
    if lacking := [field.name for field in fields(kind) if field.default is MISSING and field.name not in names]:
        raise InvalidInput(f"{choice} {kind.name} needs {' and '.join(prefix + name for name in lacking)}")
    return kind(**{name: options[prefix + name] for name in names})
