"""Tensors that `torch.save` wrote (`.bin`, `.pt`, `.pth`), memory-mapped; without torch, and no pickle is executed."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import CorruptFile, InvalidInput
from .archive import ArchiveEntry, read_archive
from .pickled import MAX_ARGUMENTS, Name, Pairs, read_pickle
from .tensors import FORMATS, SENTENCES, File, LazyMapping, Tensor

MAX_PICKLE = 100_000_000  # bytes, as a safetensors header
MAX_TENSORS = 1 << 18
MAX_DEPTH = 16  # of dicts in dicts
MAX_KEY = 500  # characters
MAX_TORCH_DIMS = 64
MAX_COUNT = 1 << 63
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, pickled
TORCH_DTYPES: dict[str, list] = FORMATS["torch"]  # the names of safetensors, and bytes of a word
HOLDERS = (Pairs, list, tuple)
STORAGES: dict[str, str] = FORMATS["torch_storages"]


@dataclass(frozen=True, slots=True)
class Storage:
    """Stand-in for a storage: an entry of the archive."""

    dtype: str
    key: str
    count: int  # of words


@dataclass(frozen=True, slots=True)
class View:
    """Stand-in for a tensor: its view of a storage, not checked yet."""

    storage: Storage
    dtype: str
    offset: Any  # words from the start of the storage
    size: Any
    stride: Any


def _rebuild(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any = None, hooks: Any = None, marks: Any = None
) -> View:
    if type(storage) is not Storage:
        raise InvalidInput("a tensor without a storage")
    if marks:
        raise InvalidInput("a tensor that stands for the negative or the conjugate of what is stored")
    return View(storage, storage.dtype, offset, size, stride)


def _rebuild_typed(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any, marks: Any = None
) -> View:
    if type(dtype) is not Name or dtype.module != "torch":
        raise InvalidInput("a tensor without a type")
    return replace(_rebuild(storage, offset, size, stride, marks=marks), dtype=dtype.name)


def _rebuild_parameter(data: Any, *_: Any) -> View:
    if type(data) is not View:
        raise InvalidInput("a parameter without a tensor")
    return data


def _rebuild_subclass(function: Any, kind: Any, arguments: Any, *_: Any) -> View:
    """Rebuild a tensor with attributes, which are dropped."""
    if str(kind) not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        described = f"its own kind, {str(kind)[:80]}" if type(kind) is Name else "no kind"
        raise InvalidInput(f"a tensor of {described}")
    is_known = type(function) is Name and str(function) in TENSORS
    if not (is_known and type(arguments) is tuple and len(arguments) <= MAX_ARGUMENTS):
        raise InvalidInput("a tensor that is rebuilt in no known way")
    return TENSORS[str(function)](*arguments)


TENSORS: dict[str, Callable[..., View]] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_typed,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}
CALLS: dict[str, Callable[..., Any]] = {
    **TENSORS,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "collections.OrderedDict": lambda: Pairs(),  # made empty and then filled
    **dict.fromkeys(("torch.Size", "torch.device"), lambda *_: None),  # no tensors
}


def _refer(identifier: Any) -> Storage:
    """Return the storage that a persistent id, ("storage", kind, key, device, count), names."""
    if type(identifier) is not tuple or len(identifier) != 5 or identifier[0] != "storage":
        raise InvalidInput("a persistent id that is no storage")
    _, kind, key, _, count = identifier
    if type(kind) is not Name or kind.name not in STORAGES or kind.module.split(".")[0] != "torch":
        raise CorruptFile(f"a storage of unknown kind, {kind}" if type(kind) is Name else "a storage of no kind")
    if type(key) is not str or len(key) > MAX_KEY or not _natural(count):
        raise InvalidInput("a storage without a key and a size")
    return Storage(STORAGES[kind.name], key, count)


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def read_torch(path: File) -> Mapping[str, Tensor]:
    """Return the tensors of a file of `torch.save` by their keys, joined by dots where dicts hold dicts.

    Raises as `read_archive`, and CorruptFile: the format before torch 1.6; no pickle, or one that calls anything but
    constructors of tensors and dicts; a name that comes twice; big-endian; a tensor that leaves its storage, or whose
    storage is missing or of another size (of a remote file when the tensor is asked for).
    """
    with path.open("rb") as file:
        head = file.read(len(LEGACY))
    if head == LEGACY:
        raise CorruptFile(SENTENCES["legacy"].format(path=path))
    entries = read_archive(path)
    roots = [name for name in entries if name.split("/", 1)[-1] == "data.pkl"]
    if len(roots) != 1:
        raise CorruptFile(f"{path}: {len(roots)} entries named data.pkl, where torch.save writes one")
    root = roots[0].removesuffix("data.pkl")
    pickle = entries[roots[0]]
    order = entries.get(f"{root}byteorder")
    if pickle.size > MAX_PICKLE:
        raise CorruptFile(f"{path}: a pickle of {pickle.size:,} bytes; read are {MAX_PICKLE:,}. Save the weights alone")
    with path.open("rb") as file:
        if order:
            file.seek(order.offset)
            if (said := file.read(min(order.size, 16))) != b"little":
                raise CorruptFile(f"{path}: says its byte order is {said!r}; only little-endian files are read")
        file.seek(pickle.offset)
        data = file.read(pickle.size)
    views: dict[str, View] = {}
    try:
        for name, view in _views(read_pickle(data, calls=CALLS, builds=(Pairs, View), refer=_refer), path.stem):
            if name in views:
                raise CorruptFile(f"names tensor {name!r} twice")
            if len(views) == MAX_TENSORS:
                raise CorruptFile(f"more than {MAX_TENSORS:,} tensors; save the weights alone")
            views[name] = view
    except CorruptFile as error:
        raise CorruptFile(f"{path}: {error}") from None

    def look_up(name: str) -> Tensor:
        return _tensor(path, name, views[name], entries.get(f"{root}data/{views[name].storage.key}"))

    tensors = LazyMapping(views, look_up)
    return dict(tensors) if isinstance(path, Path) else tensors


def _views(value: Any, name: str) -> Iterator[tuple[str, View]]:
    """Yield the tensors in nested dicts and lists, each holder once, so that cycles end."""
    if type(value) is View:
        yield name, value
        return
    seen: set[int] = set()
    waiting = [("", 0, value)] if type(value) in HOLDERS else []
    while waiting:
        prefix, depth, holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        inner = []
        for key, item in holder if type(holder) is Pairs else enumerate(holder):
            if type(item) not in (View, *HOLDERS) or not (type(key) is str or _natural(key)):
                continue
            full = f"{prefix}{key}"
            if len(full) > MAX_KEY:
                raise CorruptFile(f"a name of {len(full):,} characters, {full[:40]!r}...; at most {MAX_KEY} are read")
            if type(item) is not View and depth == MAX_DEPTH:
                raise CorruptFile(f"dicts and lists in one another, more than {MAX_DEPTH} deep; save the weights alone")
            if type(item) is View:
                yield full, item
            else:
                inner.append((f"{full}.", depth + 1, item))
        waiting += reversed(inner)


def _tensor(path: File, name: str, view: View, entry: ArchiveEntry | None) -> Tensor:
    """Return the tensor of a view, after checking it against its storage, and that against the file."""
    what = f"{path}: tensor {name!r}"
    storage = view.storage
    size = view.size
    stride = view.stride
    for dtype in (view.dtype, storage.dtype):
        if dtype not in TORCH_DTYPES:
            raise CorruptFile(f"{what} has unknown dtype {dtype[:40]!r}; known: {', '.join(TORCH_DTYPES)}")
    dtype, word = TORCH_DTYPES[view.dtype]
    held = storage.count * TORCH_DTYPES[storage.dtype][1]
    key = storage.key[:40]
    if entry is None:
        raise CorruptFile(f"{what} lies in storage {key!r}, which the archive does not hold")
    if entry.size != held:
        raise CorruptFile(f"{path}: storage {key!r} should be {held:,} bytes, the archive has {entry.size:,}")
    whole = all(type(n) is tuple and len(n) <= MAX_TORCH_DIMS and all(map(_natural, n)) for n in (size, stride))
    if not (whole and len(size) == len(stride) and _natural(view.offset)):
        raise CorruptFile(f"{what} needs a size, as many strides, and an offset, all natural numbers")
    last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    end = view.offset + (0 if 0 in size else last + 1)
    if end * word > held:
        seen = f"{what}, {dtype} {list(size)} with strides {list(stride)}"
        raise CorruptFile(SENTENCES["beyond_storage"].format(what=seen, end=end * word, held=held))
    steps = [math.prod(size[axis + 1 :]) for axis in range(len(size))]  # of a contiguous tensor
    is_contiguous = all(n == 1 or step == ours for n, step, ours in zip(size, stride, steps, strict=True))
    strides = None if is_contiguous or 0 in size else stride
    begin = entry.offset + view.offset * word
    return Tensor(name=name, dtype=dtype, shape=size, path=path, offset=begin, strides=strides)
