"""Scans made by hand: from a frame of tokens, or from what each token differs in from an ordinary one."""

import polars as pl

from darkvocab.checkpoints.scan_result import (
    BlackHole,
    CensusFacts,
    ClusterFacts,
    ColumnFacts,
    GradeFacts,
    IndicatorFacts,
    MatrixFacts,
    NeighbourFacts,
    ReferenceFacts,
    Scan,
    SideFacts,
    SourceFacts,
    VocabularyFacts,
)
from darkvocab.embedding.matrix import Tying

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
    "grade": pl.String,
    "side": pl.String,
}
EUCLIDEAN = ColumnFacts(name="euclidean", title="distance", formula="|x - m|")
TYING = Tying(said=None, tied=True, n_differ=None, lacks_output=False, sentence=None)
TOUCHING = NeighbourFacts(
    touching="<= 1 steps",
    n_pairs=0,
    n_components=1,
    degrees=(),
    cluster=ClusterFacts(n_tokens=0, n_core=0, n_outliers=0, token_ids=(), map=None),
    edges=None,
)


def scan_from(
    tokens,
    *,
    asked="model",
    path=None,
    tensor="embed.weight",
    n_bytes=4096,
    n_without_row=0,
    near_zero=(),
    tying=TYING,
    indicators=None,
    **parts,
):
    """A scan with this frame of tokens; facts follow from it, but for those given: parts of `Scan`, by name.

    `indicators` are fields that differ from the usual ones.
    """
    ungraded = pl.when("dark").then(pl.lit("untrained")).otherwise(pl.lit("trained"))
    tokens = tokens.with_columns(grade=pl.coalesce("grade", ungraded))
    holes = [frame for _, frame in sorted(tokens.drop_nulls("black_hole").group_by("black_hole", maintain_order=True))]
    populations = tuple(len(frame) for frame in holes)
    n, population, norms = len(tokens), sum(populations), tokens["norm"]
    n_beyond = int((tokens["category"] == "beyond_tokenizer").sum())
    counts = {f"n_{grade}": int((tokens["grade"] == grade).sum()) for grade in ("untrained", "weak")}
    side = SideFacts(
        **counts,
        side="both",
        matrix=tensor,
        reference="reserved names",
        by="euclidean",
        near_zero=near_zero,
        proves=None,
        weak_up_to=None,
        weak_expected_false=None,
        weak_missed=None,
        says="None is weak.",
    )
    usual = {
        "source": SourceFacts(asked=asked, path=path or f"{asked}/model.safetensors", sha256="0" * 64, bytes=n_bytes),
        "matrix": MatrixFacts(
            n_tokens=n,
            hidden_dim=8,
            grid="bfloat16",
            stored_grid="bfloat16",
            equality="values",
            tensor=tensor,
            chosen="by name",
            output_tensor=None,
            output_shape=None,
            tied=True,
            padding_token=None,
            tying=tying,
        ),
        "census": CensusFacts(
            n_unique=n - population + len(holes),
            n_black_holes=len(holes),
            black_hole_population=population,
            n_singletons=n - population,
            populations=populations,
            top2_population=sum(populations[:2]),
            gini_coefficient=0.0,
        ),
        "n_beyond_tokenizer": n_beyond,
        "norms": {
            "min": norms.min(),
            **{f"p{q}": norms.quantile(q / 100) for q in (1, 5, 25, 50, 75, 95, 99)},
            **{"max": norms.max(), "mean": norms.mean()},
        },
        "l_inf": None,
        "output": None,
        "vocabulary": VocabularyFacts(
            tokenizer=f"{asked}/tokenizer.json",
            model="BPE",
            n_texts=n - n_beyond + n_without_row,
            n_texts_beyond_matrix=n_without_row,
            categories=dict(tokens["category"].value_counts().sort("category").iter_rows()),
            runtime=None,
            search="each text was encoded alone, after a space, after a letter, and at the start",
        ),
        "indicators": IndicatorFacts(
            **{
                "matrix": tensor,
                "reference": ReferenceFacts(kind="reserved names", n=3, n_left_out=0, how="three rows"),
                "by": "euclidean",
                "score": "distance",
                "threshold": 0.5,
                "n_dark": int(tokens["dark"].sum()),
                "expected_false_positives": 0.01,
                "columns": (EUCLIDEAN,),
                **(indicators or {}),
            }
        ),
        "grades": GradeFacts(**counts, n_trained=n - sum(counts.values()), sides=(side,)),
        "template_tokens": None,
        "n_never_emitted": 0,
        "copies": (),
        "neighbours": None,
        "black_holes": tuple(
            BlackHole(
                population=len(frame),
                token_ids=tuple(frame["id"]),
                tokens=tuple(frame["text"]),
                norm=frame["norm"][0],
            )
            for frame in holes
        ),
    }
    return Scan(**{**usual, **parts}, tokens=tokens)


def scan_of(*tokens, tokenizer=True, quantised=False, n_without_row=0, **options):
    """A scan of these tokens, each as what differs from an ordinary one: `dark`, `black_hole`, `category`, ..."""
    rows = []
    for number, reports in enumerate(tokens):
        category = reports.get("category", "reachable" if tokenizer else "unknown")
        text = reports.get("text", None if category in ("beyond_tokenizer", "unknown") else f"t{number}")
        hole = reports.get("black_hole")
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
            "score": 1.0 if reports.get("dark") else 0.0,
            "dark": False,
            "grade": None,
            "side": None,
        }
        rows.append(row | reports | {"text": text, "category": category})
    untold = {} if tokenizer else {"vocabulary": None, "n_beyond_tokenizer": None}
    return scan_from(
        pl.DataFrame(rows, schema=COLUMNS),
        neighbours=None if quantised else TOUCHING,
        n_without_row=n_without_row,
        **untold,
        **options,
    )
