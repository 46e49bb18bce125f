"""`by_triton.distances` in Triton's interpreter against its twin in torch: prints JSON, each fact and whether."""

import json
import os

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is decorated

import plain_distances as plain
import torch

from darkvocab.gpu.by_triton import distances as fast
from darkvocab.numerics import GRIDS

FACTS = (
    "values are the same",
    "distances are the same",
    "tallies are the same",
    "counts within limits are the same",
    "ranked distances are the same",
    "degrees and labels are the same",
    "no columns and no rows are fine",
    "infinite distances are the same",
    "a trial does not depend on its batch",
    "any shape of programs gives the same distances",
    "stars, cliques and paths in any order are connected",
    "random graphs are connected as they are",
)
held = dict.fromkeys(FACTS, True)


def hold(fact, *same):
    held[fact] = held[fact] and all(torch.equal(one, two) and one.dtype == two.dtype for one, two in same)


def batch(generator, grid, counts, dim, n=None):
    """Codes, home, rows and weights of trials with so many rows."""
    n, top = n or max(counts), min(GRIDS[grid].max_code, 1 << 30)
    home = torch.randint(-top, top + 1, (len(counts), dim), generator=generator)
    codes = torch.randint(-50, 51, (len(counts), n, dim), generator=generator)
    codes = ((home[:, None] + codes).clamp(-top, top) - home[:, None]).to(torch.int16)
    rows, weights = torch.full((len(counts), n), -1), torch.zeros(len(counts), n + -n % 128, dtype=torch.int64)
    for t, count in enumerate(counts):
        rows[t, :count] = torch.randperm(n, generator=generator)[:count]
        weights[t, :count] = torch.randint(1, 5, (count,), generator=generator)
    return codes, home, rows, weights


def spoilt(distances, weights):
    """Distances with zeros (on the diagonal, too) and NaN where no pair is: nobody may look there."""
    size = distances.shape[1]
    outside = torch.triu((weights[:, :, None] > 0) & (weights[:, None, :] > 0), 1)
    odd = (torch.arange(size)[:, None] + torch.arange(size)) % 2 > 0
    filled = torch.zeros_like(distances).masked_fill(odd, torch.nan)
    return torch.where(outside, distances, filled)


def compare(grid, unit, counts, dim, seed):
    codes, home, rows, weights = batch(torch.Generator().manual_seed(seed), grid, counts, dim)
    kind = GRIDS[grid]
    shape = kind.mantissa_bits, kind.min_exponent, kind.max_code
    x, its = (result.values(codes, home, rows, unit, shape) for result in (plain, fast))
    outside = (torch.arange(x.shape[1] * 128) < torch.tensor(counts)[:, None]).view(len(counts), -1, 1, 128)
    hold("values are the same", (x * outside, its * outside))
    apart, its = (spoilt(result.all_pairs(x, torch.tensor(counts)), weights) for result in (plain, fast))
    hold("distances are the same", (apart.nan_to_num(-1), its.nan_to_num(-1)))
    return apart, weights


