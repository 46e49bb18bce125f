"""Small tokenizers of every kind, drawn by lot: few characters, some of whose texts no text reaches."""

import itertools
import random

from pattern_drawn import PATTERNS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPLIT = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # Qwen's
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ALPHABETS = ("ab", "aB ", "ab1", "a.b", "ab\n", "aé", "a中b", "中丑é")


def normaliser(lot):
    return lot.choice(
        [
            *(None, normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.Lowercase()),
            normalizers.BertNormalizer(),
            normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
            normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("b", "1")]),
        ]
    )


def cutter(lot):
    digits, dots = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation("merged_with_previous")
    return lot.choice(
        [
            *(None, pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()),
            *(digits, pre_tokenizers.WhitespaceSplit(), pre_tokenizers.UnicodeScripts()),
            pre_tokenizers.Sequence([digits, dots]),
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        ]
    )


def word(lot, alphabet):
    return "".join(lot.choice(alphabet) for _ in range(lot.randint(1, 4)))


def merged(lot, symbols, n):
    """Symbols and what up to `n` merges make of them; the merges, not always in an order that can be learned."""
    result, merges = list(symbols), []
    for _ in range(n):
        a, b = lot.choice(result), lot.choice(result)
        if len(a + b) <= 6 and (a, b) not in merges:
            merges.append((a, b))
            result += [a + b] if a + b not in result else []
    if lot.random() < 0.5:
        lot.shuffle(merges)
    return result, merges


def numbered(texts):
    return {text: n for n, text in enumerate(dict.fromkeys(texts))}


def bpe(lot, alphabet):
    result, merges = merged(lot, alphabet, lot.randint(1, 14))
    options = {"unk_token": lot.choice([None, "<unk>"]), "ignore_merges": lot.random() < 0.3}
    tokenizer = Tokenizer(models.BPE(numbered(["<unk>", *result]), merges, **options))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normaliser(lot), cutter(lot)
    return tokenizer


def byte_level(lot, alphabet):
    alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = sorted(set(alone.pre_tokenize_str(alphabet + "中é丑")[0][0]))
    result, merges = merged(lot, symbols, lot.randint(1, 20))
    every = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(numbered([*every, *result]), merges, ignore_merges=lot.random() < 0.3))
    tokenizer.normalizer = lot.choice([None, normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(lot.choice([SPLIT, *PATTERNS.values()])), lot.choice(["isolated", "removed"]))
    spaced = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=lot.random() < 0.5)
    tokenizer.pre_tokenizer = lot.choice(
        [
            alone,
            pre_tokenizers.ByteLevel(),
            *(pre_tokenizers.Sequence([split, last]) for last in (alone, alone, spaced)),
        ],
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama(lot, alphabet):
    """Spaces as underscores, single bytes for characters without a token."""
    symbols = ["▁", *(a for a in alphabet if a != " " and lot.random() < 0.8)]
    result, merges = merged(lot, symbols, lot.randint(1, 14))
    model = models.BPE(numbered(["<unk>", *BYTES, *result]), merges, unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    if lot.random() < 0.5:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=lot.choice(["always", "never", "first"]))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def suffixed(lot, alphabet):
    """A mark at the end of words, as CLIP has it."""
    result = [*alphabet, *(f"{a}</w>" for a in alphabet)]
    merges = []
    for _ in range(12):
        a, b = lot.choice([text for text in result if not text.endswith("</w>")]), lot.choice(result)
        if (a, b) not in merges and len(a + b) < 9:
            merges.append((a, b))
            result += [a + b] if a + b not in result else []
    tokenizer = Tokenizer(models.BPE(numbered(result), merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normaliser(lot), cutter(lot)
    tokenizer.decoder = decoders.BPEDecoder()
    return tokenizer


def wordpiece(lot, alphabet):
    begin = {word(lot, alphabet) for _ in range(lot.randint(2, 12))}
    continued = {f"##{word(lot, alphabet)}" for _ in range(lot.randint(2, 12))}
    tokenizer = Tokenizer(
        models.WordPiece(numbered(["[UNK]", *sorted(begin), *sorted(continued)]), unk_token="[UNK]"),
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normaliser(lot), cutter(lot)
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def unigram(lot, alphabet):
    spaced = lot.random() < 0.5
    words = sorted({word(lot, alphabet) for _ in range(lot.randint(3, 15))} | set(alphabet))
    words = ["▁", *(text.replace(" ", "▁") for text in words)] if spaced else words
    in_bytes = BYTES if spaced and lot.random() < 0.5 else []
    scored = [(text, -lot.uniform(0.5, 6)) for text in dict.fromkeys(words) if lot.random() < 0.9]
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), *((text, -9.0) for text in in_bytes), *scored], 0, bool(in_bytes)),
    )
    if spaced:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=lot.choice(["always", "never", "first"]))
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.normalizer, tokenizer.pre_tokenizer = normaliser(lot), cutter(lot)
    return tokenizer


def wordlevel(lot, alphabet):
    words = sorted({word(lot, alphabet) for _ in range(12)})
    tokenizer = Tokenizer(models.WordLevel(numbered(["[UNK]", *words]), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normaliser(lot), cutter(lot)
    return tokenizer


KINDS = (bpe, byte_level, llama, suffixed, wordpiece, unigram, wordlevel)


def drawn(kind, seed):
    """A tokenizer of this kind, and the texts that it is to be tried on: all short ones of few characters."""
    lot = random.Random(seed)
    alphabet = lot.choice(ALPHABETS)
    tokenizer = kind(lot, alphabet)
    if lot.random() < 0.3:
        content = word(lot, alphabet) + lot.choice(["", "<x>"])
        tokenizer.add_tokens([AddedToken(content, normalized=lot.random() < 0.5, single_word=lot.random() < 0.3)])
    beside = {" ", lot.choice("Xx"), *(a.upper() for a in alphabet), *("中é" if kind is byte_level else "")}
    characters = [*alphabet, *sorted(beside - set(alphabet))][:6]
    longest = 5 if len(characters) < 6 else 4
    texts = ("".join(some) for n in range(1, longest + 1) for some in itertools.product(characters, repeat=n))
    return tokenizer, [*texts, "丐", "且", "世"]
