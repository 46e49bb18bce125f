"""The report of a run folder: figures, and one HTML page that opens offline."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..landing import write_whole
from ..measures.verdict import judge
from ..runs.folder import read_manifest
from ..runs.records import CURVES, EXPECTED, Records, csv_path, reading
from ..text import printable
from . import studies, verification
from .document import PAGES, WORDS, Displayed, Page, facts_of, page_words, render
from .evolution import EVOLUTION, evolution_page
from .experiments import QWEN3_4B, remarks, summary_cells
from .plot import Plot, save
from .snowballs import elements_figure, questions_plot, read_expected, singletons_plot, sweep_plot
from .training import cells, replicas_plot, sentences, training_page


def report(folder: str | Path) -> list[Path]:
    """Write `figures/` and `report.html` into the folder of a run, a training or a measured history; return the files.

    Nothing is run again, and the bytes are the same every time. A notebook shows the figures. Raises MissingFile if
    there is no finished run, CorruptFile for a manifest or records that cannot be read.
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
    for name, picture in page.pictures.items():
        written += save(picture.draw() if isinstance(picture, Plot) else picture, folder / "figures" / name)
    with reading(folder / "manifest.json", "the manifest of a run"):
        html = _html(manifest, page, folder)
    write_whole(folder / "report.html", html)
    return Displayed([folder / "report.html", *written], "figures.html.j2")


def _records(folder: Path) -> tuple[Page, dict[str, Any]]:
    records = Records(folder)
    manifest = records.manifest
    if manifest["status"] != "complete":
        raise MissingFile(f"{folder} holds a run that is {manifest['status']}; finish it with --resume first")
    with reading(folder / "manifest.json", "the manifest of a run"):
        settings = {**manifest["parameters"], "n": len(records)}
        if manifest["experiment"] == "verify":
            settings["source"] = printable(str(manifest["inputs"][0]["source"]))
        words = page_words(manifest["experiment"], **settings)
        others = [name for name in ("elements.parquet", CURVES, EXPECTED) if (folder / name).is_file()]
        files = [csv_path(folder, manifest).name, "records.parquet", *others]
    with reading(folder / "records.parquet"):
        if not len(records) or ("sigmas" in manifest["parameters"] and records["sigma"].null_count()):
            raise InvalidInput("no records, or without a sigma")
        content = EXPERIMENTS[manifest["experiment"]](records, folder)
        return Page(**{**words, **content}, files=files), manifest


def _sweep(records: Records, folder: Path) -> dict[str, Any]:
    pictures = {"sweep": sweep_plot(records, read_expected(folder))}
    return {"rows": summary_cells("sweep", records), "pictures": pictures}


def _trials(records: Records, folder: Path) -> dict[str, Any]:
    page: dict[str, Any] = {"rows": summary_cells("trials", records), "pictures": {}}
    elements = folder / "elements.parquet"
    if elements.is_file():
        page["pictures"]["elements"] = elements_figure(elements, records)
    if records["sigma"].n_unique() > 1:
        page["pictures"]["singletons"] = singletons_plot(records)
        page["headings"] = PAGES["sweep"]["headings"]
    return page


def _questions(records: Records, _: Path) -> dict[str, Any]:
    said = [QWEN3_4B + ".", *remarks(records)]
    pictures = {"questions": questions_plot(records)}
    return {"rows": summary_cells("questions", records), "remarks": said, "pictures": pictures}


def _replicas(records: Records, folder: Path) -> dict[str, Any]:
    with reading(folder / CURVES, "the curves of a run of replicas"):
        plot = replicas_plot(records, pl.read_parquet(folder / CURVES))
    frame = pl.concat(records.frames())
    return {"rows": cells(frame), "remarks": _said(sentences(frame)), "pictures": {"replicas": plot}}


def _verify(records: Records, _: Path) -> dict[str, Any]:
    verdict = judge(pl.concat(records.frames()), records.manifest["parameters"])
    return {
        "rows": verification.groups(verdict),
        "remarks": _said(verification.sentences(verdict)),
        "pictures": {"answers": verification.verdict_plot(verdict)},
        "tables": [("Verified tokens", verification.VERIFIED, verification.verified_rows(verdict))],
    }


def _said(sentences: list[str]) -> list[str]:
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences]


def _study(records: Records, _: Path) -> dict[str, Any]:
    frame = pl.concat(records.frames())
    parameters = records.manifest["parameters"]
    return {
        "headings": studies.headings(parameters),
        "rows": studies.cells(frame, parameters),
        "tables": [("What was asked", PAGES["study"]["headings"], studies.answer_cells(frame, parameters))],
        "remarks": _said(studies.sentences(frame, parameters)),
        "pictures": {"study": studies.study_plot(frame, parameters)},
    }


EXPERIMENTS = {
    **{"verify": _verify, "sweep": _sweep, "trials": _trials, "questions": _questions},
    **{"replicas": _replicas, "study": _study},
}


def _html(manifest: dict[str, Any] | None, page: Page, folder: Path) -> bytes:
    """Return the page as HTML, with all values of the manifest escaped."""
    pictures = []
    for name, figure in page.pictures.items():
        shows = WORDS["shows"][name]
        if name == "sweep" and EXPECTED in page.files:
            shows += ", with the expected census"
        panels = figure.to_json() if isinstance(figure, Plot) else None
        pictures.append((name, shows, folder / "figures" / f"{name}.png", panels))
    return render(
        "run.html.j2",
        ("page.js", "curves.js") if any(panels for *_, panels in pictures) else (),
        title=page.title,
        eyebrow=f"darkvocab {manifest['experiment'] if manifest and not page.lists else 'evolve'}",
        page=page,
        pictures=pictures,
        parameters=facts_of("parameters", manifest=manifest) if manifest else [],
        manifest=manifest,
    )
