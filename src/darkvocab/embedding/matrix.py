"""The embedding matrix of a model: a row for each token, on its number grid, with provenance and token texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int64, UInt

from ..errors import CorruptFile, InvalidInput
from ..numerics import GRIDS, Grid, as_grid, decode, encode, to_index
from ..numerics.grids import regrid
from ..numerics.grouping import Groups, chunks, identical_rows
from ..progress import Advance
from ..sources import File, Source, Tensor, open_source
from ..sources.tokenizer import Tokenizer, open_tokenizer, tokenizer_of
from ..text import Shown, printable
from .find import find_embedding, find_notes, find_output, is_tied, said_tied
from .scales import GRID_OF_DTYPE, SENTENCES, Packing, Rows, find_packing, find_scales

if TYPE_CHECKING:
    from ..gpu.device import Device


@dataclass(frozen=True, kw_only=True)
class Tying:
    """Facts on the tying of a checkpoint's input and output matrices, with contradictions of its config."""

    said: bool | None  # `tie_word_embeddings` of the config; None if it is missing, or a nested config disagrees
    tied: bool  # true if both hold the same words; without an output tensor, as the config says
    n_differ: int | None  # rows of the output that differ from the input, although the config says tied
    lacks_output: bool  # the config says untied, and there is no output tensor
    sentence: str | None  # describes the contradiction


