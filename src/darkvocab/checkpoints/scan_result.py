"""Result of a scan: facts of a checkpoint's embedding, and a table of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from ..errors import InvalidInput
from ..measures.dark import GRADES, surest_first
from ..runs.folder import read_manifest
from ..runs.records import read_records, reading, write_csv
from ..text import Shown, plain

if TYPE_CHECKING:
    import polars as pl

    from ..embedding.matrix import Tying
    from ..measures.vocabulary import Difference

SCHEMA_VERSION = 3
WHICH = {"dark": ["untrained"], "weak": ["weak"], "graded": ["untrained", "weak"], "all": list(GRADES)}  # grades


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """File that the rows were read from."""

    asked: str  # as the caller named it
    path: str
    sha256: str | None  # None where the checksum was left out
    bytes: int  # of the file
    hub: Mapping[str, Any] = field(default_factory=dict)  # repository, commit and so on of a file on the Hub


@dataclass(frozen=True, kw_only=True)
class MatrixFacts:
    """Input embedding, and its relation to the output matrix."""

    n_tokens: int  # rows that the scan is about
    hidden_dim: int
    grid: str  # on which rows were compared
    stored_grid: str  # or the type of a quantised matrix
    equality: str  # "values" (-0.0 = 0.0) or "bits"
    tensor: str
    chosen: str  # how the tensor was found
    output_tensor: str | None
    output_shape: tuple[int, ...] | None
    tied: bool
    padding_token: int | None  # the config's pad_token_id, where its row is zero
    tying: Tying
    notes: tuple[str, ...] = ()  # on other tensors with rows of tokens, and on what was not applied
    skipped: tuple[int, ...] = ()  # tokens that were left out because their rows hold NaN or infinity


@dataclass(frozen=True, kw_only=True)
class CensusFacts:
    n_unique: int
    n_black_holes: int
    black_hole_population: int
    n_singletons: int
    populations: tuple[int, ...]  # of the black holes, descending
    top2_population: int
    gini_coefficient: float


@dataclass(frozen=True, kw_only=True)
class DistanceFacts:
    """L-infinity distances between black holes, one row of each; None for one beyond float32."""

    rows: str  # "black_holes"
    max: float | None  # weight units
    mean: float | None
    median: float | None
    max_steps: int  # grid steps


@dataclass(frozen=True, kw_only=True)
class OutputFacts:
    """Census of an output matrix of its own, where that was judged."""

    tensor: str
    census: CensusFacts


@dataclass(frozen=True, kw_only=True)
class VocabularyFacts:
    """Tokenizer, and number of tokens of each category."""

    tokenizer: str
    model: str
    n_texts: int
    n_texts_beyond_matrix: int
    categories: Mapping[str, int]
    search: str  # a sentence on the texts that were encoded
    runtime: str | None  # the library that encoded; the categories hold for it
    differs: tuple[Difference, ...] = ()  # other tokenizers that apply, and the tokens that they treat differently


@dataclass(frozen=True, kw_only=True)
class ReferenceFacts:
    """Rows that were taken as never trained."""

    kind: str
    n: int
    n_left_out: int
    how: str  # a sentence; this key of the JSON keeps its name


@dataclass(frozen=True)
class ColumnFacts:
    """Indicator in the table of tokens."""

    name: str
    title: str
    formula: str


@dataclass(frozen=True, kw_only=True)
class IndicatorFacts:
    """Score of the tokens, and number of dark ones."""

    matrix: str
    reference: ReferenceFacts
    by: str | None  # the indicator that the score is computed from
    score: str | None  # a sentence on its meaning
    threshold: float | None
    n_dark: int
    expected_false_positives: float | None  # share of the dark tokens
    columns: tuple[ColumnFacts, ...]


@dataclass(frozen=True, kw_only=True)
class SideFacts:
    """Grades by one matrix, and the distances of its weak tokens."""

    side: str  # "input" or "output"; "both" where the two are one
    matrix: str
    reference: str  # kind of the rows that were taken as never trained; "none"
    by: str | None  # the indicator by which tokens are weak
    n_untrained: int
    n_weak: int
    near_zero: tuple[int, ...]  # untrained tokens whose rows are orders of magnitude shorter than all others
    proves: str | None  # a sentence on what such rows prove of the training
    weak_up_to: float | None  # the largest distance of a weak token to the reference
    weak_expected_false: float | None  # share of the weak tokens that are trained ones of the lower tail, at most
    weak_missed: float | None  # weak tokens among those called trained, at least
    says: str  # a sentence on the weak tokens, or why there are none


@dataclass(frozen=True, kw_only=True)
class GradeFacts:
    """Number of tokens of each grade; in an untied model the worse of a token's two grades counts."""

    n_untrained: int
    n_weak: int
    n_trained: int
    sides: tuple[SideFacts, ...]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Trained tokens with the same row, or with rows that touch: copies of a trained row."""

    token_ids: tuple[int, ...]
    tokens: tuple[str | None, ...]
    equal: bool  # else at most one grid step apart in every coordinate
    norm: float


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """Cluster of touching rows around the black holes."""

    n_tokens: int
    n_core: int
    n_outliers: int
    token_ids: tuple[int, ...]
    map: tuple[tuple[int, float, float], ...] | None  # first token of each row, x, y, weight units


@dataclass(frozen=True, kw_only=True)
class NeighbourFacts:
    """Graph of touching rows: numbers and edges."""

    touching: str
    n_pairs: int
    n_components: int
    degrees: tuple[tuple[int, int, int], ...]  # degree, rows, tokens
    cluster: ClusterFacts
    edges: tuple[tuple[int, int], ...] | None  # first tokens of rows that touch; None for too many


@dataclass(frozen=True, kw_only=True)
class BlackHole:
    """Tokens that share a row."""

    population: int
    token_ids: tuple[int, ...]
    tokens: tuple[str | None, ...]
    norm: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scan(Shown):
    """Facts of a checkpoint's embedding, and a table of all tokens; `docs/files.md` has the keys and columns."""

    source: SourceFacts
    matrix: MatrixFacts
    census: CensusFacts
    n_beyond_tokenizer: int | None  # rows whose id no text has; None without a tokenizer
    norms: Mapping[str, float]  # Euclidean, of all rows, weight units: min, p1, p5, ..., p99, max, mean
    l_inf: DistanceFacts | None  # None where there are too many black holes to compare all pairs
    output: OutputFacts | None  # None where the input matrix was judged
    vocabulary: VocabularyFacts | None  # None without a tokenizer
    template_tokens: tuple[int, ...] | None  # special tokens that the chat template names; None without a template
    indicators: IndicatorFacts
    grades: GradeFacts
    n_never_emitted: int | None  # tokens that greedy decoding cannot emit; None without a known output matrix
    copies: tuple[Copies, ...]  # by their first token
    neighbours: NeighbourFacts | None  # None for a quantised matrix
    black_holes: tuple[BlackHole, ...]  # most populous first
    tokens: pl.DataFrame  # by id
    verified: Mapping[str, Any] | None = None  # facts of a run of `verify`
    counted: Mapping[str, Any] | None = None  # facts of the counts of a corpus, as `measures.counts.never`

    @cached_property
    def order(self) -> Int64[np.ndarray, " n_tokens"]:
        """Rows of `tokens`, the surest to be dark first, then the weak, then the trained."""
        by = self.indicators.by
        distance = None if by is None else self.tokens[by].to_numpy()
        order = surest_first(self.tokens["score"].to_numpy(), distance)
        grade = self.tokens["grade"].replace_strict(GRADES, range(len(GRADES))).to_numpy()
        return order[np.argsort(-grade[order], kind="stable")]

    @cached_property
    def rank(self) -> Int64[np.ndarray, " n_tokens"]:
        """Place of each row of `tokens` in `order`, from 0."""
        return np.argsort(self.order)

    def listed(self, tokens: str) -> pl.DataFrame:
        """Return the "dark", "weak" or "graded" tokens (both), the surest first, or "all", by id. See `check_which`."""
        check_which(tokens)
        if tokens == "all":
            return self.tokens
        surest = self.tokens[self.order]
        return surest.filter(surest["grade"].is_in(WHICH[tokens]))

    def to_json(self, tokens: str | None = None) -> dict[str, Any]:
        """Return the scan as JSON-ready data, with the tokens of `listed` where they are asked for."""
        parts = plain(self)
        source, matrix, census, _ = (parts.pop(name) for name in ("source", "matrix", "census", "tokens"))
        source |= source.pop("hub")
        if parts["output"] is not None:
            parts["output"] |= parts["output"].pop("census")
        facts = {"schema_version": SCHEMA_VERSION, **matrix, **census, **parts, "source": source}
        return facts if tokens is None else {**facts, "tokens": self.listed(tokens).to_dicts()}

    def with_verified(self, folder: str | Path) -> Scan:
        """Return a scan whose tokens have `p_max` and `verified` by a run of `verify`, null where it did not ask.

        Raises as `read_records`; InvalidInput for another run, or where the model's file has another SHA-256.
        """
        from ..measures.verdict import judge

        manifest = read_manifest(Path(folder))
        if manifest.get("experiment") != "verify":
            raise InvalidInput(f"{folder} holds a run of {manifest.get('experiment')}; give one of `darkvocab verify`")
        with reading(Path(folder) / "manifest.json", "the manifest of a run of verify"):
            source = manifest["inputs"][0]["source"]
            theirs = str(manifest["inputs"][0]["sha256"])
        if self.source.sha256 not in (None, theirs):
            hashes = f"sha256 {theirs[:12]}, not {str(self.source.sha256)[:12]}"
            raise InvalidInput(f"{folder} verified the tokens of another file, {source} ({hashes})")
        records = read_records(folder)
        with reading(Path(folder) / "records.parquet", "the answers of a run of verify"):
            verdict = judge(records, manifest["parameters"])
        asked = verdict.tokens.unique("token", keep="first", maintain_order=True)
        answers = asked.select("p_max", "verified", id="token")
        facts = {"run": str(folder), "n_asked": len(asked), **verdict.facts()}
        tokens = self.tokens.join(answers, on="id", how="left", maintain_order="left")
        return replace(self, verified=facts, tokens=tokens)

    def write_tokens(self, path: str | Path, tokens: str | None = None) -> None:
        """Write tokens as CSV: those of `listed`, with all their columns; by default those in black holes.

        The columns of these: black_hole (1 is the largest), population, token_id, token. Raises as `check_which` and
        `runs.records.write_csv`.
        """
        if tokens is None:
            inside = self.tokens.filter(self.tokens["black_hole"].is_not_null()).sort("black_hole", "id")
            frame = inside.select("black_hole", "population", token_id="id", token="text")
        else:
            frame = self.listed(tokens)
        write_csv(path, frame, self.source.asked)

    def _shown(self) -> dict[str, Any]:
        return {
            "source": self.source.path,
            "tensor": self.matrix.tensor,
            "grid": self.matrix.grid,
            "n_black_holes": self.census.n_black_holes,
            "black_hole_population": self.census.black_hole_population,
            "n_dark": self.indicators.n_dark,
            "n_weak": self.grades.n_weak,
            "reference": self.indicators.reference.kind,
            "tokens": self.tokens,
        }


def check_which(tokens: str | None) -> None:
    """Raise InvalidInput for a word that `Scan.listed` does not take."""
    if tokens not in (None, *WHICH):
        raise InvalidInput(f"unknown tokens {tokens!r}; choose one of {', '.join(WHICH)}")
