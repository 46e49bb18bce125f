"""Find the tensors of a checkpoint that hold its embedding: by name, by shape, and copies of the same rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import CorruptFile, InvalidInput, NoEmbedding
from ..numerics.grouping import chunks
from ..sources import File, Source, Tensor
from ..sources.safetensors import read_metadata
from ..text import printable

HISTORY = "embedding_history"  # key of the states [rows, n_tokens, dim] that a training recorded

# Endings of tensor names, the most telling first: T5 and BART (whose encoder and decoder may hold copies), Llama, Qwen,
# Gemma and DeepSeek, GPT-2, GPT-NeoX, BERT, GGUF, Mamba, bare.
INPUT_NAMES = (
    *("shared.weight", "embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"),
    *("tok_embeddings.weight", "token_embd.weight", "backbone.embedding.weight", "backbone.embeddings.weight"),
    *("token_embedding.weight", "transformer.embedding.word_embeddings.weight", "embedding.weight"),
    "embeddings.weight",
)
OUTPUT_NAMES = (
    *("lm_head.weight", "embed_out.weight", "output.weight", "cls.predictions.decoder.weight"),
    *("lm_head.decoder.weight", "transformer.output_layer.weight", "transformer.ff_out.weight"),
)


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _is_matrix(tensor: Tensor, rank: int = 2) -> bool:
    return tensor.is_float and len(tensor.shape) == rank and 0 not in tensor.shape


def _is_history(tensor: Tensor) -> bool:
    return _is_matrix(tensor, rank=3)


def _by_name(source: Source, endings: tuple[str, ...], fits: Callable[[Tensor], bool]) -> Tensor | None:
    """Return the tallest fitting tensor of the most telling name; only tensors with such names are looked up."""
    for ending in endings:
        named = [source.tensors[name] for name in source.tensors if _ends(name, ending)]
        if fitting := [tensor for tensor in named if fits(tensor)]:
            return max(fitting, key=lambda tensor: tensor.shape[0])
    return None


def _listed(matrices: list[Tensor]) -> str:
    tallest = sorted(matrices, key=lambda tensor: -tensor.shape[0])
    lines = [f"  {printable(t.name)}  {t.dtype} {t.shape[0]:,} x {t.shape[1]:,}" for t in tallest[:12]]
    return "\n".join([*lines, f"  and {len(tallest) - 12} more"] if len(tallest) > 12 else lines)


def setting(config: dict, name: str, kind: type) -> Any:
    """Return a setting of this type from a config, or from a text model nested in it (one with a vocabulary)."""
    nested = (value for value in config.values() if isinstance(value, dict) and type(value.get("vocab_size")) is int)
    return next((part[name] for part in (config, *nested) if type(part.get(name)) is kind), None)


def header_count(path: File, metadata: dict[str, str], name: str, absent: int) -> int:
    """Return the count that a file's header holds under this name; raises CorruptFile where the text is none."""
    text = metadata.get(name, str(absent)).strip()
    if not re.fullmatch("[0-9]{1,18}", text):
        raise CorruptFile(f"{path}: {name} must be a count, its header says {printable(text)[:40]!r}")
    return int(text)


def n_recorded(history: Tensor, metadata: dict[str, str]) -> int:
    """Return how many states [rows, n_tokens, dim] are written, by the file's header; zeros follow them.

    Raises CorruptFile where that is none, or more than there is room for.
    """
    n_rows = header_count(history.path, metadata, "recorded", history.shape[0])
    if n_rows > history.shape[0]:
        raise CorruptFile(f"{history.path}: says that {n_rows:,} rows are recorded, has room for {history.shape[0]:,}")
    if not n_rows:
        raise CorruptFile(f"{history.path}: no row is recorded yet; wait for the first, or train again")
    return n_rows


def _state(history: Tensor, row: int | None = None) -> tuple[Tensor, str]:
    """Return one state of a history, by default the last recorded one, and a phrase that says which."""
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
    """Return the input embedding tensor of a source, and how it was chosen.

    Chosen by the name asked for (`NAME[ROW]`: a row of a three-dimensional tensor, as a history is);
    else by the usual names; else the last recorded row of a history; else by shape: the only matrix
    with as many rows as the config's vocabulary (or, without one, as the tokenizer has texts), or the
    only matrix, or one at least twice as tall as any other. Raises InvalidInput where the tensor asked for is not there
    or is no matrix of floating-point numbers, NoEmbedding, with the candidates, where no choice is plain.
    """
    if tensor is not None:
        return _asked(source, tensor)
    if named := _by_name(source, INPUT_NAMES, _is_matrix):
        return named, "by name"
    history = source.tensors.get(HISTORY)
    if history is not None and _is_history(history):
        last, which = _state(history)
        return last, f"by name: {which}"
    return _by_shape(source, n_texts)


