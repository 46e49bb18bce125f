"""A small language model in a folder, and one that repeats what it saw, but for some tokens."""

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

N_TOKENS, WIDTH = 320, 32
UNTRAINED = range(300, 312)  # rows that are nearly one


def tokenizer():
    """Bytes, and words of two bytes that merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = [(one, other) for one in letters[:8] for other in letters[8:16]][: N_TOKENS - 256]
    vocab = {text: n for n, text in enumerate([*alphabet, *(one + other for one, other in merges)])}
    made = tokenizers.Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def ascii_tokenizer():
    """Return a tokenizer whose tokens are the bytes below 128, by their numbers."""
    shown = [chr(byte) if 32 < byte < 127 else chr(256 + min(byte, 33)) for byte in range(128)]  # as ByteLevel has them
    made = tokenizers.Tokenizer(models.BPE({text: byte for byte, text in enumerate(shown)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made


def language_model(seed=0, **config):
    """GPT-2 of two layers, drawn; the rows of `UNTRAINED` are nearly one."""
    torch.manual_seed(seed)
    size = {"vocab_size": N_TOKENS, "n_positions": 1024, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, **config}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**size, bos_token_id=None, eos_token_id=None, initializer_range=0.2)
    ).eval()
    with torch.no_grad():
        rows = model.transformer.wte.weight
        rows[UNTRAINED.start : UNTRAINED.stop] = 0.02 * torch.randn(WIDTH) + 1e-6 * torch.randn(len(UNTRAINED), WIDTH)
    return model


def saved(folder, seed=0, **config):
    """A model folder as transformers writes it."""
    language_model(seed, **config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(folder)
    return folder


class Repeater:
    """A function from ids to logits: after an id comes what came after it the last time, but for tokens it cannot say.

    Their place is taken by token 0.
    """

    def __init__(self, unable=UNTRAINED):
        self.unable = torch.tensor(list(unable))
        self.n_calls = 0

    def __call__(self, ids):
        self.n_calls += 1
        logits = torch.zeros(*ids.shape, N_TOKENS)
        for row, line in enumerate(ids):
            before = (line[:-1] == line[-1]).nonzero()
            answer = line[before[-1] + 1] if len(before) else line[-1]
            logits[row, -1, 0 if torch.isin(answer, self.unable) else answer] = 12.0
        return logits
