"""Render templates: HTML pages that allow no scripts but their own, and lines, facts and tables for the console."""

from __future__ import annotations

import base64
import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from ..text import listed, printable
from . import console

if TYPE_CHECKING:
    import polars as pl
    from jinja2 import Environment, Template
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table

    from .plot import Plot

LIBRARY = "vendor/d3.min.js"  # d3 7.9.2 as npm has it; its licences lie beside it
LICENCE = "vendor/LICENSE"
BAR = "¦"  # in templates, separates cells of a table, and starts a line with the kind of a block
LEFT = "←"  # starts a heading that is aligned left
_OF_CONSOLE = "cell density isolated largest left_out more number token_texts without".split()
FILTERS: dict[str, Callable[..., Any]] = {  # of templates
    **{name: getattr(console, name) for name in _OF_CONSOLE},
    **{"form": format, "thousands": "{:,}".format, "printable": printable},
    "far": lambda length: "beyond float32" if length is None else f"{length:.4g}",
    "megabytes": lambda n: f"{n / 1e6:,.1f} MB",
    "count": lambda n, noun: f"{n:,} {noun}{'s' * (n != 1)}",
    "listed": lambda items, most: listed(list(map(str, items)), most),
    "base64": lambda path: base64.b64encode(path.read_bytes()).decode("ascii"),
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """Content of a page."""

    title: str
    lead: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    headings: list[str]
    rows: list[list[str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    tables: Sequence[tuple[str, Sequence[str], list[list[str]]]] = field(default_factory=list)  # title, headings, rows
    pictures: Mapping[str, Plot | Figure] = field(default_factory=dict)  # by file name; a `Plot` becomes interactive
    lists: list[tuple[str, list[str]]] = field(default_factory=list)  # titles and sentences
    terms: list[str]  # explained on the page
    files: list[str]  # linked; they lie beside the page


def render(
    name: str, scripts: Sequence[str], filters: Mapping[str, Callable[..., Any]] | None = None, /, **values: Any
) -> bytes:
    """Render a template that extends `page.html.j2` as a page, in UTF-8; values are escaped.

    The Content-Security-Policy names style and scripts by their hashes: whatever text is in the page,
    no other script runs, and nothing is fetched.

    Parameters
    ----------
    name : a file of this package
    scripts : files of this package, joined in this order to the page's script
    filters : of this template, besides `FILTERS`
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


class Displayed(list[Any]):
    """List that a notebook shows by a template of this package, in which its items are `rows`."""

    def __init__(self, rows: Iterable[Any], name: str) -> None:
        super().__init__(rows)
        self.name = name

    def _repr_html_(self) -> str:
        return template(self.name).render(rows=self)


def _environment(**options: Any) -> Environment:
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("darkvocab", "reports"), **options)
    environment.filters |= FILTERS
    environment.globals["WORDS"] = WORDS
    return environment


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """Return a template of this package with `FILTERS` and these filters; HTML and XML are escaped."""
    environment = _environment(autoescape=name.endswith((".html.j2", ".xml.j2")), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment.get_template(name)


@cache
def _texts() -> Environment:
    """Return the environment for templates in `text`: missing values are errors; values cannot end a line or a cell."""
    from jinja2 import StrictUndefined

    class Lacking(StrictUndefined):
        __format__ = StrictUndefined._fail_with_undefined_error

    def shown(value: Any) -> Any:
        if isinstance(value, Lacking) and value._undefined_name is None:  # an inline if without else
            return ""
        return value.replace("\n", "\\n").replace(BAR, "\0") if isinstance(value, str) else value

    return _environment(undefined=Lacking, finalize=shown)


def _lines(name: str, values: dict[str, Any]) -> list[str]:
    from jinja2 import UndefinedError

    try:
        text = _texts().get_template(f"text/{name}.j2").render(values)
    except UndefinedError as error:
        raise LookupError(str(error)) from None
    return [line for line in text.split("\n") if line]


def _cells(line: str) -> list[str]:
    return [cell.replace("\0", BAR) for cell in line.split(f" {BAR} ")]


def rows_of(name: str, **values: Any) -> list[list[str]]:
    """Return the cells of each line of a template in `text`; raises LookupError for a missing value."""
    return list(map(_cells, _lines(name, values)))


def lines_of(name: str, **values: Any) -> list[str]:
    """Return the lines of a template in `text` that are not empty; raises as `rows_of`."""
    return [line for (line,) in rows_of(name, **values)]


def table_of(rows: list[list[str]]) -> Table:
    """Return a table from headings (``←`` starts those aligned left) and rows; text is never markup."""
    from rich.table import Table
    from rich.text import Text

    headings, *cells = rows
    grid = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        justify: Literal["left", "right"] = "left" if heading.startswith(LEFT) else "right"
        grid.add_column(heading.removeprefix(LEFT), justify=justify, overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    return grid


def facts_of(name: str, **values: Any) -> list[tuple[str, str]]:
    """Return names and values from a template in `text` with a ``name: value`` in each line."""
    return list(map(_fact, lines_of(name, **values)))


def _fact(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name, value


def phrase(name: str, **values: Any) -> str:
    """Return the only line of a template in `text`."""
    (line,) = lines_of(name, **values)
    return line


def print_text(name: str, to: Console, **values: Any) -> None:
    """Print the blocks of a template in `text/printed` that are not empty; raises as `rows_of`.

    A block starts with a line ``¦ kind``, or ``¦ kind, apart`` for an empty line before it. Kinds are `table`
    (`table_of`), `facts` (`facts_of`), and for lines `wrapped`, `whole`, or `lines`, which only terminals wrap.
    """
    blocks: list[tuple[str, list[str]]] = []
    for line in _lines(f"printed/{name}", values):
        if line.startswith(BAR):
            blocks.append((line.removeprefix(f"{BAR} "), []))
        else:
            blocks[-1][1].append(line)
    for mark, lines in filter(itemgetter(1), blocks):
        kind, _, apart = mark.partition(", ")
        if apart:
            to.print()
        _print_block(kind, list(map(_cells, lines)), to)


def _print_block(kind: str, rows: list[list[str]], to: Console) -> None:
    if kind == "table":
        console.show(table_of(rows), to)
    elif kind == "facts":
        console.show(console.facts(_fact(line) for (line,) in rows), to)
    else:
        soft_wrap = not to.is_terminal if kind == "lines" else kind == "whole"
        for (line,) in rows:
            to.print(line, soft_wrap=soft_wrap)


def printer(name: str) -> Callable[..., None]:
    """Return a function that prints a `report` by a template in `text/printed`, with at most `shown` items each."""
    return lambda report, to, shown=console.SHOWN_TOKENS: print_text(name, to, report=report, shown=shown)


def read(name: str) -> str:
    """Return the text of a file of this package."""
    return (resources.files(__package__) / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def first_events(events: pl.DataFrame, most: int = 20) -> dict[str, Any]:
    """Return the first `most` events for a template, and how many are left."""
    happened = events.filter(events["kind"] != "start")
    return {"events": happened.head(most).to_dicts(), "n_left": len(happened) - most}


WORDS: dict[str, dict[str, Any]] = tomllib.loads(read("labels.toml"))
LABELS: dict[str, str] = WORDS["labels"]
TITLES: dict[str, str] = {**LABELS, **WORDS["titles"]}
PAGES = WORDS["pages"]


def labels(*columns: str) -> dict[str, str]:
    """Return the labels of these columns."""
    return {column: LABELS[column] for column in columns}


def page_words(experiment: str, /, **settings: Any) -> dict[str, Any]:
    """Return title, headings and terms of an experiment's page, and its leading sentence with these settings."""
    return {**PAGES[experiment], "lead": PAGES[experiment]["lead"].format(**settings)}


COUNT_LABELS = labels("n_unique", "n_black_holes", "black_hole_population", "n_singletons", "largest_bh")
