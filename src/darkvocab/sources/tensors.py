"""A tensor in a file: its raw words, memory-mapped, with the dtype that the file declares. No embedding knowledge."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

WORDS = {"F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}


class CorruptFile(ValueError):
    """A file that contradicts itself or its format: truncated, overlapping, unknown dtype, not a matrix of numbers."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where a tensor's words lie. `words` reads nothing but the pages that are looked at."""

    name: str
    dtype: str  # as safetensors names it: BF16, F16, F32, F8_E4M3, F8_E5M2, ...
    shape: tuple[int, ...]
    path: Path
    offset: int  # bytes from the start of the file

    @property
    def is_float(self) -> bool:
        return self.dtype in WORDS

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(WORDS[self.dtype]).itemsize

    def words(self) -> np.ndarray:
        """The unsigned words, memory-mapped read-only, in the tensor's shape.

        Raises
        ------
        CorruptFile
            Not a floating-point dtype.
        """
        if not self.is_float:
            raise CorruptFile(f"{self.path}: tensor {self.name!r} is {self.dtype}; can read {', '.join(WORDS)}")
        if 0 in self.shape:
            return np.empty(self.shape, WORDS[self.dtype])
        return np.memmap(self.path, dtype=WORDS[self.dtype], mode="r", offset=self.offset, shape=self.shape)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The tensors of a checkpoint and the files beside them."""

    asked: Path
    tensors: dict[str, Tensor]
    config: dict = field(default_factory=dict)  # config.json of a model folder
    tokenizer: Path | None = None  # its tokenizer.json


def sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file, hexadecimal; `progress` is told the bytes of every block read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()
