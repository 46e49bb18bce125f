"""Repair: a copy of a checkpoint, byte for byte, but for fresh rows of tokens that were never trained."""

import errno
import os
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt

from ..embedding.find import find_copies
from ..embedding.matrix import EmbeddingMatrix
from ..embedding.scales import find_scales
from ..errors import CorruptFile, InvalidInput, MissingFile, one_of
from ..landing import copy_file, landing_folder
from ..measures.census import Census
from ..numerics import Groups
from ..numerics.grouping import chunks
from ..progress import Advance, Progress, Report
from ..runs.randomness import check_seed
from ..sources import Source, Tensor, open_source
from . import spelling
from .diff import MATRICES
from .fresh_rows import LONGEST_JITTER, METHODS, FreshRows, trained
from .selection import select

SENTENCES: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
SCHEMA_VERSION = 1
ROWS_AT_A_TIME = 1024  # that are drawn and written
SHARD_INDEX = "model.safetensors.index.json"
COMPARED = 1 << 22  # bytes
SHORT = 0.1  # part of the median norm of output rows up to which one is damaged
MOST_ATTEMPTS = 32  # to draw a row unlike all others
# Suffixes of weights in a model folder. Files beside the repaired ones are left out: they hold the unrepaired rows.
WEIGHTS = tuple(".safetensors .bin .pt .pth .gguf .onnx .h5 .msgpack .ot .npz .npy .index.json".split())


@dataclass(frozen=True, kw_only=True)
class Target:
    """Matrix to repair, and the tensors that hold it."""

    name: str  # input, output, or as asked
    matrix: EmbeddingMatrix
    tensors: list[Tensor]  # all with the same words
    tokens: Int64[np.ndarray, " k"]
    pieces: dict[int, list[int]]

    @property
    def kept(self) -> Bool[np.ndarray, " n_tokens"]:
        kept = np.ones(self.matrix.n_tokens, bool)
        kept[self.tokens] = False
        return kept


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of the source, by their path in the folder that is written."""

    rewritten: dict[Path, Path]
    others: dict[Path, Path]
    left_out: list[str]

    def to_json(self, link: bool) -> dict[str, list[str]]:
        others = sorted(map(str, self.others))
        named = {"rewritten": sorted(map(str, self.rewritten)), "copied": others, "linked": []}
        return {**named, **({"copied": [], "linked": others} if link else {}), "left_out": sorted(self.left_out)}


def repair(
    source: str | Path,
    out: str | Path,
    *,
    tokens: str | Iterable[int] = "black-holes",
    how: str = "mean",
    matrix: str = "both",
    jitter: int = 1,
    seed: int = 0,
    tensor: str | None = None,
    tokenizer: str | Path | None = None,
    link: bool = False,
    dry_run: bool = False,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Write a copy of a safetensors checkpoint in which chosen tokens have fresh rows, each unlike all others.

    Every other byte of its files is the same, which is checked by reading the copy again. Where one matrix lies in two
    tensors, both are written. Returns a report, JSON-ready; its keys: `docs/files.md`.

    Raises InvalidInput for an unknown choice, no tokens, a source that is no safetensors file or whose rows are scaled,
    an `out` that is taken or overlaps the source, and a grid without room for so many different rows; CorruptFile for
    trained rows with NaN or infinity, or a copy that differs where it should not; otherwise as `EmbeddingMatrix.open`,
    `select` and `landing_folder`.

    Parameters
    ----------
    source : a `.safetensors` file, an index of shards, or a model folder
    out : a new or empty folder
    tokens : as `select`; "dark" and "weak" separately for each matrix; black holes of the input matrix (of the output
        matrix where only that is repaired)
    how : "mean" of the trained rows, which are all that are not chosen; mean of the "pieces" that spell a token's text
        without the chosen ones (where none do, of the trained rows); "gaussian", with the mean and covariance of the
        trained rows; "output": input rows in the direction of the output's, as long as trained ones; or "merges": rows
        stay, and the tokenizer.json loses the merges that make the tokens, so that no text reaches them
    matrix : "input", "output", or "both": the output matrix too if the model is untied, each by its own trained rows
    jitter : most steps of the stored grid, at least one, by which each component differs from a mean
    tensor : repair only this one
    tokenizer : as `EmbeddingMatrix.open`
    link : hard-link files that stay the same instead of copying them
    dry_run : write nothing, return the report
    progress : called with (bytes done, bytes in all); with "merges", twice over with (tokens decided, tokens)
    """
    asked = Path(source)
    _check_choices(asked, Path(out), how, matrix, jitter, seed)
    opened = open_source(source)
    matrices, notes = _matrices(opened, "input" if how in ("output", "merges") else matrix, tensor, tokenizer)
    targets = _targets(opened, matrices, tokens, how)
    rules = asked / spelling.TOKENIZER_FILE
    if how == "merges" and not rules.is_file():
        raise InvalidInput(SENTENCES["no_tokenizer_json"].format(source=str(source)))
    touched = {rules} if how == "merges" else {file_of(tensor) for target in targets for tensor in target.tensors}
    files = files_of(asked, opened, touched)
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **{"source": str(source), "out": str(out), "dry_run": dry_run},
        **{"how": how, "seed": seed, "jitter_steps": jitter, "notes": notes},
        "matrices": [_described(target, how) for target in targets],
        "files": files.to_json(link),
    }
    if how == "merges":
        place = None if dry_run else Path(out)
        return {**report, **_without_merges(rules, files, place, targets[0].tokens.tolist(), seed, link, progress)}
    if dry_run:
        return report
    work = Progress(_n_bytes(targets, files, how), progress)
    fresh = [_fresh(target, how, jitter, seed, work) for target in targets]
    with landing_folder(Path(out)) as folder:
        written = bring(files, folder, link=link, advance=work.advance)
        for described, target, rows in zip(report["matrices"], targets, fresh, strict=True):
            described |= write_fresh(target, rows, written, work.advance)
        compared = [check_copy(path, copy, targets, work.advance) for path, copy in written.items()]
    return {**report, "n_bytes_compared": sum(compared)}


