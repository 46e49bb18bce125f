"""Rewrite rows in a copy of a checkpoint's files, and compare every other byte with the source."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt

from ..embedding.matrix import EmbeddingMatrix
from ..errors import CorruptFile, InvalidInput
from ..landing import copy_file
from ..measures.census import Census
from ..numerics import Groups
from ..numerics.grouping import chunks
from ..progress import Advance
from ..sources import Source, Tensor
from .fresh_rows import FreshRows

BLOCK = 1024  # rows that are drawn and written at a time
INDEX = "model.safetensors.index.json"
COMPARED = 1 << 22  # bytes
MOST_ATTEMPTS = 32  # to draw rows that are like no other
# Files of weights in a model folder. Beside those that are repaired they would still hold the rows as they were.
WEIGHTS = tuple(".safetensors .bin .pt .pth .gguf .onnx .h5 .msgpack .ot .npz .npy .index.json".split())


@dataclass(frozen=True, kw_only=True)
class Target:
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
class Files:
    """Files of the source, by their place in the folder that is written."""

    rewritten: dict[Path, Path]
    others: dict[Path, Path]
    left_out: list[str]


def file_of(tensor: Tensor) -> Path:
    """Return the local file that holds a tensor."""
    assert isinstance(tensor.path, Path)
    return tensor.path


def files_of(asked: Path, source: Source, touched: set[Path]) -> Files:
    """Sort the files of the output: of a model folder all, but for hidden ones and weights that are not the model's."""
    weights = {file_of(tensor) for tensor in source.tensors.values()}
    paths: list[Path] = []
    left_out: list[str] = []
    if asked.is_file():
        root = asked.parent
        paths = [*weights, asked]
    else:
        root = asked
        for path in _walk(root):
            ours = path in weights or (path.name == INDEX and root / "model.safetensors" not in weights)
            stale = path.parent == root and path.name.endswith(WEIGHTS) and not ours
            if stale or not path.is_file():
                left_out.append(str(path.relative_to(root)))
            else:
                paths.append(path)
    places = {path.relative_to(root): path for path in paths}
    return Files(
        rewritten={place: path for place, path in places.items() if path in touched},
        others={place: path for place, path in places.items() if path not in touched},
        left_out=left_out,
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield what a folder and its folders hold, but not hidden ones, nor what links lead to, which may be a circle."""
    for item in sorted(folder.iterdir()):
        if item.is_dir() and not item.is_symlink():
            if not item.name.startswith("."):
                yield from _walk(item)
        else:
            yield item


def bring(files: Files, folder: Path, *, link: bool, advance: Advance) -> dict[Path, Path]:
    """Copy or link the files into a folder; return the copies that are to be rewritten, by their sources."""
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
    """Write the target's rows, draw those again that are like another until the census has none, and say what it has.

    Raises InvalidInput where there is no room for so many different rows.
    """
    first = target.tensors[0]
    after = replace(target.matrix, words=replace(first, path=written[file_of(first)]).words())
    attempts = np.zeros(len(target.tokens), np.int64)
    pending = np.arange(len(target.tokens))
    for _ in range(MOST_ATTEMPTS):
        for some in np.split(pending, range(BLOCK, len(pending), BLOCK)):
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
    """Return places of tokens that need another row: all like one that is kept, of others alike all but the first."""
    labels = groups.labels[tokens]
    _, first, which, ours = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    like_kept = groups.counts[labels] > ours[which]
    again = np.ones(len(tokens), bool)
    again[first] = False
    return np.flatnonzero(like_kept | again)


def _holes(matrix: EmbeddingMatrix) -> list[int] | None:
    """Count black holes and their population; None where rows are no numbers."""
    try:
        census = Census(matrix.groups())
    except CorruptFile:
        return None
    return [census.n_black_holes, census.black_hole_population]


def _rms(matrix: EmbeddingMatrix, tokens: np.ndarray) -> float:
    """Return the root mean square of the norms of these tokens' rows."""
    total = 0.0
    for some in np.split(tokens, range(BLOCK, len(tokens), BLOCK)):
        values = matrix.rows(some).astype(np.float64)
        total += float(np.einsum("ij,ij->", values, values))
    return float((total / len(tokens)) ** 0.5)


def check_copy(path: Path, copy: Path, targets: list[Target], advance: Advance) -> int:
    """Compare what was written with the source, byte by byte but for repaired rows; return how many bytes that is.

    What was written is on the disk afterwards. Raises CorruptFile where they differ elsewhere.
    """
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
