"""Console output of all commands: consoles, tables, formatted numbers and tokens, and JSON of frames."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..progress import COLORS
from ..text import printable

if TYPE_CHECKING:
    import polars as pl

SHOWN_TOKENS = 12


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with status 1


def console(color: str | None = None) -> Console:
    """Return a console without truncation in files and pipes, nor colours unless `color` is "always"."""
    plain = _Console(highlight=False, emoji=False, markup=False, **COLORS[color])
    if not plain.is_terminal:
        plain.width = 160
    return plain


def show(renderable: RenderableType, to: Console) -> None:
    """Print without trailing blanks, which rich leaves at the end of lines."""
    with to.capture() as captured:
        to.print(renderable)
    to.file.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def print_lines(lines: Iterable[str], to: Console) -> None:
    """Print lines, wrapped on a terminal only."""
    for line in lines:
        to.print(line, soft_wrap=not to.is_terminal)


def more(n: int, what: str) -> str:
    """Return "and N more WHAT", or nothing for n <= 0."""
    return f"and {n:,} more {what}" if n > 0 else ""


def token_texts(ids: Sequence[int], texts: Sequence[str | None], shown: int = SHOWN_TOKENS) -> str:
    """Return the texts of the first `shown` tokens, or their ids where they have none."""
    named = [
        f"#{token}" if text is None else isolated(printable(text))
        for token, text in zip(ids[:shown], texts[:shown], strict=True)
    ]
    left = len(ids) - len(named)
    return "  ".join(named) + (f"  and {left:,} more" if left else "")


def left_out(tokens: Sequence[int], shown: int = SHOWN_TOKENS) -> str:
    """Say which tokens were left out because their rows hold NaN or infinity."""
    named = ", ".join(map(str, tokens[:shown])) + (", ..." if len(tokens) > shown else "")
    which = "token whose row holds" if len(tokens) == 1 else "tokens whose rows hold"
    return f"{len(tokens):,} {which} NaN or infinity ({named})"


def without(tokens: Sequence[int]) -> str:
    """Return `left_out` as the end of a sentence about the other tokens; nothing if none was left out."""
    return f", without {left_out(tokens)}" if tokens else ""


def isolated(text: str) -> str:
    """Return text with directional isolates around right-to-left letters, which keep the order of what surrounds it."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{text}\u2069"
    return text


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Return a table with a name and a value in each line; text is never markup."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for pair in pairs:
        grid.add_row(*map(Text, pair))
    return grid


def number(value: float | None) -> str:
    """Format a statistic: whole numbers in full, others to four digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def cell(value: float | str | None) -> str:
    """Format a value: texts and integers in full, other numbers to six digits, nothing for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def density(value: float) -> str:
    """Format a density to four decimals, as the notebook does, or in powers of ten if it is tiny."""
    return f"{value:.4f}" if value == 0 or value >= 5e-5 else f"{value:.1e}"


def largest(demographics: str) -> str:
    """Format the first five populations of a JSON list."""
    populations = json.loads(demographics)
    return str(populations[:5])[:-1] + (", ...]" if len(populations) > 5 else "]")


def frames_json(summary: Any, **frames: pl.DataFrame | Iterable[pl.DataFrame]) -> Iterator[str]:
    """Yield a JSON object piece by piece: `summary`, and each frame as a list of rows; what is not finite is null.

    A frame may come in parts, of which only one is in memory at a time.
    """
    import polars as pl
    import polars.selectors as cs

    yield '{"summary": ' + json.dumps(summary, allow_nan=False)
    for name, parts in frames.items():
        yield f', "{name}": ['
        comma = ""
        for frame in [parts] if isinstance(parts, pl.DataFrame) else parts:
            for row in frame.with_columns(pl.when(cs.float().is_finite()).then(cs.float())).iter_rows(named=True):
                yield comma + json.dumps(row, allow_nan=False)
                comma = ", "
        yield "]"
    yield "}\n"
