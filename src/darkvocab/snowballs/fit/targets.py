"""Load the observed census that a snowball is fitted to, and check it for contradictions."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ...embedding.matrix import EmbeddingMatrix
from ...errors import CorruptFile, InvalidInput, MissingFile
from ...measures.census import Census
from ...measures.dark import judge, judged_matrix
from ...numerics import to_index
from ...sources import open_source
from ...text import printable
from ..bases import Base, recorded, varying_words
from ..snowball import SENTENCES
from ..theory import Partition

BUILT_IN_TARGET = "qwen3-4b"
UNKNOWN = "unknown"
CENSUS_COUNTS = ("n_tokens", "n_black_holes", "black_hole_population", "n_singletons", "n_unique")


@dataclass(frozen=True)
class ObservedCensus:
    """Sizes of the groups of tokens that share a row in a model and, where known, the rows of its black holes."""

    name: str
    partition: Partition
    index: Int64[np.ndarray, "black_holes dim"] | None = field(default=None, repr=False)  # ordered indices
    grid: str | None = None  # of the rows
    remark: str | None = None  # says where the number of singletons comes from
    dim: int | None = None  # of a scan or a checkpoint
    base: Base | None = None  # of a checkpoint: the row of its largest black hole

    def to_json(self) -> dict[str, Any]:
        """Return the entry in a fit's JSON."""
        return {
            "name": self.name,
            "populations": self.partition.populations.tolist(),
            "n_singletons": self.partition.n_singletons,
            "n_tokens": self.partition.n_tokens,
            "remark": self.remark,
        }


def load_target(spec: str | Path, n_singletons: int | str | None = None) -> ObservedCensus:
    """Load an observed census by name, from a file, or from a list of populations.

    Raises MissingFile for a `spec` that is neither name, list nor file; CorruptFile for a file without
    populations; InvalidInput for populations below 2, or that contradict the counts beside them.

    Parameters
    ----------
    spec : "qwen3-4b"; a checkpoint, as `darkvocab.scan` takes it; the JSON of a scan, or one with
        `populations` and, if known, `n_singletons` or `n_tokens`; or populations, comma-separated
    n_singletons : tokens of the snowball that are alone: a number, or "unknown"; by default as the
        target says (for a scan, dark tokens outside of black holes), and 0 for a list

    Examples
    --------
    >>> load_target("5,3", 2).partition.n_tokens
    10
    """
    text = str(spec)
    if text == BUILT_IN_TARGET:
        facts = recorded()
        index = to_index(varying_words(), "bfloat16")
        target = _target(text, facts["black_hole_populations"], facts["singletons_in_cluster"])
        target = replace(target, index=index, grid="bfloat16", dim=index.shape[1])
    elif text.replace(",", "").replace(" ", "").isdigit():
        target = _target("these populations", [int(part) for part in text.split(",") if part.strip()], 0)
    elif Path(spec).suffix.lower() != ".json" and (Path(spec).exists() or "/" in text):
        target = _checkpoint(text)
    else:
        target = _read(Path(spec))
    if n_singletons is None:
        return target
    if n_singletons != UNKNOWN and not str(n_singletons).isdigit():
        raise InvalidInput(f"--singletons is a number >= 0, or unknown; got {printable(str(n_singletons))!r}")
    known = None if n_singletons == UNKNOWN else int(n_singletons)
    return replace(target, partition=Partition(target.partition.populations, known), remark=None)


def _target(name: str, populations: list[Any], n_singletons: int | None) -> ObservedCensus:
    for population in populations:
        if not isinstance(population, int) or isinstance(population, bool):
            raise InvalidInput(f"{name}: {printable(str(population))[:40]!r} is no population")
        if population < 2:
            raise InvalidInput(SENTENCES["too_small"].format(name=name, population=population))
    if not populations and not n_singletons:
        raise InvalidInput(f"{name}: no black holes and no tokens alone: there is nothing to fit")
    if sum(populations) + (n_singletons or 0) > 1e15:
        raise InvalidInput(f"{name}: more than 1e15 tokens")
    return ObservedCensus(name, Partition(np.array(sorted(populations, reverse=True), np.int64), n_singletons))


