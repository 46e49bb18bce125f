"""How does such structure arise?

Base vectors with noise, rounded: drawn, swept, counted, expected in closed form and fitted. A `Sweep`,
`Trials` or `Questions` is the settings of a run; `records`, `frame` and `land` run it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bases import Base, load_base
    from .draws import clouds
    from .expect import Expect, Expected
    from .law import Snowball, SnowballLaw
    from .questions import QuestionRecord, Questions
    from .run import Options, frame, land, records
    from .settings import parse_sigmas
    from .snowball import Cloud, draw
    from .sweep import Sweep, SweepRecord
    from .trials import TrialRecord, Trials

_HOMES = {
    "bases": ("Base", "load_base"),
    "draws": ("clouds",),
    "expect": ("Expect", "Expected"),
    "law": ("Snowball", "SnowballLaw"),
    "questions": ("QuestionRecord", "Questions"),
    "run": ("Options", "frame", "land", "records"),
    "settings": ("parse_sigmas",),
    "snowball": ("Cloud", "draw"),
    "sweep": ("Sweep", "SweepRecord"),
    "trials": ("TrialRecord", "Trials"),
}
__all__ = [
    "Base",
    "Cloud",
    "Expect",
    "Expected",
    "Options",
    "QuestionRecord",
    "Questions",
    "Snowball",
    "SnowballLaw",
    "Sweep",
    "SweepRecord",
    "TrialRecord",
    "Trials",
    "clouds",
    "draw",
    "frame",
    "land",
    "load_base",
    "parse_sigmas",
    "records",
]


def __getattr__(name: str) -> Any:
    """Load the module of a name when it is first used."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
