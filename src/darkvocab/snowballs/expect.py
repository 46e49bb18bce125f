"""Compute the expected census of snowballs in closed form, and compare the records of a run with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammainc

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..numerics.cells import independent
from ..numerics.grouping import n_cores
from ..runs.folder import SCHEMA_VERSION
from ..runs.records import Records, frame_of, record_types
from ..text import Shown, printable
from .bases import DRAWN_BASES
from .settings import Points, base_of
from .snowball import SENTENCES
from .theory import Occupancy

if TYPE_CHECKING:
    import polars as pl

FEWEST_SIGMAS, MOST_SIGMAS = 40, 80  # of a curve
Expected, Compared = record_types(Path(__file__).with_suffix(".toml"), __name__)


class Expect(Points):
    """Settings of an expectation, checked as those of a sweep; iterating over it yields an `Expected` for each sigma.

    `distribution` is gaussian, laplace or uniform; `n_tokens` may be 1 to 1e15 at the same cost.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        Occupancy.check(self.n_tokens)
        independent(self.distribution)
        for sigma in (min(self.sigmas), max(self.sigmas)):
            self.law(self.base.vector, sigma).ranges(self.n_tokens)

    def __len__(self) -> int:
        return len(self.sigmas)

    def __iter__(self) -> Iterator[Any]:
        with ThreadPoolExecutor(n_cores()) as pool:
            yield from (pool.map if len(self) > 1 else map)(self._at, range(len(self)), self.sigmas)

    def _at(self, point: int, sigma: float) -> Any:
        law = self.law(self.base_at(point).vector, sigma)
        occupancy = law.occupancy(self.n_tokens)
        low, high = occupancy.largest_group
        counted = ("n_black_holes", "black_hole_population", "n_singletons", "coincident_pairs")
        moments = {"unique_vectors": occupancy.n_unique} | {name: getattr(occupancy, name) for name in counted}
        return Expected(
            sigma=sigma,
            sigma_over_median_ulp=sigma / self.median_ulp(law),
            **{name: moment.mean for name, moment in moments.items()},
            **{f"{name}_std": moment.std for name, moment in moments.items()},
            largest_bh_low=low,
            largest_bh_high=high,
            n_active_columns=occupancy.cells.n_active,
            base=self.base.name,
            **{name: getattr(self, name) for name in ("n_tokens", "hidden_dim", "grid", "distribution", "arithmetic")},
            schema_version=SCHEMA_VERSION,
        )

    def frame(self) -> pl.DataFrame:
        return frame_of(Expected, list(self))


def expect(sigmas: Iterable[float] | float, **settings: Any) -> Iterator[Any]:
    """Yield the `Expected` census of snowballs at each sigma (weight units): exact means and standard deviations.

    The `settings` are those of `Expect`.

    Examples
    --------
    >>> for point in expect([0.0, 2e-9], n_tokens=100):
    ...     print(round(point.n_black_holes, 2), round(point.black_hole_population, 2))
    1.0 100.0
    4.2 99.01
    """
    return iter(Expect(sigmas, **settings))