def _read(path: Path) -> ObservedCensus:
    name = printable(path.name)
    if not path.is_file():
        raise MissingFile(SENTENCES["no_target"].format(path=printable(str(path)), built_in=BUILT_IN_TARGET))
    try:
        census = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(SENTENCES["no_json"].format(name=name, error=printable(str(error)))) from None
    if not isinstance(census, dict) or not isinstance(census.get("populations"), list):
        raise CorruptFile(f"{name} holds no list of populations; give what darkvocab scan --json prints")
    populations = census["populations"]
    counts = _counts(name, census)
    target = _target(name, populations, None if populations else counts.get("n_singletons", 0))
    n_singletons = _consistent(name, populations, counts)
    remark = None
    if isinstance(census.get("indicators"), dict):
        n_singletons, remark = _alone(populations, census["indicators"].get("n_dark"))
    if not populations and n_singletons is None:
        raise InvalidInput(f"{name} has no black holes: there is nothing to fit")
    dim = census["hidden_dim"] if isinstance(census.get("hidden_dim"), int) else None
    return replace(target, partition=Partition(target.partition.populations, n_singletons), remark=remark, dim=dim)


def _counts(name: str, census: dict[str, Any]) -> dict[str, int]:
    """Return the counts given beside the populations."""
    given = {key: census[key] for key in CENSUS_COUNTS if census.get(key) is not None}
    for key, count in given.items():
        if not isinstance(count, int) or count < 0:
            raise CorruptFile(f"{name}: {key} is no count: {printable(str(count))[:40]!r}")
    return given


def _consistent(name: str, populations: list[int], counts: dict[str, int]) -> int | None:
    """Return the singletons by these counts, if known; raise InvalidInput if they contradict the populations."""
    shared = sum(populations)
    n_singletons = counts.get("n_singletons")
    expected = {"n_black_holes": len(populations), "black_hole_population": shared}
    if n_singletons is not None:
        expected |= {"n_unique": len(populations) + n_singletons, "n_tokens": shared + n_singletons}
    for key, count in expected.items():
        if counts.get(key, count) != count:
            raise InvalidInput(f"{name} contradicts itself: {key} is {counts[key]:,}, by its populations {count:,}")
    if n_singletons is None and "n_tokens" in counts:
        n_singletons = counts["n_tokens"] - shared
        if n_singletons < 0:
            raise InvalidInput(SENTENCES["more_than_all"].format(name=name, shared=shared, **counts))
    return n_singletons


def _alone(populations: list[int], n_dark: Any) -> tuple[int | None, str]:
    """Return the number of singletons in the snowball, and a remark: dark tokens outside of black holes.

    Other singletons are trained tokens.
    """
    alone = n_dark - sum(populations) if isinstance(n_dark, int) else -1
    if alone < 0 or not populations:
        return None, "how many of its tokens alone belong to the snowball is not known"
    return alone, f"{alone:,} dark tokens outside of black holes count as alone"


def _checkpoint(spec: str) -> ObservedCensus:
    """Return the census of a checkpoint with the rows of its black holes; the row of the largest one is the base."""
    matrix = EmbeddingMatrix.open(open_source(spec))
    name = printable(Path(spec).name)
    if matrix.quantised:
        raise InvalidInput(f"{name} is quantised: what its rows were rounded to is no grid of numbers")
    census = Census(matrix.groups())
    judged = judged_matrix(matrix)
    if not census.n_black_holes:
        raise InvalidInput(f"{name} has no black holes on {matrix.grid.name}: there is nothing to fit")
    dark = judge(matrix, judged=judged, census=census if judged is matrix else None).judged.indicators.dark
    n_singletons, remark = _alone(census.populations.tolist(), int(dark[: matrix.n_tokens].sum()))
    tokens = census.representatives
    base = Base(name=f"the largest black hole of {name}", vector=matrix.rows(tokens[:1])[0])
    partition = Partition(census.populations, n_singletons)
    index = matrix.index(tokens).astype(np.int64)
    return ObservedCensus(name, partition, index, matrix.grid.name, remark, matrix.dim, base)
