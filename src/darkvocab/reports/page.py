"""The report of a run folder: figures, and one HTML page that opens offline."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ..embedding.history import FILE
from ..errors import CorruptFile, InvalidInput, MissingFile
from ..landing import write_whole
from ..runs.folder import read_manifest
from ..runs.records import CURVES, EXPECTED, Records, csv_path
from .console import number
from .document import render
from .evolution import EVOLUTION, HEADINGS, METRICS, READ, read_evolution
from .expected import read_expected
from .experiments import QWEN3_4B, answer_cells, moment_cells, ranges, remarks
from .figures import save
from .labels import TERMS, TRIALS
from .plot import Plot
from .replicas import cells, replicas_plot, sentences
from .snowball_figures import elements_figure, questions_plot, singletons_plot, sweep_plot
from .training import read_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CENSUS = ("black hole", "singleton", "L-infinity", "step")
STATES = ["", "at the start", "of them unseen", "at the end", "of them unseen"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure, its file name, and what it shows for those who cannot see it."""

    name: str
    figure: Plot | Figure  # the values of a plot can be read off the page
    shows: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """Content of a page: title, leading sentence, tables, remarks, pictures, terms to explain."""

    title: str
    lead: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    headings: list[str]
    rows: list[list[str]]
    remarks: list[str] = field(default_factory=list)
    pictures: list[Picture]
    lists: list[tuple[str, list[str]]] = field(default_factory=list)  # titles and sentences
    terms: tuple[str, ...]
    files: list[str]  # beside the page


def report(folder: str | Path) -> list[Path]:
    """Write `figures/` and `report.html` into the folder of a run, a training or a measured history.

    Reruns nothing; the same bytes every time. Returns the files written, the page first.

    Raises
    ------
    MissingFile
        No finished run there.
    CorruptFile
        A manifest or records that cannot be read.
    """
    folder = Path(folder)
    manifest: dict[str, Any] | None = None
    if (folder / EVOLUTION).is_file():
        with contextlib.suppress(FileNotFoundError, CorruptFile):
            manifest = read_manifest(folder)  # a history may come without one
        page = _evolution(folder)
    elif (manifest := read_manifest(folder)).get("experiment") == "train":
        page = _training(folder, manifest)
    else:
        page, manifest = _records(folder)
    written = []
    for picture in page.pictures:
        figure = picture.figure.draw() if isinstance(picture.figure, Plot) else picture.figure
        written += save(figure, folder / "figures" / picture.name)
    try:
        html = _html(manifest, page, folder)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(f"{folder / 'manifest.json'}: not the manifest of a run ({error!r})") from None
    write_whole(folder / "report.html", html)
    return [folder / "report.html", *written]


