"""The report of a run folder: figures and one HTML page that opens offline, from what the folder holds."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ..records import read_manifest, read_records, write_whole
from ..sources import CorruptFile
from .figures import save, sweep_figure
from .tables import number, summary


def report(folder: str | Path) -> list[Path]:
    """Write `figures/` and `report.html` into a finished run folder. Reruns nothing; the same bytes every time.

    Returns
    -------
    The files written, the page first.

    Raises
    ------
    FileNotFoundError
        No finished run there.
    CorruptFile
        A manifest or records that cannot be read.
    """
    import polars as pl

    folder = Path(folder)
    manifest, frame = read_manifest(folder), read_records(folder)
    try:
        if frame["sigma"].null_count() or frame.is_empty():
            raise ValueError("records without a sigma")
        figure, rows = sweep_figure(frame), summary(frame)
    except (pl.exceptions.PolarsError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptFile(f"{folder / 'records.parquet'}: not the records of a sweep ({error})") from None
    figures = save(figure, folder / "figures" / "sweep")
    try:
        html = _page(manifest, len(frame), rows, figures[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(f"{folder / 'manifest.json'}: not the manifest of a sweep ({error!r})") from None
    page = folder / "report.html"
    write_whole(page, html.encode("utf-8"))
    return [page, *figures]


def _page(manifest: dict[str, Any], n_records: int, rows: list[dict[str, Any]], picture: Path) -> str:
    """The page of a sweep as HTML; whatever stands in the manifest is escaped."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    parameters = dict(manifest["parameters"])
    sigmas = parameters.pop("sigmas")
    environment = Environment(
        loader=PackageLoader("darkvocab", "reports"),
        autoescape=select_autoescape(default=True, default_for_string=True),
    )
    environment.filters["figure"] = number
    return environment.get_template("page.html.j2").render(
        title="Snowballs over a range of sigma",
        lead=f"{n_records:,} snowballs of {parameters['n_tokens']:,} tokens around the base {parameters['base']}, "
        f"rounded to {parameters['grid']}: how many tokens share a row, and how far apart the shared rows lie.",
        summary=rows,
        picture=base64.b64encode(picture.read_bytes()).decode("ascii"),
        parameters=[
            ("sigma", f"{len(sigmas):,} from {min(sigmas):g} to {max(sigmas):g}"),
            *((name, value) for name, value in parameters.items() if value is not None and name != "part_size"),
            ("seed", manifest["seed"]),
            *((f"{name} version", version) for name, version in manifest["packages"].items()),
            *(("base sha256", item["sha256"]) for item in manifest["inputs"]),
        ],
        command=manifest["command"],
    )