def _n_bytes(targets: list[Target], files: Files, method: str) -> int:
    """Count the bytes to read for statistics and census, to copy, and to compare."""
    n_passes = 3 if method == "gaussian" else 2  # over the rows: mean, covariance, census
    rows = sum(target.matrix.words.nbytes for target in targets)
    rewritten, others = (sum(path.stat().st_size for path in of.values()) for of in (files.rewritten, files.others))
    return n_passes * rows + 2 * rewritten + others


def _without_merges(
    rules: Path, files: Files, out: Path | None, tokens: list[int], seed: int, link: bool, progress: Report | None
) -> dict[str, Any]:
    """Delete the merges that make these tokens, in a copy if `out` is given; return what changes, JSON-ready."""
    content, n_merges, merged = spelling.without_merges(rules, tokens)
    with tempfile.TemporaryDirectory() as folder:
        tried = Path(folder) / spelling.TOKENIZER_FILE
        tried.write_bytes(content)
        changes = spelling.compare_tokenizers(rules, tried, merged, seed, progress)
    if out is not None:
        with landing_folder(out) as folder:
            (copy,) = bring(files, folder, link=link, advance=lambda n: None).values()
            copy.write_bytes(content)
    return {"n_merges_deleted": n_merges, "unmerged": merged, **changes}


def _check_choices(source: Path, out: Path, method: str, matrix: str, jitter: int, seed: int) -> None:
    check_seed(seed)
    one_of(method, "how", METHODS)
    one_of(matrix, "matrix", MATRICES)
    if not 1 <= jitter <= LONGEST_JITTER:
        raise InvalidInput(f"jitter must be 1 to {LONGEST_JITTER:,} steps, got {jitter}")
    if not source.exists():
        raise MissingFile(SENTENCES["not_here"].format(source=str(source)))
    folder = out.resolve()
    taken = source.resolve()
    if folder == taken or taken in folder.parents or folder in taken.parents:
        raise InvalidInput(f"{out} is the source, or in it, or around it; choose another folder to write to")


