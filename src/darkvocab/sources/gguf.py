"""GGUF files, checked in full; rows of quantised types by the `gguf` package.

Our own reader of headers, because the package's follows a count that lies for as long as the count says and makes
arrays of every text of the tokenizer.
"""

import math
import re
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..text import listed
from .tensors import FORMATS, SENTENCES, File, Tensor

MAX_ITEMS = 4_000_000  # texts, keys and tensors that a header may list
MAX_NAME_BYTES = 1000  # bytes of a key or a tensor's name; the format allows 65,535 and 64
MAX_GGUF_DIMS = 4
SEE_GGUF = "see https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; download the file again"

SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))  # struct codes, by type of value
TEXT_VALUE = 8
ARRAY_VALUE = 9
# Types of tensors by number: name, and how many numbers share how many bytes.
TENSOR_TYPES = {number: (name, numbers, size) for name, (number, numbers, size) in FORMATS["gguf"].items()}
KEPT_KEYS = frozenset(FORMATS["gguf_kept"])  # keys of a header


@dataclass(kw_only=True)
class _Reader:
    """Reader of a header's values, one after the other, never beyond the end of the file."""

    path: File
    data: BinaryIO
    size: int  # of the file
    at: int = 0
    n_items: int = 0

    def wrong(self, what: str) -> CorruptFile:
        return CorruptFile(f"{self.path}: {what}; {SEE_GGUF}")

    def take(self, size: int, *, keep: bool = True) -> bytes:
        """Return the next bytes, or skip them and return none where `keep` is false."""
        if size > self.size - self.at:
            raise CorruptFile(SENTENCES["header_cut"].format(reader=self, size=size))
        self.at += size
        if not keep:
            self.data.seek(self.at)
            return b""
        taken = self.data.read(size)
        if len(taken) < size:
            raise CorruptFile(f"{self.path}: ends within its header; it was cut while it was read")
        return taken

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def name(self) -> str:
        size = self.number("Q")
        if size > MAX_NAME_BYTES:
            raise self.wrong(f"a name of {size:,} bytes at byte {self.at:,}; at most {MAX_NAME_BYTES:,} are read")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.wrong(f"a text at byte {self.at - size:,} that is not UTF-8") from None

    def count(self, n: int) -> int:
        """Count items that follow, and return their number; CorruptFile for more than `MAX_ITEMS` in all."""
        self.n_items += n
        if self.n_items > MAX_ITEMS:
            raise self.wrong(f"a header of {self.n_items:,} items; at most {MAX_ITEMS:,} are read")
        return n

    def value(self, *, keep: bool) -> Any:
        """Return a number, a text, an array of numbers or a list of texts as bytes; empty where `keep` is false."""
        kind = self.number("I")
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT_VALUE:
            return self.take(self.number("Q"), keep=keep).decode(errors="replace")
        if kind != ARRAY_VALUE:
            raise self.wrong(f"a value of unknown type {kind} at byte {self.at:,}")
        kind = self.number("I")
        n = self.number("Q")
        if kind == TEXT_VALUE:
            return [self.take(self.number("Q"), keep=keep) for _ in range(self.count(n))]
        if kind not in SCALARS:
            raise self.wrong(f"an array of values of unknown type {kind} at byte {self.at:,}")
        dtype = np.dtype(SCALARS[kind]).newbyteorder("<")
        if keep:
            self.count(n)
        return np.frombuffer(self.take(n * dtype.itemsize, keep=keep), dtype)


