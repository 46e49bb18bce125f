"""Safetensors headers, checked in full, with a sentence for each way in which one can be wrong.

Our own reader, because the library's gives numpy no bfloat16 or float8 and copies what it loads.
"""

import json
import math
from collections import Counter
from typing import Any

from ..errors import CorruptFile
from .tensors import FORMATS, SENTENCES, File, Tensor

MAX_HEADER = 100_000_000  # bytes, as the reference implementation
BITS = {name: int(bits) for bits, names in FORMATS["safetensors"].items() for name in names.split()}
SEE_SAFETENSORS = "see https://github.com/huggingface/safetensors#format; download the file again"


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, as hook of `json.loads`; CorruptFile for a name that comes twice."""
    names = dict(pairs)
    if len(names) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise CorruptFile(f"names {twice!r} twice")
    return names


def _read_header(path: File) -> tuple[dict[str, Any], int]:
    """Read the JSON object at the start of a file; return it and the number of bytes it takes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise CorruptFile(f"{path}: {size} bytes are too few for a safetensors file; download it again")
        length = int.from_bytes(head, "little")
        if length > size - 8:
            raise CorruptFile(SENTENCES["no_header"].format(path=path, length=length, size=size))
        if length > MAX_HEADER:
            raise CorruptFile(f"{path}: a header of {length:,} bytes; the format allows {MAX_HEADER:,}")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique_names)
    except CorruptFile as error:
        raise CorruptFile(f"{path}: the header {error}") from None
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: the header is not JSON ({error}); {SEE_SAFETENSORS}") from None
    if not isinstance(header, dict):
        raise CorruptFile(f"{path}: the header is not a JSON object; {SEE_SAFETENSORS}")
    return header, 8 + length


def read_metadata(path: File) -> dict[str, str]:
    """Return the texts under `__metadata__` in a file's header; CorruptFile for other values there."""
    metadata = _read_header(path)[0].get("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())):
        raise CorruptFile(f"{path}: __metadata__ must hold texts by name; {SEE_SAFETENSORS}")
    return metadata


def read_tensors(path: File) -> dict[str, Tensor]:
    """Return the tensors of one `.safetensors` file, in the order of their bytes.

    Raises MissingFile, and CorruptFile: truncated; a header longer than the file or than 100 MB, or that is not such
    JSON; an unknown dtype; offsets that leave the file, overlap, leave a hole, or disagree with dtype and shape.
    """
    size = path.stat().st_size
    header, start = _read_header(path)
    header.pop("__metadata__", None)
    tensors = [_tensor(path, name, entry, start, size) for name, entry in header.items()]
    tensors.sort(key=lambda item: (item[1], item[2]))
    at = start
    for tensor, begin, end in tensors:
        if begin < at:
            raise CorruptFile(f"{path}: tensor {tensor.name!r} overlaps the one before it; {SEE_SAFETENSORS}")
        if begin > at:
            raise CorruptFile(SENTENCES["hole"].format(path=path, size=begin - at, tensor=tensor, see=SEE_SAFETENSORS))
        at = end
    if at != size:
        raise CorruptFile(f"{path}: {size - at:,} bytes at the end belong to no tensor; {SEE_SAFETENSORS}")
    return {tensor.name: tensor for tensor, _, _ in tensors}


def _tensor(path: File, name: str, entry: Any, start: int, size: int) -> tuple[Tensor, int, int]:
    """Check one header entry against the file; return its tensor, and where its bytes begin and end."""
    what = f"{path}: tensor {name!r}"
    facts: Any = entry if isinstance(entry, dict) else {}
    dtype, sizes, offsets = map(facts.get, ("dtype", "shape", "data_offsets"))
    lists = all(isinstance(one, list) and all(type(n) is int and n >= 0 for n in one) for one in (sizes, offsets))
    if not (lists and isinstance(dtype, str) and len(offsets) == 2):
        raise CorruptFile(f"{what} needs dtype, shape and two data_offsets; {SEE_SAFETENSORS}")
    shape = tuple(sizes)
    begin, end = (start + offset for offset in offsets)
    if dtype not in BITS:
        raise CorruptFile(f"{what} has unknown dtype {dtype!r}; known: {', '.join(BITS)}")
    if begin > end or end > size:
        raise CorruptFile(SENTENCES["outside"].format(what=what, begin=begin, end=end, size=size))
    bits = math.prod(shape) * BITS[dtype]
    if bits != 8 * (end - begin):
        needed = f"{-(-bits // 8):,}" if bits < 2**80 else "far more"
        raise CorruptFile(f"{what}, {dtype} {str(list(shape))[:80]}, needs {needed} bytes, has {end - begin:,}")
    return Tensor(name=name, dtype=dtype, shape=shape, path=path, offset=begin), begin, end
