"""Run a study: train under each of its conditions from the same seeds, measure, and keep a record of each training."""

import shutil
import tomllib
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import Diverged, InvalidInput, at_least, one_of
from ..numerics.grouping import n_cores
from ..progress import Progress, Report
from ..runs.engine import open_engine
from ..runs.engine.base import Say
from ..runs.folder import repeating
from ..runs.randomness import check_seed
from ..runs.records import RunFolder, Unsigned, record_types
from ..text import Shown
from ..training.outcome import outcome
from ..training.run import require, train
from ..training.settings import Training
from . import measures
from .fresh import from_fresh_rows

FOLDER = Path(__file__).parent
STUDIES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != "record"))
# Settings at which every study takes seconds; its results then mean nothing.
QUICK = {"steps": 20, "record_every": 1, "batch": 4, "layers": 1, "width": 16, "context": 12}
QUICK_REPLICAS = 2
(StudyRecord,) = record_types(FOLDER / "record.toml", __name__)
EMPTY = dict.fromkeys(StudyRecord.__annotations__)


@dataclass(frozen=True, kw_only=True, repr=False)
class Study(Shown):
    """Trainings under several conditions, each from the same seeds, and the comparisons that were fixed beforehand."""

    name: str
    title: str
    conditions: dict[str, dict[str, Any]]  # options of `train` by name; and `fresh`, a method of `repair`
    words: tuple[str, ...] = ()  # that become tokens where rows are fresh
    measures: tuple[str, ...]  # functions of `measures`
    questions: tuple[dict[str, Any], ...]  # ask, statistic, of, and against (a condition) or value
    shown: tuple[str, ...]  # columns of the records that the figure shows
    replicas: int
    seed: int = 1

    def __post_init__(self) -> None:
        at_least(1, replicas=self.replicas)
        check_seed(self.seed + self.replicas - 1)

    @classmethod
    def of(cls, name: str, *, replicas: int | None = None, seed: int = 1, quick: bool = False) -> Self:
        """Read the study of this name, at a toy size if `quick`. Raises InvalidInput where there is none."""
        one_of(name, "study", STUDIES)
        text = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
        shared = {**text["settings"], **(QUICK if quick else {})}
        conditions = {condition: {**shared, **options} for condition, options in text["conditions"].items()}
        lists = {key: tuple(text.get(key, ())) for key in ("words", "measures", "questions", "shown")}
        n = replicas or (QUICK_REPLICAS if quick else text["replicas"])
        return cls(name=name, title=text["title"], conditions=conditions, **lists, replicas=n, seed=seed)

    def __len__(self) -> int:
        return len(self.conditions) * self.replicas

    def condition(self, number: int) -> tuple[str, int]:
        """Return condition and replica of a training; all conditions of one seed come before the next seed."""
        replica, at = divmod(number, len(self.conditions))
        return list(self.conditions)[at], replica

    def training(self, number: int) -> Training:
        """Return the settings of a training, without its fresh rows."""
        condition, replica = self.condition(number)
        options = {name: value for name, value in self.conditions[condition].items() if name != "fresh"}
        return Training.of(**options, seed=self.seed + replica)

    def manifest(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of the run, without place and time."""
        one = self.training(0).manifest()
        names = "title conditions words measures questions shown".split()
        parameters = {name: getattr(self, name) for name in names}
        defaults = {"seed": 1, "replicas": None, "quick": False}
        return {
            "experiment": "study",
            **repeating("study", options, defaults, None, self.name),
            "parameters": {"study": self.name, **parameters, "replicas": self.replicas},
            **{name: one[name] for name in ("packages", "inputs", "paths")},
            "seed": self.seed,
            "n_records": len(self),
        }


def study(
    name: str,
    out: str | Path,
    *,
    replicas: int | None = None,
    seed: int = 1,
    quick: bool = False,
    resume: bool = False,
    engine: str | Executor = "local",
    workers: int | None = None,
    progress: Report | None = None,
    say: Say = lambda _: None,
) -> Path:
    """Run a study, several trainings side by side; return the run folder. Raises as `train` and `open_engine`.

    A training that diverges is recorded as such, and the others go on. Each is deleted when it has been measured.

    Parameters
    ----------
    replicas : trainings of each condition, by default as the study says
    quick : at a toy size, in seconds; the results mean nothing
    resume : go on with what the folder holds
    engine, workers : as `Replicas.run`
    progress : is called with (trainings made, trainings of all)
    """
    if engine == "threads" or isinstance(engine, ThreadPoolExecutor):
        raise InvalidInput("trainings share torch's global generator; use the engine processes, or serial")
    settings = Study.of(name, replicas=replicas, seed=seed, quick=quick)
    require(settings.training(0))
    manifest = settings.manifest({"seed": seed, "replicas": replicas, "quick": quick})
    workers = workers or (min(len(settings), n_cores()) if engine in ("local", "processes") else None)
    cores = None if engine == "serial" or workers == 1 else 1
    with ExitStack() as opened:
        runner = opened.enter_context(open_engine(engine, workers, say=say))
        folder = opened.enter_context(RunFolder(out, StudyRecord, manifest, records_per_part=1, resume=resume))
        missing = folder.parts.missing()
        trained = Progress(len(settings), progress)
        trained.advance(len(settings) - len(missing))
        shared = settings, folder.path.absolute() / "trainings", cores
        for number, record in zip(missing, runner.map(_train, shared, missing), strict=True):
            folder.land(number, [record])
            trained.advance(1)
        shutil.rmtree(folder.path / "trainings", ignore_errors=True)
        if not folder.is_whole:
            folder.finish()
    return folder.path


def _train(shared: tuple[Study, Path, int | None], number: int) -> Any:
    """Train, or go on with a training, and return its record; runs in a worker."""
    settings, out, cores = shared
    condition, replica = settings.condition(number)
    training = settings.training(number)
    path, before = out / str(number), out / f"{number}-before"
    record = {"condition": condition, "replica": replica, "seed": Unsigned(training.seed)}
    record |= {"status": "diverged", "steps": 0, "n_unseen": len(training.corpus.unseen)}
    with suppress(Diverged):  # the record says so
        if method := settings.conditions[condition].get("fresh"):
            training = from_fresh_rows(training, method, list(settings.words), before, cores)
        train(training, path, resume=(path / "manifest.json").is_file(), cores=cores)
    if (path / "manifest.json").is_file():
        end = outcome(path)
        record |= {name: getattr(end, name) for name in ("status", "steps", "n_unseen")}
    for name in settings.measures if record["status"] == "complete" else ():
        record |= getattr(measures, name)(path, training)
    for folder in (path, before):
        shutil.rmtree(folder, ignore_errors=True)
    return StudyRecord(**{**EMPTY, **record})
