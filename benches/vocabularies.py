"""Tokenizers of the size of real ones, trained on what lies on any machine: sources in Python, and words by lot."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CHARACTERS = 50_000_000  # of sources
SPLIT = (  # Qwen's
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# First letter and how many, of scripts in which a byte-level tokenizer has pieces of characters.
SCRIPTS = {"Greek": (0x3B1, 25), "Cyrillic": (0x430, 32), "Devanagari": (0x905, 53), "Arabic": (0x621, 42)}
SCRIPTS |= {"Han": (0x4E00, 20_000), "Hangul": (0xAC00, 11_172), "Hiragana": (0x3041, 86)}


def sources() -> Iterator[str]:
    """Sources of the standard library and of what is installed."""
    n = 0
    for folder in dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "purelib")):
        for path in sorted(Path(folder).rglob("*.py")):
            text = path.read_text("utf-8", errors="ignore")
            n += len(text)
            if n > CHARACTERS:
                return
            yield text


def words(n: int = 100_000) -> Iterator[str]:
    """Words of one to eight letters of each script; the k-th letter as often as 1/k."""
    lot = np.random.default_rng(1)
    for begin, n_letters in SCRIPTS.values():
        often = 1 / np.arange(1, n_letters + 1)
        letters = begin + lot.choice(n_letters, (n, 8), p=often / often.sum())
        lengths = lot.integers(1, 9, n)
        yield " ".join("".join(map(chr, row[:length])) for row, length in zip(letters, lengths, strict=True))


def byte_level(n_tokens: int) -> Tokenizer:
    """A tokenizer of Qwen's kind with at most so many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.decoder = normalizers.NFC(), decoders.ByteLevel()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, in_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=n_tokens, min_frequency=1, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator((text for some in (sources(), words()) for text in some), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", *(f"<|extra_{n}|>" for n in range(200))])
    return tokenizer
