"""darkvocab: find the tokens a language model never learned, measure their structure, simulate how it arises."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints.centroid import centroid
    from .checkpoints.check import Verdict, check
    from .checkpoints.diff import Diff, MatrixDiff, diff
    from .checkpoints.neighbourhood import Neighbourhood, neighbourhood
    from .checkpoints.policy import Policy
    from .checkpoints.repair import repair
    from .checkpoints.scan import scan
    from .checkpoints.scan_result import Scan
    from .checkpoints.series import Series, series
    from .embedding.history import History
    from .embedding.matrix import EmbeddingMatrix
    from .errors import DarkvocabError
    from .measures.census import Census, census
    from .measures.geometry import Geometry, geometry
    from .measures.indicators import Indicators, indicators
    from .measures.neighbours import Neighbours, neighbours
    from .measures.topology import Topology, topology
    from .measures.vocabulary import Vocabulary, vocabulary
    from .notebooks.recipes import reproduce
    from .numerics import Touching
    from .reports.page import report
    from .reports.summary import summary
    from .snowballs.agreement import Agreement, agreement
    from .snowballs.expect import Expect, Expected, expect
    from .snowballs.fit import Fit, fit
    from .snowballs.law import Snowball
    from .snowballs.questions import QuestionRecord, Questions, questions
    from .snowballs.snowball import Cloud, draw
    from .snowballs.sweep import Sweep, SweepRecord, sweep
    from .snowballs.trials import TrialRecord, Trials, trials
    from .training.corpus import load_corpus
    from .training.evolve import Evolution, EvolutionRecord, Evolve, evolve
    from .training.replicas import ReplicaRecord, Replicas
    from .training.run import train
    from .training.settings import Training

_HOMES = {
    "DarkvocabError": "errors",
    "Agreement": "snowballs.agreement",
    "Census": "measures.census",
    "Cloud": "snowballs.snowball",
    "Diff": "checkpoints.diff",
    "EmbeddingMatrix": "embedding.matrix",
    "Evolution": "training.evolve",
    "EvolutionRecord": "training.evolve",
    "Evolve": "training.evolve",
    "Expect": "snowballs.expect",
    "Expected": "snowballs.expect",
    "Fit": "snowballs.fit",
    "Geometry": "measures.geometry",
    "History": "embedding.history",
    "Indicators": "measures.indicators",
    "Neighbourhood": "checkpoints.neighbourhood",
    "MatrixDiff": "checkpoints.diff",
    "Neighbours": "measures.neighbours",
    "Policy": "checkpoints.policy",
    "QuestionRecord": "snowballs.questions",
    "Questions": "snowballs.questions",
    "ReplicaRecord": "training.replicas",
    "Replicas": "training.replicas",
    "Scan": "checkpoints.scan_result",
    "Series": "checkpoints.series",
    "Snowball": "snowballs.law",
    "Sweep": "snowballs.sweep",
    "SweepRecord": "snowballs.sweep",
    "Topology": "measures.topology",
    "Touching": "numerics.touching",
    "Training": "training.settings",
    "TrialRecord": "snowballs.trials",
    "Trials": "snowballs.trials",
    "Verdict": "checkpoints.check",
    "Vocabulary": "measures.vocabulary",
    "agreement": "snowballs.agreement",
    "census": "measures.census",
    "centroid": "checkpoints.centroid",
    "check": "checkpoints.check",
    "diff": "checkpoints.diff",
    "draw": "snowballs.snowball",
    "evolve": "training.evolve",
    "expect": "snowballs.expect",
    "fit": "snowballs.fit",
    "geometry": "measures.geometry",
    "indicators": "measures.indicators",
    "load_corpus": "training.corpus",
    "neighbourhood": "checkpoints.neighbourhood",
    "neighbours": "measures.neighbours",
    "questions": "snowballs.questions",
    "repair": "checkpoints.repair",
    "report": "reports.page",
    "reproduce": "notebooks.recipes",
    "scan": "checkpoints.scan",
    "series": "checkpoints.series",
    "summary": "reports.summary",
    "sweep": "snowballs.sweep",
    "topology": "measures.topology",
    "train": "training.run",
    "trials": "snowballs.trials",
    "vocabulary": "measures.vocabulary",
}

__all__ = [
    "Agreement",
    "Census",
    "Cloud",
    "DarkvocabError",
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
    "fit",
    "geometry",
    "indicators",
    "load_corpus",
    "neighbourhood",
    "neighbours",
    "questions",
    "repair",
    "report",
    "reproduce",
    "scan",
    "series",
    "summary",
    "sweep",
    "topology",
    "train",
    "trials",
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
