"""Find the input and output embedding tensors of a checkpoint, by name or shape, and copies of the same rows."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import CorruptFile, InvalidInput, NoEmbedding
from ..numerics.grouping import chunks
from ..sources import File, Source, Tensor
from ..sources.safetensors import read_metadata
from ..text import printable
from .scales import NAME_PATTERNS, SENTENCES, TENSOR_NAMES, find_companions, is_packed, refusal

INPUT_NAMES, OUTPUT_NAMES, OTHER_OUTPUT_NAMES = (TENSOR_NAMES[kind] for kind in ("input", "output", "other_output"))
TIED = "tie_word_embeddings"  # in a config
HISTORY_KEY = "embedding_history"  # key of the states [rows, n_tokens, dim] that a training recorded


def ends(name: str, ending: str) -> bool:
    """Say whether a name is `ending`, or ends with it after a dot; additions by adapters and packing are ignored."""
    if ending.removesuffix("weight") not in name:  # a quick test, for there may be a hundred thousand names
        return name == ending
    plain = NAME_PATTERNS["packed"].sub("weight", NAME_PATTERNS["wrapped"].sub("", name))
    return plain == ending or plain.endswith("." + ending)


def _has_rank(tensor: Tensor, rank: int) -> bool:
    return len(tensor.shape) == rank and 0 not in tensor.shape


def _is_history(tensor: Tensor) -> bool:
    return tensor.is_float and _has_rank(tensor, 3)


def _may_be_one(source: Source, tensor: Tensor) -> bool:
    """Say whether a tensor may be an embedding, by type, shape and name; it may be packed in a known way."""
    if not _has_rank(tensor, 2) or NAME_PATTERNS["no_embedding"].fullmatch(tensor.name):
        return False
    return tensor.is_float or "scales" in find_companions(source, tensor)


def _named(source: Source, endings: Sequence[str]) -> Iterator[list[Tensor]]:
    """Yield the tensors with each of these endings, in this order; no other tensors are loaded."""
    for ending in endings:
        if names := [name for name in source.tensors if ends(name, ending)]:
            yield [source.tensors[name] for name in names]


def _by_name(source: Source, endings: Sequence[str], fits: Callable[[Tensor], bool]) -> Tensor | None:
    """Return the fitting tensor with the most telling name; of several a trained one, then the one with most rows."""
    for named in _named(source, endings):
        if fitting := [tensor for tensor in named if _may_be_one(source, tensor) and fits(tensor)]:
            return max(fitting, key=lambda tensor: (".original_module." not in tensor.name, tensor.shape[0]))
    return None


def _listed(tallest: list[Tensor]) -> str:
    lines = [f"  {printable(tensor.name)}  {_size(tensor)}" for tensor in tallest[:12]]
    return "\n".join([*lines, f"  and {len(tallest) - 12} more"] if len(tallest) > 12 else lines)


def _size(tensor: Tensor) -> str:
    rows, columns = tensor.shape
    return f"{tensor.dtype} {rows:,} x {columns:,}"


def settings(config: dict, name: str, kind: type) -> list[Any]:
    """Return the values of this type that a config, and text models nested in it, give to `name`."""
    nested = (value for value in config.values() if isinstance(value, dict) and type(value.get("vocab_size")) is int)
    return [part[name] for part in (config, *nested) if type(part.get(name)) is kind]


def header_count(path: File, metadata: dict[str, str], name: str, absent: int) -> int:
    """Return a count from a file's header, `absent` without one; raises CorruptFile where the text is no count."""
    text = metadata.get(name, str(absent)).strip()
    if not re.fullmatch("[0-9]{1,18}", text):
        raise CorruptFile(f"{path}: {name} must be a count, its header says {printable(text)[:40]!r}")
    return int(text)


def n_recorded(history: Tensor, metadata: dict[str, str]) -> int:
    """Return the number of states [rows, n_tokens, dim] written so far, by the file's header; the rest is zeros.

    Raises CorruptFile for none, or more than there is room for.
    """
    n_rows = header_count(history.path, metadata, "recorded", history.shape[0])
    if n_rows > history.shape[0]:
        raise CorruptFile(f"{history.path}: says that {n_rows:,} rows are recorded, has room for {history.shape[0]:,}")
    if not n_rows:
        raise CorruptFile(f"{history.path}: no row is recorded yet; wait for the first, or train again")
    return n_rows


def _state(history: Tensor, row: int | None = None) -> tuple[Tensor, str]:
    """Return one state of a history, by default the last one, and a phrase that names it."""
    metadata = read_metadata(history.path) if history.path.suffix == ".safetensors" else {}
    n_rows = n_recorded(history, metadata)
    at = n_rows - 1 if row is None else row
    if at >= n_rows:
        raise InvalidInput(SENTENCES["no_such_row"].format(history=history, n_rows=n_rows, last=n_rows - 1, at=at))
    which = f"the last of {n_rows:,} recorded rows" if at == n_rows - 1 else f"row {at:,} of {n_rows:,} recorded"
    return history.part(at), which


