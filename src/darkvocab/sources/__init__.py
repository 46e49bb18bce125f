"""Files to tensors and chat templates: `open_source` finds out what a path holds, or a model on the Hub."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CorruptFile, InvalidInput, MissingFile, machine_errors
from ..progress import Report
from .gguf import read_gguf
from .npy import read_array, read_arrays
from .safetensors import read_tensors, unique_names
from .tensors import FORMATS, SENTENCES, File, LazyMapping, RemoteFile, Source, Tensor, read_json, read_object, sha256
from .torch_zip import read_torch

__all__ = ["Folder", "chat_template", "located", "open_source", "read_sharded", "revisions"]
__all__ += ["File", "RemoteFile", "Source", "Tensor", "read_json", "read_object", "sha256"]

READERS: dict[str, Callable[[File], Mapping[str, Tensor]]] = {
    ".safetensors": read_tensors,
    **dict.fromkeys((".bin", ".pt", ".pth"), read_torch),
    ".npy": lambda path: {(tensor := read_array(path)).name: tensor},
    ".npz": read_arrays,
}
GIVE = f"give a {', '.join(READERS)} or .gguf file, an index of shards, or a model folder"
WEIGHTS: list[str] = FORMATS["weights"]
ADAPTER = "adapter_config.json"
INDEX_SUFFIX = ".index.json"
TEMPLATES: list[str] = FORMATS["templates"]
BESIDE: list[str] = [*FORMATS["beside_gguf"], *TEMPLATES]
LATER_PART = re.compile(r".+-(?!00001)[0-9]{5}-of-[0-9]{5}\.gguf")
# Names on the Hub: hf://..., an address, or org/name[@revision][/path].
ON_HUB = re.compile(r"(hf|https?)://.+|\w[\w.-]*/[\w.-]+((@|/).+)?", re.ASCII)


class FolderFiles(LazyMapping[File]):
    """The files of a folder, here or on the Hub, by name."""

    def __init__(self, said: str, names: list[str], look_up: Callable[[str], File]) -> None:
        super().__init__(dict.fromkeys(names), look_up)
        self.said = said  # its name for people


@machine_errors()
def open_source(path: str | Path, progress: Report | None = None) -> Source:
    """Open the tensors of a file, or of a model folder (one file, or shards with their index); see `docs/files.md`.

    Only headers are read now. A text at which no file lies may name `org/name[@revision][/file or folder]` on the Hub;
    `progress` is called with (bytes read, bytes asked for) as pieces of such files arrive, now and later.

    Raises MissingFile (nothing there, a folder without weights, a missing shard), AccessRefused and Unreachable as
    `HubFile.bring`, CorruptFile as the readers of each format, and InvalidInput for an unknown kind of file.
    """
    place = located(path, progress)
    return _open_folder(path, place) if isinstance(place, FolderFiles) else _open_file(place, path)


@machine_errors()
def located(
    path: str | Path, progress: Report | None = None, wanted: tuple[str, str] = ("file or folder", GIVE)
) -> File | FolderFiles:
    """Return the file, or the files of the folder, at a path or under a name on the Hub.

    Parameters and errors as `open_source`; `wanted` has the words of errors: what was asked for, what may be given.
    """
    place = Path(path)
    if place.is_file():
        return place
    if place.is_dir():
        names = sorted(item.name for item in place.iterdir() if item.is_file())
        return FolderFiles(str(place), names, place.__truediv__)
    if not (isinstance(path, str) and ON_HUB.fullmatch(path)):
        what, give = wanted
        raise MissingFile(f"no {what} {str(path)!r}; {give}, or org/name[@revision] on the Hub")
    name, revision, within = _parse(path)
    from .hub.repo import open_repo

    try:
        repo = open_repo(name, revision, progress)
    except (FileNotFoundError, ConnectionError) as error:  # a path that is misspelt may pass for a name on the Hub
        raise type(error)(f"no file or folder {path!r} here, and {error}") from None
    file = repo.file(within)
    if within and file.is_file():
        return file
    folder = PurePosixPath(within)
    names = sorted(file.name for file in map(PurePosixPath, repo.listing) if file.parent == folder)
    if not names:
        raise MissingFile(f"{repo} has no file or folder {within!r}")
    return FolderFiles(str(file if within else repo), names, lambda name: repo.file(folder / name))


@machine_errors()
def revisions(path: str) -> dict[str, str] | None:
    """Return an address of each branch and tag of a model on the Hub, or None; raises as `hub.repo.revisions`."""
    if Path(path).exists() or not ON_HUB.fullmatch(path):
        return None
    from .hub import repo

    name, revision, within = _parse(path)
    if revision or within:
        return None
    return {ref: f"hf://{name}@{commit}" for ref, commit in repo.revisions(name).items()}


def _parse(text: str) -> tuple[str, str | None, str]:
    """Split a name on the Hub into repository, revision (None: the default) and path in it."""
    from huggingface_hub import constants, parse_hf_uri

    try:
        uri = parse_hf_uri(text if "://" in text else f"hf://{text}", endpoint=constants.ENDPOINT)
        if uri.type != "model":
            raise InvalidInput(f"{text!r} names a {uri.type}, not a model")
    except ValueError as error:
        raise MissingFile(f"no file or folder {text!r} here, and no name of a model on the Hub: {error}") from None
    return uri.id, uri.revision, uri.path_in_repo.rstrip("/")


def _open_folder(asked: str | Path, held: FolderFiles) -> Source:
    """Open a folder by the usual name of its weights; on the Hub also by its only weights, whatever their name."""
    weights = next((name for name in WEIGHTS if name in held), None)
    if weights is None:
        readable = [name for name in sorted(held) if Path(name).suffix in (*READERS, ".gguf")]
        first = [name for name in readable if not LATER_PART.fullmatch(name)]
        if not (len(first) == 1 and isinstance(held[first[0]], RemoteFile)):
            hint = "give a folder that has one of them"
            if readable:
                hint = f"it has {', '.join(readable[:5])}: give one of these"
            raise MissingFile(f"{held.said} has none of {', '.join(WEIGHTS)}; {hint}")
        weights = first[0]
    opened = _open_file(held[weights], asked)
    base = read_object(held[ADAPTER]).get("base_model_name_or_path") if ADAPTER in held else None
    config = read_object(held["config.json"]) if "config.json" in held else {}
    return replace(opened, config=config, beside=held, base=base if isinstance(base, str) else None)


def _open_file(path: File, asked: str | Path) -> Source:
    if path.suffix == ".gguf":
        tensors, metadata = read_gguf(path)
        beside = {name: one for name in BESIDE if (one := path.with_name(name)).is_file()}
        return Source(asked=asked, tensors=tensors, metadata=metadata, beside=beside)
    if path.suffix in READERS:
        return Source(asked=asked, tensors=READERS[path.suffix](path))
    kind = Path(path.name.removesuffix(INDEX_SUFFIX)).suffix
    if path.name.endswith(INDEX_SUFFIX) and kind in READERS:
        return Source(asked=asked, tensors=read_sharded(path, READERS[kind]))
    raise InvalidInput(f"cannot read {path.name!r}; {GIVE}")


def read_sharded(index: File, read: Callable[[File], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the tensors of all shards that a `model.safetensors.index.json` or `pytorch_model.bin.index.json` names.

    `read` opens a shard; for a remote index only when one of its tensors is asked for. A shard must have the suffix
    that the index's name has before `.index.json`.

    Raises MissingFile for a shard, and CorruptFile: not such an index, a shard outside the index's folder, or one that
    lacks a tensor the index places there.
    """
    ending = Path(index.name.removesuffix(INDEX_SUFFIX)).suffix
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
            raise MissingFile(SENTENCES["no_shard"].format(index=index, n=len(shards), missing=", ".join(missing)))

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


@machine_errors()
def chat_template(source: Source) -> str | None:
    """Return the source text of a checkpoint's chat template; None where it has none.

    The first of: the header of a GGUF file, then the files `TEMPLATES` beside the weights, as transformers orders them.
    Of several in a file, the one named `default`, else the first. Remote files are read now. Raises CorruptFile.
    """
    held = source.metadata.get("tokenizer.chat_template")
    if isinstance(held, str):
        return held
    if file := source.beside.get(TEMPLATES[0]):
        try:
            return file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptFile(f"{file}: not UTF-8 ({error})") from None
    for name in TEMPLATES[1:]:
        if file := source.beside.get(name):
            template = _chosen(read_object(file).get("chat_template"))
            if template is not None:
                return template
    return None


def _chosen(held: Any) -> str | None:
    """Return a template itself, or from a list of named templates the default one."""
    if not isinstance(held, list):
        return held if isinstance(held, str) else None
    named = [one for one in held if isinstance(one, dict) and isinstance(one.get("template"), str)]
    named.sort(key=lambda one: one.get("name") != "default")
    return named[0]["template"] if named else None
