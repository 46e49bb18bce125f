"""Cut files into the pieces of a corpus, and read the texts of a piece, those of chats, too."""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import polars as pl

from ..errors import CorruptFile, InvalidInput, MissingFile, machine_errors
from ..runs.records import reading
from ..sources import Source, chat_template, read_object
from ..sources.tokenizer import in_a_line, is_unicode
from ..text import listed, printable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED: dict[str, Callable[[Any], Any]] = {".gz": lambda file: gzip.GzipFile(fileobj=file), ".zst": zstd.ZstdFile}
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError, csv.Error)  # raised while such a file is read
KIND_OF = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": ",", ".tsv": "\t", ".parquet": "parquet"}
STDIN = "-"
TEXT = "text"  # kind of plain texts
TO_THE_END = sys.maxsize
PIECE_BYTES = 1 << 24  # least bytes of a piece, but for the last
MAX_CHARACTERS = 1 << 18  # of a text that is encoded as one; a plain text goes on to the end of its line
Text = tuple[str, str, int, bool]  # text; file; line or row where it begins; whether its line ends are the file's
Templated = Callable[[list[Any], str], str]  # as `template_of` returns it
GGUF_NAMES = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation\b")  # a tag of transformers that jinja2 does not know


class Span(NamedTuple):
    """Part of a file that one process reads: bytes, or rows of a Parquet file."""

    path: str
    kind: str  # TEXT, or of `KIND_OF`
    begin: int
    end: int
    n_bytes: int


@machine_errors()
def pieces_of(files: Sequence[str]) -> tuple[list[list[Span]], int]:
    """Cut files, and those in folders, into pieces of a corpus; return these, and the number of skipped binary files.

    In folders, hidden files are skipped, and files of unknown kind with a null byte. Raises MissingFile, or CorruptFile
    for a damaged Parquet file.
    """
    pieces: list[list[Span]] = []
    size = n_binary = 0
    for asked in files:
        place = Path(asked)
        if asked != STDIN and not place.exists():
            raise MissingFile(f"no file or folder {asked!r}; give texts, .jsonl, .csv, .parquet, or - for stdin")
        paths = [asked]
        if place.is_dir():
            below = (one for one in place.rglob("*") if not re.search(r"(^|/)\.", one.relative_to(place).as_posix()))
            files_below = sorted(path for path in below if path.is_file())
            paths = [str(path) for path in files_below if not _is_binary(path)]
            n_binary += len(files_below) - len(paths)
        for span in (span for path in paths for span in _spans(path)):
            if not pieces or span.begin or size + span.n_bytes > PIECE_BYTES:
                pieces.append([])
                size = 0
            pieces[-1].append(span)
            size += span.n_bytes
    if not pieces:
        raise MissingFile(f"there is no text in {listed(list(files), 4)}")
    return pieces, n_binary


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix not in (*PACKED, *KIND_OF) and b"\0" in file.read(8192)