def read_gguf(path: File) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a GGUF file and its other parts, and the metadata under `KEPT_KEYS`.

    A quantised tensor's words are the bytes of its blocks; `dequantised` makes numbers of them.

    Raises MissingFile for the file or another part of it, and CorruptFile: truncated; no GGUF, or of a version that is
    not 2 or 3, or big-endian; counts that the file has no bytes for; an unknown type; a name that comes twice; tensors
    that leave the file or overlap.
    """
    tensors, metadata = _read_one(path)
    count = metadata.get("split.count", 0)
    for part in _other_parts(path, count) if type(count) is int and count > 1 else []:
        others, more = _read_one(part)
        if twice := tensors.keys() & others.keys():
            raise CorruptFile(f"{part}: holds tensor {min(twice)!r}, which another part holds, too")
        tensors |= others
        metadata = {**more, **metadata}
    return tensors, metadata


def _other_parts(path: File, count: int) -> list[File]:
    named = re.fullmatch(r"(.+)-[0-9]{5}-of-([0-9]{5})\.gguf", path.name)
    if not named or int(named[2]) != count:
        raise CorruptFile(SENTENCES["names_of_parts"].format(path=path, count=count))
    parts = [path.with_name(f"{named[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise MissingFile(f"{path} is one of {count:,} parts, and {listed(missing, 3)} not there; download all of them")
    return [part for part in parts if part.name != path.name]


def _read_one(path: File) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the kept metadata of one file."""
    size = path.stat().st_size
    if size < 24:
        raise CorruptFile(f"{path}: {size} bytes are too few for a GGUF file; download it again")
    with path.open("rb") as file:
        reader = _Reader(path=path, data=file, size=size)
        if reader.take(4) != b"GGUF":
            raise reader.wrong("not a GGUF file")
        version = reader.number("I")
        if version not in (2, 3):
            big = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
            raise reader.wrong("big-endian" if big else f"version {version:,} of the format, known are 2 and 3")
        n_tensors = reader.number("Q")
        n_values = reader.number("Q")
        metadata: dict[str, Any] = {}
        for _ in range(reader.count(n_values)):
            key = reader.name()
            if key in metadata:
                raise reader.wrong(f"the header names {key!r} twice")
            metadata[key] = reader.value(keep=key in KEPT_KEYS)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise reader.wrong(f"an alignment of {alignment!r}, which is no power of two")
        entries = [_entry(reader) for _ in range(reader.count(n_tensors))]
        start = -(-reader.at // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        tensor = _tensor(path, entry, start, size)
        if tensor.name in tensors:
            raise reader.wrong(f"the header names tensor {tensor.name!r} twice")
        tensors[tensor.name] = tensor
    at = start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset < at:
            raise CorruptFile(f"{path}: tensor {tensor.name!r} overlaps the one before it; {SEE_GGUF}")
        at = tensor.offset + tensor.nbytes
    return tensors, {key: held for key, held in metadata.items() if key in KEPT_KEYS}


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Read name, shape, type and offset of a tensor."""
    name = reader.name()
    n_dims = reader.number("I")
    if n_dims > MAX_GGUF_DIMS:
        raise reader.wrong(f"tensor {name!r} has {n_dims:,} dimensions; the format allows {MAX_GGUF_DIMS}")
    shape = tuple(reader.number("Q") for _ in range(n_dims))[::-1]  # GGUF has the length of a row first
    return name, shape, reader.number("I"), reader.number("Q")


def _tensor(path: File, entry: tuple[str, tuple[int, ...], int, int], start: int, size: int) -> Tensor:
    name, shape, kind, offset = entry
    if kind not in TENSOR_TYPES:
        raise CorruptFile(f"{path}: tensor {name!r} has unknown type {kind}; known: {', '.join(FORMATS['gguf'])}")
    dtype, numbers, block = TENSOR_TYPES[kind]
    what = f"{path}: tensor {name!r}, {dtype} {list(shape)}"
    row = shape[-1] if shape else 1
    if row % numbers:
        raise CorruptFile(f"{what}: {row:,} is no multiple of {numbers}; {SEE_GGUF}")
    begin = start + offset
    end = begin + math.prod(shape) // numbers * block
    if end > size:
        raise CorruptFile(SENTENCES["outside"].format(what=f"{what},", begin=begin, end=end, size=size))
    quantised = (numbers, block) if numbers > 1 else None
    return Tensor(name=name, dtype=dtype, shape=shape, path=path, offset=begin, block=quantised)


def n_numbers(size: int, dtype: str) -> int:
    """Return how many numbers a row of `size` bytes holds."""
    _, numbers, block = FORMATS["gguf"][dtype]
    return size // block * numbers


def dequantised(words: np.ndarray, dtype: str) -> np.ndarray:
    """Dequantise rows by the `gguf` package: [n, bytes of a row] uint8 to [n, dim] float32.

    Raises InvalidInput for a type that the package cannot dequantise.
    """
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    shape = (len(words), n_numbers(words.shape[1], dtype))
    if 0 in shape:
        return np.empty(shape, np.float32)
    try:
        with np.errstate(all="ignore"):  # a NaN scale makes a NaN row, which is reported later
            rows = dequantize(np.ascontiguousarray(words), GGMLQuantizationType(FORMATS["gguf"][dtype][0]))
    except (NotImplementedError, ValueError):  # not yet, or a type that an older package does not know
        raise InvalidInput(SENTENCES["unknown_to_gguf"].format(dtype=dtype)) from None
    return np.asarray(rows, np.float32).reshape(shape)
