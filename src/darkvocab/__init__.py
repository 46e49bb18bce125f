"""darkvocab: find the tokens a language model never learned, measure their structure, simulate how it arises."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .experiments.agreement import Agreement, agreement
    from .experiments.check import Verdict, check
    from .experiments.cloud import Cloud, Snowball, draw
    from .experiments.diff import Diff, MatrixDiff, diff
    from .experiments.evolve import Evolution, EvolutionRecord, Evolve, evolve
    from .experiments.expect import Expect, Expected, expect
    from .experiments.fit import Fit, fit
    from .experiments.neighbourhood import Neighbourhood, neighbourhood
    from .experiments.policy import Policy
    from .experiments.questions import QuestionRecord, Questions
    from .experiments.recipes import reproduce
    from .experiments.repair import repair
    from .experiments.scan import Scan, centroid, explain, scan
    from .experiments.series import Series, series
    from .experiments.sweep import Sweep, SweepRecord, sweep
    from .experiments.training.corpus import load_corpus
    from .experiments.training.lab import Training
    from .experiments.training.replicas import ReplicaRecord, Replicas
    from .experiments.trials import TrialRecord, Trials
    from .history import History
    from .matrix import EmbeddingMatrix
    from .measures.census import Census, census
    from .measures.geometry import Geometry, geometry
    from .measures.indicators import Indicators, indicators
    from .measures.neighbours import Neighbours, neighbours
    from .measures.topology import Topology, topology
    from .measures.vocabulary import Vocabulary, vocabulary
    from .numerics import Touching
    from .reports.page import report
    from .reports.summary import summary

_HOMES = {
    "Agreement": "experiments.agreement",
    "Census": "measures.census",
    "Cloud": "experiments.cloud",
    "Diff": "experiments.diff",
    "EmbeddingMatrix": "matrix",
    "Evolution": "experiments.evolve",
    "EvolutionRecord": "experiments.evolve",
    "Evolve": "experiments.evolve",
    "Expect": "experiments.expect",
    "Expected": "experiments.expect",
    "Fit": "experiments.fit",
    "Geometry": "measures.geometry",
    "History": "history",
    "Indicators": "measures.indicators",
    "Neighbourhood": "experiments.neighbourhood",
    "MatrixDiff": "experiments.diff",
    "Neighbours": "measures.neighbours",
    "Policy": "experiments.policy",
    "QuestionRecord": "experiments.questions",
    "Questions": "experiments.questions",
    "ReplicaRecord": "experiments.training.replicas",
    "Replicas": "experiments.training.replicas",
    "Scan": "experiments.scan",
    "Series": "experiments.series",
    "Snowball": "experiments.cloud",
    "Sweep": "experiments.sweep",
    "SweepRecord": "experiments.sweep",
    "Topology": "measures.topology",
    "Touching": "numerics.touching",
    "Training": "experiments.training.lab",
    "TrialRecord": "experiments.trials",
    "Trials": "experiments.trials",
    "Verdict": "experiments.check",
    "Vocabulary": "measures.vocabulary",
    "agreement": "experiments.agreement",
    "census": "measures.census",
    "centroid": "experiments.scan",
    "check": "experiments.check",
    "diff": "experiments.diff",
    "draw": "experiments.cloud",
    "evolve": "experiments.evolve",
    "expect": "experiments.expect",
    "explain": "experiments.scan",
    "fit": "experiments.fit",
    "geometry": "measures.geometry",
    "indicators": "measures.indicators",
    "load_corpus": "experiments.training.corpus",
    "neighbourhood": "experiments.neighbourhood",
    "neighbours": "measures.neighbours",
    "repair": "experiments.repair",
    "report": "reports.page",
    "reproduce": "experiments.recipes",
    "scan": "experiments.scan",
    "series": "experiments.series",
    "summary": "reports.summary",
    "sweep": "experiments.sweep",
    "topology": "measures.topology",
    "vocabulary": "measures.vocabulary",
}

__all__ = [
    "Agreement",
    "Census",
    "Cloud",
    "Diff",
    "EmbeddingMatrix",
    "Evolution",
    "EvolutionRecord",
    "Evolve",
    "Expect",
    "Expected",
    "Fit",
    "Geometry",
    "History",
    "Indicators",
    "MatrixDiff",
    "Neighbourhood",
    "Neighbours",
    "Policy",
    "QuestionRecord",
    "Questions",
    "ReplicaRecord",
    "Replicas",
    "Scan",
    "Series",
    "Snowball",
    "Sweep",
    "SweepRecord",
    "Topology",
    "Touching",
    "Training",
    "TrialRecord",
    "Trials",
    "Verdict",
    "Vocabulary",
    "agreement",
    "census",
    "centroid",
    "check",
    "diff",
    "draw",
    "evolve",
    "expect",
    "explain",
    "fit",
    "geometry",
    "indicators",
    "load_corpus",
    "neighbourhood",
    "neighbours",
    "repair",
    "report",
    "reproduce",
    "scan",
    "series",
    "summary",
    "sweep",
    "topology",
    "vocabulary",
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
