"""Write the page of a scan, an HTML file that opens offline: the finding, figures, a list of tokens, provenance."""

from __future__ import annotations

import base64
import itertools
import json
import math
import struct
import tomllib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ..landing import write_whole
from ..measures.indicators import DARK
from ..runs.folder import versions
from ..text import printable
from .checkpoints import scan_facts
from .document import facts_of, phrase, read, render

if TYPE_CHECKING:
    from ..checkpoints.scan_result import Scan

SCRIPTS = ("page.js", "plane.js", "list.js", "packed.js", "atlas.js")
TEXTS_AT_A_TIME = 8_192  # tokens whose texts are packed at once
LISTED_TOKENS = 200  # tokens that the page lists as text, for print and where scripts are off
SHOWN_HOLES = 50  # black holes listed as text
SHOWN_MEMBERS = 100  # tokens listed of each
LONGEST_TEXT = 200  # characters of a token in these lists
TEXTS = ("text", "witness", "bytes")  # packed side by side for each token, so that gzip finds what they share
TWO_UNITS = r"[\x{10000}-\x{10FFFF}]"  # characters that JavaScript counts twice
CODES = ("category", "script", "reserved", "grade", "side")  # columns with few values, packed as numbers

TOKEN_KINDS = [SimpleNamespace(**kind) for kind in tomllib.loads(read("kinds.toml"))["kinds"]]
NUMBER = {kind.key: number for number, kind in enumerate(TOKEN_KINDS)}


def write_page(scan: Scan, path: str | Path, *, command: str | None = None) -> None:
    """Write the page of a scan; `command` is the line that made it. Raises as `write_whole`."""
    write_whole(Path(path), page(scan, command))


def page(scan: Scan, command: str | None = None) -> bytes:
    """Render the page that `write_page` writes; the same arguments give the same bytes."""
    tokens = scan.tokens
    kinds = kinds_of(tokens)
    dark = tokens["dark"].fill_null(False).to_numpy()
    asked = printable(scan.source.asked)
    with ThreadPoolExecutor(1) as pool:
        packing = pool.submit(pack, scan, kinds)  # compresses while the template is rendered
        return render(
            "atlas.html.j2",
            SCRIPTS,
            {"cut": _cut, "members": lambda hole: list(zip(hole.token_ids, hole.tokens, strict=True))[:SHOWN_MEMBERS]},
            title=f"Dark tokens of {asked}",
            asked=asked,
            scan=scan,
            finding=finding(scan, kinds, dark),
            kinds=list(_kind_rows(tokens, kinds, dark)),
            kind_of=TOKEN_KINDS,
            n_dark=int(dark.sum()),
            listed=_listed(scan, kinds),
            shown_holes=SHOWN_HOLES,
            writing=_writing(tokens),
            dark_from=DARK,
            facts=scan_facts(scan),
            provenance=facts_of("provenance", scan=scan, command=command, versions=versions()),
            packed=lambda: base64.b64encode(packing.result()).decode("ascii"),
            printed=LISTED_TOKENS,
        )


def kinds_of(tokens: pl.DataFrame) -> np.ndarray:
    """Return the index in `TOKEN_KINDS` of each token: its category, or reserved, weak, or reachable yet dark."""
    kinds = tokens["category"].replace_strict(NUMBER, default=NUMBER["unknown"], return_dtype=pl.Int64).to_numpy()
    dark = tokens["dark"].fill_null(False).to_numpy()
    kinds = np.where((kinds == NUMBER["reachable"]) & dark, NUMBER["under_trained"], kinds)
    kinds = np.where((tokens["grade"] == "weak").to_numpy(), NUMBER["weak"], kinds)
    return np.where(tokens["reserved"].is_not_null().to_numpy(), NUMBER["reserved"], kinds)


def finding(scan: Scan, kinds: np.ndarray, dark: np.ndarray) -> str:
    """Summarise the scan in one sentence: how many tokens are dark, of which kinds, and how many share a row."""
    n_dark = int(dark.sum())
    counts = [(int((dark & (kinds == place)).sum()), kind.counted) for place, kind in enumerate(TOKEN_KINDS)]
    counted = sorted((count for count in counts if count[0]), key=lambda count: -count[0])
    facts = {"scan": scan, "n": len(dark), "n_dark": n_dark, "share": _share(n_dark / max(len(dark), 1))}
    return phrase("finding", counted=counted, **facts)


def _share(part: float) -> str:
    return f"{part:.1%}" if part >= 0.001 else f"{part:.2g}".replace("e-0", "e-") if part < 1e-5 else f"{part:.3%}"