def _matrices(
    source: Source, which: str, tensor: str | None, tokenizer: str | Path | None
) -> tuple[dict[str, EmbeddingMatrix], list[str]]:
    """Return the matrices to repair by name, first the one by which tokens are chosen, and notes."""
    matrix = EmbeddingMatrix.open(source, tensor=tensor, tokenizer=tokenizer)
    notes: list[str] = []
    matrices = {"input" if tensor is None else "as asked": matrix}
    output = matrix.unembedding() if tensor is None and which != "input" else matrix
    if output is None and which == "output":
        raise InvalidInput(f"{source.asked} is untied and holds no output tensor; --matrix input repairs the embedding")
    if output is None:
        notes.append("the output matrix stays: untied, the config says, but no output tensor is here")
    elif output is not matrix:
        matrices = {"output": output} if which == "output" else {**matrices, "output": output}
    for held in matrices.values():
        _check_source(source, held)
    return matrices, notes


def _targets(
    source: Source, matrices: dict[str, EmbeddingMatrix], asked: str | Iterable[int], method: str
) -> list[Target]:
    """Choose the tokens of each matrix, and for the method "pieces" the pieces that spell them.

    Dark and weak tokens of an untied model are chosen for each matrix: a healthy row on the other side stays.
    """
    first = next(iter(matrices.values()))
    n = max(held.n_tokens for held in matrices.values())
    chosen = select(asked, first, list(matrices), n)
    tokens = np.unique(np.concatenate(list(chosen.values())))
    if not len(tokens):
        raise InvalidInput(f"{source.asked} has no such tokens ({asked}): nothing to repair; --tokens chooses others")
    pieces = _pieces(first, tokens) if method == "pieces" else {}
    return [
        Target(
            name=name,
            matrix=held,
            tensors=find_copies(source, source.tensors[held.tensor]),
            tokens=chosen[name][chosen[name] < held.n_tokens],
            pieces={token: ids for token, ids in pieces.items() if max(token, *ids) < held.n_tokens},
        )
        for name, held in matrices.items()
        if (chosen[name] < held.n_tokens).any()
    ]


def _pieces(matrix: EmbeddingMatrix, tokens: Int64[np.ndarray, " k"]) -> dict[int, list[int]]:
    tokenizer = matrix.tokenizer
    if tokenizer is None:
        raise InvalidInput(SENTENCES["no_tokenizer"])
    if tokenizer.rules is None or tokenizer.runtime == "tiktoken":  # whose rules here have no merges
        raise InvalidInput(SENTENCES["no_rules"].format(tokenizer=tokenizer))
    return spelling.spell(tokenizer.rules.to_str(), tokens.tolist())


def _check_source(source: Source, matrix: EmbeddingMatrix) -> None:
    """Raise InvalidInput where rows of this matrix cannot be written."""
    assert matrix.path is not None
    if matrix.path.suffix != ".safetensors":
        raise InvalidInput(SENTENCES["no_safetensors"].format(matrix=matrix))
    if matrix.tensor not in source.tensors:
        raise InvalidInput(f"{matrix.path}: {matrix.tensor} is a state of a history; repair the model that was trained")
    if matrix.quantised:
        scales = find_scales(source, source.tensors[matrix.tensor])
        raise InvalidInput(SENTENCES["scaled"].format(matrix=matrix, scales=scales))


def _described(target: Target, method: str) -> dict[str, Any]:
    without = [token for token in target.tokens.tolist() if token not in target.pieces]
    matrix = target.matrix
    return {
        **{"matrix": target.name, "tensors": [tensor.name for tensor in target.tensors], "stored_grid": matrix.stored},
        **{"n_tokens": matrix.n_tokens, "hidden_dim": matrix.dim},
        **{"n_repaired": len(target.tokens), "n_trained": matrix.n_tokens - len(target.tokens)},
        "token_ids": target.tokens.tolist(),
        "without_pieces": without if method == "pieces" else None,
    }


