"""Run the notebooks' experiments, by number, and compare the results with the published ones (`published.toml`)."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import one_of
from ..extras import import_extra, import_torch
from ..measures.census import Census
from ..measures.geometry import Geometry
from ..numerics import identical_rows
from ..reports.document import Displayed
from ..runs.randomness import NotebookStream
from ..snowballs import run
from ..snowballs.experiments import Questions, Sweep, Trials
from ..snowballs.snowball import Snowball, perturb
from ..sources.safetensors import read_tensors
from ..training.choices import Architecture, GaussianNoise, PointStart, SnowballStart
from ..training.corpus import load_corpus
from ..training.model import build
from ..training.outcome import displacement, read_ends, read_metrics, token_distances
from ..training.run import train
from ..training.settings import Training

if TYPE_CHECKING:
    import polars as pl

PUBLISHED: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("published.toml").read_text("utf-8"))
WHY: dict[str, str] = PUBLISHED.pop("why")
AGREES, DIFFERS, UNCHECKED = "yes", "NO", "cannot be checked"


@dataclass(frozen=True)
class Comparison:
    """One published figure, ours, and the verdict: "yes", "NO" or "cannot be checked"; a note says why."""

    figure: str
    published: str
    here: str
    agrees: str
    note: str | None = None


def compare(
    figure: str,
    published: object,
    ours: object,
    *,
    agrees: bool | None = None,
    note: str | None = None,
    uncheckable: str | None = None,
) -> Comparison:
    """Compare two figures, by default as texts; `uncheckable` is the reason why they cannot be compared."""
    if agrees is None:
        agrees = str(published) == str(ours)
    verdict = UNCHECKED if uncheckable else AGREES if agrees else DIFFERS
    return Comparison(figure, str(published), str(ours), verdict, uncheckable or note)


SEED_000_COLUMNS: list[str] = PUBLISHED["12.2a"]["columns"]


def sweep_12_2a(base: str | Path | None = None) -> Sweep:
    """Return the settings of 12.2a: 1,000 sigma from 1.5e-9 to 5e-9."""
    return Sweep(np.linspace(1.5e-9, 5e-9, 1000), epsilon=6e-5, **_at_scale(base))


def _at_scale(base: str | Path | None) -> dict[str, Any]:
    """Return the settings that 12.2a and 12.4b share: 2,100 x 2,560, seed 42.

    Without the centroid's file the base is `qwen3-4b-centred`, which has its published statistics; with it the sampler
    is the notebook's, and the figures should agree to the digit.
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
    """Reproduce 12.2a (seed 000): the sigma sweep at Qwen's scale. `running`: of `snowballs.run.Options`."""
    sweep = sweep_12_2a(base)
    why = None if base is not None else WHY["centroid"]
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


def reproduce_12_4b(*, base: str | Path | None = None, trials: int = 1000, **running: Any) -> Iterator[Comparison]:
    """Reproduce 12.4b (seed 001): 1,000 trials, never finished there. `running`: of `snowballs.run.Options`."""
    settings = Trials(3.281911e-3, trials=trials, epsilon=5.9604645e-5, **_at_scale(base))
    frame = run.frame(settings, **running)
    yield from _compare_run("trials", settings.base.vector, frame, PUBLISHED["12.4b"]["columns"])
    for name in PUBLISHED["12.4b"]["summary"]:
        values = frame[name].to_numpy()
        ours = f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
        yield compare(name, "none", ours, uncheckable=WHY["interrupted"])


REDRAWN = 20  # bases at each sigma, to measure the spread of a figure that depends on the base
FALSE_ALARM = 1e-4  # probability that a figure that agrees is called different


def _predict(figure: str, published: str, values: np.ndarray, form: str) -> Comparison:
    """Compare a published figure, as printed, with Student's prediction interval for one more of these values."""
    from scipy.special import stdtrit

    n = len(values)
    rounding = 0.5 * 10.0 ** (Decimal(published).as_tuple().exponent)  # type: ignore[operator]
    reach = float(stdtrit(n - 1, 1 - FALSE_ALARM / 2)) * values.std(ddof=1) * np.sqrt(1 + 1 / n)
    agrees = bool(abs(float(published) - values.mean()) <= reach + rounding)
    ours = f"{values.mean():{form}} ± {values.std(ddof=1):.0e}"
    return compare(figure, published, ours, agrees=agrees, note=WHY["predicted"].format(redrawn=n, alarm=FALSE_ALARM))


