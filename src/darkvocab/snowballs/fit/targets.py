"""Targets: observed censuses that snowballs are fitted to, checked for contradictions."""

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

BUILT_IN = "qwen3-4b"
UNKNOWN = "unknown"
COUNTS = ("n_tokens", "n_black_holes", "black_hole_population", "n_singletons", "n_unique")


@dataclass(frozen=True)
class Target:
    """An observed census: populations, tokens alone (None: not known), and, where known, the black holes' rows."""

    name: str
    partition: Partition
    index: Int64[np.ndarray, "black_holes dim"] | None = field(default=None, repr=False)  # ordered indices
    grid: str | None = None  # of the rows
    remark: str | None = None  # how the singletons were found
    dim: int | None = None  # of a scan or a checkpoint
    base: Base | None = None  # of a checkpoint: the row of its largest black hole

    def to_json(self) -> dict[str, Any]:
        """Return what a fit's JSON says of it."""
        return {
            "name": self.name,
            "populations": self.partition.populations.tolist(),
            "n_singletons": self.partition.n_singletons,
            "n_tokens": self.partition.n_tokens,
            "remark": self.remark,
        }


def load_target(spec: str | Path, n_singletons: int | str | None = None) -> Target:
    """Load the target of this name, this file, or this list of populations.

    Parameters
    ----------
    spec : "qwen3-4b"; a checkpoint, as `darkvocab.scan` takes it; the JSON of a scan, or one with
        `populations` and, if known, `n_singletons` or `n_tokens`; or populations, comma-separated
    n_singletons : tokens of the snowball that are alone: a number, or "unknown"; by default what
        the target says (of a scan: dark tokens outside of black holes), and 0 for a list

    Raises MissingFile for what is neither a name nor a list nor a file, CorruptFile for a file without populations,
    InvalidInput for populations of no black holes, or that contradict the counts beside them.

    Examples
    --------
    >>> load_target("5,3", 2).partition.n_tokens
    10
    """
    text = str(spec)
    if text == BUILT_IN:
        facts, index = recorded(), to_index(varying_words(), "bfloat16")
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


def _target(name: str, populations: list[Any], n_singletons: int | None) -> Target:
    for population in populations:
        if not isinstance(population, int) or isinstance(population, bool):
            raise InvalidInput(f"{name}: {printable(str(population))[:40]!r} is no population")
        if population < 2:
            raise InvalidInput(SENTENCES["too_small"].format(name=name, population=population))
    if not populations and not n_singletons:
        raise InvalidInput(f"{name}: no black holes and no tokens alone: there is nothing to fit")
    if sum(populations) + (n_singletons or 0) > 1e15:
        raise InvalidInput(f"{name}: more than 1e15 tokens")
    return Target(name, Partition(np.array(sorted(populations, reverse=True), np.int64), n_singletons))


def _read(path: Path) -> Target:
    name = printable(path.name)
    if not path.is_file():
        raise MissingFile(SENTENCES["no_target"].format(path=printable(str(path)), built_in=BUILT_IN))
    try:
        census = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(SENTENCES["no_json"].format(name=name, error=printable(str(error)))) from None
    if not isinstance(census, dict) or not isinstance(census.get("populations"), list):
        raise CorruptFile(f"{name} holds no list of populations; give what darkvocab scan --json prints")
    populations, counts = census["populations"], _counts(name, census)
    target = _target(name, populations, None if populations else counts.get("n_singletons", 0))
    n_singletons, remark = _consistent(name, populations, counts), None
    if isinstance(census.get("indicators"), dict):
        n_singletons, remark = _alone(populations, census["indicators"].get("n_dark"))
    if not populations and n_singletons is None:
        raise InvalidInput(f"{name} has no black holes: there is nothing to fit")
    dim = census.get("hidden_dim")
    partition = Partition(target.partition.populations, n_singletons)
    return Target(name, partition, remark=remark, dim=dim if isinstance(dim, int) else None)


def _counts(name: str, census: dict[str, Any]) -> dict[str, int]:
    """The counts that stand beside the populations."""
    given = {key: census[key] for key in COUNTS if census.get(key) is not None}
    for key, count in given.items():
        if not isinstance(count, int) or count < 0:
            raise CorruptFile(f"{name}: {key} is no count: {printable(str(count))[:40]!r}")
    return given


def _consistent(name: str, populations: list[int], counts: dict[str, int]) -> int | None:
    """Tokens alone by these counts, if they say so; refuse counts that contradict the populations."""
    shared, n_singletons = sum(populations), counts.get("n_singletons")
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
    """Tokens alone that belong to the snowball, by the dark tokens: most tokens alone were trained. And a remark."""
    alone = n_dark - sum(populations) if isinstance(n_dark, int) else -1
    if alone < 0 or not populations:
        return None, "how many of its tokens alone belong to the snowball is not known"
    return alone, f"{alone:,} dark tokens outside of black holes count as alone"


def _checkpoint(spec: str) -> Target:
    """Black holes of a checkpoint, with their rows, around the row of the largest."""
    matrix = EmbeddingMatrix.open(open_source(spec))
    name = printable(Path(spec).name)
    if matrix.quantised:
        raise InvalidInput(f"{name} is quantised: what its rows were rounded to is no grid of numbers")
    census, judged = Census(matrix.groups()), judged_matrix(matrix)
    if not census.n_black_holes:
        raise InvalidInput(f"{name} has no black holes on {matrix.grid.name}: there is nothing to fit")
    dark = judge(matrix, judged=judged, census=census if judged is matrix else None).judged.indicators.dark
    n_singletons, remark = _alone(census.populations.tolist(), int(dark[: matrix.n_tokens].sum()))
    tokens = census.representatives
    return Target(
        name,
        Partition(census.populations, n_singletons),
        matrix.index(tokens).astype(np.int64),
        matrix.grid.name,
        remark,
        matrix.dim,
        Base(name=f"the largest black hole of {name}", vector=matrix.rows(tokens[:1])[0]),
    )