def _matrices(source: Source) -> list[Tensor]:
    """Return all tensors that may be an embedding, those with the most rows first."""
    matrices = [tensor for tensor in source.tensors.values() if _may_be_one(source, tensor) and tensor.shape[1] > 1]
    return sorted(matrices, key=lambda tensor: -tensor.shape[0])


def find_embedding(source: Source, tensor: str | None = None, n_texts: int | None = None) -> tuple[Tensor, str]:
    """Return the input embedding tensor of a source, and a phrase that says how it was chosen.

    In this order: the tensor asked for (`NAME[ROW]`: a row of a history or another 3-D tensor); one
    with a usual name; the last row of a history; the only matrix with as many rows as the config's
    vocabulary (without one, as the tokenizer has texts); the only matrix; one with at least twice the
    rows of any other. Raises InvalidInput if the tensor asked for does not exist or is no matrix of
    floating-point numbers; NoEmbedding, with the candidates, if no choice is clear.
    """
    if tensor is not None:
        return _asked(source, tensor)
    if named := _by_name(source, INPUT_NAMES, lambda tensor: True):
        return named, "by name"
    for packed in (tensor for named in _named(source, INPUT_NAMES) for tensor in named):
        if not packed.is_float and is_packed(source, packed):
            raise refusal(source, packed)
    history = source.tensors.get(HISTORY_KEY)
    if history is not None and _is_history(history):
        last, which = _state(history)
        return last, f"by name: {which}"
    if len(numbered := _numbered(source)) > 1:
        asked = shlex.quote(str(source.asked))
        lines = (f"  darkvocab scan {asked} --tensor {printable(shlex.quote(t.name))}  # {_size(t)}" for t in numbered)
        raise NoEmbedding(SENTENCES["numbered"].format(source=source, n=len(numbered), lines="\n".join(lines)))
    if said := _adapted(source):
        raise NoEmbedding(said)
    return _by_shape(source, n_texts)


def _numbered(source: Source) -> list[Tensor]:
    """Return the embeddings with numbered names, one for each codebook."""
    tensors = [source.tensors[name] for name in source.tensors if NAME_PATTERNS["numbered"].fullmatch(name)]
    return [tensor for tensor in tensors if _may_be_one(source, tensor)]


def find_notes(source: Source, embedding: Tensor) -> tuple[str, ...]:
    """Return notes on other tensors with rows of tokens, and on changes to this embedding that are not applied."""
    others = [*_numbered(source), *(tensor for named in _named(source, TENSOR_NAMES["per_layer"]) for tensor in named)]
    named = ", ".join(f"{printable(t.name)} ({t.shape[0]:,} x {t.shape[1]:,})" for t in others if t != embedding)
    notes = [f"not scanned: {named}; --tensor takes one"] if named else []
    module = embedding.name.rsplit(".base_layer.", 1)[0]
    if ".base_layer." in embedding.name and (change := [n for n in source.tensors if n.startswith(f"{module}.lora_")]):
        notes.append(f"{printable(change[0])} changes these rows, and is not applied: merge the adapter")
    return tuple(notes)


def _asked(source: Source, name: str) -> tuple[Tensor, str]:
    """Return the tensor of this name, or the row of a history that ``NAME[ROW]`` names, and a phrase that says so."""
    tensors = source.tensors
    numbered = re.fullmatch(r"(.+)\[([0-9]{1,18})\]", name, re.DOTALL)
    if name not in tensors and numbered and numbered[1] in tensors and _is_history(tensors[numbered[1]]):
        part, which = _state(tensors[numbered[1]], int(numbered[2]))
        return part, f"as asked: {which}"
    if name not in tensors:
        raise InvalidInput(f"no tensor {name!r} in {source.asked}; its matrices:\n{_listed(_matrices(source))}")
    asked = tensors[name]
    if name == HISTORY_KEY and _is_history(asked):
        last, which = _state(asked)
        return last, f"as asked: {which}"
    packed = not asked.is_float and is_packed(source, asked)
    if packed and not _may_be_one(source, asked):
        raise refusal(source, asked)
    if not packed and not (asked.is_float and _has_rank(asked, 2)):
        parts = f"; {name}[0] is one" if _is_history(asked) else ""
        facts = {"name": name, "shape": list(asked.shape), "parts": parts, "matrices": _listed(_matrices(source))}
        raise InvalidInput(SENTENCES["no_matrix"].format(source=source, tensor=asked, **facts))
    return asked, "as asked"