def reproduce_13_5a(*, redrawn: int = REDRAWN, **running: Any) -> Iterator[Comparison]:
    """Reproduce 13.5a (seed 003): the three questions. `running`: of `snowballs.run.Options`."""
    asked = Questions(np.geomspace(1e-6, 1e-4, 10).repeat(redrawn))
    frame = run.frame(asked, **running)
    for number, (sigma, records) in enumerate(frame.group_by("sigma", maintain_order=True)):
        theirs, mean, median = (PUBLISHED["13.5a"][name][number] for name in ("sigma", "mean_linf", "median_linf"))
        yield compare("sigma", theirs, f"{sigma[0]:.2e}")
        drawn = {name: records[name].to_numpy() for name in ("density", "mean_linf", "median_linf", "n_black_holes")}
        yield _predict("  density", "0.0000", drawn["density"], ".4f")
        yield _predict("  mean L-inf", mean, drawn["mean_linf"], ".2e")
        yield _predict("  median L-inf", median, drawn["median_linf"], ".2e")
        yield _predict("  black holes", "0", drawn["n_black_holes"], ".0f")
    most = (frame[name].to_numpy().max() for name in ("density_1_step", "density_2_steps"))
    steps = " and ".join(f"{density:.1e}" for density in most)
    yield compare("density at 1 and 2 grid steps, at most", "none", steps, uncheckable=WHY["steps"])
    coarser = frame["n_columns_coarser"].to_numpy() / asked.hidden_dim
    ends = f"{coarser.min():.0%} to {coarser.max():.0%}"
    yield compare("columns whose own step exceeds the threshold", "none", ends, uncheckable=WHY["coarser"])


def reproduce_12_1a(**_: Any) -> Iterator[Comparison]:
    """Reproduce 12.1a: 128 x 64, 1,000 sigma from 1e-6 to 1e-4, base redrawn before the noise: exact on any CPU."""
    stream = NotebookStream(42)
    points = []
    for sigma in np.linspace(1e-6, 1e-4, 1000).tolist():
        snowball = Snowball(base=stream.base("random", 64), n_tokens=128, sigma=sigma)
        cloud = perturb(snowball, stream.noise(128, 64))
        census = Census(cloud.groups())
        figures = {
            "unique rows": census.n_unique,
            "black holes C": census.n_black_holes,
            "population P": census.black_hole_population,
            "singletons": census.n_singletons,
            "largest": census.largest_group,
            "max L-inf over all tokens": f"{Geometry(cloud.index(census.groups.first), cloud.grid).weight.max:.2e}",
        }
        points.append((sigma, figures))
    for published in PUBLISHED["12.1a"]["points"]:
        sigma, ours = min(points, key=lambda point: abs(point[0] - published["sigma"]))
        yield compare("sigma", f"{published['sigma']:.2e}", f"{sigma:.2e}")
        for figure, value in published["figures"].items():
            note = WHY["exchanged"] if figure in published.get("exchanged", ()) else None
            yield compare(f"  {figure}", value, ours[figure], note=note)


START_FIGURES = {"n_unique": "unique rows", "n_black_holes": "black holes C0", "black_hole_population": "population P0"}

CHOICES: dict[str, dict[str, Any]] = {
    "11.2c": {"start": SnowballStart(sigma=1e-5)},
    "11.2b": {"start": PointStart(), "noise": GaussianNoise(sigma=3e-5 / 10)},  # noise after every step
    "11.2a": {"start": PointStart(), "architecture": Architecture(norm="rmsnorm")},  # the control: without noise
}
TRAININGS = tuple(CHOICES)  # recipes that leave recordings


def training_11_2(recipe: str, corpus: str | Path | None = None, **settings: Any) -> Training:
    """Return the settings of 11.2c, 11.2b or 11.2a: 10,000 steps of 32, seed 42, pure bfloat16, label shift 2."""
    return Training(corpus=load_corpus(corpus), precision="pure-bf16", label_shift=2, **{**CHOICES[recipe], **settings})


