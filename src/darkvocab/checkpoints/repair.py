"""Repair: fresh rows for tokens that were never trained, in a copy of the checkpoint that is else the same bytes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt

from ..embedding.find import find_copies, find_scales
from ..embedding.matrix import EmbeddingMatrix
from ..errors import CorruptFile, InvalidInput, MissingFile
from ..landing import copy_file, landing_folder
from ..measures.census import Census
from ..numerics import Groups
from ..numerics.grouping import chunks
from ..runs.randomness import check_seed
from ..sources import Source, Tensor, open_source
from .diff import MATRICES
from .fresh_rows import HOWS, LONGEST_JITTER, FreshRows, trained
from .selection import select
from .spelling import spell

SCHEMA_VERSION = 1
BLOCK = 1024  # rows that are drawn and written at a time
INDEX = "model.safetensors.index.json"
COMPARED = 1 << 22  # bytes
MOST_ATTEMPTS = 32  # to draw rows that are like no other
# Files of weights in a model folder. Beside those that are repaired they would still hold the rows as they were.
WEIGHTS = tuple(".safetensors .bin .pt .pth .gguf .onnx .h5 .msgpack .ot .npz .npy .index.json".split())

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A matrix to repair, and the tensors that hold it."""

    name: str  # input, output, or as asked
    matrix: EmbeddingMatrix
    tensors: list[Tensor]  # of the same words: all are written
    tokens: Int64[np.ndarray, " k"]
    pieces: dict[int, list[int]]

    @property
    def kept(self) -> Bool[np.ndarray, " n_tokens"]:
        kept = np.ones(self.matrix.n_tokens, bool)
        kept[self.tokens] = False
        return kept


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Files of the source, by their place in the folder that is written."""

    rewritten: dict[Path, Path]
    others: dict[Path, Path]
    left_out: list[str]


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
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a copy of a safetensors checkpoint in which chosen tokens have fresh rows, each like no other.

    Every other byte of its files is the same. What was written is read again: compared with the source, and its census
    taken. The source is left alone. Where one matrix lies in two tensors, both are written.

    Parameters
    ----------
    source : a `.safetensors` file, an index of shards, or a model folder
    out : a folder that is not there yet, or empty
    tokens : as `select`; black holes are those of the input matrix (of the output's where that alone is repaired)
    how : "mean" of the trained rows, which are all that are not chosen; mean of the "pieces" that spell a token's text
        without the chosen ones (where none do, of the trained rows); or "gaussian", with the mean and covariance of the
        trained rows
    matrix : "input", "output", or "both": where the model is untied the output too, each from its own trained rows
    jitter : around a mean, in steps of the stored grid: every component goes 1 to so many up or down
    tensor : repair this one instead, alone
    tokenizer : as `EmbeddingMatrix.open`
    link : files that stay the same get a second name (a hard link) instead of a copy
    dry_run : write nothing, say what would be
    progress : told (bytes done, bytes in all)

    Returns
    -------
    JSON-ready dict; its keys: `docs/files.md`

    Raises
    ------
    InvalidInput
        A choice that is none; no tokens; a source that is no safetensors file, or whose rows are scaled; a place for
        `out` that is taken, or the source; a grid without room for so many different rows.
    MissingFile, CorruptFile, NoEmbedding
        As `EmbeddingMatrix.open` and `select`; rows to learn from that are no numbers; a disk that does not keep what
        was written.
    DiskFull
        Nothing is left of what was written.
    """
    check_seed(seed)
    for name, value, known in (("how", how, HOWS), ("matrix", matrix, MATRICES)):
        if value not in known:
            raise InvalidInput(f"unknown {name} {value!r}; choose one of {', '.join(known)}")
    if not 1 <= jitter <= LONGEST_JITTER:
        raise InvalidInput(f"jitter must be 1 to {LONGEST_JITTER:,} steps, got {jitter}")
    asked = Path(source)
    if not asked.exists():
        raise MissingFile(
            f"no file or folder {str(source)!r}; repair copies what is here: of a model on the Hub, download all first"
        )
    _check_out(Path(out), asked)
    opened = open_source(source)
    targets, notes = _targets(opened, tokens, how, matrix, tensor, tokenizer)
    files = _files(asked, opened, {_path(tensor) for target in targets for tensor in target.tensors})
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **{"source": str(source), "out": str(out), "dry_run": dry_run},
        **{"how": how, "seed": seed, "jitter_steps": jitter, "notes": notes},
        "matrices": [_described(target, how) for target in targets],
        "files": {
            "rewritten": sorted(map(str, files.rewritten)),
            "copied": [] if link else sorted(map(str, files.others)),
            "linked": sorted(map(str, files.others)) if link else [],
            "left_out": sorted(files.left_out),
        },
    }
    if dry_run:
        return report
    report["n_bytes_compared"], gaussian = 0, how == "gaussian"
    advance = _advance(targets, files, gaussian, progress)
    fresh = [
        FreshRows(
            matrix=target.matrix,
            trained=trained(target.matrix, target.kept, covariance=gaussian, progress=advance),
            gaussian=gaussian,
            pieces=target.pieces,
            seed=seed,
            jitter=jitter,
            stream=int(target.name == "output"),
        )
        for target in targets
    ]
    with landing_folder(Path(out)) as folder:
        for place, path in files.others.items():
            _bring(path, folder / place, link, advance)
        for place, path in files.rewritten.items():
            _bring(path, folder / place, False, advance)
        written = {path: folder / place for place, path in files.rewritten.items()}
        for described, target, rows in zip(report["matrices"], targets, fresh, strict=True):
            described |= _write(target, rows, written, advance)
        for path, copy in written.items():
            report["n_bytes_compared"] += _check(path, copy, targets, advance)
            with copy.open("r+b") as file:
                os.fsync(file.fileno())
    return report