def _directions(matrix: EmbeddingMatrix, tokens: Int64[np.ndarray, " k"]) -> EmbeddingMatrix:
    """Return the output matrix, for the directions of its rows of these tokens; InvalidInput where any is damaged."""
    output = matrix.unembedding()
    if output is None or output is matrix:
        raise InvalidInput(f"{matrix.path} has no output matrix of its own; --how pieces, mean or gaussian needs none")
    norms = np.concatenate(
        [np.linalg.norm(output.rows(np.arange(output.n_tokens)[part]), axis=1) for part in chunks(output.words)]
    )
    damaged = tokens[~(norms[tokens] > SHORT * np.median(norms))]
    if len(damaged):
        raise InvalidInput(SENTENCES["damaged"].format(tokens=", ".join(map(str, damaged[:8]))))
    return output


def _fresh(target: Target, method: str, jitter: int, seed: int, work: Progress) -> FreshRows:
    gaussian = method == "gaussian"
    return FreshRows(
        directions=_directions(target.matrix, target.tokens) if method == "output" else None,
        matrix=target.matrix,
        trained=trained(target.matrix, target.kept, covariance=gaussian, progress=work.advance),
        gaussian=gaussian,
        pieces=target.pieces,
        seed=seed,
        jitter=jitter,
        stream=int(target.name == "output"),
    )


def file_of(tensor: Tensor) -> Path:
    assert isinstance(tensor.path, Path)
    return tensor.path


