"""Templates: pages, HTML files with a policy for no scripts but their own; and lines, facts and tables for people."""

from __future__ import annotations

import base64
import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..text import listed, printable
from .console import cell, density, isolated, largest, left_out, number, print_left, table, token_texts, without

if TYPE_CHECKING:
    import polars as pl
    from jinja2 import Environment, Template
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table

    from .plot import Plot

LIBRARY = "vendor/d3.min.js"  # d3 7.9.2 as npm has it; its licences lie beside it
LICENCE = "vendor/LICENSE"
BAR = "¦"  # between the cells of a table in a template
SHOWN_EVENTS = 20
_NAMED = (cell, density, isolated, largest, left_out, number, printable, token_texts, without)
FILTERS: dict[str, Callable[..., Any]] = {  # of templates
    **{function.__name__: function for function in _NAMED},
    **{"form": format, "thousands": "{:,}".format},
    "far": lambda length: "beyond float32" if length is None else f"{length:.4g}",
    "megabytes": lambda n: f"{n / 1e6:,.1f} MB",
    "count": lambda n, noun: f"{n:,} {noun}{'s' * (n != 1)}",
    "listed": lambda items, most: listed(list(map(str, items)), most),
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """Content of a page: title, leading sentence, tables, remarks, pictures, terms to explain."""

    title: str
    lead: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    headings: list[str]
    rows: list[list[str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    tables: Sequence[tuple[str, Sequence[str], list[list[str]]]] = field(default_factory=list)  # title, headings, rows
    pictures: Mapping[str, Plot | Figure] = field(default_factory=dict)  # by file name; a plot can be read off the page
    lists: list[tuple[str, list[str]]] = field(default_factory=list)  # titles and sentences
    terms: list[str]
    files: list[str]  # beside the page


def render(
    name: str, scripts: Sequence[str], filters: Mapping[str, Callable[..., Any]] | None = None, /, **values: Any
) -> bytes:
    """Render a template as a page; values are escaped, the same values give the same bytes.

    Parameters
    ----------
    name : a template, a file of this package that extends `page.html.j2`
    scripts : files of this package that make up the page's script, in this order, if it has one
    filters : of the template, besides those for numbers

    Returns
    -------
    UTF-8. Its Content-Security-Policy names style and scripts by their hashes: whatever text is in
    the page, no other script runs, and nothing is fetched.
    """
    from markupsafe import Markup

    style = read("page.css")
    library = read(LIBRARY) if scripts else ""
    script = "\n".join(map(read, scripts))
    allowed = " ".join(map(_hash, (library, script))) if scripts else "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    pieces = template(name, **(filters or {})).generate(
        **values,
        policy=policy,
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        licence=read(LICENCE),
    )
    return b"".join(piece.encode("utf-8", "replace") for piece in pieces)  # a path need not be UTF-8


def _environment(**options: Any) -> Environment:
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("darkvocab", "reports"), **options)
    environment.filters |= FILTERS
    return environment


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """Return a template of this package with `FILTERS` and these; what goes into HTML or XML is escaped."""
    environment = _environment(autoescape=name.endswith((".html.j2", ".xml.j2")), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment.get_template(name)


@cache
def _texts() -> Environment:
    """Return what renders the templates in `text`: a lacking value is an error, and none ends a line or a cell."""
    from jinja2 import StrictUndefined

    class Lacking(StrictUndefined):
        __format__ = StrictUndefined._fail_with_undefined_error

    def shown(value: Any) -> Any:
        if isinstance(value, Lacking) and value._undefined_name is None:  # an if that has no else
            return ""
        return value.replace("\n", "\\n").replace(BAR, "\0") if isinstance(value, str) else value

    return _environment(undefined=Lacking, finalize=shown)


def rows_of(name: str, **values: Any) -> list[list[str]]:
    """Return the cells of each line of a template in `text`; raises LookupError where the values lack one."""
    from jinja2 import UndefinedError

    try:
        text = _texts().get_template(f"text/{name}.j2").render(values)
    except UndefinedError as error:
        raise LookupError(str(error)) from None
    lines = (line.split(f" {BAR} ") for line in text.split("\n") if line.strip())
    return [[cell.replace("\0", BAR) for cell in line] for line in lines]


def lines_of(name: str, **values: Any) -> list[str]:
    """Return the lines that a template in `text` has for people; an empty line is none. Raises as `rows_of`."""
    return [line for (line,) in rows_of(name, **values)]


def table_of(name: str, **values: Any) -> Table:
    """Return the table of a template in `text`: headings (``<`` stands before those aligned left), then rows."""
    headings, *rows = rows_of(name, **values)
    left = [heading[1:] for heading in headings if heading.startswith("<")]
    return table((heading.removeprefix("<") for heading in headings), rows, left)


def facts_of(name: str, **values: Any) -> list[tuple[str, str]]:
    """Return the names and values that a template in `text` has, one ``name: value`` a line."""
    return [(fact, value) for fact, _, value in (line.partition(": ") for line in lines_of(name, **values))]


def phrase(name: str, **values: Any) -> str:
    """Return the line that a template in `text` has."""
    (line,) = lines_of(name, **values)
    return line


def read(name: str) -> str:
    """Return the text of a file of this package."""
    return (resources.files(__package__) / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def print_events(events: pl.DataFrame, when: Callable[[dict[str, Any]], str], files: str, to: Console) -> None:
    """Print the first events, each after when it was, and which files have the others."""
    happened = events.filter(events["kind"] != "start")
    if happened.height:
        to.print()
        for line in lines_of("events", events=happened.head(SHOWN_EVENTS).to_dicts(), when=when):
            to.print(line, soft_wrap=True)
        print_left(happened.height - SHOWN_EVENTS, f"events; {files} have them all", to)


# For people: names of columns in tables and above panels, and the sentences of pages.
WORDS: dict[str, dict[str, Any]] = tomllib.loads(read("labels.toml"))
LABELS: dict[str, str] = WORDS["labels"]
TITLES: dict[str, str] = {**LABELS, **WORDS["titles"]}
PAGES = WORDS["pages"]


def labels(*columns: str) -> dict[str, str]:
    """Return the label of each column for a table."""
    return {column: LABELS[column] for column in columns}


def page_words(experiment: str, of: str) -> dict[str, Any]:
    """Return title, headings and terms of an experiment's page, and its leading sentence on the run that `of` names."""
    return {**PAGES[experiment], "lead": PAGES[experiment]["lead"].format(of=of)}


COUNTS = labels("n_unique", "n_black_holes", "black_hole_population", "n_singletons", "largest_bh")