def _spans(path: str) -> Iterator[Span]:
    name = Path(path)
    kind = KIND_OF.get(Path(name.stem).suffix if name.suffix in PACKED else name.suffix, TEXT)
    if path == STDIN and sys.stdin.buffer.peek(1)[:1] == b"{":  # type: ignore[union-attr]
        kind = "json"
    size = 0 if path == STDIN else name.stat().st_size
    n = 1 if kind in (",", "\t") or name.suffix in PACKED else max(1, size // PIECE_BYTES)
    length = size if n > 1 else TO_THE_END
    if kind == "parquet":
        with reading(name, "a Parquet file"):
            length = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
        n = max(1, min(n, length))
    for k in range(n):
        yield Span(path, kind, length * k // n, length * (k + 1) // n, size * (k + 1) // n - size * k // n)


def texts_of(span: Span, field: str, templated: Templated, tally: Counter[str], *, by_line: bool) -> Iterator[Text]:
    """Yield the non-empty texts of a span; `tally` counts line ends, lines that are no UTF-8, and bytes.

    `field` of a record is a name, or several with dots between: its text, or the messages of a chat. With `by_line`
    each line of a plain text is a text. Raises InvalidInput for a record without such a field; CorruptFile for a file
    that is damaged; MissingFile for one that is gone.
    """
    tally["n_lines"] = 0
    is_parquet, is_plain = (span.kind == kind for kind in ("parquet", TEXT))
    where = span.path + f" behind byte {span.begin:,}" * bool(span.begin and not is_parquet)
    for line, record in _rows(span, field) if is_parquet else _records(span, tally, by_line):
        text = record if is_plain else _text(record, field, f"{where}:{line}", templated)
        if not is_unicode(text):
            tally["n_bad_lines"] += sum(not is_unicode(one) for one in text.split("\n"))
            text = re.sub("[\ud800-\udfff]", "\ufffd", text)
        longest = max(len(text), 1) if is_plain else MAX_CHARACTERS
        yield from ((text[at : at + longest], span.path, line, is_plain) for at in range(0, len(text), longest))


def _rows(span: Span, field: str) -> Iterator[tuple[int, Any]]:
    """Yield rows of a Parquet file with their numbers, from 1."""
    with machine_errors(), Path(span.path).open("rb"):  # MissingFile, if it is gone
        pass
    name = field.partition(".")[0]
    with reading(Path(span.path), "a Parquet file"):
        rows = pl.scan_parquet(span.path, glob=False).slice(span.begin, span.end - span.begin)
        frame = (rows.select(name) if name in rows.collect_schema().names() else rows.head(1)).collect()
    yield from enumerate(frame.iter_rows(named=True), span.begin + 1)


def _records(span: Span, tally: Counter[str], by_line: bool) -> Iterator[tuple[int, Any]]:
    """Yield lines of JSON, rows of a table, or chunks of a text, with line numbers from 1 at the start of the span."""
    path = Path(span.path)
    try:
        with machine_errors(), nullcontext(sys.stdin.buffer) if span.path == STDIN else path.open("rb") as file:
            stream = PACKED.get(path.suffix, lambda packed: packed)(file)
            if span.end < TO_THE_END:
                begin, end = (_line_start(file, at) for at in (span.begin, span.end))
                file.seek(begin)
                stream = io.BytesIO(file.read(end - begin))
            text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="\n")
            if span.kind in (",", "\t"):
                csv.field_size_limit(2**31 - 1)
                table = csv.DictReader(text, delimiter=span.kind)
                yield from ((table.line_num, row) for row in table)
                return
            for line, chunk in _chunks(text, span, tally, by_line):
                tally["at"] = file.tell() if span.end == TO_THE_END and file.seekable() else 0
                yield line, chunk
    except DAMAGED as error:
        raise CorruptFile(f"{span.path}: damaged or cut short ({error})") from None


def _chunks(text: io.TextIOBase, span: Span, tally: Counter[str], by_line: bool) -> Iterator[tuple[int, str]]:
    longest = -1 if span.kind == "json" else MAX_CHARACTERS
    begun = MAX_CHARACTERS if span.kind == TEXT and not by_line else 0
    for chunk in iter(lambda: text.read(begun) + text.readline(longest), ""):
        line = tally["n_lines"] + 1
        tally["n_lines"] += chunk.count("\n")
        tally["n_bytes"] += len(chunk.encode("utf-8", "surrogateescape")) if span.path == STDIN else 0
        if span.kind == TEXT or not chunk.isspace():
            yield line, chunk


def _line_start(file: Any, at: int) -> int:
    """Return the start of the first line that begins at this byte or after it."""
    file.seek(max(at - 1, 0))
    while at and (block := file.readline(MAX_CHARACTERS)) and not block.endswith(b"\n"):
        pass
    return int(file.tell())


def _text(record: Any, field: str, place: str, templated: Templated) -> str:
    """Return the text of a record, given as such or as JSON; "" if it is null."""
    try:
        value = json.loads(record) if isinstance(record, str) else record
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{place}: not JSON ({error}), of which each line must be an object") from None
    for name in field.split("."):
        if not (isinstance(value, dict) and name in value):
            has = listed([printable(name) for name in value], 8) if isinstance(value, dict) else "is no object"
            raise InvalidInput(f"{place}: no field {field!r} ({has}); --field says which one has the text")
        value = value[name]
    if isinstance(value, list) and value and all(isinstance(one, dict) and "role" in one for one in value):
        return templated(value, place)
    if not isinstance(value, str | None):
        raise InvalidInput(f"{place}: {field} is a {type(value).__name__}, neither a text nor messages of a chat")
    return value or ""


def template_of(source: Source, texts: Mapping[Any, str]) -> Callable[[list[Any], str], str]:
    """Return a function from messages of a chat, and their place, to text, by the chat template of a source.

    It runs in jinja2's sandbox, and without the date, so that a text is the same on any day. It raises InvalidInput
    without a template, and where that fails. `texts` are those of the tokens.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment as Sandbox

    template = chat_template(source)
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    sandbox.filters["tojson"] = lambda value, **given: json.dumps(value, **{"ensure_ascii": False, **given})
    sandbox.globals["raise_exception"] = _refuse
    known = GENERATION.sub(lambda mark: mark[1] + ("endif" if mark[2] else "if true"), template or "")
    compiled = cache(sandbox.from_string)
    given = {name: _special(source, texts, name) for name in GGUF_NAMES} | {"tools": None, "documents": None}

    def render(messages: list[Any], place: str) -> str:
        if template is None:
            _refuse(f"{place}: messages of a chat, and {source.asked} has no chat template")
        try:
            return compiled(known).render(messages=messages, **given)
        except Exception as error:  # whatever the template's own expressions raise
            _refuse(f"{place}: the chat template of {source.asked} fails ({in_a_line(error)})")

    return render


def _refuse(said: str) -> NoReturn:
    raise InvalidInput(said)


def _special(source: Source, texts: Mapping[Any, str], name: str) -> str:
    """Return the text of a special token by its name in templates; "" where the model has none."""
    beside = source.beside.get("tokenizer_config.json")
    held = read_object(beside).get(name) if beside else None
    held = held.get("content") if isinstance(held, dict) else held
    token = source.metadata.get(f"tokenizer.ggml.{GGUF_NAMES[name]}_token_id")
    return held if isinstance(held, str) else texts.get(token, "")
