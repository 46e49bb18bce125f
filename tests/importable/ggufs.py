"""GGUF files, written plainly from the format's description: right ones, and wrong ones."""

import struct

import numpy as np

CODES = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
NAMES = {"u8": 0, "u16": 2, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "text": 8, "array": 9, "u64": 10}
KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "I32": 26, "F64": 28, "BF16": 30}


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, content):
    """A value with its type: `u32`, `text`, or a list of texts or of numbers of another type."""
    if isinstance(content, list):
        inner = text if kind == "text" else lambda item: struct.pack("<" + CODES[NAMES[kind]], item)
        return struct.pack("<IIQ", 9, NAMES[kind], len(content)) + b"".join(map(inner, content))
    body = text(content) if kind == "text" else struct.pack("<" + CODES[NAMES[kind]], content)
    return struct.pack("<I", NAMES[kind]) + body


def entry(name, shape, kind, offset):
    """A tensor of the header; `shape` as numpy has it, `kind` a name or a number."""
    dims = struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in reversed(shape))
    return text(name) + dims + struct.pack("<IQ", KINDS.get(kind, kind), offset)


def gguf(values=(), entries=(), data=b"", *, version=3, n_values=None, n_tensors=None, alignment=32, magic=b"GGUF"):
    """A file: `values` are (key, bytes of a value), `entries` are bytes."""
    counts = len(entries) if n_tensors is None else n_tensors, len(values) if n_values is None else n_values
    head = magic + struct.pack("<IQQ", version, *counts)
    head += b"".join(text(key) + held for key, held in values) + b"".join(entries)
    return head + bytes(-len(head) % alignment) + data


def saved(path, tensors, values=(), **options):
    """Write tensors by name, each (kind, shape, bytes) or an array in float32 or float16."""
    entries, data = [], b""
    for name, held in tensors.items():
        if isinstance(held, np.ndarray):
            held = ({"float32": "F32", "float16": "F16"}[held.dtype.name], held.shape, held.tobytes())
        kind, shape, content = held
        data += bytes(-len(data) % 32)
        entries.append(entry(name, shape, kind, len(data)))
        data += content
    path.write_bytes(gguf(values, entries, data, **options))
    return path
