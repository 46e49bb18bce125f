"""Count the tokens of one's own texts, piece by piece, and keep the counts in a run folder."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..checkpoints.scan import scan
from ..checkpoints.scan_result import Scan
from ..checkpoints.selection import asked_for
from ..errors import InvalidInput
from ..measures.counts import COUNTS_FILE, NUMBERS, Counts
from ..progress import Report
from ..runs.engine import Engine, open_engine
from ..runs.engine.base import Serial
from ..runs.folder import Folder, check_folder, repeating, versions
from ..sources import sha256
from .counting import Counting, count
from .documents import STDIN, Span, pieces_of

LANDED = 10.0  # seconds between counts that are written


def corpus(
    files: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    model: str | Path,
    field: str = "text",
    tokens: str | Iterable[int] = "graded",
    verified: str | Path | None = None,
    resume: bool = False,
    engine: str | Executor = "serial",
    workers: int | None = None,
    progress: Report | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Counts:
    """Count the tokens of texts by the tokenizer of a model; raises as `scan`, `pieces_of`, `count` and `Folder`.

    Parameters
    ----------
    files : texts, JSON lines, CSV, Parquet, compressed or not; folders of these; "-" for standard input
    out : a run folder for the counts; `resume` continues the run in it
    field : of records, as `texts_of`
    tokens, verified : the sought ones: graded, dark, weak, or as `select`; and those verified in a run of `verify`
    engine, workers : as `open_engine`; a task is a piece of the corpus, and takes all cores by itself
    progress : called with (bytes read, bytes in all)
    """
    asked = [str(file) for file in ([files] if isinstance(files, str | Path) else files)]
    if resume and out is None:
        raise InvalidInput("--resume needs the --out folder of the run to go on with")
    if STDIN in asked and engine != "serial":
        raise InvalidInput("standard input is read by this process; leave out the engine")
    if out is not None:
        check_folder(Path(out), ())
    pieces, n_binary = pieces_of(asked)
    options = {"model": str(model), "field": field, "verified": verified and str(verified)}
    options["tokens"] = tokens if isinstance(tokens, str) else ",".join(map(str, tokens))
    scanned = scan(model, verified=verified)
    counts = _none(scanned, str(options["tokens"]), n_binary)
    sought = tuple(counts.tokens.filter(counts.tokens["sought"])["id"].to_list())
    counting = Counting(source=str(model), n_tokens=len(counts.tokens), sought=sought, field=field)
    counting.tokenizer.encode([""])  # raises before anything is read, if it cannot
    with ExitStack() as opened:
        runner = opened.enter_context(open_engine(engine, workers, say=say))
        if out is None:
            return deque(_counted(runner, counting, pieces, counts, progress), 1).pop()
        folder = opened.enter_context(Folder(out, _manifest(asked, options, pieces, scanned, counting), resume=resume))
        path = folder.path / COUNTS_FILE
        counts = Counts.open(path) if path.exists() else counts
        counts = _landed(_counted(runner, counting, pieces, counts, progress), counts, path)
        folder.set_status("complete")
    return counts


def _landed(growing: Iterator[Counts], counts: Counts, path: Path) -> Counts:
    """Write counts from time to time, and whatever ends the run; return the last."""
    landed = time.monotonic()
    try:
        for counts in growing:
            if time.monotonic() > landed + LANDED:
                counts.write(path)
                landed = time.monotonic()
    finally:
        counts.write(path)
    return counts


def _counted(
    engine: Engine, counting: Counting, pieces: list[list[Span]], counts: Counts, progress: Report | None
) -> Iterator[Counts]:
    """Yield the counts after each piece that they lack."""
    done = [0, *np.cumsum([sum(span.n_bytes for span in piece) for piece in pieces]).tolist()]

    def report(n_bytes: int = 0) -> None:
        if progress and done[-1]:
            progress(done[counts.read["n_pieces"]] + n_bytes, done[-1])

    left = pieces[counts.read["n_pieces"] :]
    if isinstance(engine, Serial):  # another reads several pieces at once
        counting = replace(counting, report=report)
    for piece, counted in zip(left, engine.map(count, counting, left), strict=True):
        counts = counts.plus(*counted, within=piece[0].begin > 0)
        yield counts
        report()


def _none(scanned: Scan, asked: str, n_binary: int) -> Counts:
    """Return zero counts of every token of a model, and whether it is sought."""
    by = scanned.indicators.by
    sought = pl.col("id").is_in(asked_for(asked, scanned).tolist())
    names = ["id", "text", "grade"]
    if scanned.verified:
        names.append("verified")
        sought |= pl.col("verified").fill_null(False)
    zero = pl.lit(0, pl.Int64)
    distance = pl.col(by) if by else pl.lit(None, pl.Float64)
    tokens = scanned.tokens.select(*names, sought=sought, norm="norm", distance=distance, count=zero, n_texts=zero)
    return Counts(read=dict.fromkeys((*NUMBERS, "n_lines"), 0) | {"n_binary": n_binary}, tokens=tokens, places={})


def _manifest(
    files: list[str], options: dict[str, Any], pieces: list[list[Span]], scanned: Scan, counting: Counting
) -> dict[str, Any]:
    """Return the settings of the run, without place and time."""
    file = counting.tokenizer.file
    obstacle = "it read standard input" if STDIN in files else None
    return {
        "experiment": "corpus",
        **repeating("corpus", options, {"field": "text", "tokens": "graded"}, obstacle, *files),
        "parameters": {**options, "files": files, "n_pieces": len(pieces)},
        "seed": 0,
        "packages": versions("tokenizers", "tiktoken", "sentencepiece"),
        "inputs": [
            {"source": options["model"], "sha256": scanned.source.sha256},
            *([{"tokenizer": str(file), "sha256": sha256(file)}] if file and str(file) != scanned.source.path else []),
            {"names and sizes": ", ".join(files), "sha256": hashlib.sha256(json.dumps(pieces).encode()).hexdigest()},
        ],
    }
