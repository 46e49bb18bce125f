"""The trainings of the notebooks, with their defects on: pure bfloat16, and labels that are shifted twice."""

import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..measures.census import Census
from ..numerics import identical_rows
from ..sources.safetensors import read_tensors
from ..training.choices import Architecture, GaussianNoise, PointStart, SnowballStart
from ..training.corpus import load_corpus
from ..training.outcome import displacement, read_ends, read_metrics, token_distances
from ..training.run import train
from ..training.settings import Training
from .comparison import PUBLISHED, Comparison, compare

THEIR_CORPUS = "depends on their corpus, a novel that is not public; here: another text, of as many bytes"
THEIR_MEAN = (
    "the mean over 100 steps, times 127/128: their Trainer divides by 128 labels where 127 are predicted; depends on "
    "their corpus"
)
THEIR_NOISE = "depends on the noise, whose generator is not ours, and on their corpus"
START = {"n_unique": "unique rows", "n_black_holes": "black holes C0", "black_hole_population": "population P0"}
ANY_CORPUS = "must hold for any corpus"


CHOICES: dict[str, dict[str, Any]] = {
    "11.2c": {"start": SnowballStart(sigma=1e-5)},
    "11.2b": {"start": PointStart(), "noise": GaussianNoise(sigma=3e-5 / 10)},  # noise after every step
    "11.2a": {"start": PointStart(), "architecture": Architecture(norm="rmsnorm")},  # the control: without noise
}
TRAININGS = tuple(CHOICES)  # recipes that leave recordings


def training_11_2(recipe: str, corpus: str | Path | None = None, **settings: Any) -> Training:
    """The settings of 11.2c, 11.2b or 11.2a: 10,000 steps of 32 examples, seed 42."""
    return Training(corpus=load_corpus(corpus), precision="pure-bf16", label_shift=2, **{**CHOICES[recipe], **settings})


def reproduce_training(
    recipe: str, *, corpus: str | Path | None = None, out: str | Path | None = None, **running: Any
) -> Iterator[Comparison]:
    """11.2c (seed 002), 11.2b (seed 004) or 11.2a: a training. `running`: of `train`."""
    published, training = PUBLISHED[recipe], training_11_2(recipe, corpus)
    with TemporaryDirectory() as elsewhere:
        run = Path(out or Path(elsewhere) / "run")
        train(training, run, **running)
        yield from _compared(published, training, run)


def _compared(published: dict[str, Any], training: Training, run: Path) -> Iterator[Comparison]:
    unseen = training.corpus.unseen
    history, (first, last) = read_ends(run)
    n_parameters = sum(math.prod(tensor.shape) for tensor in read_tensors(run / "model" / "model.safetensors").values())
    yield compare("parameters", f"{published['parameters']:,}", f"{n_parameters:,}")
    start = Census(identical_rows(first))
    for name, theirs in published["start"].items():
        yield compare(f"{START[name]} at the start", theirs, getattr(start, name))
    yield from _compared_ends(published, training, Census(identical_rows(last)), Census(identical_rows(last[unseen])))
    distances = token_distances(last[unseen], history.grid)
    for name, length in published.get("l_inf", {}).items():
        far = f"{getattr(distances.weight, name):.6e}"
        yield compare(f"{name} L-inf of unseen tokens", f"{length:.6e}", far, uncheckable=THEIR_CORPUS)
    yield compare("  in grid steps, max", "none", int(distances.steps.max), uncheckable="the notebook did not ask")
    losses = read_metrics(run)["loss"].to_numpy() * 127 / 128
    for step, loss in published["losses"]:
        if step <= training.steps:
            logged = f"{losses[step - 100 : step].mean():.4f}"
            yield compare(f"loss logged at step {step:,}", f"{loss:.4f}", logged, uncheckable=THEIR_MEAN)
    if moved_by := published.get("displacement"):
        moved = f"{displacement(first, last, history.grid):.6f}"
        yield compare("displacement of the centroid", moved_by, moved, uncheckable=THEIR_CORPUS)


def _compared_ends(published: dict[str, Any], training: Training, end: Census, among: Census) -> Iterator[Comparison]:
    """Compare the last state's census over all tokens, and among unseen ones."""
    n_unseen, held = len(training.corpus.unseen), among.black_hole_population
    yield compare("unseen tokens", 51, n_unseen, uncheckable=THEIR_CORPUS)
    if training.noise is None:
        name = "population P of unseen tokens, all"
        yield compare(name, "51 of 51", f"{held:,}", agrees=held == n_unseen, note=ANY_CORPUS)
    else:
        yield compare("population P of unseen tokens", 51, f"{held} of {n_unseen}", uncheckable=THEIR_NOISE)
    seen = end.black_hole_population - held
    yield compare("population P of seen tokens", "0 of 77", f"{seen:,}", agrees=seen == 0, note=ANY_CORPUS)
    theirs, ours = len(published["populations"]), among.n_black_holes
    yield compare("black holes C at the end, few", theirs, ours, agrees=ours <= published["most"], note=ANY_CORPUS)
    listed = [", ".join(map(str, sizes)) for sizes in (published["populations"], among.populations.tolist())]
    yield compare("  their populations", *listed, uncheckable=THEIR_CORPUS)
