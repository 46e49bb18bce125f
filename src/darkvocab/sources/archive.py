"""Zip archives whose entries are stored as they are, so that they can be memory-mapped: what torch and numpy write."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .tensors import CorruptFile

ENCRYPTED = 1  # flag bits
LOCAL = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


@dataclass(frozen=True)
class Entry:
    """Where an entry's bytes lie."""

    offset: int  # bytes from the start of the file
    size: int


def read_archive(path: Path) -> dict[str, Entry]:
    """Entries of a zip archive by name; nothing is decompressed, and checksums are not compared.

    Raises
    ------
    FileNotFoundError
    CorruptFile
        Truncated, or not a zip archive; a name that comes twice; an entry that is compressed or encrypted, leaves the
        file, or overlaps another.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                infos, end = archive.infolist(), archive.start_dir
        except Exception as error:  # on odd bytes zipfile lets through struct.error, OSError, NotImplementedError
            raise CorruptFile(
                f"{path}: {size:,} bytes whose directory cannot be read ({error}); truncated, or not a zip archive"
            ) from None
        name, times = Counter(info.filename for info in infos).most_common(1)[0] if infos else ("", 0)
        if times > 1:
            raise CorruptFile(f"{path}: the archive names {name[:80]!r} twice")
        entries, at, before = {}, 0, "the start of the file"
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < at:
                raise CorruptFile(f"{path}: entry {info.filename[:80]!r} overlaps {before[:80]!r}")
            entries[info.filename] = entry = _entry(path, file, info)
            at, before = entry.offset + entry.size, info.filename
            if at > end:
                raise CorruptFile(
                    f"{path}: entry {before[:80]!r} should end at byte {at:,}, the archive's entries end at {end:,}; "
                    "truncated, or made to mislead"
                )
    return entries


def _entry(path: Path, file: BinaryIO, info: zipfile.ZipInfo) -> Entry:
    what = f"{path}: entry {info.filename[:80]!r}"
    if info.flag_bits & ENCRYPTED:
        raise CorruptFile(f"{what} is encrypted; decrypt it, and save it again without a password")
    if info.compress_type != zipfile.ZIP_STORED:
        raise CorruptFile(f"{what} is compressed and cannot be mapped; save it again with numpy.savez or torch.save")
    if info.file_size != info.compress_size:
        raise CorruptFile(
            f"{what} is stored as it is, yet of {info.file_size:,} bytes {info.compress_size:,} are there"
        )
    file.seek(info.header_offset)
    head = file.read(LOCAL.size)
    signature, name, extra = LOCAL.unpack(head) if len(head) == LOCAL.size else (b"", 0, 0)
    if signature != b"PK\x03\x04":
        raise CorruptFile(f"{what} has no header at byte {info.header_offset:,}; truncated, or made to mislead")
    return Entry(info.header_offset + LOCAL.size + name + extra, info.file_size)