def _adapted(source: Source) -> str | None:
    """Say what an adapter without an embedding holds and what to give instead; None if the source is no adapter."""
    factors = {match["module"] for name in source.tensors if (match := NAME_PATTERNS["factor"].fullmatch(name))}
    deltas = [name for name in source.tensors if NAME_PATTERNS["delta"].fullmatch(name)]
    base = printable(source.base) if source.base else "the base model"
    if deltas:
        changed = source.tensors[deltas[0]]
        rows = f"{changed.shape[0]:,} rows" if changed.shape else "rows"
        return SENTENCES["adapter"].format(source=source, delta=printable(deltas[0]), rows=rows, base=base)
    names = ((module, name) for module in sorted(factors) for name in (module, f"{module}.weight"))
    if of_embedding := [module for module, name in names if any(ends(name, ending) for ending in INPUT_NAMES)]:
        return SENTENCES["lora_of_embedding"].format(source=source, module=printable(of_embedding[0]), base=base)
    if factors:
        return SENTENCES["lora_of_others"].format(source=source, n=len(factors), base=base)
    return None


def _by_shape(source: Source, n_texts: int | None) -> tuple[Tensor, str]:
    """Return the matrix of the vocabulary's size, the only matrix, or one at least twice as tall as any other."""
    matrices = _matrices(source)
    size = next(iter(settings(source.config, "vocab_size", int)), None) or n_texts
    fitting = [tensor for tensor in matrices if tensor.shape[0] == size]
    if len(fitting) == 1:
        return fitting[0], f"by shape: the only matrix of {size:,} rows, the size of the vocabulary"
    if len(matrices) == 1:
        return matrices[0], "by shape: the only matrix"
    if not matrices:
        raise NoEmbedding(SENTENCES["no_matrices"].format(source=source, n=len(source.tensors)))
    tallest = matrices[0]
    if tallest.shape[0] >= 2 * matrices[1].shape[0] and tallest.shape[0] > tallest.shape[1]:
        return tallest, f"by shape: {tallest.shape[0]:,} rows, at least twice those of any other matrix"
    raise NoEmbedding(SENTENCES["no_plain_one"].format(source=source, matrices=_listed(matrices)))


def find_output(source: Source, embedding: Tensor) -> Tensor | None:
    """Return the output embedding tensor (unembedding), by name; None if the source has none of its own.

    One of the embedding's shape is preferred to one with other rows (a padded head) or another width.
    An embedding with the name of an output is returned itself.
    """
    if any(ends(embedding.name, ending) for ending in OUTPUT_NAMES):
        return embedding
    n, dim = embedding.shape
    return (
        _by_name(source, OUTPUT_NAMES, lambda tensor: tensor.shape == (n, dim) and tensor != embedding)
        # an `output.weight` of another shape belongs to a layer
        or _by_name(source, OUTPUT_NAMES, lambda tensor: not tensor.name.endswith(".output.weight"))
        or _by_name(
            source,
            OTHER_OUTPUT_NAMES,
            lambda tensor: tensor != embedding and tensor.shape[1] == dim and tensor.shape[0] >= n,
        )
    )


def is_tied(source: Source, embedding: Tensor, output: Tensor | None) -> bool:
    """Say whether input and output are one matrix: by their words, or without an output tensor by the config.

    A config without the setting means tied, as in `transformers`.
    """
    if output == embedding:  # it has the name of an output: compare it with the input
        output = _by_name(source, INPUT_NAMES, lambda tensor: True)
    if output is None:
        return next(iter(settings(source.config, TIED, bool)), True)
    return _same_words(source, embedding, output)


def said_tied(source: Source) -> bool | None:
    """Return `tie_word_embeddings` of the config and of a nested text model; None if missing or contradictory."""
    said = set(settings(source.config, TIED, bool))
    return said.pop() if len(said) == 1 else None


def _same_words(source: Source, a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if (a.path, a.offset) == (b.path, b.offset):
        return True
    held = {"words": a, **find_companions(source, a)}
    others = {"words": b, **find_companions(source, b)}
    return held.keys() == others.keys() and all(_equal(held[role], others[role]) for role in held)


def _equal(a: Tensor, b: Tensor) -> bool:
    x = a.packed()
    y = b.packed()
    if x.ndim != 2:
        return np.array_equal(x, y)
    return x.shape == y.shape and all(np.array_equal(x[rows], y[rows]) for rows in chunks(x))


def find_copies(source: Source, tensor: Tensor) -> list[Tensor]:
    """Return this tensor and those with a usual name of an input or output embedding and the same words."""
    endings = INPUT_NAMES + OUTPUT_NAMES + OTHER_OUTPUT_NAMES
    named = [source.tensors[name] for name in source.tensors if any(ends(name, ending) for ending in endings)]
    return [tensor, *(t for t in named if t != tensor and t.is_float and _same_words(source, t, tensor))]


def has_output_bias(source: Source) -> bool:
    """Say whether a bias is added to the logits, so that equal output rows can give unequal logits."""
    return any(ends(name, ending) for name in source.tensors for ending in TENSOR_NAMES["output_bias"])