def _check_out(out: Path, source: Path) -> None:
    """Raise InvalidInput where the folder to write to is the source, in it or around it."""
    there, theirs = out.resolve(), source.resolve()
    if there == theirs or theirs in there.parents or there in theirs.parents:
        raise InvalidInput(f"{out} is the source, or in it, or around it; choose another folder to write to")


def _advance(
    targets: list[_Target], files: _Files, gaussian: bool, progress: Callable[[int, int], None] | None
) -> Advance:
    """Counts bytes: of the rows that are learned from, of what is copied, of the census and of the comparison."""
    rewritten, others = (sum(path.stat().st_size for path in of.values()) for of in (files.rewritten, files.others))
    total = 2 * rewritten + others + sum((2 + gaussian) * target.matrix.words.nbytes for target in targets)
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done = min(done + n, total)
        if progress:
            progress(done, total)

    return advance


# What to repair ------------------------------------------------------------------------------------------------------


def _targets(
    source: Source, asked: str | Iterable[int], how: str, which: str, tensor: str | None, tokenizer: str | Path | None
) -> tuple[list[_Target], list[str]]:
    """The matrices to repair, and what is left alone."""
    matrix = EmbeddingMatrix.open(source, tensor=tensor, tokenizer=tokenizer)
    matrices, notes = {"input" if tensor is None else "as asked": matrix}, []
    if tensor is None and which != "input":
        output = matrix.unembedding()
        if output is None:
            notes.append("the output matrix stays: untied, the config says, but no output tensor is here")
        if output is None and which == "output":
            raise InvalidInput(
                f"{source.asked} is untied and holds no output tensor; --matrix input repairs the embedding"
            )
        if output is not None and output is not matrix:
            matrices = {"output": output} if which == "output" else {**matrices, "output": output}
    for held in matrices.values():
        _check_source(source, held)
    n_tokens = max(held.n_tokens for held in matrices.values())
    tokens = select(asked, next(iter(matrices.values())), n_tokens)
    if not len(tokens):
        raise InvalidInput(f"{source.asked} has no such tokens ({asked}): nothing to repair; --tokens chooses others")
    pieces: dict[int, list[int]] = {}
    if how == "pieces":
        named = source.tokenizer if tokenizer is None else Path(tokenizer)
        if named is None or not matrix.texts:
            raise InvalidInput(
                "pieces need a tokenizer; there is none beside the weights: give --tokenizer, or another --how"
            )
        pieces = spell(named, tokens.tolist())
    targets = []
    for name, held in matrices.items():
        own = tokens[tokens < held.n_tokens]
        if len(own):
            spelled = {token: ids for token, ids in pieces.items() if max(token, *ids) < held.n_tokens}
            tensors = find_copies(source, source.tensors[held.tensor])
            targets.append(_Target(name=name, matrix=held, tensors=tensors, tokens=own, pieces=spelled))
    return targets, notes


