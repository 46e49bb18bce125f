"""Tokenizers of bytes, and a source with one whose last rows are nearly one; needs no torch."""

import json

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

N_TOKENS = 320
UNTRAINED = range(300, 312)  # rows that are nearly one


def tokenizer():
    """Bytes, and words of two bytes that merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = [(one, other) for one in letters[:8] for other in letters[8:16]][: N_TOKENS - 256]
    vocab = {text: n for n, text in enumerate([*alphabet, *(one + other for one, other in merges)])}
    result = tokenizers.Tokenizer(models.BPE(vocab, merges))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    return result


def ascii_tokenizer():
    """Return a tokenizer whose tokens are the bytes below 128, by their numbers."""
    shown = [chr(byte) if 32 < byte < 127 else chr(256 + min(byte, 33)) for byte in range(128)]  # as ByteLevel has them
    result = tokenizers.Tokenizer(models.BPE({text: byte for byte, text in enumerate(shown)}, []))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    result.decoder = decoders.ByteLevel()
    return result


def source(folder, seed=0, n_tokens=N_TOKENS):
    """A model folder of which only the embedding is there."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 0.2, (n_tokens, 32)).astype(np.float32)
    rows[UNTRAINED.start : UNTRAINED.stop] = 0.02 * rng.normal(size=32) + 1e-6 * rng.normal(size=(len(UNTRAINED), 32))
    save_file({"model.embed_tokens.weight": rows}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": n_tokens}))
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder
