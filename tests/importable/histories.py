"""History files, right or wrong: words [rows, vocabulary, dim] under a key, with metadata in the header."""

import json

import numpy as np

from darkvocab.numerics import encode

ONE, UP = [1.0, 1.0], [1.0078125, 1.0]  # a grid step apart

# Six tokens, of which 3, 4 and 5 are unseen, every ten steps.
BY_HAND = [
    [ONE] * 6,
    [[2.0, 1.0], *[ONE] * 5],  # 0 leaves
    [[2.0, 1.0], ONE, ONE, UP, UP, UP],  # the unseen part from the seen
    [[2.0, 1.0], ONE, ONE, UP, UP, ONE],  # 5 comes back
    [[2.0, 1.0], *[ONE] * 5],  # so do 3 and 4
    [[2.0, 1.0], *[ONE] * 5],
]

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def write_history(path, values, grid="bfloat16", *, key="embedding_history", **metadata):
    """Write values, rounded to the grid, as a history; returns the path."""
    words = encode(np.asarray(values, np.float32), grid)
    return write_words(path, words, DTYPES[grid], key=key, **metadata)


def write_words(path, words, dtype, *, key="embedding_history", **metadata):
    """Write words as a history, whatever dtype the header is to name."""
    header = {key: {"dtype": dtype, "shape": list(words.shape), "data_offsets": [0, words.nbytes]}}
    text = json.dumps({"__metadata__": metadata, **header} if metadata else header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + words.tobytes())
    return path


def write_run(folder, values, unseen, grid="bfloat16", *, parameters=None, **metadata):
    """Write a run folder as the trainer leaves it."""
    write_history(folder / "embedding_evolution.safetensors", values, grid, **metadata)
    (folder / "corpus.json").write_text(json.dumps({"name": "x", "unseen": unseen}))
    (folder / "manifest.json").write_text(json.dumps({"experiment": "train", "parameters": parameters or {}}))
    return folder
