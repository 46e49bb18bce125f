"""Open tokenizers: of a file, a folder, a model on the Hub, a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...errors import CorruptFile, InvalidInput, MissingFile, machine_errors
from .. import Folder, located
from ..gguf import read_gguf
from ..tensors import File, RemoteFile, Source
from .added import COMPANIONS, class_name
from .gguf import from_gguf
from .huggingface import from_json, from_vocab, from_words
from .sentencepiece import OTHER_IDS, from_sentencepiece
from .tiktoken import from_ranks, from_tekken, is_ranks
from .tokenizer import Tokenizer

Files = Mapping[str, File]
# Names of files in the order in which they are chosen; of several of a kind the last in alphabetical order.
NAMES = (
    r"tokenizer\.json",
    r"vocab\.json",
    r"vocab\.txt",
    r"(tokenizer|tiktoken|spiece|spm|sentencepiece)(\.bpe|\.mm)?\.model|.+\.model\.v[0-9]\w*",
    r".+\.tiktoken",
    r"tekken(_\w+)?\.json",
)
SAME = (1, 2)
MERGES = "merges.txt"
GIVE = (
    "give a tokenizer.json, vocab.json with merges.txt, vocab.txt, SentencePiece model, .tiktoken, tekken.json or "
    ".gguf file, or a folder with one of them"
)


@machine_errors()
def open_tokenizer(path: str | Path, progress: Callable[[int, int], None] | None = None) -> Tokenizer:
    """Open the tokenizer of a file, of a folder, or of `org/name[@revision][/file or folder]` on the Hub.

    A file of a usual name is read together with those that belong to it: `tokenizer_config.json`, `added_tokens.json`,
    `special_tokens_map.json`, `merges.txt`. Of a folder the first that `NAMES` has; `Tokenizer.others` opens the rest.

    Raises
    ------
    MissingFile
        Nothing there, or a folder without a tokenizer.
    AccessRefused, Unreachable
        As `open_source`.
    CorruptFile
        Not a tokenizer, or one that contradicts itself; the message says where.
    InvalidInput
        A SentencePiece model whose ids are not those of the tokenizer.
    """
    place = located(path, progress, ("tokenizer at", f"{GIVE}, or --tokenizer none"))
    if isinstance(place, Folder):
        names = tokenizer_names(place)
        if not names:
            raise MissingFile(f"{place.said} holds no tokenizer; {GIVE}")
        return _of_folder(place, names)
    beside = _beside(place) if _kind(place.name) is not None else {}
    return _opened(place, beside)


def tokenizer_of(source: Source) -> Tokenizer | None:
    """Return the tokenizer of a checkpoint: of a GGUF file its own, else that beside the weights; None without one.

    A tokenizer beside a GGUF file is another one that applies. Raises as `open_tokenizer`; remote files are read now.
    """
    names = tokenizer_names(source.beside)
    held = None
    if source.metadata:  # else no file is a GGUF file, and none of its tensors need be looked up
        held = from_gguf(source.metadata, next((tensor.path for tensor in source.tensors.values()), None))
    if held is None:
        return _of_folder(source.beside, names) if names else None
    return replace(held, others=tuple(partial(_opened, source.beside[name], source.beside) for name in names[:1]))


def tokenizer_names(folder: Files) -> list[str]:
    """Return the names of files of a folder that hold a tokenizer, the one to use first."""
    by_kind: dict[int, str] = {}
    for name in sorted(folder):
        kind = _kind(name)
        if kind is not None and (name != "vocab.json" or MERGES in folder):
            by_kind[kind] = name
    names = [by_kind[kind] for kind in sorted(by_kind)]
    if names and names[0] != "tokenizer.json" and class_name(folder) in OTHER_IDS:
        return [name for name in names if not re.fullmatch(NAMES[3], name)]
    return names


def tokenizer_files(folder: Files) -> list[File]:
    """Return the files of a folder that are read: its tokenizer, others that apply, and what adds tokens to them."""
    names = _applying(tokenizer_names(folder))
    names += [name for name in (MERGES, *COMPANIONS) if names and name in folder]
    return [folder[name] for name in names if name != MERGES or names[0] == "vocab.json"]


def _kind(name: str) -> int | None:
    return next((n for n, pattern in enumerate(NAMES) if re.fullmatch(pattern, name)), None)


def _beside(file: File) -> Files:
    """Return the files beside this one that belong to a tokenizer."""
    names = (file.with_name(name) for name in (MERGES, *COMPANIONS))
    return {one.name: one for one in names if one.is_file()}


def _of_folder(folder: Files, names: list[str]) -> Tokenizer:
    first, *others = _applying(names)
    opened = _opened(folder[first], folder)
    return replace(opened, others=tuple(partial(_opened, folder[name], folder) for name in others))


def _applying(names: list[str]) -> list[str]:
    """Return the first name, and those of others whose rules are not those of a tokenizer.json once more."""
    return [name for n, name in enumerate(names) if n == 0 or _kind(name) not in SAME]


def _opened(file: File, folder: Files) -> Tokenizer:
    """Open a file that holds a tokenizer, by its name, else by how it begins."""
    if not file.is_file():
        raise MissingFile(f"no tokenizer at {str(file)!r}; {GIVE}")
    beside = {name: folder[name] for name in (MERGES, *COMPANIONS) if name in folder}
    for one in (file, *beside.values()):
        if isinstance(one, RemoteFile):
            one.whole()  # compared with its hash
    return _reader(file, beside)()


def _reader(path: File, beside: Files) -> Callable[[], Tokenizer]:
    """Return what opens a file."""
    name = path.name
    if name.endswith(".gguf"):
        return lambda: _of_gguf(path)
    if re.fullmatch(NAMES[5], name):
        return lambda: from_tekken(path)
    if name == "vocab.json":
        if MERGES not in beside:
            raise MissingFile(f"{path} is half of a tokenizer; there is no {MERGES} beside it")
        return lambda: from_vocab(path, beside)
    if name == "vocab.txt":
        return lambda: from_words(path, beside)
    if name == MERGES:
        raise InvalidInput(f"{path} is half of a tokenizer; give the vocab.json beside it, or the folder")
    with path.open("rb") as file:
        begin = file.read(4096)
    if is_ranks(begin):
        return lambda: from_ranks(path, beside)
    if begin[:1] == b"\n" and name != "tokenizer.json" and path.suffix != ".txt":
        return lambda: from_sentencepiece(path, beside)
    return lambda: from_json(path, beside)


def _of_gguf(path: File) -> Tokenizer:
    opened = from_gguf(read_gguf(path)[1], path)
    if opened is None:
        raise CorruptFile(f"{path} holds no tokenizer; give another file, or --tokenizer none")
    return opened
