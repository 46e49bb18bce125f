"""Files, and a tensor in one: its raw words, memory-mapped, with the dtype that the file declares.

A file is a path, or a `RemoteFile`, which is downloaded piece by piece as it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from ..errors import CorruptFile, InvalidInput, machine_errors

FORMATS, SENTENCES = (
    tomllib.loads(Path(__file__).with_name(name).read_text("utf-8")) for name in ("formats.toml", "sentences.toml")
)
WORDS = {"F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}
# Dtypes of packed numbers and their scales: not yet the numbers of an embedding.
PACKED = {"I64": "<u8", "I32": "<u4", "U32": "<u4", "I8": "u1", "U8": "u1", "F8_E8M0": "u1"}


class RemoteFile:
    """File elsewhere, downloaded piece by piece, with the methods of a path that readers use (`hub.repo.HubFile`)."""

    path: PurePosixPath  # in its repository

    name = property(attrgetter("path.name"))
    stem = property(attrgetter("path.stem"))
    suffix = property(attrgetter("path.suffix"))


if TYPE_CHECKING:
    from .hub.repo import HubFile

    File: TypeAlias = Path | HubFile
else:
    File = Path | RemoteFile
Value = TypeVar("Value")


class LazyMapping(UserDict[str, Value]):
    """Tensors or entries by names that are known, each looked up when it is first asked for."""

    def __init__(self, names: Mapping[str, Any], look_up: Callable[[str], Value]) -> None:
        super().__init__(names)
        self._look_up = cache(look_up)

    def __getitem__(self, name: str) -> Value:
        if name not in self:
            raise KeyError(name)
        return self._look_up(name)


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor's place in a file. `words` reads the pages that are used; of a remote file, the whole tensor."""

    name: str
    dtype: str  # as safetensors names it: BF16, F16, F32, F8_E4M3, F8_E5M2, ...; or as GGUF: Q4_K, ...
    shape: tuple[int, ...]
    path: File
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
        return math.prod(self.words_shape) * self._word.itemsize

    @property
    def _word(self) -> np.dtype:
        return np.dtype({**WORDS, **PACKED}.get(self.dtype, "u1"))

    def words(self) -> np.ndarray:
        """Map the unsigned words read-only, in the tensor's shape; of a quantised one the blocks' bytes.

        Raises as `packed`, and CorruptFile where the dtype is not one of floating-point numbers.
        """
        if not self.is_float:
            raise CorruptFile(f"{self.path}: tensor {self.name!r} is {self.dtype}; can read {', '.join(WORDS)}")
        return self.packed()

    @machine_errors()
    def packed(self) -> np.ndarray:
        """Map the unsigned words as `words` does, also for the dtypes of `PACKED`.

        Raises InvalidInput for a tensor with strides; MissingFile, AccessRefused, Unreachable or DiskFull where the
        file cannot be read.
        """
        if self.strides is not None:
            raise InvalidInput(SENTENCES["view"].format(view=self, shape=list(self.shape), strides=list(self.strides)))
        if 0 in self.shape:
            return np.empty(self.words_shape, self._word)
        local = self.path if isinstance(self.path, Path) else self.path.bring(self.offset, self.nbytes)
        return np.memmap(local, dtype=self._word, mode="r", offset=self.offset, shape=self.words_shape)

    def part(self, index: int) -> Tensor:
        """Return an entry of the first axis, such as a state of a history; IndexError without one."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"{self.name} has {self.shape[0]:,} entries, 0 to {self.shape[0] - 1:,}; got {index}")
        offset = self.offset + index * (self.nbytes // self.shape[0])
        return replace(self, name=f"{self.name}[{index}]", shape=self.shape[1:], offset=offset)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The tensors of a checkpoint, and the files beside them."""

    asked: Path | str
    tensors: Mapping[str, Tensor]
    config: dict = field(default_factory=dict)  # config.json of a model folder
    base: str | None = None  # the model that an adapter's config says it is for
    beside: Mapping[str, File] = field(default_factory=dict, repr=False)  # files of the model folder, by name
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of the weights' file, where it has any


def read_json(path: File) -> Any:
    """Parse a JSON file; raises CorruptFile where it is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: not JSON ({error})") from None


def read_object(path: File) -> dict[str, Any]:
    """Parse a JSON file that holds an object; raises CorruptFile where it does not."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise CorruptFile(f"{path}: not a JSON object")
    return content


@machine_errors()
def sha256(path: File, progress: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file, hexadecimal; `progress` is called with the bytes of each block of a local one."""
    if not isinstance(path, Path):
        return path.sha256
    digest = hashlib.sha256()
    block = memoryview(bytearray(1 << 22))
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(block):
            digest.update(block[:n])
            if progress:
                progress(n)
    return digest.hexdigest()