def _kind_rows(tokens: pl.DataFrame, kinds: np.ndarray, dark: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind that occurs: its description, numbers of tokens, median norm and score."""
    weak = (tokens["grade"] == "weak").to_numpy()
    for place, kind in enumerate(TOKEN_KINDS):
        of = kinds == place
        if of.any():
            norm, score = (tokens[name].filter(of).fill_nan(None).median() for name in ("norm", "score"))
            counts = {"n": of.sum(), "n_dark": (of & dark).sum(), "n_weak": (of & weak).sum()}
            yield {**vars(kind), **counts, "norm": norm, "score": score}


def _listed(scan: Scan, kinds: np.ndarray) -> list[dict[str, Any]]:
    """Return the first tokens of the list, the likeliest to be dark first; trained ones only if none is dark."""
    frame = scan.tokens.with_columns(kind=pl.Series(kinds))[scan.order]
    if scan.tokens["dark"].any():
        frame = frame.filter(pl.col("grade") != "trained")
    return frame.head(LISTED_TOKENS).to_dicts()


def _cut(text: str) -> str:
    """Return a token's text as a page shows it: of limited length, without characters that hide or turn others."""
    more = len(text) - LONGEST_TEXT
    return printable(text[:LONGEST_TEXT]) + (f"… and {more:,} characters more" if more > 0 else "")


def _writing(tokens: pl.DataFrame) -> list[tuple[str, int]]:
    """Count the tokens of each script, most tokens first."""
    counts = tokens["script"].drop_nulls().value_counts(sort=True)
    return sorted(((printable(name), n) for name, n in counts.iter_rows()), key=lambda pair: (-pair[1], pair[0]))


def pack(scan: Scan, kinds: np.ndarray) -> bytes:
    """Pack a scan's JSON and tokens for `packed.js` into one gzip file.

    It holds the length of the header (uint32), the header (JSON), the columns and the texts. Columns have 4 bytes a
    value: the first bytes of all values, then the second ones, and so on, which compresses better. Floats are rounded
    to 14 bits, the four digits that the page shows. Missing floats are NaN, missing integers and lengths of texts -1.
    """
    tokens = scan.tokens.with_columns(pl.col("^count$").cast(pl.Float64))  # may be beyond 32 bits
    columns: dict[str, np.ndarray] = {}
    codes = {}
    floats = [name for name, dtype in tokens.schema.items() if dtype.is_float()]
    for name in floats:
        columns[name] = rounded(tokens[name].fill_null(math.nan).to_numpy()).view(np.int32)
    for name in ("id", "black_hole", "population", "n_touching", "steps"):
        columns[name] = tokens[name].fill_null(-1).to_numpy().astype(np.int32)
    for name in CODES:
        values = tokens[name].unique().drop_nulls().sort().to_list()
        codes[name] = [printable(value) for value in values]
        columns[name] = tokens[name].cast(pl.Enum(values)).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()
    for name in (name for name in ("dark", "verified") if name in tokens.columns):
        columns[name] = tokens[name].cast(pl.Int32).fill_null(-1 if name == "verified" else 0).to_numpy()
    columns["kind"] = kinds.astype(np.int32)
    columns["rank"] = scan.rank.astype(np.int32)
    lengths, blob, shown = _texts(tokens)
    header = {
        "n": len(tokens),
        "names": list(columns),
        "floats": floats,
        "codes": codes,
        "texts": TEXTS,
        "shown": shown,
        "columns": tokens.columns,
        "kinds": list(map(vars, TOKEN_KINDS)),
        "dark_from": DARK,
        "report": scan.to_json(),
    }
    head = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    content = bytearray(len(head).to_bytes(4, "little") + head)
    for column in (*columns.values(), *lengths):
        content += column.view(np.uint8).reshape(-1, 4).T.tobytes()
    content += blob
    del columns, lengths, blob
    return gzipped(content)


def gzipped(content: bytes | bytearray) -> bytes:
    """Compress to one gzip member, in two threads: the second half may refer back to the first."""

    def half(part: memoryview, before: memoryview, end: int) -> bytes:
        packer = zlib.compressobj(6, wbits=-zlib.MAX_WBITS, zdict=before)
        return packer.compress(part) + packer.flush(end)

    first = memoryview(content)[: len(content) // 2]
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(half, memoryview(content)[len(first) :], first[-(1 << zlib.MAX_WBITS) :], zlib.Z_FINISH)
        packed = half(first, first[:0], zlib.Z_SYNC_FLUSH)
    trailer = struct.pack("<2I", zlib.crc32(content), len(content) % (1 << 32))
    return struct.pack("<4BI2B", 31, 139, 8, 0, 0, 0, 255) + packed + second.result() + trailer


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float32 values rounded to 14 significant bits (error below 2^-14 of the value), which compress to half.

    Examples
    --------
    >>> [float(value) for value in rounded(np.array([0.1, 1.0, np.nan]))]
    [0.09999847412109375, 1.0, nan]
    """
    words = values.astype(np.float32).view(np.uint32)
    finite = np.isfinite(values)
    return np.where(finite, (words + 0x200) & 0xFFFFFC00, words).astype(np.uint32).view(np.float32)


def _texts(tokens: pl.DataFrame) -> tuple[list[np.ndarray], bytes, dict[str, dict[int, str]]]:
    """Return the lengths of `TEXTS` as JavaScript counts them, all texts joined, and escapes of unprintable ones."""
    units = [tokens[name].str.len_chars() + tokens[name].str.count_matches(TWO_UNITS) for name in TEXTS[:-1]]
    units.append(tokens[TEXTS[-1]].str.len_bytes() // 2)
    lengths = [column.cast(pl.Int32).fill_null(-1).to_numpy() for column in units]
    parts = []
    shown: dict[str, dict[int, str]] = {name: {} for name in TEXTS[:-1]}
    for start in range(0, len(tokens), TEXTS_AT_A_TIME):
        *texts, digits = (
            column.to_list() for column in tokens[start : start + TEXTS_AT_A_TIME].select(TEXTS).fill_null("")
        )
        data = (bytes.fromhex(pairs).decode("latin-1") for pairs in digits)
        parts.append("".join(itertools.chain.from_iterable(zip(*texts, data, strict=True))).encode())
        for name, some in zip(shown, texts, strict=True):
            shown[name] |= {row: printable(text) for row, text in enumerate(some, start) if not text.isprintable()}
    return lengths, b"".join(parts), shown
