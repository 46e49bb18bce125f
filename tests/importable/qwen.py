"""A checkpoint of Qwen3-4B's shape, with the recorded rows of its thirteen black holes in it."""

import numpy as np

from darkvocab.numerics import encode
from darkvocab.snowballs.bases import qwen3_4b, recorded

FIRST = [80091, 125, 124, 124350, 123939, 119349, 126268, 132383, 135619, 136831, 180, 126775, 126816]  # recorded ids
BEYOND = 151_669  # ids from here on no tokenizer text of Qwen3 has
N_SINGLE = 121  # rows around the black holes that one token has alone


def qwen_words(seed=1):
    """Words [151,936, 2,560] of bfloat16, ids of each black hole, ids of the lone rows around them.

    The black holes' rows are the recorded ones, as far as they are (`qwen3_4b`); their tokens are the recorded first
    ids, the ids beyond the tokenizer, and drawn ones. The lone rows differ from the largest one by a step in a few of
    its finest columns. All other rows are random: norm about 1.2.
    """
    facts, rng = recorded(), np.random.default_rng(seed)
    n, dim = facts["vocab_size"], facts["hidden_dim"]
    words = np.frombuffer(rng.bytes(2 * n * dim), np.uint16).reshape(n, dim) & np.uint16(0x81FF) | np.uint16(0x3C00)
    rows = np.tile(encode(qwen3_4b(), "bfloat16"), (13, 1))
    for column, varying in facts["varying_words"]["dims"].items():
        rows[:, int(column)] = varying
    members = [[first] for first in FIRST]
    free = [*range(BEYOND, n), *(10 + rng.permutation(BEYOND - 10))]
    taken, left = set(FIRST), iter(free)
    for hole, population in zip(members, facts["black_hole_populations"], strict=True):
        while len(hole) < population:
            token = int(next(left))
            if token not in taken and token > hole[0]:
                hole.append(token)
                taken.add(token)
    for row, hole in zip(rows, members, strict=True):
        words[hole] = row
    single = [token for token in map(int, left) if token not in taken][:N_SINGLE]
    finest = np.argsort(rows[0] & 0x7FFF)[:8]
    words[single] = rows[0]
    for number, token in enumerate(single):
        words[token, finest] += np.array([number >> bit & 1 for bit in range(7)] + [1], np.uint16)
    return words, members, single
