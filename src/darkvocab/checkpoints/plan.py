"""Plan: what a scan would read, found from headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..embedding.find import find_embedding, find_output
from ..sources import File, RemoteFile, Source, Tensor, open_source

SCHEMA_VERSION = 1


def plan(
    source: str | Path, *, tensor: str | None = None, tokenizer: str | Path | None = None, checksum: bool = True
) -> dict[str, Any]:
    """List what `scan` would read with these settings, JSON-ready (keys: `docs/files.md`), without reading a tensor.

    Raises
    ------
    OSError, CorruptFile, NoEmbedding, InvalidInput
        As `open_source` and `find_embedding`.
    """
    opened = open_source(source)
    embedding, chosen = find_embedding(opened, tensor)
    output = find_output(opened, embedding)
    if output and (output.path, output.offset) == (embedding.path, embedding.offset):
        output = None  # the same bytes
    reads = [_tensor("embedding", embedding), *([_tensor("output", output)] if output else [])]
    texts = _tokenizer(opened, tokenizer)
    reads += [_read("tokenizer", texts, None, texts.stat().st_size, 0)] if texts else []
    if checksum and isinstance(embedding.path, Path):
        reads.append(_read("sha256", embedding.path, None, embedding.path.stat().st_size, 0))
    first = embedding.path
    return {
        "schema_version": SCHEMA_VERSION,
        "asked": str(source),
        "tensor": embedding.name,
        "chosen": chosen,
        "reads": reads,
        "bytes": sum(read["bytes"] for read in reads),
        "bytes_to_transfer": sum(read["bytes_to_transfer"] for read in reads),
        "source": {} if isinstance(first, Path) else first.origin(),
    }


def _tokenizer(opened: Source, tokenizer: str | Path | None) -> File | None:
    if tokenizer is None:
        return opened.tokenizer_file
    path = Path(tokenizer)
    return path if str(tokenizer) != "none" and path.is_file() else None


def _tensor(purpose: str, tensor: Tensor) -> dict[str, Any]:
    return _read(purpose, tensor.path, tensor, tensor.nbytes, tensor.offset)


def _read(purpose: str, file: File, tensor: Tensor | None, size: int, offset: int) -> dict[str, Any]:
    return {
        "purpose": purpose,
        "file": str(file),
        "tensor": tensor and tensor.name,
        "dtype": tensor and tensor.dtype,
        "shape": tensor and list(tensor.shape),
        "bytes": size,
        "file_bytes": file.stat().st_size,
        "bytes_to_transfer": size - file.here(offset, size) if isinstance(file, RemoteFile) else 0,
    }
