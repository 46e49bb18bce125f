"""Settings of runs of snowballs (bases, sigmas, grid, tokens, measures), and the manifest that records them."""

from __future__ import annotations

import base64
import math
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import CorruptFile, InvalidInput, MissingFile, at_least, one_of
from ..gpu.device import DistanceQuery, Queries
from ..numerics import Touching, as_grid
from ..numerics.grouping import SELECTIONS
from ..runs.folder import repeating, versions
from ..runs.randomness import NotebookStream, check_seed
from ..text import Shown
from .bases import BUILT_IN_BASES, DEFAULT_DIM, DRAWN_BASES, Base, is_drawn, load_base
from .on_device import MeasuredCloud
from .snowball import SAMPLERS, SENTENCES, Draw, DrawnCloud, Snowball, SnowballLaw, check_sigma

if TYPE_CHECKING:
    import polars as pl

MEASURES = ("geometry", "steps", "topology")  # besides the census, which is always taken


@dataclass(frozen=True, repr=False)
class Points(Shown):
    """Base, sigmas and grid: the settings that runs and expectations share, checked when they are made."""

    sigmas: Any  # one or several, weight units; a tuple after the checks
    _: KW_ONLY
    n_tokens: int = 2100
    dim: int | None = None  # of a drawn base; after the checks, of whichever base was loaded
    base: Any = "qwen3-4b"  # as `load_base` takes it; a `Base` after the checks
    redraw_base: bool = False
    grid: str = "bfloat16"
    distribution: str = "gaussian"
    arithmetic: str = "float32"
    seed: int = 42

    def __post_init__(self) -> None:
        sigmas = self.sigmas if isinstance(self.sigmas, Iterable) else [self.sigmas]
        self._set(sigmas=tuple(float(sigma) for sigma in sigmas), grid=as_grid(self.grid).name)
        check_seed(self.seed)
        if not self.sigmas:
            raise InvalidInput("needs at least one sigma")
        for sigma in self.sigmas:
            check_sigma(sigma)
        if self.redraw_base and not is_drawn(self.base):
            raise InvalidInput(SENTENCES["not_drawn"].format(drawn=", ".join(DRAWN_BASES), base=str(self.base)))
        if self.dim is not None and self.dim < 1:
            raise InvalidInput(f"dim must be >= 1, got {self.dim}")
        if isinstance(self.base, Base) and self.base.kind == "drawn":  # with another seed, perhaps: draw it again
            self._set(dim=self.dim or self.base.vector.size, base=self.base.name)
        self._set(base=load_base(self.base, self.dim, seed=self.seed))
        self._set(dim=self.base.vector.size)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _shown(self) -> dict[str, Any]:
        """Return dimension, name of the base, and every other setting that differs from its default."""
        defaults = defaults_of(type(self))
        given = {name: value for name, value in settings_of(self).items() if value != defaults[name]}
        return {**given, "dim": self.hidden_dim, "base": self.base.name}

    @property
    def hidden_dim(self) -> int:
        return self.base.vector.size

    @property
    def _has_one_base(self) -> bool:
        return not self.redraw_base

    @cached_property
    def _base_ulp(self) -> float:
        return self.law(self.base.vector, 0.0).median_ulp

    def median_ulp(self, law: SnowballLaw) -> float:
        """Return the median ulp of a law's rounded base, weight units; computed once if all points share a base."""
        return self._base_ulp if self._has_one_base else law.median_ulp

    def law(self, vector: np.ndarray, sigma: float) -> SnowballLaw:
        return SnowballLaw(
            base=vector, sigma=sigma, grid=self.grid, arithmetic=self.arithmetic, distribution=self.distribution
        )

    def base_at(self, point: int) -> Base:
        """Return the base of a point: a new draw with `redraw_base`."""
        if not self.redraw_base:
            return self.base
        return load_base(self.base.name, self.dim, seed=self.seed, point=point)