def _check_source(source: Source, matrix: EmbeddingMatrix) -> None:
    """Raise InvalidInput where the rows of this matrix cannot be written."""
    assert matrix.path is not None
    if matrix.path.suffix != ".safetensors":
        raise InvalidInput(
            f"{matrix.path}: repair writes safetensors only; save the model in it first, with transformers: "
            "model.save_pretrained(folder)"
        )
    if matrix.tensor not in source.tensors:
        raise InvalidInput(f"{matrix.path}: {matrix.tensor} is a state of a history; repair the model that was trained")
    if scales := find_scales(source, source.tensors[matrix.tensor]):
        raise InvalidInput(
            f"{matrix.path}: the rows of {matrix.tensor} are scaled by {scales}: a mean of them as they are stored "
            "means nothing; repair the model before it is quantised"
        )


def _path(tensor: Tensor) -> Path:
    """The file here that holds a tensor."""
    assert isinstance(tensor.path, Path)
    return tensor.path


def _files(asked: Path, source: Source, touched: set[Path]) -> _Files:
    """Files of the output: of a model folder all, but for hidden ones and weights that are not the model's."""
    weights, left_out = {_path(tensor) for tensor in source.tensors.values()}, []
    if asked.is_file():
        found, root = [*weights, asked], asked.parent
    else:
        found, root = [], asked
        for path in _walk(root):
            ours = path in weights or (path.name == INDEX and root / "model.safetensors" not in weights)
            stale = path.parent == root and path.name.endswith(WEIGHTS) and not ours
            if stale or not path.is_file():
                left_out.append(str(path.relative_to(root)))
            else:
                found.append(path)
    places = {path.relative_to(root): path for path in found}
    return _Files(
        rewritten={place: path for place, path in places.items() if path in touched},
        others={place: path for place, path in places.items() if path not in touched},
        left_out=left_out,
    )


def _walk(folder: Path) -> Iterator[Path]:
    """What lies in a folder and its folders, not in hidden ones, nor behind links, which may lead round in a circle."""
    for item in sorted(folder.iterdir()):
        if item.is_dir() and not item.is_symlink():
            if not item.name.startswith("."):
                yield from _walk(item)
        else:
            yield item


def _described(target: _Target, how: str) -> dict[str, Any]:
    without = [token for token in target.tokens.tolist() if token not in target.pieces]
    matrix = target.matrix
    return {
        **{"matrix": target.name, "tensors": [tensor.name for tensor in target.tensors], "stored_grid": matrix.stored},
        **{"n_tokens": matrix.n_tokens, "hidden_dim": matrix.dim},
        **{"n_repaired": len(target.tokens), "n_trained": matrix.n_tokens - len(target.tokens)},
        "token_ids": target.tokens.tolist(),
        "without_pieces": without if how == "pieces" else None,
    }


# Writing, and looking at what was written ----------------------------------------------------------------------------


def _bring(path: Path, place: Path, link: bool, advance: Advance) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        copy_file(path, place, advance)
        return
    try:
        os.link(path.resolve(), place)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise InvalidInput(f"{path} cannot be linked to from there ({error.strerror}); go without --link") from None
    advance(path.stat().st_size)


