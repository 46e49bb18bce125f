"""A tensor in a file: its raw words, memory-mapped, with the dtype that the file declares. No embedding knowledge."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

WORDS = {"F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}


class CorruptFile(ValueError):
    """A file that contradicts itself or its format: truncated, overlapping, unknown dtype, not a matrix of numbers."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where a tensor's words lie. `words` reads nothing but the pages that are looked at."""

    name: str
    dtype: str  # as safetensors names it: BF16, F16, F32, F8_E4M3, F8_E5M2, ...; or as GGUF: Q4_K, ...
    shape: tuple[int, ...]
    path: Path
    offset: int  # bytes from the start of the file
    strides: tuple[int, ...] | None = None  # words from one index to the next, where rows do not follow one another
    block: tuple[int, int] | None = None  # numbers and bytes of a block, where numbers are quantised together

    @property
    def is_float(self) -> bool:
        return self.dtype in WORDS or self.block is not None

    @property
    def words_shape(self) -> tuple[int, ...]:
        """Shape of `words`: the tensor's, or of a quantised one [..., bytes of a row]."""
        if self.block is None:
            return self.shape
        numbers, size = self.block
        return (*self.shape[:-1], self.shape[-1] // numbers * size)

    @property
    def nbytes(self) -> int:
        return math.prod(self.words_shape) * np.dtype(WORDS.get(self.dtype, "u1")).itemsize

    def words(self) -> np.ndarray:
        """The unsigned words, memory-mapped read-only, in the tensor's shape; of a quantised one the blocks' bytes.

        Raises
        ------
        CorruptFile
            Not a floating-point dtype.
        ValueError
            Rows that do not lie one after the other.
        """
        if not self.is_float:
            raise CorruptFile(f"{self.path}: tensor {self.name!r} is {self.dtype}; can read {', '.join(WORDS)}")
        if self.strides is not None:
            raise ValueError(
                f"{self.path}: tensor {self.name!r} is a view, {list(self.shape)} with strides {list(self.strides)}: "
                "its rows do not lie one after the other; save a copy, of tensor.contiguous() or "
                "numpy.ascontiguousarray(array)"
            )
        dtype = WORDS.get(self.dtype, "u1")
        if 0 in self.shape:
            return np.empty(self.words_shape, dtype)
        return np.memmap(self.path, dtype=dtype, mode="r", offset=self.offset, shape=self.words_shape)

    def part(self, index: int) -> Tensor:
        """One entry of the first axis: a state of a history, an expert's matrix.

        Raises
        ------
        IndexError
            There is no such entry.
        """
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"{self.name} has {self.shape[0]:,} entries, 0 to {self.shape[0] - 1:,}; got {index}")
        return replace(
            self,
            name=f"{self.name}[{index}]",
            shape=self.shape[1:],
            offset=self.offset + index * (self.nbytes // self.shape[0]),
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """The tensors of a checkpoint, and the files beside them."""

    asked: Path
    tensors: dict[str, Tensor]
    config: dict = field(default_factory=dict)  # config.json of a model folder
    tokenizer: Path | None = None  # its tokenizer.json
    texts: dict[int, str] = field(default_factory=dict, repr=False)  # of tokens, where the weights' file holds them


def sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file, hexadecimal; `progress` is told the bytes of every block read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()
