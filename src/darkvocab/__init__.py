"""darkvocab: find the tokens a language model never learned, measure their structure, simulate how it arises."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .experiments.cloud import Cloud, Snowball, draw
    from .experiments.recipes import reproduce
    from .experiments.scan import centroid, scan
    from .experiments.sweep import Sweep, SweepRecord, sweep
    from .matrix import EmbeddingMatrix
    from .measures.census import Census, census
    from .measures.geometry import Geometry, geometry
    from .reports.page import report

_HOMES = {
    "Census": "measures.census",
    "Cloud": "experiments.cloud",
    "EmbeddingMatrix": "matrix",
    "Geometry": "measures.geometry",
    "Snowball": "experiments.cloud",
    "Sweep": "experiments.sweep",
    "SweepRecord": "experiments.sweep",
    "census": "measures.census",
    "centroid": "experiments.scan",
    "draw": "experiments.cloud",
    "geometry": "measures.geometry",
    "report": "reports.page",
    "reproduce": "experiments.recipes",
    "scan": "experiments.scan",
    "sweep": "experiments.sweep",
}

__all__ = [
    "Census",
    "Cloud",
    "EmbeddingMatrix",
    "Geometry",
    "Snowball",
    "Sweep",
    "SweepRecord",
    "census",
    "centroid",
    "draw",
    "geometry",
    "report",
    "reproduce",
    "scan",
    "sweep",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Names load their module when first used: `import darkvocab` itself loads nothing.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
