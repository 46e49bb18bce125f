"""A small language model in a folder, and one that repeats what it saw, but for some tokens."""

import torch
import transformers
from bytewise import N_TOKENS, UNTRAINED, tokenizer

WIDTH = 32


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