def files_of(asked: Path, source: Source, touched: set[Path]) -> Files:
    """Sort the files to write: of a model folder all but hidden ones and weights that do not belong to the model."""
    weights = {file_of(tensor) for tensor in source.tensors.values()}
    ours = {*weights, asked}
    root = asked if asked.is_dir() else asked.parent
    if root / "model.safetensors" not in weights:
        ours.add(root / SHARD_INDEX)
    paths = list(_walk(root)) if asked.is_dir() else [*weights, asked]
    stale = {path for path in paths if path.parent == root and path.name.endswith(WEIGHTS)} - ours
    left_out = [path for path in paths if path in stale or not path.is_file()]
    places = {path.relative_to(root): path for path in paths if path not in stale and path.is_file()}
    return Files(
        rewritten={place: path for place, path in places.items() if path in touched},
        others={place: path for place, path in places.items() if path not in touched},
        left_out=[str(path.relative_to(root)) for path in left_out],
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files of a folder, but not those of hidden folders, nor what links lead to, which may be a cycle."""
    for item in sorted(folder.iterdir()):
        if item.is_dir() and not item.is_symlink():
            if not item.name.startswith("."):
                yield from _walk(item)
        else:
            yield item


def bring(files: Files, folder: Path, *, link: bool, advance: Advance) -> dict[Path, Path]:
    """Copy or link the files into a folder; return the copies to be rewritten, by their sources."""
    for place, path in (files.others | files.rewritten).items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if link and place in files.others:
            _link(path, target)
            advance(path.stat().st_size)
        else:
            copy_file(path, target, advance)
    return {path: folder / place for place, path in files.rewritten.items()}


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise InvalidInput(f"{path} cannot be linked to from there ({error.strerror}); go without --link") from None


def write_fresh(target: Target, fresh: FreshRows, written: dict[Path, Path], advance: Advance) -> dict[str, Any]:
    """Write fresh rows, redraw those equal to another, and return facts of them; InvalidInput if there is no room."""
    first = target.tensors[0]
    after = replace(target.matrix, words=replace(first, path=written[file_of(first)]).words())
    attempts = np.zeros(len(target.tokens), np.int64)
    pending = np.arange(len(target.tokens))
    for _ in range(MOST_ATTEMPTS):
        for some in np.split(pending, range(ROWS_AT_A_TIME, len(pending), ROWS_AT_A_TIME)):
            tokens = target.tokens[some]
            words = fresh.draw(tokens, attempts[some])
            for tensor in target.tensors:
                _write_rows(tensor, written[file_of(tensor)], tokens, words)
        census = Census(after.groups(progress=advance))
        pending = _alike(census.groups, target.tokens)
        if not len(pending):
            break
        attempts[pending] += 1
    else:
        counts = {"n_pending": len(pending), "n": len(attempts), "attempts": MOST_ATTEMPTS}
        raise InvalidInput(SENTENCES["no_room"].format(**counts, tensor=first, matrix=target.matrix))
    return {
        **{"n_redrawn": int((attempts > 0).sum()), "n_like_another": len(pending)},
        "black_holes": {"before": _holes(target.matrix), "after": [census.n_black_holes, census.black_hole_population]},
        "norm": {"trained_rms": fresh.trained.rms, "repaired_rms": _rms(after, target.tokens)},
    }


def _write_rows(tensor: Tensor, path: Path, tokens: np.ndarray, words: UInt[np.ndarray, "k dim"]) -> None:
    size = words.shape[1] * words.itemsize
    with path.open("r+b") as file:
        for token, row in zip(tokens.tolist(), words, strict=True):
            file.seek(tensor.offset + token * size)
            file.write(row.astype(row.dtype.newbyteorder("<")).tobytes())


def _alike(groups: Groups, tokens: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " redraw"]:
    """Return places of tokens that need another row: all equal to a kept row, and of equal ones all but the first."""
    labels = groups.labels[tokens]
    _, first, which, ours = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    like_kept = groups.counts[labels] > ours[which]
    again = np.ones(len(tokens), bool)
    again[first] = False
    return np.flatnonzero(like_kept | again)


def _holes(matrix: EmbeddingMatrix) -> list[int] | None:
    """Count black holes and their population; None where rows hold NaN or infinity."""
    try:
        census = Census(matrix.groups())
    except CorruptFile:
        return None
    return [census.n_black_holes, census.black_hole_population]


def _rms(matrix: EmbeddingMatrix, tokens: np.ndarray) -> float:
    """Return the root mean square of the norms of these tokens' rows."""
    total = 0.0
    for some in np.split(tokens, range(ROWS_AT_A_TIME, len(tokens), ROWS_AT_A_TIME)):
        values = matrix.rows(some).astype(np.float64)
        total += float(np.einsum("ij,ij->", values, values))
    return float((total / len(tokens)) ** 0.5)


def check_copy(path: Path, copy: Path, targets: list[Target], advance: Advance) -> int:
    """Compare a copy with its source, all but repaired rows; return the bytes compared. CorruptFile if they differ."""
    at = 0
    same = True
    old, new = (np.memmap(file, np.uint8, "r") for file in (path, copy))
    held = [(tensor, target) for target in targets for tensor in target.tensors if tensor.path == path]
    for tensor, target in sorted(held, key=lambda pair: pair[0].offset):
        same &= _same_bytes(old[at : tensor.offset], new[at : tensor.offset], advance)
        at = tensor.offset + tensor.nbytes
        before = tensor.words()
        after = replace(tensor, path=copy).words()
        for rows in chunks(before):
            changed = (before[rows] != after[rows]).any(axis=1)
            same &= not (changed & target.kept[rows]).any()
            advance(before[rows].nbytes)
    if not same or not _same_bytes(old[at:], new[at:], advance):
        raise CorruptFile(f"{path.name} as it was written is not what was meant; nothing is left of it: check the disk")
    with copy.open("r+b") as file:
        os.fsync(file.fileno())
    repaired = sum(len(target.tokens) * tensor.nbytes // target.matrix.n_tokens for tensor, target in held)
    return len(old) - repaired


def _same_bytes(a: np.ndarray, b: np.ndarray, advance: Advance) -> bool:
    for start in range(0, len(a), COMPARED):
        block = slice(start, start + COMPARED)
        if not np.array_equal(a[block], b[block]):
            return False
        advance(len(a[block]))
    return len(a) == len(b)
