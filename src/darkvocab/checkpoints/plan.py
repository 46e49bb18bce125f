"""Plan a scan: list what it would read, by headers alone."""

from pathlib import Path
from typing import Any

from ..embedding.find import find_embedding, find_output
from ..embedding.scales import find_companions
from ..sources import File, FolderFiles, RemoteFile, Source, Tensor, located, open_source
from ..sources.tokenizer import tokenizer_files

PLAN_VERSION = 1


def plan(
    source: str | Path, *, tensor: str | None = None, tokenizer: str | Path | None = None, checksum: bool = True
) -> dict[str, Any]:
    """List what `scan` would read, JSON-ready (`docs/files.md`); raises as `open_source` and `find_embedding`."""
    opened = open_source(source)
    embedding, chosen = find_embedding(opened, tensor)
    output = find_output(opened, embedding)
    tensors = [("embedding", embedding)]
    if output and (output.path, output.offset) != (embedding.path, embedding.offset):  # else the same bytes
        tensors.append(("output", output))
    tensors += [pair for _, held in tensors for pair in find_companions(opened, held).items()]
    reads = [_read(purpose, held.path, held, held.nbytes, held.offset) for purpose, held in tensors]
    texts = _tokenizer(opened, tokenizer)
    reads += [_read("tokenizer", file, None, file.stat().st_size, 0) for file in texts]
    if checksum and isinstance(embedding.path, Path):
        reads.append(_read("sha256", embedding.path, None, embedding.path.stat().st_size, 0))
    first = embedding.path
    return {
        "schema_version": PLAN_VERSION,
        "asked": str(source),
        "tensor": embedding.name,
        "chosen": chosen,
        "reads": reads,
        "bytes": sum(read["bytes"] for read in reads),
        "bytes_to_transfer": sum(read["bytes_to_transfer"] for read in reads),
        "source": {} if isinstance(first, Path) else first.origin(),
    }


def _tokenizer(opened: Source, tokenizer: str | Path | None) -> list[File]:
    if tokenizer is None:
        return tokenizer_files(opened.beside)
    if str(tokenizer) == "none":
        return []
    place = located(tokenizer)
    return tokenizer_files(place) if isinstance(place, FolderFiles) else [place]


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