@dataclass(frozen=True, kw_only=True, repr=False)
class EmbeddingMatrix(Shown):
    """One row per token: the stored words (bit patterns) on their grid, memory-mapped if they come from a file.

    The words of a quantised matrix are bytes of blocks, codes, or numbers to be scaled. Its rows are the float32
    values that these stand for, computed for a few rows at a time. The census compares these values, so different
    blocks with the same values are equal rows.

    Row i belongs to token i unless rows were left out (`without`); then `token_ids` names the tokens.
    """

    words: UInt[np.ndarray, "n_tokens stored"]
    grid: Grid
    packing: Packing | None = None  # what the words of a quantised matrix mean; None: they are the grid's
    tensor: str = "array"
    chosen: str = "as given"  # says how the tensor was found
    output: str | None = None  # name of the output tensor, if there is one
    texts: dict[int, str] = field(default_factory=dict)  # token id to text, as the tokenizer names it
    tokenizer: Tokenizer | None = None
    path: File | None = None  # the file that holds the words
    source: Source | None = None  # the checkpoint
    held: Tensor | None = None  # its tensor that holds the words
    notes: tuple[str, ...] = ()  # on other tensors with rows of tokens, and changes that are not applied
    skipped: tuple[int, ...] = ()  # tokens whose rows were left out

    def _shown(self) -> dict[str, Any]:
        """Return facts about the matrix, without its rows."""
        facts = {"tensor": self.tensor, "n_tokens": self.n_tokens, "dim": self.dim, "grid": self.stored}
        return {**facts, "chosen": self.chosen, "output": self.output, "path": self.path and str(self.path)}

    @classmethod
    def open(
        cls, source: str | Path | Source, *, tensor: str | None = None, tokenizer: str | Path | None = None
    ) -> EmbeddingMatrix:
        """Open the input embedding of a checkpoint: a file, or a model folder (as `open_source`).

        `tensor` names another tensor, or with `NAME[ROW]` a row of a history; `tokenizer` another tokenizer than that
        of the checkpoint, or "none" for no texts. Raises as `open_source`, `find_embedding` and `open_tokenizer`.
        """
        if not isinstance(source, Source):
            source = open_source(source)
        loaded = None
        if tokenizer != "none":
            loaded = tokenizer_of(source) if tokenizer is None else open_tokenizer(tokenizer)
        n_texts = len(loaded.texts) if loaded else None
        return cls._made(source, *find_embedding(source, tensor, n_texts or None), loaded)

    @classmethod
    def _made(cls, source: Source, tensor: Tensor, chosen: str, tokenizer: Tokenizer | None) -> EmbeddingMatrix:
        """Return the matrix of a tensor; raises InvalidInput if its type has no grid."""
        packing = find_packing(source, tensor)
        if packing is None and tensor.dtype not in GRID_OF_DTYPE:
            raise InvalidInput(SENTENCES["no_grid"].format(tensor=tensor))
        if scales := find_scales(source, tensor):
            chosen += f"; scaled by {scales}"
        output = find_output(source, tensor)
        return cls(
            words=tensor.packed(),
            grid=as_grid(GRID_OF_DTYPE[tensor.dtype] if packing is None else "float32"),
            packing=packing,
            tensor=tensor.name,
            chosen=chosen,
            output=output.name if output else None,
            texts=tokenizer.texts if tokenizer else {},
            tokenizer=tokenizer,
            path=tensor.path,
            source=source,
            held=tensor,
            notes=find_notes(source, tensor),
        )

    @cached_property
    def tied(self) -> bool:
        """True where this is the output matrix, too (as `is_tied`, which may read both)."""
        if self.source is None or self.held is None:
            return True
        return is_tied(self.source, self.held, self.source.tensors[self.output] if self.output else None)

    def unembedding(self) -> EmbeddingMatrix | None:
        """Return the output matrix (unembedding), whose rows score tokens: this one if tied, else the output tensor.

        None if the model is untied and the checkpoint holds no output tensor. Its number of rows may differ from the
        embedding's (a padded head). Raises InvalidInput if its type has no grid.
        """
        if self.tied or self.output == self.tensor:
            return self
        if self.source is None or self.output is None:
            return None
        return self._made(self.source, self.source.tensors[self.output], "by name, as the output", self.tokenizer)

    @cached_property
    def tying(self) -> Tying:
        """Tying by config and by tensors; the output tensor is read if they disagree."""
        if self.skipped and self.source and self.held:
            return self._made(self.source, self.held, self.chosen, self.tokenizer).tying
        n_differ = sentence = None
        said = said_tied(self.source) if self.source else None
        output = self.unembedding()
        output = None if output is self else output
        lacks_output = said is False and output is None and self.output is None
        if said and not self.tied and output is not None:
            n_differ = _n_differing(self, output)
            names = {"named": printable(output.tensor), "tied_to": printable(self.tensor)}
            sentence = SENTENCES["said_tied"].format(n_differ=n_differ, output=output, **names)
        if lacks_output:
            sentence = SENTENCES["said_untied"]
        return Tying(said=said, tied=self.tied, n_differ=n_differ, lacks_output=lacks_output, sentence=sentence)

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """Rows and columns of the output tensor, if there is one."""
        if not (self.source and self.output):
            return None
        output = self.source.tensors[self.output]
        packing = find_packing(self.source, output)
        return output.shape if packing is None else (output.shape[0], packing.dim)

    @classmethod
    def from_array(cls, array: Any, grid: str | None = None) -> EmbeddingMatrix:
        """Take rows from memory: a numpy array (ml_dtypes included) or a torch tensor, [n_tokens, dim].

        With `grid` they are rounded to it first; the default is the grid of the array's type. Raises InvalidInput if
        they are not two-dimensional, or without `grid` if their type has none.
        """
        stored = str(array.dtype).removeprefix("torch.")
        if hasattr(array, "detach"):  # a torch tensor, without importing torch
            array = array.detach().cpu().contiguous()
            array = array.float().numpy() if stored in GRIDS else array.numpy()
        array = np.asarray(array)
        if array.ndim != 2:
            raise InvalidInput(f"needs rows, [n_tokens, dim], got shape {list(array.shape)}")
        if grid is None and stored not in GRIDS:
            raise InvalidInput(f"{stored} is no grid; give grid=, one of {', '.join(GRIDS)}")
        values = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
        target = as_grid(grid or stored)
        return cls(words=encode(np.ascontiguousarray(values), target), grid=target)

    @classmethod
    def of(cls, rows: EmbeddingMatrix | Any, grid: str | None = None) -> EmbeddingMatrix:
        """Return a matrix as it is, or one from memory (`from_array`); `grid` is used if its type has none."""
        if isinstance(rows, EmbeddingMatrix):
            return rows
        return cls.from_array(rows, None if str(rows.dtype).removeprefix("torch.") in GRIDS else grid)

    @property
    def n_tokens(self) -> int:
        return self.words.shape[0]

    @property
    def dim(self) -> int:
        return self.packing.dim if self.packing else self.words.shape[1]

    @property
    def quantised(self) -> str | None:
        """Type of a quantised matrix (Q4_K, ...); None if it is not quantised."""
        return self.packing.name if self.packing else None

    @property
    def stored(self) -> str:
        """Grid or quantised type of the stored rows."""
        return self.quantised or self.grid.name

    @cached_property
    def token_ids(self) -> Int64[np.ndarray, " n_tokens"]:
        """Token id of each row."""
        every = np.arange(self.n_tokens + len(self.skipped))
        return np.delete(every, self.skipped) if self.skipped else every

    @property
    def n_beyond_tokenizer(self) -> int | None:
        """Number of rows whose token id the tokenizer does not have; None without a tokenizer."""
        return sum(token not in self.texts for token in self.token_ids.tolist()) if self.texts else None

    def without(self, tokens: Iterable[int]) -> EmbeddingMatrix:
        """Return a copy of a complete matrix without the rows of these tokens; raises InvalidInput if none is left."""
        if not (skipped := tuple(sorted(set(tokens)))):
            return self
        kept = np.delete(np.arange(self.n_tokens), skipped)
        if not len(kept):
            raise InvalidInput(f"all {self.n_tokens:,} rows of {self.tensor} hold NaN or infinity: none is left")
        return replace(self, words=self.words[kept], packing=self.packing and self.packing.of(kept), skipped=skipped)

    def nonfinite(self) -> list[int]:
        """Read all rows and return the tokens whose rows hold NaN or infinity, ascending."""
        bad = [rows.start + np.flatnonzero(~np.isfinite(self.rows(rows)).all(axis=1)) for rows in chunks(self.words)]
        return self.token_ids[np.concatenate(bad)].tolist()

    def _read(self, rows: Rows) -> np.ndarray:
        """Return these rows as words of the grid."""
        words = self.words[rows]
        return words if self.packing is None else self.packing.values(words, rows).view(np.uint32)

    def rows(self, tokens: Rows) -> Float32[np.ndarray, "k dim"]:
        """Return the values of these rows."""
        return decode(self._read(tokens), self.grid)

    def index(self, tokens: Rows, grid: str | Grid | None = None) -> Int64[np.ndarray, "k dim"]:
        """Return ordered indices of these rows, rounded to `grid` if one is given."""
        target = as_grid(grid or self.grid)
        return to_index(self.rounded(tokens, target), target)

    def rounded(self, tokens: Rows, grid: str | Grid) -> UInt[np.ndarray, "k dim"]:
        """Return these rows as words of `grid`, rounded to it."""
        return regrid(self._read(tokens), self.grid, as_grid(grid))

    def groups(
        self,
        grid: str | Grid | None = None,
        *,
        bitwise: bool = False,
        device: Device | None = None,
        progress: Advance | None = None,
    ) -> Groups:
        """Group tokens with equal rows, rounded to `grid` if one is given, on a device if one is given.

        Raises CorruptFile for rows with NaN or infinity, InvalidInput for rows that overflow `grid`, with the tokens.
        """
        target = as_grid(grid or self.grid)
        plain = target == self.grid and self.packing is None
        rounded = None if plain else lambda rows: self.rounded(rows, target)
        options: dict[str, Any] = {"bitwise": bitwise, "rounded": rounded, "progress": progress}
        if device is None:
            groups = identical_rows(self.words, **options)
        else:
            from ..gpu import device as batch

            groups = batch.identical_rows(device, self.words, **options)
        beyond = np.flatnonzero(groups.largest_code > target.max_code)
        if beyond.size:
            stored = np.isfinite(self.rows(beyond[:8])).all()
            named = ", ".join(self.label(token) for token in beyond[:8]) + (", ..." if beyond.size > 8 else "")
            if not stored:
                raise CorruptFile(SENTENCES["not_finite"].format(beyond=beyond, matrix=self, named=named))
            raise InvalidInput(SENTENCES["overflow"].format(beyond=beyond, matrix=self, target=target, named=named))
        return groups

    def label(self, token: int | np.integer) -> str:
        """Return the id of a row's token and its text, if it has one: ``125 '~'``."""
        token = int(self.token_ids[token])
        text = self.texts.get(token)
        return f"{token}" if text is None else f"{token} {text!r}"


def _n_differing(a: EmbeddingMatrix, b: EmbeddingMatrix) -> int:
    """Count the rows of `b` that `a` lacks or has with other values; NaN equals NaN."""
    if a.dim != b.dim:
        return b.n_tokens
    n = min(a.n_tokens, b.n_tokens)
    pairs = ((a.rows(rows), b.rows(rows)) for rows in chunks(a.words[:n]))
    return b.n_tokens - n + sum(int(((x != y) & ~(np.isnan(x) & np.isnan(y))).any(axis=1).sum()) for x, y in pairs)


def finite_rows(a: EmbeddingMatrix, b: EmbeddingMatrix) -> tuple[EmbeddingMatrix, EmbeddingMatrix]:
    """Return both matrices without the tokens whose row in either holds NaN or infinity.

    Raises InvalidInput if none is left.
    """
    tokens = a.nonfinite() if a is b else [*a.nonfinite(), *b.nonfinite()]
    first = a.without(token for token in tokens if token < a.n_tokens)
    return first, first if a is b else b.without(token for token in tokens if token < b.n_tokens)
