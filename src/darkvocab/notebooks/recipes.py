"""The notebooks, by number: run with their own parameters, and put beside what they published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput
from ..extras import import_extra, import_torch
from ..measures.census import Census
from ..measures.geometry import Geometry
from ..runs.randomness import NotebookStream
from ..snowballs import run
from ..snowballs.questions import Questions
from ..snowballs.snowball import Snowball, perturb
from ..snowballs.sweep import Sweep
from ..snowballs.trials import Trials
from ..training.choices import Architecture
from ..training.model import build
from .comparison import PUBLISHED, Comparison, compare
from .trainings import START, TRAININGS, reproduce_training

if TYPE_CHECKING:
    import polars as pl

# 12.2a ---------------------------------------------------------------------------------------------------------------

SEED_000_COLUMNS: list[str] = PUBLISHED["12.2a"]["columns"]
THEIR_CENTROID = (
    "depends on their centroid's offsets from rounding boundaries, and the centroid is not public; "
    "here: a vector with its published statistics (--base FILE, if you have theirs)"
)


def sweep_12_2a(base: str | Path | None = None) -> Sweep:
    """Return the settings of 12.2a: 1,000 sigma from 1.5e-9 to 5e-9."""
    return Sweep(np.linspace(1.5e-9, 5e-9, 1000), epsilon=6e-5, **_at_scale(base))


def _at_scale(base: str | Path | None) -> dict[str, Any]:
    """Return the settings that 12.2a and 12.4b share: 2,100 x 2,560, seed 42.

    Without a file the base is `qwen3-4b-centred`, which has the published statistics of the
    centroid that the notebook loads; with one the sampler is the notebook's, so that its figures
    can be met to the digit.
    """
    sampler = "notebook" if base else "sparse"
    return {"n_tokens": 2100, "dim": 2560, "seed": 42, "base": base or "qwen3-4b-centred", "sampler": sampler}


def _compare_run(number: str, base: np.ndarray, frame: pl.DataFrame, names: list[str]) -> Iterator[Comparison]:
    """Compare the number of records, their columns and the norm of the base."""
    yield compare(number, "1,000", f"{len(frame):,}")
    yield compare("columns, in order", len(names), sum(map(str.__eq__, frame.columns, names)))
    norm = float(np.linalg.norm(base.astype(np.float64)))
    yield compare("norm of the centroid", PUBLISHED["12.2a"]["norm"], f"{norm:.6f}")


def reproduce_12_2a(*, base: str | Path | None = None, **running: Any) -> Iterator[Comparison]:
    """12.2a (seed 000): the sigma sweep at Qwen's scale. `running`: of `snowballs.run.Options`."""
    sweep = sweep_12_2a(base)
    why = None if base is not None else THEIR_CENTROID
    frame = run.frame(sweep, **running)
    yield from _compare_run("samples", sweep.base.vector, frame, SEED_000_COLUMNS)
    holes, furthest, far = (frame[name].to_list() for name in ("n_black_holes", "max_l_inf_over_epsilon", "max_l_inf"))
    yield compare("black hole count, range", "[12, 240]", f"[{min(holes)}, {max(holes)}]", uncheckable=why)
    ends = f"[{min(furthest):.2f}, {max(furthest):.2f}]"
    yield compare("max L-inf / epsilon, range", "[0.01, 0.25]", ends, uncheckable=why)
    pairs = [f"{count}/{tokens}" for count, tokens in zip(holes, frame["black_hole_population"], strict=True)]
    published = PUBLISHED["12.2a"]
    yield compare("C/P of the first five", published["first"], " ".join(pairs[:5]), uncheckable=why)
    yield compare("C/P of the last five", published["last"], " ".join(pairs[-5:]), uncheckable=why)
    yield compare("max L-inf of the first and last five", "1.5e-05", f"{far[0]:.1e}", uncheckable=why)


# 12.4b ---------------------------------------------------------------------------------------------------------------

