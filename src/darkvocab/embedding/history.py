"""Read the history of an embedding: its states during a training, from the file that recorded them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Int64

from ..errors import CorruptFile, InvalidInput, MissingFile, NoEmbedding
from ..numerics import Grid, as_grid
from ..progress import Advance
from ..sources import Tensor, read_json, read_object
from ..sources.safetensors import read_metadata, read_tensors
from ..text import Shown, listed, printable
from .find import HISTORY_KEY as HISTORY_KEY
from .find import header_count, n_recorded
from .scales import GRID_OF_DTYPE, SENTENCES

HISTORY_FILE = "embedding_evolution.safetensors"
HISTORY_DTYPES = ("BF16", "F16", "F32")


@dataclass(frozen=True, kw_only=True, repr=False)
class History(Shown):
    """States [rows, n_tokens, dim] of an embedding; row r was recorded `record_every` * r steps after `first_step`.

    `open` reads the header only. To see rows that were written since, open the file again.
    """

    tensor: Tensor
    grid: Grid
    n_rows: int  # written when the file was opened
    n_planned: int  # the file has room for so many
    record_every: int  # optimizer steps between rows
    first_step: int = 0  # optimizer steps before row 0
    ids: tuple[int, ...] | None = None  # the recorded tokens, if not all were recorded
    unseen: tuple[int, ...] | None = None  # tokens that the training text lacks, ascending; None if unknown
    parameters: dict[str, Any] = field(default_factory=dict)  # of the run, from the manifest beside the file
    folder: Path | None = None  # the run folder, if that was opened

    def _shown(self) -> dict[str, Any]:
        """Return facts about the recording, without its states."""
        facts = {"path": str(self.path), "n_rows": self.n_rows, "record_every": self.record_every}
        return {**facts, "n_tokens": self.n_tokens, "dim": self.dim, "grid": self.grid.name}

    @classmethod
    def open(cls, source: str | Path, *, tensor: str | None = None) -> Self:
        """Open the history in a run folder or a `.safetensors` file, with the `corpus.json` and `manifest.json` beside.

        The run may be in progress: rows beyond the header's `recorded` are ignored. `tensor` is the key, by default
        `embedding_history`. Raises MissingFile if there is no file, or no history in the folder; NoEmbedding if the
        file has no such key; CorruptFile for a tensor that is no history, a header that contradicts it, or bad JSON.
        """
        if not (asked := Path(source)).exists():
            raise MissingFile(f"no file or folder {str(asked)!r}; give a run folder or a .safetensors history")
        path = asked / HISTORY_FILE if asked.is_dir() else asked
        if not path.is_file():
            raise MissingFile(f"{asked} has no {HISTORY_FILE}; {_instead(asked)}")
        key = tensor or HISTORY_KEY
        tensors = read_tensors(path)
        if key not in tensors:
            keys = listed([f"{printable(t.name)} {t.dtype} {list(t.shape)}" for t in tensors.values()], 8)
            raise NoEmbedding(SENTENCES["no_history"].format(path=path, key=key, keys=keys or "no tensors"))
        held = tensors[key]
        what = f"{path}: tensor {printable(key)!r} is {held.dtype} {list(held.shape)}"
        if len(held.shape) != 3:
            raise CorruptFile(f"{what}; a history is [rows, vocabulary, dim]")
        if held.dtype not in HISTORY_DTYPES:
            raise CorruptFile(f"{what}; a history keeps its words in one of {', '.join(HISTORY_DTYPES)}")
        if 0 in held.shape:
            raise CorruptFile(f"{what}: nothing is in it")
        metadata = read_metadata(path)
        if not (every := header_count(path, metadata, "record_every", 1)):
            raise CorruptFile(f"{path}: record_every is 0; rows must be an optimizer step apart or more")
        beside = (path.parent / name for name in ("corpus.json", "manifest.json"))
        corpus, manifest = (read_object(place) if place.is_file() else {} for place in beside)
        parameters = manifest.get("parameters", {})
        if not isinstance(parameters, dict):
            raise CorruptFile(f"{path.parent / 'manifest.json'}: its parameters are no JSON object")
        return cls(
            tensor=held,
            grid=as_grid(GRID_OF_DTYPE[held.dtype]),
            n_rows=n_recorded(held, metadata),
            n_planned=held.shape[0],
            record_every=every,
            first_step=header_count(path, metadata, "first_step", 0),
            ids=_ids(path.parent / "manifest.json", parameters, held.shape[1]),
            unseen=_unseen(path.parent / "corpus.json", corpus, held.shape[1]) if "unseen" in corpus else None,
            parameters=parameters,
            folder=asked if asked.is_dir() else None,
        )

    @property
    def path(self) -> Path:
        assert isinstance(self.tensor.path, Path)  # `open` takes nothing else
        return self.tensor.path

    @property
    def n_tokens(self) -> int:
        return self.tensor.shape[1]

    @property
    def tokens(self) -> Int64[np.ndarray, " n_tokens"]:
        """Token id of each row of a state."""
        return np.arange(self.n_tokens) if self.ids is None else np.array(self.ids)

    @property
    def dim(self) -> int:
        return self.tensor.shape[2]

    @property
    def state_bytes(self) -> int:
        """Size of one state in bytes."""
        return self.tensor.nbytes // self.n_planned

    def step(self, row: int) -> int:
        """Return the number of optimizer steps taken before this row was recorded."""
        return self.first_step + row * self.record_every

    def rows(self, every: int = 1) -> list[int]:
        """Return rows 0, `every`, 2 `every`, ... and the last one; raises InvalidInput if `every` is below 1."""
        if every < 1:
            raise InvalidInput(f"every must be >= 1 rows, got {every}")
        rows = list(range(0, self.n_rows, every))
        return rows if rows[-1] == self.n_rows - 1 else [*rows, self.n_rows - 1]

    def words(self, rows: Iterable[int], progress: Advance | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield row and words [n_tokens, dim] of these states, one in memory at a time.

        The file is read, not mapped: one that is truncated meanwhile raises CorruptFile and does not end the process.
        """
        with self.path.open("rb", buffering=0) as file:
            for row in rows:
                words = np.empty((self.n_tokens, self.dim), self.grid.word_dtype)
                file.seek(self.tensor.offset + row * self.state_bytes)
                left = words.data.cast("B")
                while count := left and file.readinto(left):  # a system reads some 2 GB at a time
                    left = left[count:]
                if left:
                    raise CorruptFile(f"{self.path}: ends within row {row:,}; it was cut")
                yield row, words
                if progress:
                    progress(1)


