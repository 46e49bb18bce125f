"""EmbeddingMatrix: the rows that a model gives its tokens, on their number grid, with provenance and token texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64, UInt

from ..errors import CorruptFile, InvalidInput, NoEmbedding
from ..numerics import GRIDS, Grid, as_grid, decode, encode, to_index
from ..numerics.grids import regrid
from ..numerics.grouping import Groups, chunks, identical_rows
from ..sources import File, Source, Tensor, open_source
from ..sources.gguf import dequantised, n_numbers
from ..sources.safetensors import read_metadata
from ..sources.tokenizer import load_tokenizer, texts_by_id
from ..text import printable

if TYPE_CHECKING:
    from ..gpu.device import Device

GRID_OF_DTYPE = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}

HISTORY = "embedding_history"  # key of the states [rows, n_tokens, dim] that a training recorded

# Endings of tensor names, the most telling first: T5 and BART (whose encoder and decoder may hold copies), Llama, Qwen,
# Gemma and DeepSeek, GPT-2, GPT-NeoX, BERT, GGUF, Mamba, bare.
INPUT_NAMES = (
    "shared.weight",
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "token_embd.weight",
    "backbone.embedding.weight",
    "backbone.embeddings.weight",
    "token_embedding.weight",
    "transformer.embedding.word_embeddings.weight",
    "embedding.weight",
    "embeddings.weight",
)
OUTPUT_NAMES = (
    "lm_head.weight",
    "embed_out.weight",
    "output.weight",
    "cls.predictions.decoder.weight",
    "lm_head.decoder.weight",
    "transformer.output_layer.weight",
    "transformer.ff_out.weight",
)


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.is_float and len(tensor.shape) == 2 and 0 not in tensor.shape


def _is_history(tensor: Tensor) -> bool:
    return tensor.is_float and len(tensor.shape) == 3 and 0 not in tensor.shape


def _by_name(source: Source, endings: tuple[str, ...], fits: Callable[[Tensor], bool]) -> Tensor | None:
    """The tallest that fits of those named most tellingly; only tensors with such names are looked up."""
    for ending in endings:
        named = [source.tensors[name] for name in source.tensors if _ends(name, ending)]
        if found := [tensor for tensor in named if fits(tensor)]:
            return max(found, key=lambda tensor: tensor.shape[0])
    return None


def _listed(matrices: list[Tensor]) -> str:
    tallest = sorted(matrices, key=lambda tensor: -tensor.shape[0])
    lines = [f"  {printable(t.name)}  {t.dtype} {t.shape[0]:,} x {t.shape[1]:,}" for t in tallest[:12]]
    return "\n".join([*lines, f"  and {len(tallest) - 12} more"] if len(tallest) > 12 else lines)


def _setting(config: dict, name: str, kind: type) -> Any:
    """A setting of this type of a config, or of a text model (what has a vocabulary) that it nests; else None."""
    nested = (value for value in config.values() if isinstance(value, dict) and type(value.get("vocab_size")) is int)
    return next((part[name] for part in (config, *nested) if type(part.get(name)) is kind), None)


def header_count(path: File, metadata: dict[str, str], name: str, absent: int) -> int:
    """A count that a header's texts hold under this name.

    Raises
    ------
    CorruptFile
        The text is no count.
    """
    text = metadata.get(name, str(absent)).strip()
    if not re.fullmatch("[0-9]{1,18}", text):
        raise CorruptFile(f"{path}: {name} must be a count, its header says {printable(text)[:40]!r}")
    return int(text)


def n_recorded(history: Tensor, metadata: dict[str, str]) -> int:
    """States [rows, n_tokens, dim] that are written, by the texts of the file's header; behind them are zeros.

    Raises
    ------
    CorruptFile
        More than there is room for, or none.
    """
    n_rows = header_count(history.path, metadata, "recorded", history.shape[0])
    if n_rows > history.shape[0]:
        raise CorruptFile(f"{history.path}: says that {n_rows:,} rows are recorded, has room for {history.shape[0]:,}")
    if not n_rows:
        raise CorruptFile(f"{history.path}: no row is recorded yet; wait for the first, or train again")
    return n_rows


def _state(history: Tensor, row: int | None = None) -> tuple[Tensor, str]:
    """One state of a history, by default the last that is recorded, and which it is.

    Raises
    ------
    CorruptFile
        As `n_recorded`.
    InvalidInput
        No such row.
    """
    metadata = read_metadata(history.path) if history.path.suffix == ".safetensors" else {}
    n_rows = n_recorded(history, metadata)
    at = n_rows - 1 if row is None else row
    if at >= n_rows:
        raise InvalidInput(
            f"{history.path}: {n_rows:,} rows of {history.name!r} are recorded, {history.name}[0] to "
            f"{history.name}[{n_rows - 1}]; there is no row {at}"
        )
    which = f"the last of {n_rows:,} recorded rows" if at == n_rows - 1 else f"row {at:,} of {n_rows:,} recorded"
    return history.part(at), which


def _matrices(source: Source) -> list[Tensor]:
    return [tensor for tensor in source.tensors.values() if _is_matrix(tensor)]


def find_embedding(source: Source, tensor: str | None = None, n_texts: int | None = None) -> tuple[Tensor, str]:
    """The input embedding tensor of a source, and how it was chosen.

    By the name asked for (`NAME[ROW]`: a row of a three-dimensional tensor, as a history is); else by the usual names;
    else the last recorded row of a history; else by shape: the only matrix with as many rows as the config's vocabulary
    (or, without one, as the tokenizer has texts), or the only matrix, or one at least twice as tall as any other.

    Raises
    ------
    InvalidInput
        The tensor asked for is not there, or is no matrix of floating-point numbers.
    NoEmbedding
        No choice is plain; the message lists the candidates.
    """
    tensors = source.tensors
    if tensor is not None:
        numbered = re.fullmatch(r"(.+)\[([0-9]{1,18})\]", tensor, re.DOTALL)
        if tensor not in tensors and numbered and numbered[1] in tensors and _is_history(tensors[numbered[1]]):
            part, which = _state(tensors[numbered[1]], int(numbered[2]))
            return part, f"as asked: {which}"
        if tensor not in tensors:
            raise InvalidInput(f"no tensor {tensor!r} in {source.asked}; its matrices:\n{_listed(_matrices(source))}")
        asked = tensors[tensor]
        if tensor == HISTORY and _is_history(asked):
            last, which = _state(asked)
            return last, f"as asked: {which}"
        if not _is_matrix(asked):
            parts = f"; {tensor}[0] is one" if _is_history(asked) else ""
            raise InvalidInput(
                f"tensor {tensor!r} is {asked.dtype} {list(asked.shape)}, not a matrix of floating-point numbers{parts}"
                f"; the matrices of {source.asked}:\n{_listed(_matrices(source))}"
            )
        return asked, "as asked"
    if named := _by_name(source, INPUT_NAMES, _is_matrix):
        return named, "by name"
    if HISTORY in tensors and _is_history(tensors[HISTORY]):
        last, which = _state(tensors[HISTORY])
        return last, f"by name: {which}"
    matrices = _matrices(source)
    size = _setting(source.config, "vocab_size", int) or n_texts
    fitting = [t for t in matrices if t.shape[0] == size]
    if len(fitting) == 1:
        return fitting[0], f"by shape: the only matrix of {size:,} rows, the size of the vocabulary"
    if len(matrices) == 1:
        return matrices[0], "by shape: the only matrix"
    tallest = sorted(matrices, key=lambda t: -t.shape[0])
    if tallest and tallest[0].shape[0] >= 2 * tallest[1].shape[0] and tallest[0].shape[0] > tallest[0].shape[1]:
        return tallest[0], f"by shape: {tallest[0].shape[0]:,} rows, at least twice those of any other matrix"
    if not matrices:
        raise NoEmbedding(
            f"{source.asked} has no matrix of floating-point numbers among its {len(source.tensors)} tensors"
        )
    raise NoEmbedding(
        f"no tensor of {source.asked} is plainly the embedding; choose one with --tensor NAME:\n{_listed(matrices)}"
    )


def find_scales(source: Source, tensor: Tensor) -> str | None:
    """Name of the tensor that scales an 8-bit one, where it lies beside it."""
    stem = tensor.name.removesuffix("weight").removesuffix(".")
    names = (*(f"{tensor.name}{end}" for end in ("_scale_inv", "_scale", "_scales")), f"{stem}.scale", f"{stem}.scales")
    return next((name for name in names if tensor.dtype.startswith("F8") and name in source.tensors), None)


def find_output(source: Source, embedding: Tensor) -> Tensor | None:
    """The output embedding tensor (unembedding), by name; None where the source has none of its own.

    One of the embedding's shape, else one that has other rows (a head that is padded) or another width. The embedding
    itself where it goes by such a name.
    """
    if any(_ends(embedding.name, ending) for ending in OUTPUT_NAMES):
        return embedding

    def shaped(tensor: Tensor) -> bool:
        return _is_matrix(tensor) and tensor.shape == embedding.shape and tensor != embedding

    def other(tensor: Tensor) -> bool:  # an `output.weight` of another shape within a model is a layer's
        return _is_matrix(tensor) and not tensor.name.endswith(".output.weight")

    return _by_name(source, OUTPUT_NAMES, shaped) or _by_name(source, OUTPUT_NAMES, other)


def _is_tied(source: Source, embedding: Tensor, output: Tensor | None) -> bool:
    """Whether input and output are one matrix: told by the tensors, and by the config where there is no output tensor.

    No word in the config means tied, as `transformers` has it.
    """
    other = _by_name(source, INPUT_NAMES, _is_matrix) if output == embedding else output
    if other is None:
        return _setting(source.config, "tie_word_embeddings", bool) is not False
    return _same_words(embedding, other)


def _same_words(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if (a.path, a.offset) == (b.path, b.offset):
        return True
    x, y = a.words(), b.words()
    return all(np.array_equal(x[rows], y[rows]) for rows in chunks(x))


def find_copies(source: Source, tensor: Tensor) -> list[Tensor]:
    """The tensor itself, and those under the usual names of embeddings, input or output, that hold the same words."""
    endings = INPUT_NAMES + OUTPUT_NAMES
    named = [source.tensors[name] for name in source.tensors if any(_ends(name, ending) for ending in endings)]
    return [tensor, *(t for t in named if t != tensor and t.is_float and _same_words(t, tensor))]


@dataclass(frozen=True, kw_only=True)
class EmbeddingMatrix:
    """One row per token: the stored words on their grid, memory-mapped where they come from a file.

    Of a quantised matrix the words are the blocks' bytes; its rows are what these dequantise to, in float32, a few rows
    at a time. Its census is over those values: equal blocks are equal rows, and so are blocks that differ and mean the
    same.
    """

    words: UInt[np.ndarray, "n_tokens stored"]
    grid: Grid
    quantised: str | None = None  # type of the blocks whose bytes `words` holds, where each row is such; Q4_K, ...
    tensor: str = "array"
    chosen: str = "as given"  # how the tensor was found
    output: str | None = None  # name of the output tensor, where there is one
    texts: dict[int, str] = field(default_factory=dict, repr=False)  # token id to text, as the tokenizer names it
    tokenizer: Any = field(default=None, repr=False)  # tokenizers.Tokenizer, or the TokenTexts of a GGUF file
    path: File | None = None  # the file that holds the words
    source: Source | None = field(default=None, repr=False)  # the checkpoint
    held: Tensor | None = field(default=None, repr=False)  # its tensor that holds the words

    @classmethod
    def open(
        cls, source: str | Path | Source, *, tensor: str | None = None, tokenizer: str | Path | None = None
    ) -> EmbeddingMatrix:
        """The input embedding of a checkpoint: a file, or a model folder (`open_source` says which).

        Parameters
        ----------
        tensor : the tensor to take instead of the one found; `NAME[ROW]` for a row of a history
        tokenizer : a `tokenizer.json`, instead of the one in the folder or the file; "none" for no texts

        Raises
        ------
        MissingFile, CorruptFile, InvalidInput
            As `open_source`, and a `tokenizer.json` that cannot be read.
        NoEmbedding
            As `find_embedding`.
        """
        if not isinstance(source, Source):
            source = open_source(source)
        named = source.tokenizer if tokenizer is None else Path(tokenizer) if tokenizer != "none" else None
        loaded = load_tokenizer(named) if named else None if tokenizer == "none" else source.texts or None
        texts = {} if loaded is None else texts_by_id(loaded)
        return cls._made(source, *find_embedding(source, tensor, len(texts) or None), texts, loaded)

    @classmethod
    def _made(
        cls, source: Source, found: Tensor, chosen: str, texts: dict[int, str], tokenizer: Any
    ) -> EmbeddingMatrix:
        """Matrix of a tensor; raises InvalidInput where its type is no grid."""
        if found.dtype not in GRID_OF_DTYPE and not found.block:
            raise InvalidInput(
                f"{found.path}: tensor {found.name!r} is {found.dtype}, which is no grid here; save it as float32"
            )
        if scales := find_scales(source, found):
            chosen += f"; rows as stored, not multiplied by {scales}"
        output = find_output(source, found)
        return cls(
            words=found.words(),
            grid=as_grid(GRID_OF_DTYPE.get(found.dtype, "float32")),
            quantised=found.dtype if found.block else None,
            tensor=found.name,
            chosen=chosen,
            output=output.name if output else None,
            texts=texts,
            tokenizer=tokenizer,
            path=found.path,
            source=source,
            held=found,
        )

    @cached_property
    def tied(self) -> bool:
        """Whether the output matrix is this one: by its words, which are read for it now, or by the config where no
        tensor holds it."""
        if self.source is None or self.held is None:
            return True
        return _is_tied(self.source, self.held, self.source.tensors[self.output] if self.output else None)

    def unembedding(self) -> EmbeddingMatrix | None:
        """The output matrix, whose rows score the tokens: this one where it is tied, else the output tensor.

        None where the model is untied and the checkpoint holds no output tensor. It may have other rows than the
        embedding (a head that is padded).

        Raises
        ------
        InvalidInput
            The output tensor's type is no grid.
        """
        if self.tied or self.output == self.tensor:
            return self
        if self.source is None or self.output is None:
            return None
        return self._made(
            self.source, self.source.tensors[self.output], "by name, as the output", self.texts, self.tokenizer
        )

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """Rows and columns of the output tensor, where there is one."""
        return self.source.tensors[self.output].shape if self.source and self.output else None

    @classmethod
    def from_array(cls, array: Any, grid: str | None = None) -> EmbeddingMatrix:
        """Rows from memory: a numpy array (ml_dtypes included) or a torch tensor, [n_tokens, dim].

        `grid` rounds them first; by default the array's own type is the grid.

        Raises
        ------
        InvalidInput
            Not two-dimensional, or a type that is no grid while none is given.
        """
        own = str(array.dtype).removeprefix("torch.")
        if hasattr(array, "detach"):  # a torch tensor, without importing torch
            array = array.detach().cpu().contiguous()
            array = array.float().numpy() if own in GRIDS else array.numpy()
        array = np.asarray(array)
        if array.ndim != 2:
            raise InvalidInput(f"needs rows, [n_tokens, dim], got shape {list(array.shape)}")
        if grid is None and own not in GRIDS:
            raise InvalidInput(f"{own} is no grid; give grid=, one of {', '.join(GRIDS)}")
        values = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
        target = as_grid(grid or own)
        return cls(words=encode(np.ascontiguousarray(values), target), grid=target)

    @classmethod
    def of(cls, rows: EmbeddingMatrix | Any, grid: str | None = None) -> EmbeddingMatrix:
        """A matrix itself, or rows from memory as `from_array`; `grid` serves where their type is no grid."""
        if isinstance(rows, EmbeddingMatrix):
            return rows
        return cls.from_array(rows, None if str(rows.dtype).removeprefix("torch.") in GRIDS else grid)

    @property
    def n_tokens(self) -> int:
        return self.words.shape[0]

    @property
    def dim(self) -> int:
        stored = self.words.shape[1]
        return n_numbers(stored, self.quantised) if self.quantised else stored

    @property
    def stored(self) -> str:
        """What a row is stored in: a grid, or a quantised type."""
        return self.quantised or self.grid.name

    @property
    def n_beyond_tokenizer(self) -> int | None:
        """Rows whose id no tokenizer text has; None without a tokenizer."""
        return self.n_tokens - sum(token < self.n_tokens for token in self.texts) if self.texts else None

    def _read(self, words: np.ndarray) -> np.ndarray:
        """Words on the grid, of rows as they are stored."""
        return dequantised(words, self.quantised).view(np.uint32) if self.quantised else words

    def rows(self, tokens: Int[np.ndarray, " k"] | list[int] | slice) -> Float32[np.ndarray, "k dim"]:
        """Values of these tokens' rows."""
        return decode(self._read(self.words[tokens]), self.grid)

    def index(
        self, tokens: Int[np.ndarray, " k"] | list[int], grid: str | Grid | None = None
    ) -> Int64[np.ndarray, "k dim"]:
        """Ordered indices of these tokens' rows, after rounding to `grid` where one is given."""
        target = as_grid(grid or self.grid)
        return to_index(self.rounded(tokens, target), target)

    def rounded(self, tokens: Int[np.ndarray, " k"] | list[int] | slice, grid: str | Grid) -> UInt[np.ndarray, "k dim"]:
        """Words of these tokens' rows, rounded to a grid."""
        return regrid(self._read(self.words[tokens]), self.grid, as_grid(grid))

    def groups(
        self,
        grid: str | Grid | None = None,
        *,
        bitwise: bool = False,
        device: Device | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Groups:
        """Tokens with equal rows, after rounding to `grid` where one is given; found on a device where one is given.

        Raises
        ------
        CorruptFile
            Rows with NaN or infinity; the message names the tokens.
        InvalidInput
            Rows that overflow `grid`.
        """
        target = as_grid(grid or self.grid)
        plain = target == self.grid and not self.quantised
        rounded = None if plain else lambda words: regrid(self._read(words), self.grid, target)
        how: dict[str, Any] = {"bitwise": bitwise, "rounded": rounded, "progress": progress}
        if device is None:
            groups = identical_rows(self.words, **how)
        else:
            from ..gpu import batch

            groups = batch.identical_rows(device, self.words, **how)
        beyond = np.flatnonzero(groups.largest_code > target.max_code)
        if beyond.size:
            stored = np.isfinite(self.rows(beyond[:8])).all()
            named = ", ".join(self.label(token) for token in beyond[:8]) + (", ..." if beyond.size > 8 else "")
            if not stored:
                raise CorruptFile(
                    f"{beyond.size:,} of {self.n_tokens:,} rows of {self.tensor} hold NaN or infinity: tokens {named}; "
                    "no census of such rows is true"
                )
            raise InvalidInput(
                f"{beyond.size:,} of {self.n_tokens:,} rows of {self.tensor} overflow {target.name} "
                f"(largest value {target.max_value:g}): tokens {named}; choose a wider grid"
            )
        return groups

    def norms(self) -> Float64[np.ndarray, " n_tokens"]:
        """Euclidean norm of every row, summed in float64."""
        from ..numerics._backends.products import squares_and_sums

        squares, sums = np.empty(self.n_tokens), np.empty(self.dim)
        for rows in chunks(self.words):
            squares_and_sums(self.rows(rows), squares[rows], sums)
        return np.sqrt(squares)

    def label(self, token: int | np.integer) -> str:
        """A token's id, and its text where there is one: ``125 '~'``."""
        text = self.texts.get(int(token))
        return f"{token}" if text is None else f"{token} {text!r}"
