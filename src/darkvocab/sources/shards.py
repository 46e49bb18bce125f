"""Checkpoints in several files of one kind, and the index that says which tensor lies in which."""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from ..errors import CorruptFile, MissingFile
from .safetensors import unique_names
from .tensors import File, LazyMapping, Tensor


def read_sharded(index: File, read: Callable[[File], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the tensors of all shards that a `model.safetensors.index.json` or `pytorch_model.bin.index.json` names.

    `read` reads a shard, of a remote index only when a tensor in it is asked for; the index's own name says what a
    shard's name must end with.

    Raises MissingFile for a shard, and CorruptFile: not such an index, a shard outside the index's folder, or one that
    lacks a tensor the index places there.
    """
    ending = Path(index.name.removesuffix(".index.json")).suffix
    try:
        places = json.loads(index.read_text("utf-8"), object_pairs_hook=unique_names)["weight_map"]
        places = {str(name): str(shard) for name, shard in places.items()}
    except CorruptFile as error:
        raise CorruptFile(f"{index}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{index}: not an index of {ending} files with a weight_map ({error!r})") from None
    shards = sorted(set(places.values()))
    for shard in shards:
        if not re.fullmatch(r"[^/\\:\0]+" + re.escape(ending), shard):
            raise CorruptFile(f"{index}: points to {shard!r}; a shard must be a {ending} file in the same folder")

    def check(needed: list[str]) -> None:
        missing = [shard for shard in needed if not index.with_name(shard).is_file()]
        if missing:
            raise MissingFile(
                f"{index} names {len(shards)} shards, and {', '.join(missing)} not there; "
                "download it, or scan the shard that holds the embedding by itself"
            )

    @cache
    def tensors_of(shard: str) -> Mapping[str, Tensor]:
        check([shard])
        return read(index.with_name(shard))

    def look_up(name: str) -> Tensor:
        shard = places[name]
        tensors = tensors_of(shard)
        if name not in tensors:
            raise CorruptFile(f"{index}: places tensor {name!r} in {shard}, which does not hold it")
        return tensors[name]

    tensors = LazyMapping(places, look_up)
    if not isinstance(index, Path):
        return tensors
    check(shards)
    return dict(tensors)
