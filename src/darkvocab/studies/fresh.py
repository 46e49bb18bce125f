"""Give tokens that a model never saw fresh rows by `repair`, and train on a text that has them."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from ..checkpoints.repair import repair
from ..training.choices import ModelStart
from ..training.corpus import Corpus
from ..training.run import train
from ..training.settings import Training

FIRST_STEPS = 2  # steps before the tokens occur, as a multiple of those after


def with_words(corpus: Corpus, words: dict[int, str]) -> Corpus:
    """Return the text with each of these words replaced by one token, the longest first."""
    text = bytes(corpus.ids.astype(np.uint8))
    for token, word in sorted(words.items(), key=lambda item: -len(item[1])):
        text = text.replace(word.encode(), bytes([token]))
    name = f"{corpus.name} with {len(words)} words as tokens"
    sha256 = hashlib.sha256(text).hexdigest()
    return Corpus(name=name, sha256=sha256, n_vocabulary=corpus.n_vocabulary, ids=np.frombuffer(text, np.uint8))


def from_fresh_rows(training: Training, method: str, words: list[str], out: Path, cores: int | None) -> Training:
    """Train without the words, give their tokens rows by a method of `repair`, and return the training that follows.

    The method "none" leaves the rows as they are. The tokens are the first that the text lacks; until then each word
    is spelled by its letters. `out` holds the first training and the repaired model.
    """
    tokens = dict(zip(training.corpus.unseen.tolist(), words, strict=False))
    first = dataclasses.replace(training, steps=training.steps * FIRST_STEPS, record_every=training.steps)
    train(first, out / "first", resume=(out / "first" / "manifest.json").is_file(), cores=cores)
    model = out / "first" / "model"
    if method != "none" and not (out / "repaired").is_dir():
        (model / "tokenizer.json").write_text(_tokenizer(tokens, training.corpus.n_vocabulary))
        repair(model, out / "repaired", tokens=list(tokens), how=method, seed=training.seed)
    start = ModelStart(model=str(model if method == "none" else out / "repaired"))
    return dataclasses.replace(training, start=start, corpus=with_words(training.corpus, tokens))


def _tokenizer(words: dict[int, str], n_vocabulary: int) -> str:
    """Return a tokenizer.json of single bytes, with words in place of some of them."""
    texts = {**{token: chr(token) for token in range(n_vocabulary)}, **words}
    model = {"type": "BPE", "vocab": {text: token for token, text in texts.items()}, "merges": []}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model})