def _records(folder: Path) -> tuple[Page, dict[str, Any]]:
    records = Records(folder)
    manifest = records.manifest
    if manifest["status"] != "complete":
        raise MissingFile(f"{folder} holds a run that is {manifest['status']}; finish it with --resume first")
    try:
        page_of, lead_of = PAGES[manifest["experiment"]]
        lead = lead_of(records)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{folder / 'manifest.json'}: not the manifest of a run ({error!r})") from None
    try:
        if not len(records) or ("sigmas" in manifest["parameters"] and records["sigma"].null_count()):
            raise InvalidInput("no records, or without a sigma")
        return page_of(records, folder, lead), manifest
    except CorruptFile:
        raise
    except (pl.exceptions.PolarsError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptFile(f"{folder / 'records.parquet'}: not the records of a run ({error})") from None


def _evolution(folder: Path) -> Page:
    evolution = read_evolution(folder)
    summary = evolution.summary
    unseen = f", {len(summary['unseen']):,} of them unseen" if summary["unseen"] is not None else ""
    metrics = [METRICS] if (folder / METRICS).is_file() else []
    return Page(
        title="What became of the black holes",
        lead=f"{summary['n_tokens']:,} tokens{unseen}, over {summary['last_step']:,} optimizer steps.",
        facts=evolution.facts,
        headings=[heading.replace("L-inf", "L-infinity") for heading in HEADINGS],
        rows=evolution.rows,
        pictures=[Picture(name=name, figure=figure, shows=SHOWS[name]) for name, figure in evolution.figures.items()],
        lists=evolution.told,
        terms=(*CENSUS, "bulk motion", "thermal motion"),
        files=[EVOLUTION, *(f"{name}.parquet" for name in READ), *metrics],
    )


def _training(folder: Path, manifest: dict[str, Any]) -> Page:
    rows, sentences, plot = read_training(folder, manifest)
    parameters = manifest["parameters"]
    try:
        lead = (
            f"{parameters['steps']:,} steps from a {parameters['start']} start; {parameters['n_unseen']:,} of "
            f"{parameters['vocabulary']:,} tokens do not occur in the text."
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{folder / 'manifest.json'}: not the manifest of a training ({error!r})") from None
    return Page(
        title="A training",
        lead=lead,
        headings=STATES,
        rows=rows,
        remarks=sentences,
        pictures=[Picture(name="loss", figure=plot, shows=SHOWS["loss"])] if plot else [],
        terms=("black hole", "singleton"),
        files=[FILE, METRICS, "corpus.json"],
    )


SHOWS = {
    "counts": "Four panels against the step: black holes, tokens in black holes, unique rows, and the largest "
    "L-infinity of all pairs, of all, seen and unseen tokens",
    "populations": "The tokens in each black hole against the step, stacked: the largest in colour, the others grey, "
    "tokens alone light",
    "motion": "Two panels against the step: how far the centroid is from its start, and how fast the cloud and the "
    "tokens in it move",
    "spacetime": "Which black hole each unseen token is in at each step, a line for each token",
    "loss": "Training loss against the step: of every step, and its mean over stretches",
}


def _snowballs(records: Records) -> str:
    parameters = records.manifest["parameters"]
    return (
        f"{len(records):,} snowballs of {parameters['n_tokens']:,} tokens around the base {parameters['base']}, "
        f"rounded to {parameters['grid']}"
    )


def _files(records: Records, folder: Path) -> list[str]:
    others = [name for name in ("elements.parquet", CURVES, EXPECTED) if (folder / name).is_file()]
    return [csv_path(folder, records.manifest).name, "records.parquet", *others]


def _ranged(records: Records, **labels: Any) -> tuple[list[str], list[list[str]]]:
    keys = ["min", "median", "max", "first", "last"]
    headings = ["", "min", "median", "max", "at the smallest sigma", "at the largest sigma"]
    return headings, [[row["statistic"], *(number(row[k]) for k in keys)] for row in ranges(records, **labels)]


def _sweep(records: Records, folder: Path, lead: str) -> Page:
    headings, rows = _ranged(records)
    expected = read_expected(folder)
    beside = ", beside the census that is expected" if expected is not None else ""
    shows = (
        "Six panels against sigma: black holes, tokens in black holes, singletons, largest group, and L-infinity in "
        f"weight units and in grid steps{beside}"
    )
    return Page(
        title="Snowballs over a range of sigma",
        lead=f"{lead}: how many tokens share a row, and how far apart the shared rows lie.",
        headings=headings,
        rows=rows,
        pictures=[Picture(name="sweep", figure=sweep_plot(records, expected), shows=shows)],
        terms=CENSUS,
        files=_files(records, folder),
    )


def _trials(records: Records, folder: Path, lead: str) -> Page:
    swept = records["sigma"].n_unique() > 1
    if swept:
        headings, rows = _ranged(records, labels=TRIALS)
    else:
        headings = ["", "mean", "standard deviation", "min", "max"]
        rows = moment_cells(records)
    pictures = []
    elements = folder / "elements.parquet"
    if elements.is_file():
        shows = "Histogram of the elements of row minus base with the fitted normal density, and their Q-Q plot"
        pictures.append(Picture(name="elements", figure=elements_figure(elements, records), shows=shows))
    if swept:
        shows = "Singletons against sigma, a point for every trial"
        pictures.append(Picture(name="singletons", figure=singletons_plot(records), shows=shows))
    return Page(
        title="Trials",
        lead=f"{lead}: every statistic of each.",
        headings=headings,
        rows=rows,
        pictures=pictures,
        terms=("black hole", "singleton", "L-infinity", "touching"),
        files=_files(records, folder),
    )


def _questions(records: Records, folder: Path, lead: str) -> Page:
    shows = (
        "Three panels against sigma: density at the threshold and at one and two grid steps; L-infinity of all pairs "
        "of tokens; unique rows and black holes"
    )
    return Page(
        title="Three questions about rounding",
        lead=f"{lead}: are all tokens connected, at the limit of the grid, in plausible populations?",
        headings=[
            *("sigma", "density", "mean L-inf", "median L-inf", "black holes", "density at 1 step", "at 2 steps"),
            "largest populations",
        ],
        rows=answer_cells(records),
        remarks=[QWEN3_4B + ".", *remarks(records)],
        pictures=[Picture(name="questions", figure=questions_plot(records), shows=shows)],
        terms=("black hole", "L-infinity", "step", "touching"),
        files=_files(records, folder),
    )


def _trainings(records: Records) -> str:
    parameters = records.manifest["parameters"]
    return (
        f"{len(records):,} trainings of {parameters['steps']:,} steps from a {parameters['start']} start; "
        f"{parameters['n_unseen']:,} of {parameters['vocabulary']:,} tokens do not occur in the text"
    )


def _replicas(records: Records, folder: Path, lead: str) -> Page:

    path = folder / CURVES
    try:
        plot = replicas_plot(records, pl.read_parquet(path))
    except (pl.exceptions.PolarsError, OSError, LookupError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path}: not the curves of a run of replicas ({error})") from None
    frame = pl.DataFrame({name: records[name] for name in records.schema})
    shows = (
        "Four panels against the step, all and unseen tokens: black holes, tokens in black holes, unique rows, largest "
        "black hole"
    )
    return Page(
        title="Replicas of a training",
        lead=f"{lead}: where they started and ended, mean ± standard deviation.",
        headings=STATES,
        rows=cells(frame),
        remarks=[f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences(frame)],
        pictures=[Picture(name="replicas", figure=plot, shows=shows)],
        terms=CENSUS,
        files=_files(records, folder),
    )


PAGES: dict[str, tuple[Callable[[Records, Path, str], Page], Callable[[Records], str]]] = {
    "sweep": (_sweep, _snowballs),
    "trials": (_trials, _snowballs),
    "questions": (_questions, _snowballs),
    "replicas": (_replicas, _trainings),
}


def _html(manifest: dict[str, Any] | None, page: Page, folder: Path) -> bytes:
    """The page as HTML; whatever stands in the manifest is escaped."""
    pictures = []
    for picture in page.pictures:
        png = base64.b64encode((folder / "figures" / f"{picture.name}.png").read_bytes()).decode("ascii")
        pictures.append((picture, png, picture.figure.to_json() if isinstance(picture.figure, Plot) else None))
    return render(
        "run.html.j2",
        ("page.js", "curves.js") if any(panels for *_, panels in pictures) else (),
        title=page.title,
        eyebrow=f"darkvocab {manifest['experiment'] if manifest and not page.lists else 'evolve'}",
        page=page,
        terms={term: TERMS[term] for term in page.terms},
        pictures=pictures,
        parameters=_parameters(manifest) if manifest else [],
        command=manifest["command"] if manifest else None,
        no_command=manifest.get("no_command") if manifest else None,
    )


def _parameters(manifest: dict[str, Any]) -> list[tuple[str, Any]]:
    parameters = dict(manifest["parameters"])
    sigmas = parameters.pop("sigmas", None)
    shown = {name: ", ".join(map(str, v)) if isinstance(v, list) else v for name, v in parameters.items()}
    if sigmas is not None:
        between = f"{len(sigmas):,} from {min(sigmas):g} to {max(sigmas):g}" if len(sigmas) > 1 else f"{sigmas[0]:g}"
        shown = {"sigma": between, **shown}
    return [
        *((name.replace("_", " "), value) for name, value in shown.items() if value not in (None, "")),
        ("seed", manifest["seed"]),
        *((f"{name} version", version) for name, version in manifest["packages"].items()),
        *((f"{next(iter(item))} sha256", item["sha256"]) for item in manifest["inputs"]),
    ]
