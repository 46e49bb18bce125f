"""Tokenizer files, changed at random and opened: `python tests/importable/mutations.py KIND N [SEED] [FILE]`,
KIND as in `NAMES`, or all; FILE a real one of the kind, of which the first tokens are taken.

In a process of its own, as what a library does with such a file may end it. Each change must be a tokenizer or an error
of our tree in one sentence, in ten seconds. Prints, as JSON, how many of each there were, and the memory it took.
"""

import collections
import json
import random
import resource
import signal
import sys
import tempfile
from pathlib import Path

import tokenizer_files

from darkvocab.errors import DarkvocabError
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.sources.tokenizer import open_tokenizer, tiktoken

SECONDS = 10  # for a file
MB = 1 << 20
NAMES = {
    "ranks": "tokenizer.model",
    "tekken": "tekken.json",
    "sentencepiece": "tokenizer.model",
    "unigram": "spiece.model",
    "vocab": "vocab.json",
    "merges": "merges.txt",
    "words": "vocab.txt",
    "json": "tokenizer.json",
    "config": "tokenizer_config.json",
}
NUMBERS = (
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\xff" * 9 + b"\x01",
    b"\x80" * 12,
    b"\x00\x00\x80\x7f",
)
VALUES = (None, True, -1, 0, 2**31, 2**63, 10**30, 1e308, "", "\ud800", "x" * 1000, "(", r"(a+)+(?!b)", [], {}, [[]])


def prepared(kind: str, folder: Path, real: Path | None) -> Path:
    """Write a good tokenizer of this kind, a real one cut short where there is one; return the file to change."""
    path = folder / NAMES[kind]
    if kind == "ranks":
        tokenizer_files.of_ranks(path)
    elif kind == "tekken":
        tokenizer_files.tekken(path)
    elif kind == "sentencepiece":
        tokenizer_files.trained(path)
    elif kind == "unigram":
        tokenizer_files.trained(path, "unigram", user_defined_symbols="<sep>")
    elif kind == "words":
        path.write_text("\n".join(["[UNK]", "the", "##se", *map(chr, range(0x61, 0x7B))]) + "\n")
    else:
        config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {"300": {"content": "<x>"}}}
        tokenizer_files.vocab_and_merges(folder, **config, eos_token={"content": "<end>"}, add_prefix_space=False)
        if kind == "json":
            open_tokenizer(folder / "vocab.json").rules.save(str(path))
    if real is not None:
        path.write_bytes(shortened(kind, real.read_bytes()))
    return path


def shortened(kind: str, data: bytes) -> bytes:
    """Return the first tokens of a real file, so that it is opened in no time."""
    if kind == "ranks":
        return b"".join(data.splitlines(keepends=True)[:700])
    if kind == "tekken":
        held = json.loads(data)
        held["config"] |= {"default_vocab_size": 720, "default_num_special_tokens": 20}
        return json.dumps({**held, "vocab": held["vocab"][:700]}).encode()
    if kind == "json":
        held = json.loads(data)
        texts = {text: n for text, n in held["model"]["vocab"].items() if n < 700}
        held["model"]["vocab"] = texts
        if "merges" in held["model"]:
            pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in held["model"]["merges"])
            held["model"]["merges"] = [pair for pair in pairs if {*pair, "".join(pair)} <= texts.keys()]
        held["added_tokens"] = [one for one in held.get("added_tokens", []) if one["content"] in texts]
        return json.dumps(held).encode()
    from darkvocab.sources.tokenizer.sentencepiece import fields

    sizes = [2 + len(value) for number, value in fields(data) if number == 1]  # pieces are shorter than 128 bytes
    return data[: sum(sizes[:700])] + data[sum(sizes) :]


def changed(data: bytes, lot: random.Random) -> bytes:
    """Return a file with some bytes changed, left out, doubled or put in."""
    out = bytearray(data)
    for _ in range(lot.choice((1, 1, 1, 2, 8))):
        at = lot.randrange(len(out) + 1)
        size = lot.choice((1, 2, 4, 16, 1000))
        match lot.randrange(7):
            case 0:
                out[at : at + 1] = bytes([lot.randrange(256)])
            case 1:
                del out[at : at + size]
            case 2:
                out[at:at] = out[at : at + size]
            case 3:
                out[at:at] = lot.choice(NUMBERS)
            case 4:
                out[at : at + 4] = lot.choice(NUMBERS)
            case 5:
                del out[at:]
            case 6:
                begin = lot.randrange(len(out) + 1)
                out[at : at + size] = out[begin : begin + size]
    return bytes(out)


def changed_json(data: bytes, lot: random.Random) -> bytes:
    """Return a JSON file one of whose values is another, or left out."""
    held = json.loads(data)
    place = held
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return json.dumps(held).encode()
        key = lot.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and lot.random() < 0.8:
            place = inner
            continue
        if lot.random() < 0.2:
            del place[key]
        else:
            place[key] = lot.choice(VALUES)
        return json.dumps(held).encode()


def tried(kind: str, n: int, lot: random.Random, real: Path | None) -> dict[str, object]:
    """Open so many changed files of a kind; return how many were opened, and how many refused by each error."""
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as place:
        path = prepared(kind, Path(place), real)
        target = path.parent if kind in ("merges", "config") else path
        vocabulary(open_tokenizer(target), seconds=5)
        good = path.read_bytes()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(n):
            path.write_bytes((changed_json if path.suffix == ".json" and lot.random() < 0.7 else changed)(good, lot))
            signal.alarm(SECONDS)
            try:
                vocabulary(open_tokenizer(target), seconds=0.05)
                outcomes["opened"] += 1
            except DarkvocabError as error:
                outcomes[type(error).__name__ if len(str(error).splitlines()) == 1 else "more than a sentence"] += 1
            finally:
                signal.alarm(0)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"kind": kind, **outcomes, "grown_mb": round(grown)}


def main() -> None:
    # A change makes another vocabulary, whose pattern nobody knows: here each has the same name and pattern.
    tiktoken.fingerprint = lambda ranks: ""
    tiktoken.VOCABULARIES[""] = tiktoken.Known("Made up", tokenizer_files.PATTERN, {"<|end|>": 5000})
    kinds = list(NAMES) if sys.argv[1] == "all" else [sys.argv[1]]
    lot = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    real = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    for kind in kinds:
        print(json.dumps(tried(kind, int(sys.argv[2]), lot, real)), flush=True)


if __name__ == "__main__":
    main()
