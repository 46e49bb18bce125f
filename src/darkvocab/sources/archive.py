"""Zip archives whose entries are stored as they are, so that they can be memory-mapped: what torch and numpy write."""

import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from ..errors import CorruptFile
from .tensors import SENTENCES, File, LazyMapping

ENCRYPTED = 1  # flag bits
END = 22 + 65_535  # bytes at the end, where a directory's place is written: the record, and the longest comment
LOCAL = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


@dataclass(frozen=True)
class ArchiveEntry:
    """Place of an entry's bytes."""

    offset: int  # bytes from the start of the file
    size: int


def read_archive(path: File) -> Mapping[str, ArchiveEntry]:
    """Return the entries of a zip archive by name; nothing is decompressed, and checksums are not compared.

    A remote archive's directory is read and checked now, each entry when it is asked for.

    Raises MissingFile, and CorruptFile: truncated, or not a zip archive; a name that comes twice; an entry that is
    compressed or encrypted, leaves the file, or overlaps another.
    """
    if not isinstance(path, Path):
        file = path.open("rb")
        file.seek(max(0, path.stat().st_size - END))
        file.read()  # now, since zipfile takes an error of the network for a bad archive
        return _entries(path, file)
    with path.open("rb") as file:
        return dict(_entries(path, file))


def _entries(path: File, file: BinaryIO) -> LazyMapping[ArchiveEntry]:
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            end = archive.start_dir
    except Exception as error:  # on odd bytes zipfile lets through struct.error, OSError, NotImplementedError
        if isinstance(error, OSError) and not isinstance(path, Path):
            raise
        raise CorruptFile(SENTENCES["no_directory"].format(path=path, size=path.stat().st_size, error=error)) from None
    name, times = Counter(info.filename for info in infos).most_common(1)[0] if infos else ("", 0)
    if times > 1:
        raise CorruptFile(f"{path}: the archive names {name[:80]!r} twice")
    for info in infos:
        _check(path, info)
    ordered = [*sorted(infos, key=lambda info: info.header_offset), None]
    by_name = {info.filename: (info, after) for info, after in pairwise(ordered) if info}

    def look_up(name: str) -> ArchiveEntry:
        info, after = by_name[name]
        what = f"{path}: entry {name[:80]!r}"
        file.seek(info.header_offset)
        head = file.read(LOCAL.size)
        signature, named, extra = LOCAL.unpack(head) if len(head) == LOCAL.size else (b"", 0, 0)
        if signature != b"PK\x03\x04":
            raise CorruptFile(f"{what} has no header at byte {info.header_offset:,}; truncated, or made to mislead")
        entry = ArchiveEntry(info.header_offset + LOCAL.size + named + extra, info.file_size)
        if after and entry.offset + entry.size > after.header_offset:
            raise CorruptFile(f"{path}: entry {after.filename[:80]!r} overlaps {name[:80]!r}")
        if entry.offset + entry.size > end:
            raise CorruptFile(SENTENCES["beyond_entries"].format(what=what, at=entry.offset + entry.size, end=end))
        return entry

    return LazyMapping(by_name, look_up)


def _check(path: File, info: zipfile.ZipInfo) -> None:
    what = f"{path}: entry {info.filename[:80]!r}"
    if info.flag_bits & ENCRYPTED:
        raise CorruptFile(f"{what} is encrypted; decrypt it, and save it again without a password")
    if info.compress_type != zipfile.ZIP_STORED:
        raise CorruptFile(f"{what} is compressed and cannot be mapped; save it again with numpy.savez or torch.save")
    if info.header_offset < 0:
        raise CorruptFile(f"{what} should begin before the file does; truncated, or made to mislead")
    if info.file_size != info.compress_size:
        raise CorruptFile(SENTENCES["not_as_it_is"].format(what=what, info=info))
