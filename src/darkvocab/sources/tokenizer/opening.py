"""Open the tokenizer of a file, a folder, a model on the Hub, or a checkpoint."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...errors import CorruptFile, InvalidInput, MissingFile, machine_errors
from .. import FolderFiles, located
from ..gguf import read_gguf
from ..tensors import File, RemoteFile, Source
from .gguf import from_gguf
from .huggingface import from_json, from_vocab, from_words
from .rules import CLASSES, COMPANIONS, HELD, class_name
from .sentencepiece import from_sentencepiece
from .tiktoken import from_ranks, from_tekken, is_ranks
from .tokenizer import Tokenizer

Files = Mapping[str, File]
FILE_PATTERNS: dict[str, str] = HELD["files"]
SAME = ("vocab", "words")  # kinds of files that repeat the rules of a tokenizer.json
MERGES = "merges.txt"
GIVE: str = HELD["give"]


@machine_errors()
def open_tokenizer(path: str | Path, progress: Callable[[int, int], None] | None = None) -> Tokenizer:
    """Open the tokenizer of a file, of a folder, or of `org/name[@revision][/file or folder]` on the Hub.

    A file of a usual name is read with `merges.txt` and `COMPANIONS` beside it. Of a folder the first file by
    `FILE_PATTERNS` is opened; `Tokenizer.others` opens the rest.

    Raises as `open_source`: MissingFile, too, for a folder without a tokenizer; CorruptFile for one that contradicts
    itself, saying where; InvalidInput for a SentencePiece model whose ids are not those of the tokenizer.
    """
    place = located(path, progress, ("tokenizer at", f"{GIVE}, or scan with --tokenizer none"))
    if isinstance(place, FolderFiles):
        names = tokenizer_names(place)
        if not names:
            raise MissingFile(f"{place.said} holds no tokenizer; {GIVE}")
        return _of_folder(place, names)
    names = [MERGES, *COMPANIONS] if _kind(place.name) is not None else []
    return _opened(place, {name: one for name in names if (one := place.with_name(name)).is_file()})


def tokenizer_of(source: Source) -> Tokenizer | None:
    """Return the tokenizer of a checkpoint: that in a GGUF file, else that beside the weights; None without one.

    A tokenizer beside a GGUF file is one of `others`. Raises as `open_tokenizer`; remote files are read now.
    """
    names = tokenizer_names(source.beside)
    if source.metadata:  # of a GGUF file: else no tensor need be looked up
        held = from_gguf(source.metadata, next((tensor.path for tensor in source.tensors.values()), None))
        if held is not None:
            return replace(held, others=_openers(source.beside, names[:1]))
    return _of_folder(source.beside, names) if names else None


def tokenizer_names(folder: Files) -> list[str]:
    """Return the names of tokenizer files of a folder, the one to use first, then others that apply."""
    by_kind = {_kind(name): name for name in sorted(folder) if name != "vocab.json" or MERGES in folder}
    names = [by_kind[kind] for kind in FILE_PATTERNS if kind in by_kind]
    if names and names[0] != "tokenizer.json" and class_name(folder) in CLASSES["other_ids"]:
        names = [name for name in names if _kind(name) != "sentencepiece"]
    return [name for name in names if name == names[0] or _kind(name) not in SAME]


def tokenizer_files(folder: Files) -> list[File]:
    """Return the files of a folder that are read: tokenizers, `merges.txt`, and files that add tokens."""
    names = tokenizer_names(folder)
    names += [name for name in (MERGES, *COMPANIONS) if names and name in folder]
    return [folder[name] for name in names if name != MERGES or names[0] == "vocab.json"]


def _kind(name: str) -> str | None:
    return next((kind for kind, pattern in FILE_PATTERNS.items() if re.fullmatch(pattern, name)), None)


def _of_folder(folder: Files, names: list[str]) -> Tokenizer:
    return replace(_opened(folder[names[0]], folder), others=_openers(folder, names[1:]))


def _openers(folder: Files, names: list[str]) -> tuple[Callable[[], Tokenizer], ...]:
    return tuple(partial(_opened, folder[name], folder) for name in names)


def _opened(file: File, folder: Files) -> Tokenizer:
    """Open a tokenizer file by its name, else by its first bytes."""
    if not file.is_file():
        raise MissingFile(f"no tokenizer at {str(file)!r}; {GIVE}")
    beside = {name: folder[name] for name in (MERGES, *COMPANIONS) if name in folder}
    for one in (file, *beside.values()):
        if isinstance(one, RemoteFile):
            one.whole()  # compared with its hash
    if file.suffix == ".gguf":
        opened = from_gguf(read_gguf(file)[1], file)
        if opened is None:
            raise CorruptFile(f"{file} holds no tokenizer; give another file, or scan with --tokenizer none")
        return opened
    if _kind(file.name) == "tekken":
        return from_tekken(file)
    if file.name == "vocab.json":
        if MERGES not in beside:
            raise MissingFile(f"{file} is half of a tokenizer; there is no {MERGES} beside it")
        return from_vocab(file, beside)
    if file.name == "vocab.txt":
        return from_words(file, beside)
    if file.name == MERGES:
        raise InvalidInput(f"{file} is half of a tokenizer; give the vocab.json beside it, or the folder")
    with file.open("rb") as data:
        begin = data.read(4096)
    if is_ranks(begin):
        return from_ranks(file, beside)
    if begin[:1] == b"\n" and file.name != "tokenizer.json" and file.suffix != ".txt":
        return from_sentencepiece(file, beside)
    return from_json(file, beside)
