"""Scans for the page, as the library makes them: a Qwen-shaped one, and one of hostile texts."""

from dataclasses import replace

import numpy as np
import polars as pl
from scans import COLUMNS as SCANNED
from scans import scan_from

from darkvocab.checkpoints.scan_result import ClusterFacts, ColumnFacts, DistanceFacts, NeighbourFacts, ReferenceFacts

INDICATORS = {
    "euclidean": ("Euclidean distance to the reference", "|r - mean(ref)|"),
    "cosine": ("cosine distance to the reference", "1 - cos(r, mean(ref))"),
    "cosine_mean_removed": ("cosine distance, mean removed", "1 - cos(r - mean, mean(ref) - mean)"),
    "cosine_pc_removed": ("cosine distance, first component removed", "1 - cos(r - pr, mean(ref) - pr)"),
}
COLUMNS = {
    **{name: SCANNED[name] for name in SCANNED if name not in ("score", "dark")},
    **dict.fromkeys(INDICATORS, pl.Float64),
    **{name: SCANNED[name] for name in ("score", "dark")},
}
POPULATIONS = (814, 704, 306, 228, 11, 10, 6, 5, 4, 4, 3, 3, 2)  # of Qwen3-4B
HOSTILE = [
    "\ufeffmarked",
    "<script>window.owned=1</script>",
    "</script><script>window.owned=2</script>",
    "<!--<script>",
    "<img src=x onerror=window.owned=3>",
    '"><svg onload=window.owned=4>',
    "{{ 7 * 7 }}",
    "=HYPERLINK(1)",
    "+1",
    "-2",
    "@SUM(1)",
    "a\u202eb",
    "\u2028line\u2029",
    "nul\x00l",
    "\x1b[31m",
    'quote"comma,',
    "two\nlines\r",
    "",
    "\U0001f600",
    "x" * 30_000,
    "\u05d0\u05d1",
    "' onmouseover='window.owned=5",
]


def token_frame(n, **columns):
    """A frame of n tokens with plain values wherever a column is not given."""
    plain = {
        "id": np.arange(n),
        "text": [f"t{i}" for i in range(n)],
        "category": ["reachable"] * n,
        "population": np.ones(n, int),
        "n_touching": np.zeros(n, int),
        "norm": np.ones(n),
        "score": np.zeros(n),
        "dark": np.zeros(n, bool),
        **{name: np.linspace(1, 2, n) for name in INDICATORS},
    }
    result = {**plain, **columns}
    if "bytes" not in result:
        result["bytes"] = [None if text is None else text.encode().hex() for text in result["text"]]
    return pl.DataFrame({name: pl.Series(result.get(name, [None] * n), dtype=dtype) for name, dtype in COLUMNS.items()})


def atlas_of(tokens, asked="org/model", *, indicators=None, **parts):
    """The scan of a large model that goes with a frame of tokens; `indicators` and parts as for `scan_from`."""
    result = scan_from(
        tokens,
        asked=asked,
        tensor="model.embed_tokens.weight",
        n_bytes=777_912_320,
        **parts,
        indicators={
            "reference": ReferenceFacts(
                kind="black holes", n=2, n_left_out=0, how="rows shared by more than one token"
            ),
            "score": f"chance to be trained as little as the reference, by {INDICATORS['euclidean'][0]}",
            "expected_false_positives": 0.004,
            "columns": tuple(
                ColumnFacts(name=k, title=title, formula=options) for k, (title, options) in INDICATORS.items()
            ),
            **(indicators or {}),
        },
    )
    l_inf = DistanceFacts(rows="black_holes", max=6.1e-05, mean=2.9e-05, median=3e-05, max_steps=1)
    return replace(result, matrix=replace(result.matrix, hidden_dim=2560), l_inf=l_inf)