INTERRUPTED = "the notebook was interrupted in its first batch and published no statistic"


def reproduce_12_4b(*, base: str | Path | None = None, **running: Any) -> Iterator[Comparison]:
    """12.4b (seed 001): 1,000 trials, which the notebook never finished. `running`: of `snowballs.run.Options`."""
    trials = Trials(3.281911e-3, trials=1000, epsilon=5.9604645e-5, **_at_scale(base))
    frame = run.frame(trials, **running)
    yield from _compare_run("trials", trials.base.vector, frame, PUBLISHED["12.4b"]["columns"])
    for name in PUBLISHED["12.4b"]["summary"]:
        values = frame[name].to_numpy()
        mean, std = values.mean(), values.std(ddof=1)
        yield compare(name, "none", f"{mean:.1f} ± {std:.1f}", uncheckable=INTERRUPTED)


# 13.5a ---------------------------------------------------------------------------------------------------------------

REDRAWN = 20  # bases at each sigma, to know how far a figure that depends on the base is spread
ALARM = 1e-4
PREDICTED = (
    "its generator is not ours, and it has one random base at each sigma: agrees where it lies in Student's prediction "
    f"interval of {REDRAWN} redrawn bases (here: mean ± standard deviation), which one more of them would miss with "
    f"probability {ALARM:g}, were they normal"
)


def _predict(figure: str, published: str, values: np.ndarray, form: str) -> Comparison:
    """Compare a published figure, as it was printed, with the law of these values: it may be one more of them."""
    from scipy.special import stdtrit

    n, digit = len(values), 0.5 * 10.0 ** (Decimal(published).as_tuple().exponent)  # type: ignore[operator]
    reach = float(stdtrit(n - 1, 1 - ALARM / 2)) * values.std(ddof=1) * np.sqrt(1 + 1 / n)
    agrees = bool(abs(float(published) - values.mean()) <= reach + digit)
    ours = f"{values.mean():{form}} ± {values.std(ddof=1):.0e}"
    return compare(figure, published, ours, agrees=agrees, note=PREDICTED)


def reproduce_13_5a(**running: Any) -> Iterator[Comparison]:
    """13.5a (seed 003): the three questions. `running`: of `snowballs.run.Options`."""
    asked = Questions([sigma for sigma in np.geomspace(1e-6, 1e-4, 10).tolist() for _ in range(REDRAWN)])
    frame = run.frame(asked, **running)
    for number, (sigma, redrawn) in enumerate(frame.group_by("sigma", maintain_order=True)):
        theirs, mean, median = (PUBLISHED["13.5a"][name][number] for name in ("sigma", "mean_linf", "median_linf"))
        yield compare("sigma", theirs, f"{sigma[0]:.2e}")
        drawn = {name: redrawn[name].to_numpy() for name in ("density", "mean_linf", "median_linf", "n_black_holes")}
        yield _predict("  density", "0.0000", drawn["density"], ".4f")
        yield _predict("  mean L-inf", mean, drawn["mean_linf"], ".2e")
        yield _predict("  median L-inf", median, drawn["median_linf"], ".2e")
        yield _predict("  black holes", "0", drawn["n_black_holes"], ".0f")
    most = (frame[name].to_numpy().max() for name in ("density_1_step", "density_2_steps"))
    steps = " and ".join(f"{density:.1e}" for density in most)
    yield compare("density at 1 and 2 grid steps, at most", "none", steps, uncheckable="the notebook did not ask")
    coarser = frame["n_columns_coarser"].to_numpy() / asked.hidden_dim
    yield compare(
        "columns whose own step exceeds the threshold",
        "none",
        f"{coarser.min():.0%} to {coarser.max():.0%}",
        uncheckable="a threshold below the grid's step forces a density near 0: two tokens that differ there at all "
        "count as apart",
    )


# 12.1a ---------------------------------------------------------------------------------------------------------------