def _asked(source: Source, name: str) -> tuple[Tensor, str]:
    """Return the tensor of this name, or the row of a history that ``NAME[ROW]`` asks for."""
    tensors = source.tensors
    numbered = re.fullmatch(r"(.+)\[([0-9]{1,18})\]", name, re.DOTALL)
    if name not in tensors and numbered and numbered[1] in tensors and _is_history(tensors[numbered[1]]):
        part, which = _state(tensors[numbered[1]], int(numbered[2]))
        return part, f"as asked: {which}"
    if name not in tensors:
        raise InvalidInput(f"no tensor {name!r} in {source.asked}; its matrices:\n{_listed(_matrices(source))}")
    asked = tensors[name]
    if name == HISTORY and _is_history(asked):
        last, which = _state(asked)
        return last, f"as asked: {which}"
    if not _is_matrix(asked):
        parts = f"; {name}[0] is one" if _is_history(asked) else ""
        raise InvalidInput(
            f"tensor {name!r} is {asked.dtype} {list(asked.shape)}, not a matrix of floating-point numbers{parts}"
            f"; the matrices of {source.asked}:\n{_listed(_matrices(source))}"
        )
    return asked, "as asked"


def _by_shape(source: Source, n_texts: int | None) -> tuple[Tensor, str]:
    """Return the matrix of the vocabulary's size, the only matrix, or one at least twice as tall as any other."""
    matrices = sorted(_matrices(source), key=lambda tensor: -tensor.shape[0])
    size = setting(source.config, "vocab_size", int) or n_texts
    fitting = [tensor for tensor in matrices if tensor.shape[0] == size]
    if len(fitting) == 1:
        return fitting[0], f"by shape: the only matrix of {size:,} rows, the size of the vocabulary"
    if len(matrices) == 1:
        return matrices[0], "by shape: the only matrix"
    if not matrices:
        raise NoEmbedding(
            f"{source.asked} has no matrix of floating-point numbers among its {len(source.tensors)} tensors"
        )
    tallest = matrices[0]
    if tallest.shape[0] >= 2 * matrices[1].shape[0] and tallest.shape[0] > tallest.shape[1]:
        return tallest, f"by shape: {tallest.shape[0]:,} rows, at least twice those of any other matrix"
    raise NoEmbedding(
        f"no tensor of {source.asked} is plainly the embedding; choose one with --tensor NAME:\n{_listed(matrices)}"
    )


def find_scales(source: Source, tensor: Tensor) -> str | None:
    """Return the name of the tensor that scales an 8-bit one, or None."""
    stem = tensor.name.removesuffix("weight").removesuffix(".")
    names = (*(f"{tensor.name}{end}" for end in ("_scale_inv", "_scale", "_scales")), f"{stem}.scale", f"{stem}.scales")
    return next((name for name in names if tensor.dtype.startswith("F8") and name in source.tensors), None)


def find_output(source: Source, embedding: Tensor) -> Tensor | None:
    """Return the output embedding tensor (unembedding) by name, or None where the source has none of its own.

    Prefers one of the embedding's shape, else takes one that has other rows (a head that is padded)
    or another width. Returns the embedding itself where it goes by such a name.
    """
    if any(_ends(embedding.name, ending) for ending in OUTPUT_NAMES):
        return embedding

    def shaped(tensor: Tensor) -> bool:
        return _is_matrix(tensor) and tensor.shape == embedding.shape and tensor != embedding

    def other(tensor: Tensor) -> bool:  # an `output.weight` of another shape within a model is a layer's
        return _is_matrix(tensor) and not tensor.name.endswith(".output.weight")

    return _by_name(source, OUTPUT_NAMES, shaped) or _by_name(source, OUTPUT_NAMES, other)


def is_tied(source: Source, embedding: Tensor, output: Tensor | None) -> bool:
    """Say whether input and output are one matrix: by their words, or by the config where no output tensor exists.

    A config without the setting means tied, as in `transformers`.
    """
    other = _by_name(source, INPUT_NAMES, _is_matrix) if output == embedding else output
    if other is None:
        return setting(source.config, "tie_word_embeddings", bool) is not False
    return _same_words(embedding, other)


def _same_words(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if (a.path, a.offset) == (b.path, b.offset):
        return True
    x = a.words()
    y = b.words()
    return all(np.array_equal(x[rows], y[rows]) for rows in chunks(x))


def find_copies(source: Source, tensor: Tensor) -> list[Tensor]:
    """Return the tensor itself and those under usual names of embeddings, input or output, with the same words."""
    endings = INPUT_NAMES + OUTPUT_NAMES
    named = [source.tensors[name] for name in source.tensors if any(_ends(name, ending) for ending in endings)]
    return [tensor, *(t for t in named if t != tensor and t.is_float and _same_words(t, tensor))]


OUTPUT_BIASES = ("lm_head.bias", "embed_out.bias", "output.bias", "cls.predictions.bias", "final_logits_bias")


def has_output_bias(source: Source) -> bool:
    """Return whether a bias is added to the logits, so that equal output rows may still give unequal ones."""
    return any(_ends(name, ending) for name in source.tensors for ending in OUTPUT_BIASES)
