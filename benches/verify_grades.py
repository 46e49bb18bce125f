"""Measure how well the grades of tokens agree with what a language model can do: repeat a token.

    python benches/verify_grades.py [MODEL.gguf] [--values FILE.parquet] [--random 500]

Each token is put in the place of a placeholder in few-shot texts that end where the token has to be repeated. P_max is
the largest probability that the model gives to it over all texts and three places that are decoded greedily [1]_. The
texts are our own, in two sets: figures that hold for both are no matter of wording. Tokens drawn from all are the
controls: a text whose shots are bare words alone (`device`, `quotes`, `meaning`) makes a small model drop a token's
leading space, and says nothing by itself. Measured are the tokens nearest to the untrained ones, all that are untrained
or weak, and the drawn. Seeds are fixed, and sums run in one thread, in float32 (bfloat16 moves P_max by 0.04 in the
median). It takes a quarter of an hour of one core.

`--values` holds what was measured: tokens that it lacks are added, so that the grades can be judged anew in seconds.

References
----------
.. [1] S. Land, M. Bartolo, "Fishing for Magikarp: Automatically Detecting Under-trained Tokens in Large Language
   Models", EMNLP 2024, arXiv:2405.05417, section 3.4.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel

from darkvocab import scan
from darkvocab.checkpoints.scan_result import Scan

SMOLLM2 = Path(__file__).parents[1] / "demo/SmolLM2-135M-Instruct.Q4_1.gguf"
PLACEHOLDER = "~"
PLACES = 3  # decoded greedily
BATCH = 64  # tokens at a time
UNABLE = 0.001  # P_max below which a model is held unable to repeat a token
HARDLY = 0.05  # and below which it hardly can
NEAREST = 500  # rows among which all that the model is unable to repeat should be graded

WORDS = "apple river seven green hello market window doctor table music paper garden yellow silver winter bridge pencil"
PIECES = ("lamp", " ocean", "ing", " the", "Forty", "({", " chair", "atic", "\\n", " Engine", "é", " of", "==", "oil")
FRAMES = {  # name: set, text
    "device": (
        "first",
        "This device prints back exactly what it is given.\n"
        + "".join(f"given «{word}» prints «{word}»\n" for word in f"{WORDS} dragon forest candle".split())
        + "given «~» prints «",
    ),
    "quotes": (
        "first",
        'Question: Which word stands between the quotes: "river"?\nAnswer: The word between the quotes is "river".\n'
        'Question: Which word stands between the quotes: "~"?\nAnswer: The word between the quotes is "',
    ),
    "list": ("first", "The same item, over and over:\n" + "«~»\n" * 12 + "«"),
    "copies": (
        "second",
        "Each text and its exact copy, with every space:\n"
        + "".join(f"<{piece}> = <{piece}>\n" for piece in PIECES)
        + "<~> = <",
    ),
    "meaning": (
        "second",
        'What does "window" mean?\n"window" means an opening in a wall that lets in light and air.\n'
        'What does "~" mean?\n"',
    ),
    "numbered": ("second", "".join(f"{number}. [~]\n" for number in range(1, 6)) + "6. ["),
}


@dataclass(frozen=True)
class Frame:
    """One text: the ids before the placeholder, and those from it on, with the places to put a token."""

    name: str
    before: torch.Tensor
    rest: torch.Tensor
    places: list[int]  # in `rest`

    @classmethod
    def of(cls, name: str, tokenizer: AutoTokenizer) -> Frame:
        text = FRAMES[name][1]
        (mark,) = tokenizer(PLACEHOLDER, add_special_tokens=False)["input_ids"]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        places = [place for place, token in enumerate(ids) if token == mark]
        if len(places) != text.count(PLACEHOLDER):
            raise SystemExit(f"{name}: the placeholder is a token {len(places)} times, not {text.count(PLACEHOLDER)}")
        first = places[0]
        return cls(name, torch.tensor(ids[:first]), torch.tensor(ids[first:]), [place - first for place in places])


@torch.inference_mode()
def repeated(model: PreTrainedModel, frame: Frame, tokens: np.ndarray) -> Iterator[pl.DataFrame]:
    """Yield the probabilities of tokens in their own frame, and the model's answers, by place."""
    for start in range(0, len(tokens), BATCH):
        batch = torch.tensor(tokens[start : start + BATCH])
        rows = frame.rest.repeat(len(batch), 1)
        rows[:, frame.places] = batch[:, None]
        cache = model(frame.before[None], use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(batch))
        for place in range(PLACES):
            logits = model(rows, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            answers = logits.argmax(-1)
            chances = logits.softmax(-1).gather(1, batch[:, None])[:, 0]
            yield pl.DataFrame(
                {
                    "id": batch.numpy(),
                    "frame": frame.name,
                    "place": place,
                    "p": chances.numpy(),
                    "answer": answers.numpy(),
                }
            )
            rows = answers[:, None]


def measured(path: Path, tokens: np.ndarray, values: Path | None) -> pl.DataFrame:
    """Return P of tokens by frame and place; what `values` holds already is not measured again."""
    known = pl.read_parquet(values) if values and values.exists() else None
    missing = {
        name: np.setdiff1d(tokens, known.filter(pl.col("frame") == name)["id"]) if known is not None else tokens
        for name in FRAMES
    }
    frames = [known] if known is not None else []
    if any(len(ids) for ids in missing.values()):
        torch.set_num_threads(1)  # sums in one order
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        dense = GgufConfig(dequantize=True)  # else kernels are asked of the Hub
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=dense
        ).eval()
        for name, ids in missing.items():
            print(f"{name}: {len(ids):,} tokens", flush=True)
            frames += repeated(model, Frame.of(name, tokenizer), ids)
            if values:
                pl.concat(frames).write_parquet(values)
    return pl.concat(frames)