@dataclass(frozen=True, repr=False)
class RunSettings(Points, ABC):
    """Settings of a run of snowballs, with one or several trials at each sigma, and the measurement of one.

    The graph joins rows within `touching` of each other: by default 2 `epsilon`, without an epsilon
    two grid steps.
    """

    experiment: ClassVar[str]
    row: ClassVar[type]
    _: KW_ONLY
    trials: int = 1
    sampler: str = "sparse"
    measure: Any = ()  # some of MEASURES; a tuple after the checks
    over: str = "unique"  # rows between which L-infinity is measured; "tokens": vertices of the graph, too
    touching: Touching | None = None  # after the checks, None where no graph is measured
    epsilon: float | None = None  # unit of length for columns of records, weight units

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, trials=self.trials)
        one_of(self.sampler, "sampler", SAMPLERS)
        if self.sampler == "notebook" and self.distribution != "gaussian":
            raise InvalidInput(SENTENCES["not_gaussian"].format(distribution=self.distribution))
        self._check_measures()
        if self.sampler == "notebook":
            NotebookStream(self.seed)  # fails now, before the run, if torch is missing
        for sigma in (min(self.sigmas), max(self.sigmas)):
            self.snowball(self.base.vector, sigma).ranges(self.n_tokens)  # checks the rest

    def __len__(self) -> int:
        return len(self.sigmas) * self.trials

    def snowball(self, vector: np.ndarray, sigma: float) -> Snowball:
        return self.law(vector, sigma).snowball(self.n_tokens)

    @abstractmethod
    def record(self, draw: Draw, cloud: DrawnCloud | MeasuredCloud) -> Any:
        """Measure one snowball and return its record, of type `row`."""

    @staticmethod
    def options(settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the command-line options that belong to this experiment alone."""
        touching = settings["touching"]
        return {
            "redraw_base": settings["redraw_base"],
            "measure": ",".join(["census", *settings["measure"]]),
            "over": settings["over"],
            "epsilon": settings["epsilon"],
            "touching": touching and touching.threshold,
            "touching_unit": touching.unit if touching else "weight",
            "strict": bool(touching and touching.strict),
        }

    def tables(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield names and contents of the Parquet files that a finished run adds to its records."""
        yield from ()

    @property
    def l_inf_rows(self) -> str | None:
        """Rows between which L-infinity is measured; None where it is not."""
        return self.over if {"geometry", "steps"} & set(self.measure) else None

    @property
    def _has_one_base(self) -> bool:
        return super()._has_one_base and not (self.base.kind == "drawn" and self.sampler == "notebook")

    def _check_measures(self) -> None:
        measure = tuple(self.measure)
        if unknown := [name for name in measure if name not in (*MEASURES, "census")]:
            raise InvalidInput(f"unknown measure {unknown[0]!r}; choose among census, {', '.join(MEASURES)}")
        one_of(self.over, "rows", SELECTIONS)
        length = self.epsilon
        if length is not None and not (length > 0 and math.isfinite(length) and math.isfinite(1e40 / length)):
            raise InvalidInput(f"epsilon must be a finite length > 0 to divide by (weight units), got {length!r}")
        touching = self.touching or (Touching(2 * length) if length else Touching(2, "steps"))
        self._set(measure=tuple(name for name in MEASURES if name in measure))
        self._set(touching=touching if "topology" in self.measure else None)

    def queries(self) -> Queries:
        """Return the distances that `record` needs, for a device to prepare."""
        asked: dict[tuple[str, str], dict[str, Any]] = {
            (self.over, unit): {"spread": True}
            for measure, unit in (("geometry", "weight"), ("steps", "steps"))
            if measure in self.measure
        }
        if self.touching:
            asked.setdefault((self.graph_over, self.touching.unit), {})["graph"] = self.touching
        return tuple(DistanceQuery(over=over, unit=unit, **what) for (over, unit), what in asked.items())

    @property
    def graph_over(self) -> str:
        """Rows that are the vertices of the graph: "tokens" or "unique"."""
        return self.over if self.over == "tokens" else "unique"


def settings_of(settings: Points) -> dict[str, Any]:
    """Return every setting by name."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def defaults_of(kind: type[Points]) -> dict[str, Any]:
    """Return the default of every setting that has one, and None for sigma."""
    return {field.name: None if field.default is MISSING else field.default for field in fields(kind)}


def parse_sigmas(text: str, spacing: str = "linear") -> list[float]:
    """Read sigmas, weight units, from ``START:STOP:COUNT``, both included, or a comma list.

    Raises InvalidInput for neither form, for a value that is negative or not finite, and for a log
    spacing from zero.

    Examples
    --------
    >>> parse_sigmas("1:2:3"), parse_sigmas("1e-9:1e-7:3", "log"), parse_sigmas("0,2e-9")
    ([1.0, 1.5, 2.0], [1e-09, 1e-08, 1e-07], [0.0, 2e-09])
    """
    if spacing not in ("linear", "log"):
        raise InvalidInput(f"unknown spacing {spacing!r}; choose linear or log")
    ends, colon, number = text.rpartition(":")
    try:
        sigmas = [float(part) for part in (ends.split(":") if colon else text.split(","))]
        count = int(number) if colon else len(sigmas)
    except ValueError:
        count = 0
    if not 1 <= count <= sys.maxsize // 16 or (colon and len(sigmas) != 2):  # numpy has no larger arrays
        raise InvalidInput(SENTENCES["no_sigma"].format(text=text))
    for sigma in sigmas:
        check_sigma(sigma)
    if not colon:
        return sigmas
    if spacing == "log" and min(sigmas) == 0:
        raise InvalidInput(f"a log spacing needs sigmas above 0, got {text!r}")
    start, stop = sigmas
    space = np.geomspace if spacing == "log" else np.linspace
    return space(start, stop, count).tolist()


MANIFEST_PARAMETERS = "sigmas trials n_tokens hidden_dim base redraw_base grid distribution arithmetic".split()
MANIFEST_PARAMETERS += "sampler measure over touching epsilon".split()


def manifest(settings: RunSettings) -> dict[str, Any]:
    """Return what decides the records of a run: experiment, settings, base, seed and packages."""
    base = settings.base
    read = [] if base.kind == "drawn" else [{"base": base.name, "sha256": base.sha256, "shape": [settings.hidden_dim]}]
    return {
        "experiment": settings.experiment,
        **command(settings),
        "base": base.to_json(),
        "parameters": {
            **{name: getattr(settings, name) for name in MANIFEST_PARAMETERS},
            "base": base.name,
            "measure": ["census", *settings.measure],
            "touching": str(settings.touching) if settings.touching else None,
        },
        "seed": settings.seed,
        "packages": versions(*(["torch"] if settings.sampler == "notebook" else [])),
        "inputs": read,
        "n_records": len(settings),
    }


def command(settings: RunSettings) -> dict[str, str | None]:
    """Return the command that repeats a run, as `repeating`, with every digit of sigma."""
    kind = type(settings)
    given = options(kind, settings_of(settings))
    defaults = options(kind, defaults_of(kind))
    sigmas = ",".join(repr(sigma) for sigma in settings.sigmas)
    obstacle = SENTENCES["array_base"] if settings.base.kind == "array" else None
    return repeating(settings.experiment, {"sigma": sigmas, **given}, defaults, obstacle)


def options(kind: type[RunSettings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the command-line options for these settings, without sigma."""
    base = settings["base"]
    return {
        "trials": settings["trials"],
        "tokens": settings["n_tokens"],
        "dim": settings["dim"] if is_drawn(base) and settings["dim"] != DEFAULT_DIM else None,
        "base": base.option if isinstance(base, Base) else base,
        **{name: settings[name] for name in ("grid", "distribution", "arithmetic", "sampler", "seed")},
        **kind.options(settings),
    }


def base_of(folder: Path, manifest: dict[str, Any]) -> Base:
    """Load the base of the run in `folder` (not a drawn one) and compare its hash with the manifest's.

    Raises as `load_base`; MissingFile where its file is gone, CorruptFile for a manifest that is not
    a run's, InvalidInput where the file holds another vector now, or for an array, whose numbers
    earlier versions did not keep.
    """
    try:
        name = manifest["parameters"]["base"]
        sha256 = str(manifest["inputs"][0]["sha256"])
        spec = _kept(name, manifest)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(f"{folder / 'manifest.json'}: not the manifest of a run ({error!r})") from None
    if isinstance(spec, Path) and not spec.exists():
        if name == "array":
            raise InvalidInput(f"{folder}: its base was an array, which no file keeps; sweep around a .npy file of it")
        raise MissingFile(f"{folder}: its base {spec} is not there any more; put it back, or go to where it ran")
    base = load_base(spec)
    if base.sha256 != sha256:
        raise InvalidInput(SENTENCES["another_base"].format(folder=folder, base=base, sha256=sha256))
    return base


def _kept(name: str, manifest: dict[str, Any]) -> str | Path | Base:
    """Read for `load_base` what `Base.to_json` wrote; earlier manifests name a file only in the command."""
    if "base" not in manifest:
        words = shlex.split(manifest["command"])
        path = words[words.index("--base") + 1]
        return name if name in BUILT_IN_BASES else Path(path)
    kept = manifest["base"]
    if kept["kind"] == "file":
        return Path(kept["path"])
    if kept["kind"] == "array":
        if kept["dtype"] not in ("float32", "float64"):
            raise ValueError(f"a base of {kept['dtype']}")
        return Base(name=name, vector=np.frombuffer(base64.b64decode(kept["bytes"], validate=True), kept["dtype"]))
    if name not in BUILT_IN_BASES:
        raise ValueError(f"no base {name!r} is built in")
    return name