def check(apart, weights, fact=""):
    equal, total = (weights * (weights - 1) // 2).sum(1), weights.sum(1)
    pairs = total * (total - 1) // 2
    hold(fact or "tallies are the same", *zip(plain.tally(apart, weights), fast.tally(apart, weights), strict=True))
    ranks = torch.stack([(pairs - 1) // 2, pairs // 2], 1).clamp(min=0)
    middle, its = (result.ranked(apart, weights, equal, ranks) for result in (plain, fast))
    hold(fact or "ranked distances are the same", (middle[pairs > 0], its[pairs > 0]))
    limits = torch.cat([middle[0], torch.tensor([0.0, -1.0])]).to(apart.dtype)
    near, its = (result.within(apart, weights, equal, limits) for result in (plain, fast))
    hold(fact or "counts within limits are the same", (near, its))
    graphs = (result.connect(apart, weights, middle[0, 0].item()) for result in (plain, fast))
    hold(fact or "degrees and labels are the same", *zip(*graphs, strict=True))


def measured():
    for seed, (grid, unit) in enumerate((grid, unit) for grid in GRIDS for unit in ("weight", "steps")):
        of = compare(grid, unit, (17, 0, 1, 2, 40), 9, seed)
        if (grid, unit) in (("bfloat16", "weight"), ("float32", "steps")):
            check(*of)
    fast.SHARE = 1 << 8  # fewer passes: the interpreter takes its time over each
    check(*compare("bfloat16", "weight", (130, 3), 3, 11))

    fact = "no columns and no rows are fine"
    for count, dim in ((3, 0), (0, 3), (3, 1)):
        codes, home = torch.zeros(2, count, dim, dtype=torch.int8), torch.zeros(2, dim, dtype=torch.int64)
        rows, counts = torch.arange(count).expand(2, -1), torch.full((2,), count)
        apart = [
            result.all_pairs(result.values(codes, home, rows, "weight", (7, -126, 0x7F7F)), counts)
            for result in (plain, fast)
        ]
        weights = (torch.arange(count + -count % 128) < count).long().expand(2, -1).contiguous()
        hold(fact, *[(some[:, :count, :count].triu(1), torch.zeros(2, count, count)) for some in apart])
        check(spoilt(apart[1], weights), weights, fact)

    fact = "infinite distances are the same"
    codes = torch.tensor([[[0x7F7F], [-0x7F7F], [1], [0], [-1]]], dtype=torch.int16)
    x = fast.values(codes, torch.zeros(1, 1, dtype=torch.int64), torch.arange(5)[None], "weight", (7, -126, 0x7F7F))
    weights = (torch.arange(128) < 5).long()[None] * 3
    apart = fast.all_pairs(x, torch.tensor([5]))
    held[fact] = apart[0, 0, 1].item() == float("inf") and apart[0, 3, 4].item() == 2.0**-133
    check(spoilt(apart, weights), weights, fact)


def alone():
    generator = torch.Generator().manual_seed(3)
    counts = torch.tensor([140, 30])
    x = torch.randn(2, 2, 8, 128, generator=generator)
    weights = torch.randint(1, 3, (2, 256), generator=generator) * (torch.arange(256) < counts[:, None])
    whole = spoilt(fast.all_pairs(x, counts), weights)
    for shape in (fast.Shape(4, 4, 16, 8, 4), fast.Shape(2, 4, 8, 4, 8), fast.Shape(8, 4, 16, 4, 1)):
        same = spoilt(fast.all_pairs(x, counts, shape=shape), weights)
        hold("any shape of programs gives the same distances", (same.nan_to_num(), whole.nan_to_num()))
    x = x.double()
    same = spoilt(fast.all_pairs(x, counts, shape=fast.Shape(2, 8, 16, 4, 4)), weights)
    hold(
        "any shape of programs gives the same distances",
        (same.nan_to_num(), spoilt(plain.all_pairs(x, counts), weights).nan_to_num()),
    )

    fact = "a trial does not depend on its batch"
    one = slice(1, 2)
    hold(fact, (fast.all_pairs(x[one].float(), counts[one])[0, :30, :30].triu(1), whole[1, :30, :30].triu(1)))
    hold(
        fact,
        *(
            (some[one], alone)
            for some, alone in zip(fast.tally(whole, weights), fast.tally(whole[one], weights[one]), strict=True)
        ),
    )
    together, alone = fast.connect(whole, weights, 2.5), fast.connect(whole[one], weights[one], 2.5)
    hold(fact, *((some[one], its) for some, its in zip(together, alone, strict=True)))


def graphs(n, *edges):
    """Distances 1 of some pairs [2, edges] of n rows, 2 of the others, and weights."""
    weights = (torch.arange(n + -n % 128) < n).long().expand(len(edges), -1).contiguous()
    apart = torch.full((len(edges), weights.shape[1], weights.shape[1]), 2.0)
    for t, (one, other) in enumerate(edges):
        apart[t, torch.minimum(one, other), torch.maximum(one, other)] = 1.0
    return spoilt(apart, weights), weights


def connected():
    generator = torch.Generator().manual_seed(4)
    n = 140
    orders = [torch.arange(n), torch.arange(n).flip(0), torch.randperm(n, generator=generator)]
    orders += [torch.arange(n).view(2, -1).T.flatten(), torch.tensor(sorted(range(n), key=lambda i: f"{i:08b}"[::-1]))]
    edges = [(order[:-1], order[1:]) for order in orders]
    edges += [
        (torch.zeros(n - 1, dtype=torch.int64), torch.arange(1, n)),
        (torch.full((n - 1,), n - 1), torch.arange(n - 1)),
    ]
    edges += [
        tuple(torch.triu_indices(n, n, 1)),
        tuple(torch.cartesian_prod(torch.arange(n // 2), torch.arange(n // 2, n)).T),
    ]
    apart, weights = graphs(n, *edges)
    degrees, labels = fast.connect(apart, weights, 1.0)
    fact = "stars, cliques and paths in any order are connected"
    hold(fact, (labels[:, :n], torch.zeros_like(labels[:, :n])))
    hold(fact, *[(degrees[t].sum(), torch.tensor(2 * len(one))) for t, (one, _) in enumerate(edges)])
    n, edges = 120, []
    for share in (0.5, 1.0, 1.5):  # of the edges at which a giant component forms
        one, other = torch.randint(0, n, (2, int(share * n / 2)), generator=generator)
        edges.append((one[one != other], other[one != other]))
    apart, weights = graphs(n, *edges)
    hold(
        "random graphs are connected as they are",
        *zip(*(result.connect(apart, weights, 1.0) for result in (plain, fast)), strict=True),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured()
    alone()
    connected()
    print(json.dumps(held))