def toy_sweep() -> Iterator[dict[str, Any]]:
    """12.1a: 128 x 64, 1,000 sigma from 1e-6 to 1e-4, base randn(64) redrawn before the noise, seed 42."""
    stream = NotebookStream(42)
    for sigma in np.linspace(1e-6, 1e-4, 1000).tolist():
        snowball = Snowball(base=stream.base("random", 64), n_tokens=128, sigma=sigma)
        cloud = perturb(snowball, stream.noise(128, 64))
        census = Census(cloud.groups())
        yield {
            "sigma": sigma,
            "unique rows": census.n_unique,
            "black holes C": census.n_black_holes,
            "population P": census.black_hole_population,
            "singletons": census.n_singletons,
            "largest": census.largest_group,
            "max L-inf over all tokens": f"{Geometry(cloud.index(census.groups.first), cloud.grid).weight.max:.2e}",
        }


EXCHANGED = "our record of the figure has singletons and black holes exchanged: 128 tokens - P 123 = 5 singletons"


def reproduce_12_1a(**_: Any) -> Iterator[Comparison]:
    """12.1a: the toy sweep, exact on any CPU through the notebook sampler."""
    points = list(toy_sweep())
    for published in PUBLISHED["12.1a"]["points"]:
        ours = min(points, key=lambda point: abs(point["sigma"] - published["sigma"]))
        yield compare("sigma", f"{published['sigma']:.2e}", f"{ours['sigma']:.2e}")
        for figure, value in published["figures"].items():
            note = EXCHANGED if figure in published.get("exchanged", ()) else None
            yield compare(f"  {figure}", value, ours[figure], note=note)


# 11.2c, its initial state --------------------------------------------------------------------------------------------


def reproduce_11_2c_init(**_: Any) -> Iterator[Comparison]:
    """The initial state of 11.2c (seed 002), exact on any CPU: base and noise drawn after its GPT-2 was built."""
    torch = import_torch("reproduce 11.2c-init")
    import_extra("transformers", "train", "reproduce 11.2c-init")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        model = build(torch, Architecture(), 128)
        base, noise = torch.randn(64), torch.randn(128, 64)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    census = Census(perturb(Snowball(base=base.numpy(), n_tokens=128, sigma=1e-5), noise.numpy()).groups())
    published = PUBLISHED["11.2c-init"]
    yield compare("parameters", published["parameters"], f"{n_parameters:,}")
    yield compare("norm of the base", published["norm"], f"{base.norm().item():.6f}")
    for name, figure in START.items():
        yield compare(figure, published[name], getattr(census, name))


RECIPES: dict[str, Callable[..., Iterator[Comparison]]] = {
    "12.2a": reproduce_12_2a,
    "12.4b": reproduce_12_4b,
    "13.5a": reproduce_13_5a,
    "12.1a": reproduce_12_1a,
    **{recipe: partial(reproduce_training, recipe) for recipe in TRAININGS},
    "11.2c-init": reproduce_11_2c_init,
}
CLOUDS = ("12.2a", "12.4b", "13.5a")  # leave records
WITH_CENTROID = ("12.2a", "12.4b")  # load their centroid


def reproduce(recipe: str, **settings: Any) -> list[Comparison]:
    """Run a notebook's experiment and compare: published, here, agrees or why it cannot be checked.

    Parameters
    ----------
    recipe : a key of `RECIPES`
    settings : base (12.2a, 12.4b: a file); for 12.2a, 12.4b and 13.5a those of `snowballs.run.Options`; for 11.2c,
        11.2b and 11.2a corpus (a file) and those of `train`, of which `out` may be None

    Raises
    ------
    InvalidInput, MissingExtra
        Unknown recipe; one that needs torch (and transformers) where they are not installed.
    """
    if recipe not in RECIPES:
        raise InvalidInput(f"unknown recipe {recipe!r}; choose one of {', '.join(RECIPES)}")
    return list(RECIPES[recipe](**settings))
