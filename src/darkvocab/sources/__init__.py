"""Files to tensors: `open_source` finds out what a path holds."""

from __future__ import annotations

import json
from pathlib import Path

from .npy import read_array
from .safetensors import read_sharded, read_tensors
from .tensors import CorruptFile, Source, Tensor, sha256

__all__ = ["CorruptFile", "Source", "Tensor", "open_source", "sha256"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_source(path: str | Path) -> Source:
    """Tensors of a `.safetensors` file, a `.npy` array, or a model folder (one file, or shards with their index).

    Only headers are read. Beside a folder's tensors: its `config.json` and `tokenizer.json`, where there are any.

    Raises
    ------
    FileNotFoundError
        Nothing there, or a folder without weights, or a missing shard.
    CorruptFile
        See `read_tensors`, `read_sharded`, `read_array`.
    ValueError
        A kind of file that is not known.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {str(path)!r}; give a .safetensors or .npy file, or a model folder")
    if path.is_file():
        if path.suffix == ".npy":
            tensor = read_array(path)
            return Source(asked=path, tensors={tensor.name: tensor})
        if path.suffix == ".safetensors":
            return Source(asked=path, tensors=read_tensors(path))
        if path.name.endswith(".safetensors.index.json"):
            return Source(asked=path, tensors=read_sharded(path))
        raise ValueError(f"cannot read {path.name!r}; give a .safetensors or .npy file, or a model folder")
    if (path / SINGLE).is_file():
        tensors = read_tensors(path / SINGLE)
    elif (path / INDEX).is_file():
        tensors = read_sharded(path / INDEX)
    else:
        found = sorted(item.name for item in path.glob("*.safetensors"))
        hint = f"it has {', '.join(found[:5])}: give one of these" if found else "give a folder that has one of them"
        raise FileNotFoundError(f"{path} has neither {SINGLE} nor {INDEX}; {hint}")
    config, tokenizer = path / "config.json", path / "tokenizer.json"
    return Source(
        asked=path,
        tensors=tensors,
        config=_read_config(config) if config.is_file() else {},
        tokenizer=tokenizer if tokenizer.is_file() else None,
    )


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise CorruptFile(f"{path}: not a JSON object")
    return config