def _instead(folder: Path) -> str:
    """Suggest what to give instead of a folder without a history."""
    if inside := sorted(item.parent.name for item in folder.glob(f"*/{HISTORY_FILE}")):
        return f"{listed(inside, 3)} in it have one: give one of these folders"
    if files := sorted(item.name for item in folder.glob("*.safetensors")):
        return f"it has {listed(files, 5)}: give one of these"
    return "give the folder of a training run"


def _ids(place: Path, parameters: dict[str, Any], n_tokens: int) -> tuple[int, ...] | None:
    if (ids := parameters.get("token_ids")) is None:
        return None
    if not (isinstance(ids, list) and all(type(token) is int for token in ids) and len(ids) == n_tokens):
        raise CorruptFile(f"{place}: token_ids must be a list of the {n_tokens:,} tokens that were recorded")
    return tuple(ids)


def _unseen(place: Path, corpus: dict[str, Any], n_tokens: int) -> tuple[int, ...]:
    tokens = corpus["unseen"]
    if not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
        raise CorruptFile(f"{place}: unseen must be a list of token ids")
    try:
        return check_tokens(tokens, n_tokens)
    except InvalidInput as error:
        raise CorruptFile(f"{place}: {error}") from None


def check_tokens(tokens: Iterable[int], n_tokens: int) -> tuple[int, ...]:
    """Return token ids in ascending order without duplicates; raises InvalidInput for one outside the vocabulary."""
    ascending = tuple(sorted(set(tokens)))
    if outside := [token for token in ascending if not 0 <= token < n_tokens]:
        raise InvalidInput(f"unseen token {outside[0]} is not one of the history's {n_tokens:,}: 0 to {n_tokens - 1:,}")
    return ascending


def parse_tokens(text: str, n_tokens: int) -> tuple[int, ...]:
    """Parse token ids from text as `0-8,127`, or read them from a JSON file: a list, or an object with a list `unseen`.

    Raises InvalidInput for other text, an id outside the vocabulary or a reversed range; MissingFile.

    Examples
    --------
    >>> parse_tokens("0-3,127", 128)
    (0, 1, 2, 3, 127)
    """
    if not re.fullmatch(r"[0-9,\s-]*", text):
        path = Path(text)
        if not path.is_file():
            raise MissingFile(f"no file {text!r}; name unseen tokens by id, as 0-8,127, or by a JSON file")
        content = read_json(path)
        corpus = content if isinstance(content, dict) else {"unseen": content}
        if "unseen" not in corpus:
            raise CorruptFile(f"{path}: a JSON object without a list named unseen")
        return _unseen(path, corpus, n_tokens)
    tokens: list[int] = []
    for part in text.replace(" ", "").split(","):
        ends = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if first > last:
            raise InvalidInput(f"unseen tokens are named as 0-8,127, got {part!r}")
        check_tokens([first, last], n_tokens)  # before a long range takes memory
        tokens += range(first, last + 1)
    return check_tokens(tokens, n_tokens)