def along(sigmas: Iterable[float]) -> list[float]:
    """Return the sigmas of a curve: the given ones, at most 80 of them; between fewer than 40, further ones.

    Examples
    --------
    >>> len(along(range(1, 1001))), along([0.0, 40.0])[:3]
    (80, [0.0, 1.0, 2.0])
    """
    given = np.unique(np.fromiter(sigmas, float))
    if len(given) > MOST_SIGMAS:
        return given[np.linspace(0, len(given) - 1, MOST_SIGMAS).round().astype(int)].tolist()
    if 1 < len(given) < FEWEST_SIGMAS:
        space = np.geomspace if 0 < 30 * given[0] < given[-1] else np.linspace
        pieces = -(-FEWEST_SIGMAS // (len(given) - 1))
        given = np.unique([space(low, high, pieces + 1) for low, high in pairwise(given)])
    return given.tolist()


FALSE_ALARM = 1e-6  # probability that a correct simulation is called wrong
ENOUGH_CHANGES = 5.0  # expected changes of a count over all trials below which there is no z-score
CHANCE_BEYOND_3 = math.erfc(3 / math.sqrt(2))
STATISTICS = {  # names in sweeps: the name in trials, and the change by one more pair of equal rows
    "unique_vectors": ("n_unique", 1),
    "n_black_holes": ("n_black_holes", 1),
    "black_hole_population": ("black_hole_population", 2),
    "n_singletons": ("n_singletons", 2),
}
RUNS = "sweep", "trials"


@dataclass(frozen=True, kw_only=True, repr=False)
class Agreement(Shown):
    """Comparison of a run with theory: every statistic, and whether all deviations together can be chance.

    P-values are two-sided and conservative, for rare events too: by Bennett's inequality [1]_ a sum
    of bounded independent steps has no heavier tail than a Poisson variable with the sum's variance
    in steps. Trials are independent; treating the steps within a trial as independent is an argument,
    not a proof. `p_value` is the smallest p-value times the number of comparisons (Bonferroni).

    References
    ----------
    .. [1] G. Bennett, "Probability inequalities for the sum of independent random variables", JASA 57, 1962.
    """

    expected: list[Any]  # of `Expected`
    largest: list[float]  # mean population of the largest group at each sigma; theory gives only bounds
    comparisons: list[Any]  # of `Compared`

    @property
    def scores(self) -> list[float]:
        return [row.z for row in self.comparisons if row.z is not None]

    @property
    def n_beyond_3(self) -> int:
        return sum(abs(z) > 3 for z in self.scores)

    @property
    def worst(self) -> Any:
        return min(self.comparisons, key=lambda row: row.p_value)

    @property
    def p_value(self) -> float:
        return min(1.0, len(self.comparisons) * self.worst.p_value)

    @property
    def agrees(self) -> bool:
        return self.p_value >= FALSE_ALARM

    def summary(self) -> dict[str, Any]:
        """Return the verdict on all comparisons together."""
        scores = np.abs(self.scores)
        return {
            "agrees": self.agrees,
            "p_value": self.p_value,
            "false_alarm": FALSE_ALARM,
            "n_compared": len(self.comparisons),
            "n_z": len(scores),
            "n_beyond_3": self.n_beyond_3,
            "largest_z": float(scores.max()) if len(scores) else None,
            "least_likely": asdict(self.worst),
        }

    _shown = summary

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `docs/files.md` describes."""
        pairs = zip(self.expected, self.largest, strict=True)
        points = [{**asdict(point), "largest_bh_simulated": mean} for point, mean in pairs]
        return {"agreement": self.summary(), "points": points, "comparisons": [asdict(row) for row in self.comparisons]}

    def sentences(self) -> list[str]:
        """Return `summary` in words."""
        agrees = "agrees with theory" if self.agrees else "DOES NOT agree with theory"
        facts = {"n": len(self.comparisons), "worst": self.worst, "p_value": self.p_value, "alarm": FALSE_ALARM}
        words = [SENTENCES["agreement"].format(agrees=agrees, **facts)]
        if n := len(self.scores):
            facts = {"n": n, "n_beyond": self.n_beyond_3, "are": "is" if self.n_beyond_3 == 1 else "are"}
            largest = np.abs(self.scores).max()
            words.append(SENTENCES["z_scores"].format(by_chance=n * CHANCE_BEYOND_3, largest=largest, **facts))
        if left := len(self.comparisons) - n:
            words.append(SENTENCES["no_scores"].format(n=left))
        return words


def agreement(run: str | Path) -> Agreement:
    """Compare the records that a sweep or trials have so far with theory at the same settings.

    Raises MissingFile if there is no run, no record yet, or no base file any more; CorruptFile for a
    manifest or records that cannot be read, or contradict each other; InvalidInput for a run without
    a theory, or a base that has changed.
    """
    records = Records(run)
    experiment = records.manifest.get("experiment")
    if experiment not in RUNS:
        named = printable(str(experiment))
        raise InvalidInput(SENTENCES["no_theory"].format(run=run, experiment=named, runs=" and ".join(RUNS)))
    if not records.n_landed:
        raise MissingFile(f"{run} holds no record yet; finish its run with --resume first")
    settings = _settings(Path(run), records.manifest)
    means, trials, largest = _means(Path(run), records, settings["sigmas"])
    shown = [point for point, count in enumerate(trials) if count]
    expected = [row for point, row in enumerate(Expect(**settings)) if trials[point]]
    comparisons = [
        compared(point, row, statistic, trials[point], means[statistic][point])
        for point, row in zip(shown, expected, strict=True)
        for statistic in STATISTICS
    ]
    return Agreement(expected=expected, largest=[largest[point] for point in shown], comparisons=comparisons)


def compared(point: int, expected: Any, statistic: str, trials: int, simulated: float) -> Any:
    """Compare the expected value of a statistic with the mean of this many trials."""
    mean = getattr(expected, statistic)
    std = getattr(expected, f"{statistic}_std")
    _, step = STATISTICS[statistic]
    # The far tails that theory leaves out show once in 1e9 snowballs.
    changes = trials * max(std**2, 1e-9) / step**2
    away = trials * abs(simulated - mean) / step
    error = std / math.sqrt(trials)
    return Compared(
        point=point,
        sigma=expected.sigma,
        statistic=statistic,
        trials=trials,
        expected=mean,
        std=std,
        simulated=simulated,
        standard_error=error,
        z=(simulated - mean) / error if changes >= ENOUGH_CHANGES else None,
        p_value=min(1.0, 2 * float(gammainc(changes + away, changes))),
    )


def _means(
    folder: Path, records: Records, sigmas: Sequence[float]
) -> tuple[dict[str, list[float]], list[int], list[float]]:
    """Return the mean of every statistic at each point, the number of trials, and the mean of the largest group."""
    import polars as pl

    is_sweep = records.manifest["experiment"] == "sweep"
    named = {name: name if is_sweep else other for name, (other, _) in STATISTICS.items()}
    sums = np.zeros((len(sigmas), len(named) + 1))
    trials = np.zeros(len(sigmas), np.int64)
    try:
        for frame in records.frames(["point", "sigma", "largest_bh", *named.values()]):
            point = frame["point"].cast(pl.Int64).to_numpy()
            if point.min(initial=0) < 0 or not np.array_equal(frame["sigma"].to_numpy(), np.asarray(sigmas)[point]):
                raise InvalidInput("a record has another sigma than the manifest")
            values = frame.select(*named.values(), pl.col("largest_bh").clip(lower_bound=1)).cast(pl.Float64).to_numpy()
            np.add.at(sums, point, values)
            np.add.at(trials, point, 1)
        if not np.isfinite(sums).all():
            raise InvalidInput("counts that are no numbers")
    except CorruptFile:
        raise
    except (pl.exceptions.PolarsError, LookupError, TypeError, ValueError) as error:
        raise CorruptFile(f"{folder}: not the records of its manifest ({error})") from None
    means = sums / np.maximum(trials, 1)[:, None]
    return {name: means[:, j].tolist() for j, name in enumerate(named)}, trials.tolist(), means[:, -1].tolist()


PARAMETER_TYPES = {"sigmas": list, "n_tokens": int, "hidden_dim": int, "base": str, "redraw_base": bool}
PARAMETER_TYPES |= dict.fromkeys(("grid", "distribution", "arithmetic", "sampler"), str)


def _settings(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    given = manifest["parameters"]
    wrong = [name for name, kind in PARAMETER_TYPES.items() if not isinstance(given.get(name), kind)]
    if wrong or not all(isinstance(sigma, (int, float)) for sigma in given["sigmas"]):
        raise CorruptFile(f"{folder / 'manifest.json'}: not the manifest of a run ({', '.join(wrong) or 'sigmas'})")
    names = "sigmas", "n_tokens", "redraw_base", "grid", "distribution", "arithmetic"
    settings = {name: given[name] for name in names}
    if given["base"] in DRAWN_BASES and not manifest["inputs"]:
        if given["sampler"] == "notebook":
            raise InvalidInput(f"{folder}: its base was drawn from torch's stream, which theory does not draw from")
        return {**settings, "base": given["base"], "dim": given["hidden_dim"], "seed": manifest["seed"]}
    return {**settings, "base": base_of(folder, manifest)}