def chosen(scanned: Scan, n_random: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids to measure (the nearest, all untrained and weak, some drawn from all), and the drawn ones."""
    tokens = scanned.tokens
    drawn = np.random.default_rng(0).choice(len(tokens), min(n_random, len(tokens)), replace=False)
    graded = tokens.filter(pl.col("grade") != "trained")["id"].to_numpy()
    return np.unique(np.concatenate([nearest(scanned, NEAREST), graded, drawn])), drawn


def nearest(scanned: Scan, n: int) -> np.ndarray:
    """Return the ids of the rows nearest to the reference, the nearest first."""
    if scanned.indicators.by is None:
        raise SystemExit("no rows stand apart as never trained: nothing is near to them")
    return np.argsort(scanned.tokens[scanned.indicators.by].to_numpy(), kind="stable")[:n]


def shares(scanned: Scan, p_max: pl.DataFrame, drawn: np.ndarray) -> str:
    """Return recall and precision of the grades by this P_max (columns id, p), and how many of the drawn are unable."""
    p = np.full(len(scanned.tokens), np.nan)
    p[p_max["id"]] = p_max["p"]
    graded = scanned.tokens["grade"].to_numpy() != "trained"
    unable = [token for token in nearest(scanned, NEAREST) if p[token] < UNABLE]
    n_found, n_hardly = int(graded[unable].sum()), int((p[graded] < HARDLY).sum())
    return (
        f"recall {n_found} of {len(unable)} ({n_found / max(len(unable), 1):.0%}), "
        f"precision {n_hardly} of {graded.sum()} ({n_hardly / max(graded.sum(), 1):.0%}), "
        f"{(p[drawn] < UNABLE).sum()} of {len(drawn)} drawn are unable"
    )


def highest(values: pl.DataFrame, frames: tuple[str, ...]) -> pl.DataFrame:
    """Return P_max of each token over some frames: columns id, p."""
    return values.filter(pl.col("frame").is_in(frames)).group_by("id", maintain_order=True).agg(pl.col("p").max())


def show(scanned: Scan, values: pl.DataFrame, drawn: np.ndarray) -> None:
    print(f"\nRecall: of the {NEAREST} nearest rows with P_max < {UNABLE}, those untrained or weak.")
    print(f"Precision: of all untrained and weak, those with P_max < {HARDLY}.")
    print(
        f"A frame in which many of the drawn have P_max < {UNABLE} asks for more than to repeat: it is no fair test.\n"
    )
    sets = sorted({kind for kind, _ in FRAMES.values()})
    by_set = {kind: tuple(name for name in FRAMES if FRAMES[name][0] == kind) for kind in sets}
    groups = {f"{kind} set ({', '.join(names)})": names for kind, names in by_set.items()}
    groups |= {name: (name,) for name in FRAMES}
    groups |= {"all": tuple(FRAMES)}
    for title, names in groups.items():
        print(f"{title:45} {shares(scanned, highest(values, names), drawn)}")
    triples = [shares(scanned, highest(values, names), drawn) for names in itertools.combinations(FRAMES, 3)]
    print(f"\nany three of the {len(FRAMES)}, {len(triples)} ways:")
    for one in sorted(set(triples)):
        print(f"{triples.count(one):4} x {one}")

    tokens = scanned.tokens.select("id", "text", "grade", distance=scanned.indicators.by)
    for kind, names in by_set.items():
        table = tokens.join(highest(values, names), "id")
        kinds = {grade: table.filter(pl.col("grade") == grade) for grade in ("untrained", "weak")}
        kinds[f"trained, of the {NEAREST} nearest"] = table.filter(
            pl.col("grade") == "trained", pl.col("id").is_in(nearest(scanned, NEAREST).tolist())
        )
        kinds["drawn from all"] = table.filter(pl.col("id").is_in(drawn.tolist()))
        print(f"\nP_max by the {kind} set\n{'':30}{'tokens':>7}{'< 0.001':>9}{'< 0.01':>9}{'< 0.05':>9}{'median':>9}")
        for title, part in kinds.items():
            counts = "".join(f"{(part['p'] < limit).sum():9}" for limit in (UNABLE, 0.01, HARDLY))
            print(f"{title:30}{len(part):7}{counts}{part['p'].median() or 0:9.3f}")
        low = kinds["drawn from all"].filter(pl.col("p") < UNABLE)
        print("of the drawn, below 0.001:", ", ".join(f"{text!r} ({grade})" for _, text, grade, *_ in low.rows()))
    graded = tokens.filter(pl.col("grade") != "trained")
    for kind, names in by_set.items():
        graded = graded.join(highest(values, names).rename({"p": f"P_max, {kind} set"}), "id")
    with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, float_precision=4):
        print("\n", graded.sort("distance"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=SMOLLM2, help="a GGUF file that transformers can load")
    parser.add_argument("--values", type=Path, help="Parquet file of what was measured, read and written")
    parser.add_argument("--random", type=int, default=500, help="tokens drawn from all")
    asked = parser.parse_args()
    scanned = scan(asked.model, checksum=False)
    tokens, drawn = chosen(scanned, asked.random)
    show(scanned, measured(asked.model, tokens, asked.values), drawn)


if __name__ == "__main__":
    main()
