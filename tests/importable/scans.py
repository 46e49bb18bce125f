"""Scans made by hand: a report and its tokens, as `darkvocab.checkpoints.scan.Scan` holds them."""

from types import SimpleNamespace

import polars as pl

COLUMNS = {
    "id": pl.Int64,
    "text": pl.String,
    "bytes": pl.String,
    "category": pl.String,
    "witness": pl.String,
    "script": pl.String,
    "reserved": pl.String,
    "black_hole": pl.Int64,
    "population": pl.Int64,
    "n_touching": pl.Int64,
    "steps": pl.Int64,
    "norm": pl.Float64,
    "euclidean": pl.Float64,
    "score": pl.Float64,
    "dark": pl.Boolean,
}


def scan_of(
    *tokens, n_without_row=0, tokenizer=True, quantised=False, path="model/model.safetensors", tensor="embed.weight"
):
    """A scan of these tokens, each as what differs from an ordinary one: `dark`, `black_hole`, `category`, ..."""
    rows = []
    for number, told in enumerate(tokens):
        category = told.get("category", "reachable" if tokenizer else "unknown")
        text = told.get("text", None if category in ("beyond_tokenizer", "unknown") else f"t{number}")
        hole = told.get("black_hole")
        population = sum(other.get("black_hole") == hole for other in tokens) if hole else 1
        row = {
            "id": number,
            "text": text,
            "bytes": None,
            "category": category,
            "witness": text if category == "reachable" else None,
            "script": None,
            "reserved": None,
            "black_hole": hole,
            "population": population,
            "n_touching": None if quantised else population - 1,
            "steps": None,
            "norm": 1.0,
            "euclidean": 1.0,
            "score": 1.0 if told.get("dark") else 0.0,
            "dark": False,
        }
        rows.append(row | told | {"text": text, "category": category})
    frame = pl.DataFrame(rows, schema=COLUMNS)
    held = frame["black_hole"].drop_nulls()
    n_beyond = sum(row["category"] == "beyond_tokenizer" for row in rows)
    norms = {f"p{q}": 1.0 for q in (1, 5, 25, 50, 75, 95, 99)} | {"min": 1.0, "max": 1.0, "mean": 1.0}
    report = {
        "schema_version": 2,
        "n_tokens": len(rows),
        "hidden_dim": 8,
        "grid": "bfloat16",
        "stored_grid": "bfloat16",
        "equality": "values",
        "tensor": tensor,
        "chosen": "by name",
        "output_tensor": None,
        "tied": True,
        "n_unique": len(rows) - len(held) + held.n_unique(),
        "n_black_holes": held.n_unique(),
        "black_hole_population": len(held),
        "n_singletons": len(rows) - len(held),
        "n_beyond_tokenizer": n_beyond if tokenizer else None,
        "norms": norms,
        "source": {"asked": "model", "path": path, "sha256": "0" * 64, "bytes": 4096},
        "vocabulary": None,
        "neighbours": None if quantised else {"touching": "<= 1 steps"},
        "indicators": {
            "matrix": tensor,
            "reference": {"kind": "reserved names", "n": 3, "how": "three rows"},
            "score": "distance",
            "threshold": 0.5,
            "n_dark": int(frame["dark"].sum()),
            "expected_false_positives": 0.01,
            "columns": [{"name": "euclidean", "title": "distance", "formula": "|x - m|"}],
        },
    }
    if tokenizer:
        n_texts = len(rows) - n_beyond + n_without_row
        report["vocabulary"] = {
            **{"tokenizer": "model/tokenizer.json", "model": "BPE"},
            **{"n_texts": n_texts, "n_texts_beyond_matrix": n_without_row},
        }
    return SimpleNamespace(report=report, tokens=frame)
