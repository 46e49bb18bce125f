"""Files to tensors: `open_source` finds out what a path holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .gguf import read_gguf
from .npy import read_array, read_arrays
from .safetensors import read_tensors
from .shards import read_sharded
from .tensors import CorruptFile, Source, Tensor, sha256
from .torch_zip import read_torch

__all__ = ["CorruptFile", "Source", "Tensor", "open_source", "sha256"]

READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": read_tensors,
    ".bin": read_torch,
    ".pt": read_torch,
    ".pth": read_torch,
    ".npy": lambda path: {(tensor := read_array(path)).name: tensor},
    ".npz": read_arrays,
}
GIVE = f"give a {', '.join(READERS)} or .gguf file, an index of shards, or a model folder"
# What a folder is read by, the first that is there.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "embedding_evolution.safetensors",
)
INDEX = ".index.json"


def open_source(path: str | Path) -> Source:
    """Tensors of a file, or of a model folder (one file, or shards with their index); what is read: `docs/files.md`.

    Only headers are read. Beside a folder's tensors: its `config.json` and `tokenizer.json`, where there are any.

    Raises
    ------
    FileNotFoundError
        Nothing there, or a folder without weights, or a missing shard.
    CorruptFile
        See `read_tensors`, `read_torch`, `read_gguf`, `read_array`, `read_arrays`, `read_sharded`.
    ValueError
        A kind of file that is not known.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {str(path)!r}; {GIVE}")
    if path.is_file():
        return _open_file(path)
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        found = sorted(item.name for item in path.iterdir() if item.suffix in (*READERS, ".gguf"))
        hint = f"it has {', '.join(found[:5])}: give one of these" if found else "give a folder that has one of them"
        raise FileNotFoundError(f"{path} has none of {', '.join(WEIGHTS)}; {hint}")
    config, tokenizer = path / "config.json", path / "tokenizer.json"
    return Source(
        asked=path,
        tensors=_open_file(weights).tensors,
        config=_read_config(config) if config.is_file() else {},
        tokenizer=tokenizer if tokenizer.is_file() else None,
    )


def _open_file(path: Path) -> Source:
    if path.suffix == ".gguf":
        tensors, texts = read_gguf(path)
        return Source(asked=path, tensors=tensors, texts=texts)
    if path.suffix in READERS:
        return Source(asked=path, tensors=READERS[path.suffix](path))
    kind = Path(path.name.removesuffix(INDEX)).suffix
    if path.name.endswith(INDEX) and kind in READERS:
        return Source(asked=path, tensors=read_sharded(path, READERS[kind]))
    raise ValueError(f"cannot read {path.name!r}; {GIVE}")


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise CorruptFile(f"{path}: not a JSON object")
    return config