def reproduce_training(
    recipe: str, *, corpus: str | Path | None = None, steps: int = 10_000, out: str | Path | None = None, **running: Any
) -> Iterator[Comparison]:
    """Reproduce 11.2c (seed 002), 11.2b (seed 004) or 11.2a: a training. `running`: of `train`."""
    training = training_11_2(recipe, corpus, steps=steps)
    with TemporaryDirectory() as elsewhere:
        folder = Path(out or Path(elsewhere) / "run")
        train(training, folder, **running)
        yield from _compared(PUBLISHED[recipe], training, folder)


def _compared(published: dict[str, Any], training: Training, folder: Path) -> Iterator[Comparison]:
    unseen = training.corpus.unseen
    history, (first, last) = read_ends(folder)
    n_parameters = sum(math.prod(tensor.shape) for tensor in read_tensors(folder / "model/model.safetensors").values())
    yield compare("parameters", f"{published['parameters']:,}", f"{n_parameters:,}")
    start = Census(identical_rows(first))
    for name, theirs in published["start"].items():
        yield compare(f"{START_FIGURES[name]} at the start", theirs, getattr(start, name))
    yield from _compared_ends(published, training, Census(identical_rows(last)), Census(identical_rows(last[unseen])))
    distances = token_distances(last[unseen], history.grid)
    for name, length in published.get("l_inf", {}).items():
        far = f"{getattr(distances.weight, name):.6e}"
        yield compare(f"{name} L-inf of unseen tokens", f"{length:.6e}", far, uncheckable=WHY["corpus"])
    yield compare("  in grid steps, max", "none", int(distances.steps.max), uncheckable=WHY["steps"])
    losses = read_metrics(folder)["loss"].to_numpy() * 127 / 128
    for step, loss in published["losses"]:
        if step <= training.steps:
            logged = f"{losses[step - 100 : step].mean():.4f}"
            yield compare(f"loss logged at step {step:,}", f"{loss:.4f}", logged, uncheckable=WHY["mean"])
    if moved_by := published.get("displacement"):
        moved = f"{displacement(first, last, history.grid):.6f}"
        yield compare("displacement of the centroid", moved_by, moved, uncheckable=WHY["corpus"])


def _compared_ends(published: dict[str, Any], training: Training, end: Census, among: Census) -> Iterator[Comparison]:
    """Compare the last state's census over all tokens, and among unseen ones."""
    n_unseen = len(training.corpus.unseen)
    held = among.black_hole_population
    yield compare("unseen tokens", 51, n_unseen, uncheckable=WHY["corpus"])
    if training.noise is None:
        name = "population P of unseen tokens, all"
        yield compare(name, "51 of 51", f"{held:,}", agrees=held == n_unseen, note=WHY["any_corpus"])
    else:
        yield compare("population P of unseen tokens", 51, f"{held} of {n_unseen}", uncheckable=WHY["noise"])
    seen = end.black_hole_population - held
    yield compare("population P of seen tokens", "0 of 77", f"{seen:,}", agrees=seen == 0, note=WHY["any_corpus"])
    few = among.n_black_holes <= published["most"]
    of = (len(published["populations"]), among.n_black_holes)
    yield compare("black holes C at the end, few", *of, agrees=few, note=WHY["any_corpus"])
    listed = [", ".join(map(str, sizes)) for sizes in (published["populations"], among.populations.tolist())]
    yield compare("  their populations", *listed, uncheckable=WHY["corpus"])


def reproduce_11_2c_init(**_: Any) -> Iterator[Comparison]:
    """Reproduce 11.2c's initial state (seed 002), exact on any CPU: drawn after the GPT-2 was built."""
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
    for name, figure in START_FIGURES.items():
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
    """Run a notebook's experiment and compare each published figure with ours.

    Raises InvalidInput for an unknown recipe, MissingExtra for one that needs torch (and transformers) without them.

    Parameters
    ----------
    recipe : a key of `RECIPES`
    settings : base (12.2a, 12.4b: a file), trials (12.4b), redrawn bases at each sigma (13.5a); for 12.2a, 12.4b and
        13.5a those of `snowballs.run.Options`; for 11.2c, 11.2b and 11.2a corpus (a file), steps and those of `train`,
        of which `out` may be None
    """
    return Displayed(RECIPES[one_of(recipe, "recipe", RECIPES)](**settings), "comparison.html.j2")