def _write(target: _Target, fresh: FreshRows, written: dict[Path, Path], advance: Advance) -> dict[str, Any]:
    """Write the target's rows, and draw those again that are like another, until the census finds none; what it found.

    Raises
    ------
    InvalidInput
        There is no room for so many different rows.
    """
    attempts, pending = np.zeros(len(target.tokens), np.int64), np.arange(len(target.tokens))
    first = target.tensors[0]
    after = replace(target.matrix, words=replace(first, path=written[_path(first)]).words())
    for _ in range(MOST_ATTEMPTS):
        for some in np.split(pending, range(BLOCK, len(pending), BLOCK)):
            tokens = target.tokens[some]
            words = fresh.draw(tokens, attempts[some])
            for tensor in target.tensors:
                _write_rows(tensor, written[_path(tensor)], tokens, words)
        census = Census(after.groups(progress=advance))
        pending = _alike(census.groups, target.tokens)
        if not len(pending):
            break
        attempts[pending] += 1
    else:
        raise InvalidInput(
            f"{len(pending):,} of {len(attempts):,} fresh rows are like another after {MOST_ATTEMPTS} draws: rows of "
            f"{first.name}, {target.matrix.dim:,} columns of {target.matrix.grid.name}, have no room for more; choose "
            "fewer tokens, a longer --jitter, or another --how"
        )
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
    """Which of these tokens need another row: all that are like one that is kept, of others alike all but the first."""
    labels = groups.labels[tokens]
    _, first, which, ours = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    like_kept = groups.counts[labels] > ours[which]
    again = np.ones(len(tokens), bool)
    again[first] = False
    return np.flatnonzero(like_kept | again)


def _holes(matrix: EmbeddingMatrix) -> list[int] | None:
    """Black holes and their population; None where rows are no numbers."""
    try:
        census = Census(matrix.groups())
    except CorruptFile:
        return None
    return [census.n_black_holes, census.black_hole_population]


def _rms(matrix: EmbeddingMatrix, tokens: np.ndarray) -> float:
    """Root mean square of the norms of these tokens' rows."""
    total = 0.0
    for some in np.split(tokens, range(BLOCK, len(tokens), BLOCK)):
        values = matrix.rows(some).astype(np.float64)
        total += float(np.einsum("ij,ij->", values, values))
    return float((total / len(tokens)) ** 0.5)


def _check(path: Path, copy: Path, targets: list[_Target], advance: Advance) -> int:
    """Compare what was written with the source, byte by byte, but for the rows that are repaired: how many bytes.

    Raises
    ------
    CorruptFile
        They differ elsewhere.
    """
    at, same = 0, True
    old, new = (np.memmap(file, np.uint8, "r") for file in (path, copy))
    held = [(tensor, target) for target in targets for tensor in target.tensors if tensor.path == path]
    for tensor, target in sorted(held, key=lambda pair: pair[0].offset):
        same &= _same_bytes(old[at : tensor.offset], new[at : tensor.offset], advance)
        at = tensor.offset + tensor.nbytes
        before, after = tensor.words(), replace(tensor, path=copy).words()
        for rows in chunks(before):
            changed = (before[rows] != after[rows]).any(axis=1)
            same &= not (changed & target.kept[rows]).any()
            advance(before[rows].nbytes)
    if not same or not _same_bytes(old[at:], new[at:], advance):
        raise CorruptFile(f"{path.name} as it was written is not what was meant; nothing is left of it: check the disk")
    repaired = sum(len(target.tokens) * tensor.nbytes // target.matrix.n_tokens for tensor, target in held)
    return len(old) - repaired


def _same_bytes(a: np.ndarray, b: np.ndarray, advance: Advance) -> bool:
    for start in range(0, len(a), COMPARED):
        block = slice(start, start + COMPARED)
        if not np.array_equal(a[block], b[block]):
            return False
        advance(len(a[block]))
    return len(a) == len(b)
