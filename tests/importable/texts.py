"""A small model without torch, whose untrained tokens are known, and texts with known counts in every kind of file."""

import csv
import gzip
import io
import json
from collections import Counter

import numpy as np
import polars as pl
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

try:
    from compression import zstd
except ImportError:
    from backports import zstd

N_TOKENS, WIDTH = 320, 32
UNTRAINED = range(300, 312)  # fm, fn, fo, fp, gi ... gp: rows that are nearly one
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>"
    "{%- generation -%}{{ message['content'] | trim }}{%- endgeneration -%}</>\n{% endfor %}"
)
TEXTS = ["all is well", "a fog, and\nthe gong, gong\n\nof a fort", "", "é 🙂 fort", "x " * 500 + "go", "fog\n" * 300]
CHAT = [{"role": "user", "content": " fog? "}, {"role": "assistant", "content": "go"}]


def rules():
    """Bytes, and words of two bytes that merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = [(one, other) for one in letters[:8] for other in letters[8:16]]
    vocab = {text: n for n, text in enumerate([*alphabet, *(one + other for one, other in merges)])}
    result = tokenizers.Tokenizer(models.BPE(vocab, merges))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    return result


def model(folder, *, n_rows=N_TOKENS, template=TEMPLATE):
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 0.2, (n_rows, WIDTH)).astype(np.float32)
    kept = slice(UNTRAINED.start, min(UNTRAINED.stop, n_rows))
    near = 0.02 * rng.normal(size=WIDTH) + 1e-6 * rng.normal(size=(kept.stop - kept.start, WIDTH))
    rows[kept] = near.astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"model.embed_tokens.weight": rows}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"vocab_size": n_rows, "tie_word_embeddings": True}))
    rules().save(str(folder / "tokenizer.json"))
    config = {"bos_token": "am"} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def plain(texts, encode=None):
    """Count by a loop: how often each token occurs, and in how many texts."""
    encode = encode or rules().encode
    ids = [encode(text).ids for text in texts]
    return Counter(token for some in ids for token in some), Counter(token for some in ids for token in set(some))


def of(counts):
    """The same two of what was counted."""
    kept = counts.tokens.filter(counts.tokens["count"] > 0)
    return Counter(dict(kept.select("id", "count").iter_rows())), Counter(
        dict(kept.select("id", "n_texts").iter_rows())
    )


def as_json(texts):
    return "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts)).encode()


def as_csv(texts, delimiter=","):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([("n", "text"), *enumerate(texts)])
    return file.getvalue().encode()


def as_parquet(texts):
    file = io.BytesIO()
    pl.DataFrame({"n": range(len(texts)), "text": texts}).write_parquet(file, row_group_size=2)
    return file.getvalue()


FILES = {
    "a.jsonl": as_json,
    "a.ndjson": as_json,
    "a.json.gz": lambda texts: gzip.compress(as_json(texts), mtime=0),
    "a.jsonl.zst": lambda texts: zstd.compress(as_json(texts)),
    "a.csv": as_csv,
    "a.csv.gz": lambda texts: gzip.compress(as_csv(texts), mtime=0),
    "a.tsv": lambda texts: as_csv(texts, "\t"),
    "a.parquet": as_parquet,
}