def qwen_shaped(n=151_936, seed=1):
    """A scan with the populations of Qwen3-4B's black holes, its cluster, and as many tokens."""
    rng = np.random.default_rng(seed)
    syllables = ["ing", "tion", "er", "un", "the", "con", "pre", "al", "中", "文", "の", "ка", "ни", "ar", "λο", "é"]
    picks = rng.integers(0, len(syllables), (n, 4))
    used = rng.integers(1, 5, n)
    texts = [
        "Ġ" * (i % 2) + "".join(syllables[k] for k in row[:m]) + str(i % 97)
        for i, (row, m) in enumerate(zip(picks, used, strict=True))
    ]
    n_beyond, n_partial, n_out = 267, 40, 112
    dark_ids = rng.choice(np.arange(300, n - n_beyond), sum(POPULATIONS) - n_beyond + n_out, replace=False)
    ids = np.concatenate([np.arange(n - n_beyond, n), dark_ids])
    hole = np.zeros(n, int)
    bounds = np.cumsum(POPULATIONS)
    for number, (start, end) in enumerate(zip([0, *bounds], bounds, strict=False), 1):
        hole[ids[start:end]] = number
    dark = np.isin(np.arange(n), ids)
    category = np.where(dark, "unreachable", "reachable").astype(object)
    category[dark_ids[-60:]] = "reachable"
    category[n - n_beyond :] = "beyond_tokenizer"
    category[128 : 128 + n_partial] = "partial_utf8"
    category[n - n_beyond - 26 : n - n_beyond] = "special"
    beyond = category == "beyond_tokenizer"
    norm = np.where(dark, 0.3709 + rng.normal(0, 2e-5, n) * (hole == 0), rng.normal(1.25, 0.12, n).clip(0.6))
    for number in range(1, len(POPULATIONS) + 1):
        norm[hole == number] = 0.3709 + 1e-5 * number
    away = np.where(dark, 2e-3 * (1 + (np.maximum(hole, 1) % 7)), norm * rng.normal(1, 0.05, n))
    away[dark_ids[-n_out:]] *= rng.uniform(1, 5, n_out)
    cosine = np.where(dark, 1e-6 * (1 + hole), rng.normal(0.9, 0.05, n).clip(0.2, 1.2))
    indicators = {
        "euclidean": away,
        "cosine": cosine,
        "cosine_mean_removed": cosine * 1.1 + rng.normal(0, 0.01, n) * ~dark,
    }
    indicators["cosine_pc_removed"] = cosine * 0.9 + rng.normal(0, 0.01, n) * ~dark
    population = np.where(hole > 0, np.array([0, *POPULATIONS])[hole], 1)
    tokens = token_frame(
        n,
        text=[None if gone else text for text, gone in zip(texts, beyond, strict=True)],
        category=category.tolist(),
        witness=[
            text.replace("Ġ", " ") if kind == "reachable" else None for text, kind in zip(texts, category, strict=True)
        ],
        script=[
            None if gone else ("Han" if "中" in text else "Latin") for text, gone in zip(texts, beyond, strict=True)
        ],
        black_hole=[int(number) or None for number in hole],
        population=population,
        n_touching=np.where(dark, sum(POPULATIONS) - population, 0),
        steps=np.where(dark, (hole == 0).astype(int), 4000),
        norm=norm,
        **indicators,
        score=np.where(dark, 1 - 1e-3 * rng.random(n), 0.02 * rng.random(n) ** 4),
        dark=dark,
    )
    firsts = [int(np.flatnonzero(hole == number)[0]) for number in range(1, len(POPULATIONS) + 1)]
    outliers = [int(i) for i in dark_ids[-n_out:]]
    rows = firsts + outliers
    edges = [(a, b) for k, a in enumerate(firsts) for b in firsts[:k]]
    edges += [(int(rng.choice(firsts[:6])), b) for b in outliers for _ in range(int(rng.integers(1, 4)))]
    neighbours = NeighbourFacts(
        touching="<= 1 step",
        n_pairs=2_204_118,
        n_components=1,
        degrees=((1, 40, 40), (2, 38, 38), (3, 34, 34), (12, 8, 30), (40, 5, 2070)),
        cluster=ClusterFacts(
            n_tokens=len(ids),
            n_core=sum(POPULATIONS),
            n_outliers=n_out,
            token_ids=tuple(sorted(ids.tolist())),
            map=tuple((i, *(rng.normal(0, 2e-5 if i in firsts else 8e-5, 2)).tolist()) for i in rows),
        ),
        edges=tuple(edges),
    )
    return atlas_of(tokens, "Qwen/Qwen3-4B", neighbours=neighbours)


def hostile():
    """A scan whose every text would like to be something else."""
    n = len(HOSTILE)
    tokens = token_frame(
        n,
        text=HOSTILE,
        witness=HOSTILE[::-1],
        script=["<b>Latin</b>"] * n,
        reserved=[*(["<i>reserved</i>"] * 2), *([None] * (n - 2))],
        black_hole=[1, 1, *([None] * (n - 2))],
        population=[2, 2, *([1] * (n - 2))],
        score=np.linspace(1, 0, n),
        dark=[True] * n,
    )
    asked = "</title><script>window.owned=6</script>"
    return atlas_of(tokens, asked)
