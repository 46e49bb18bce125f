"""The report of a run folder: figures, and one HTML page that opens offline."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..landing import write_whole
from ..runs.folder import read_manifest
from ..runs.records import CURVES, EXPECTED, Records, csv_path, reading
from .document import Page, Picture, render
from .evolution import EVOLUTION, evolution_page
from .expected import read_expected
from .experiments import QWEN3_4B, remarks, summary_cells
from .figures import save
from .labels import CENSUS_TERMS, STATES, TERMS
from .plot import Plot
from .replicas import cells, replicas_plot, sentences
from .snowball_figures import elements_figure, questions_plot, singletons_plot, sweep_plot
from .training import settings_said, training_page

RANGED = ["", "min", "median", "max", "at the smallest sigma", "at the largest sigma"]


def report(folder: str | Path) -> list[Path]:
    """Write `figures/` and `report.html` into the folder of a run, a training or a measured history.

    Reruns nothing; the same bytes every time. Returns the files written, the page first. Raises MissingFile where no
    finished run is, CorruptFile for a manifest or records that cannot be read.
    """
    folder = Path(folder)
    manifest: dict[str, Any] | None = None
    if (folder / EVOLUTION).is_file():
        with contextlib.suppress(FileNotFoundError, CorruptFile):
            manifest = read_manifest(folder)  # a history may come without one
        page = evolution_page(folder)
    elif (manifest := read_manifest(folder)).get("experiment") == "train":
        page = training_page(folder, manifest)
    else:
        page, manifest = _records(folder)
    written = []
    for picture in page.pictures:
        figure = picture.figure.draw() if isinstance(picture.figure, Plot) else picture.figure
        written += save(figure, folder / "figures" / picture.name)
    with reading(folder / "manifest.json", "the manifest of a run"):
        html = _html(manifest, page, folder)
    write_whole(folder / "report.html", html)
    return [folder / "report.html", *written]


def _records(folder: Path) -> tuple[Page, dict[str, Any]]:
    records = Records(folder)
    manifest = records.manifest
    if manifest["status"] != "complete":
        raise MissingFile(f"{folder} holds a run that is {manifest['status']}; finish it with --resume first")
    with reading(folder / "manifest.json", "the manifest of a run"):
        page_of = PAGES[manifest["experiment"]]
        lead = _lead(records)
    with reading(folder / "records.parquet"):
        if not len(records) or ("sigmas" in manifest["parameters"] and records["sigma"].null_count()):
            raise InvalidInput("no records, or without a sigma")
        return page_of(records, folder, lead), manifest


def _lead(records: Records) -> str:
    parameters = records.manifest["parameters"]
    if records.manifest["experiment"] == "replicas":
        return f"{len(records):,} trainings of {settings_said(parameters)}"
    return (
        f"{len(records):,} snowballs of {parameters['n_tokens']:,} tokens around the base {parameters['base']}, "
        f"rounded to {parameters['grid']}"
    )


def _files(records: Records, folder: Path) -> list[str]:
    others = [name for name in ("elements.parquet", CURVES, EXPECTED) if (folder / name).is_file()]
    return [csv_path(folder, records.manifest).name, "records.parquet", *others]


def _sweep(records: Records, folder: Path, lead: str) -> Page:
    expected = read_expected(folder)
    beside = ", beside the census that is expected" if expected is not None else ""
    shows = (
        "Six panels against sigma: black holes, tokens in black holes, singletons, largest group, and L-infinity in "
        f"weight units and in grid steps{beside}"
    )
    return Page(
        title="Snowballs over a range of sigma",
        lead=f"{lead}: how many tokens share a row, and how far apart the shared rows lie.",
        headings=RANGED,
        rows=summary_cells("sweep", records),
        pictures=[Picture(name="sweep", figure=sweep_plot(records, expected), shows=shows)],
        terms=CENSUS_TERMS,
        files=_files(records, folder),
    )


def _trials(records: Records, folder: Path, lead: str) -> Page:
    swept = records["sigma"].n_unique() > 1
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
        headings=RANGED if swept else ["", "mean", "standard deviation", "min", "max"],
        rows=summary_cells("trials", records),
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
        rows=summary_cells("questions", records),
        remarks=[QWEN3_4B + ".", *remarks(records)],
        pictures=[Picture(name="questions", figure=questions_plot(records), shows=shows)],
        terms=("black hole", "L-infinity", "step", "touching"),
        files=_files(records, folder),
    )


def _replicas(records: Records, folder: Path, lead: str) -> Page:
    with reading(folder / CURVES, "the curves of a run of replicas"):
        plot = replicas_plot(records, pl.read_parquet(folder / CURVES))
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
        terms=CENSUS_TERMS,
        files=_files(records, folder),
    )


PAGES = {"sweep": _sweep, "trials": _trials, "questions": _questions, "replicas": _replicas}


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
