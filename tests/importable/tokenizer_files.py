"""Small tokenizer files of every kind: ranks, tekken.json, SentencePiece models, vocab.json with merges.txt."""

import base64
import io
import json

import sentencepiece

from darkvocab.sources.tokenizer import BYTE_LEVEL, tiktoken

MERGED = (
    b"th",
    b"the",
    b" th",
    b" the",
    b"he",
    b"11",
    "é".encode(),
    b"\xe4\xb8",
    b"qrs",
    b"x y",
)  # the last but one is found whole, the last by none
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXT = (
    "the cat sat on the mat and the hat of the cat is fat",
    "one two three four five six seven eight nine ten",
    "a model learns what it is given and no more, as all models do; others forget it",
)


def ranks(merged=MERGED):
    return {data: n for n, data in enumerate([*(bytes([byte]) for byte in range(256)), *merged])}


def of_ranks(path, merged=MERGED):
    lines = [b"%s %d\n" % (base64.b64encode(data), rank) for data, rank in ranks(merged).items()]
    path.write_bytes(b"".join(lines))
    return path


def known(monkeypatch, merged=MERGED, **options):
    """Let the vocabulary of `of_ranks` be one whose pattern is known."""
    one = tiktoken.Known("Made up", PATTERN, {"<|end|>": 256 + len(merged)}, **options)
    monkeypatch.setitem(tiktoken.VOCABULARIES, tiktoken.fingerprint(ranks(merged)), one)


def tekken(path, *, n_marks=3, merged=MERGED, **changes):
    vocab = [
        {"rank": n, "token_bytes": base64.b64encode(data).decode(), "token_str": None}
        for data, n in ranks(merged).items()
    ]
    config = {"pattern": PATTERN, "default_vocab_size": len(vocab) + n_marks, "default_num_special_tokens": n_marks}
    path.write_text(json.dumps({"config": {**config, **changes}, "vocab": vocab}))
    return path


def trained(path, model_type="bpe", vocab_size=None, **options):
    """A SentencePiece model that its own trainer made."""
    out = io.BytesIO()
    size = vocab_size or {"bpe": 340, "unigram": 320, "char": 30, "word": 30}[model_type]
    settings = {
        "byte_fallback": model_type in ("bpe", "unigram"),
        "hard_vocab_limit": False,
        "minloglevel": 2,
        **options,
    }
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT), model_writer=out, vocab_size=size, model_type=model_type, **settings
    )
    path.write_bytes(out.getvalue())
    return path


def vocab_and_merges(folder, merges=(("t", "h"), ("th", "e"), ("Ġ", "the")), **config):
    """A vocab.json with its merges.txt, of GPT-2's kind; `config` is that of the tokenizer."""
    texts = [*map(chr, sorted(BYTE_LEVEL)), *(one + other for one, other in merges)]
    (folder / "vocab.json").write_text(json.dumps({text: n for n, text in enumerate(texts)}))
    lines = ["#version: 0.2", *(f"{one} {other}" for one, other in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "vocab.json"
