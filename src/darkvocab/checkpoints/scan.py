"""Scan: which tokens of a checkpoint are dark or weak, and why."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ..embedding.find import find_embedding, has_output_bias, settings
from ..embedding.matrix import EmbeddingMatrix, finite_rows
from ..errors import DarkvocabError
from ..gpu.device import Device, compared, open_device
from ..measures.census import Census
from ..measures.counts import never, read_counts
from ..measures.dark import GRADES, UNTRAINED, WEAK, Judgement, Side, judge, judged_matrix
from ..measures.distances import steps_to_nearest
from ..measures.geometry import Geometry
from ..measures.indicators import INDICATORS, Reference, bytes_read
from ..measures.neighbours import Neighbours, neighbours
from ..memory import give_back
from ..numerics import as_grid
from ..numerics.grouping import n_cores
from ..progress import Advance, Progress, Report
from ..sources import RemoteFile, Source, chat_template, open_source, sha256
from ..text import finite, printable
from . import scan_result as result
from .scan_result import Scan

if TYPE_CHECKING:
    from ..measures.vocabulary import Vocabulary

SENTENCES: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
MOST_HOLES_COMPARED = 20_000  # black holes up to which all pairs are compared
MOST_TARGETS = 64  # most populous black holes, to the nearest of which a row's distance is taken
MOST_EDGES = 20_000  # of the neighbour graph, up to which they are listed
NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")  # variables of a chat template
# Facts that a matrix and a vocabulary have by the same names.
OF_MATRIX = "n_tokens tensor chosen output_shape tied tying skipped".split()
OF_VOCABULARY = "model n_texts n_texts_beyond_matrix categories search runtime differs".split()
MOST_COPIES = 10_000  # groups of copies that are listed
MOST_EXACT = 300  # rows up to which all eigenvectors are computed; above, computing two takes a twentieth of the time
MOST_MAPPED = 4_000  # rows of the cluster up to which they are laid out in a plane


def scan(
    source: str | Path,
    *,
    tensor: str | None = None,
    grid: str | None = None,
    bitwise: bool = False,
    tokenizer: str | Path | None = None,
    checksum: bool = True,
    skip_nonfinite: bool = False,
    verified: str | Path | None = None,
    counts: str | Path | None = None,
    device: str | Device = "cpu",
    progress: Report | None = None,
) -> Scan:
    """Take the census, indicators, neighbours and vocabulary of a checkpoint: which tokens are dark, and why.

    Black holes, neighbours and norms are of the input embedding, indicators of `measures.dark.judged_matrix`; a token's
    grade and score are the worse of input and output. Raises as `EmbeddingMatrix.open` and `EmbeddingMatrix.groups`.

    Parameters
    ----------
    source : a file of a kind that `docs/files.md` lists, a model folder, or `org/name[@revision]` on the Hub
    tensor, tokenizer : as `EmbeddingMatrix.open`
    grid, bitwise : for census and neighbours, as `census`; indicators are of the rows as they are stored
    checksum : hash the file that holds the tensor, which reads all of a local file; on the Hub, its own hash is taken
    skip_nonfinite : leave out tokens whose row holds NaN or infinity, in the input or the judged matrix, and list them
        (`Scan.matrix.skipped`); by default such rows are refused
    verified : a finished run of `verify` on this model; its answers join the table of tokens
    counts : a Parquet or CSV file of token counts, `id` and `count`, as `corpus` writes them: tokens get a `count`, and
        those that never occur may be the reference where nothing surer stands apart
    device : "cuda" or "cuda:N" groups rows and compares black holes on a GPU, without changing a result; with "mps" the
        CPU does
    progress : called with (bytes done, bytes in all) as pieces arrive from the Hub, then anew as rows and checksum are
        read
    """
    opened = open_device(device)
    checkpoint = open_source(source, progress)
    work = Progress(0)
    with ThreadPoolExecutor(1) as pool:
        known = _file_of(checkpoint, tensor) if checksum else None
        digest = pool.submit(sha256, known, work.advance) if known else None  # while the tokenizer is read
        matrix = EmbeddingMatrix.open(checkpoint, tensor=tensor, tokenizer=tokenizer)
        give_back()  # what reading the tokenizer took
        path = matrix.path
        assert path is not None
        size = path.stat().st_size
        on = as_grid(grid or matrix.grid).name
        counted = None if counts is None else read_counts(counts, matrix.n_tokens)
        judged = judged_matrix(matrix)
        if skip_nonfinite:
            matrix, judged = finite_rows(matrix, judged)
        work.total = _bytes_of_rows(matrix, judged) + (size if checksum and isinstance(path, Path) else 0)
        work.report = progress
        if checksum and known != path:
            digest = pool.submit(sha256, path, work.advance)
        measured = _Measured(
            matrix=matrix, judged=judged, grid=on, bitwise=bitwise, device=opened, counts=counted, advance=work.advance
        )
        facts = result.SourceFacts(
            asked=str(source),
            path=str(path),
            sha256=digest.result() if digest else None,
            bytes=size,
            hub=path.origin() if isinstance(path, RemoteFile) else {},
        )
    work.finish()
    measures = measured.scan(facts)
    if counted is not None:
        measures = replace(measures, counted={"file": str(counts), "n_tokens": int(counted.sum()), **never(counted)})
    return measures if verified is None else measures.with_verified(verified)


def _bytes_of_rows(matrix: EmbeddingMatrix, judged: EmbeddingMatrix) -> int:
    """Count the bytes that are read for the censuses, the steps and the indicators."""
    only_output = 0 if judged is matrix else judged.words.nbytes + bytes_read(judged)
    return 2 * matrix.words.nbytes + bytes_read(matrix) + only_output


def _file_of(checkpoint: Source, tensor: str | None) -> Path | None:
    """Return the local file of the embedding where that is known without the tokenizer, as it mostly is."""
    with contextlib.suppress(DarkvocabError):  # opening the matrix raises it again
        path = find_embedding(checkpoint, tensor)[0].path
        return path if isinstance(path, Path) else None
    return None


@dataclass(kw_only=True)
class _Measured:
    """Measures of one matrix, and the scan built of them."""

    matrix: EmbeddingMatrix
    judged: EmbeddingMatrix
    grid: str
    bitwise: bool
    device: Device | None
    counts: np.ndarray | None  # of all rows, also of those that are left out
    advance: Advance

    def __post_init__(self) -> None:
        """Measure the rows in a thread while the vocabulary is searched, which may take long."""
        from ..measures.vocabulary import vocabulary

        words: Future[Vocabulary] = Future()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(self._read_rows, words.result)
            try:
                every = vocabulary(self.matrix.tokenizer, self.matrix.n_tokens + len(self.matrix.skipped))
                self.words = every.of(self.matrix.token_ids.tolist()) if self.matrix.skipped else every
                words.set_result(self.words)
                give_back()
            except BaseException as error:
                words.set_exception(error)
                raise
            reading.result()
        give_back()

    def _read_rows(self, words: Callable[[], Vocabulary]) -> None:
        """Take all measures of rows; `words` waits for the vocabulary, and is called last."""
        groups = self.matrix.groups(self.grid, bitwise=self.bitwise, device=self.device, progress=self.advance)
        self.census = Census(groups)
        self.near = None if self.matrix.quantised else neighbours(self.matrix, grid=self.grid, groups=groups)
        self.steps = self._steps()
        self.l_inf = self._distances()
        give_back()
        import scipy.optimize  # noqa: F401  # which the judgement needs, imported while the vocabulary is searched

        self.judgement = judge(
            self.matrix,
            judged=self.judged,
            census=self.census,
            words=words,
            n_occurrences=None if self.counts is None else self.counts[self.matrix.token_ids],
            device=self.device,
            progress=self.advance,
        )
        self.norms = self.judgement.sides[0].indicators.norms

    def _distances(self) -> result.DistanceFacts | None:
        """Compare black holes with each other, one row of each; None for more than `MOST_HOLES_COMPARED`."""
        if self.census.n_black_holes > MOST_HOLES_COMPARED:
            return None
        index = self.matrix.index(self.census.representatives, self.grid)
        spreads = None if self.device is None else compared(self.device, index, as_grid(self.grid))
        if spreads is None:
            among = Geometry(index, self.grid, over="black_holes", threads=n_cores())
            spreads = among.weight, among.steps
        weight, steps = spreads
        figures = {"max": weight.max, "mean": weight.mean, "median": weight.lower_median}
        lengths = {name: finite(value) for name, value in figures.items()}
        return result.DistanceFacts(rows="black_holes", **lengths, max_steps=int(steps.max))

    def _steps(self) -> np.ndarray | None:
        """Measure each row's steps to the nearest black hole, else to the row that most tokens touch, if any do."""
        near = self.near
        targets = self.census.representatives[:MOST_TARGETS]
        if not len(targets) and near is not None and near.n_pairs:
            targets = near.groups.first[[near.token_degrees.argmax()]]
        return steps_to_nearest(self.matrix, targets, self.grid, progress=self.advance) if len(targets) else None

    def scan(self, source: result.SourceFacts) -> Scan:
        matrix = self.matrix
        census = self.census
        judgement = self.judgement
        norms = self.norms
        percentiles = {f"p{q}": float(np.percentile(norms, q)) for q in (1, 5, 25, 50, 75, 95, 99)}
        return Scan(
            source=source,
            matrix=result.MatrixFacts(
                **{name: getattr(matrix, name) for name in OF_MATRIX},
                hidden_dim=matrix.dim,
                grid=self.grid,
                stored_grid=matrix.stored,
                equality="bits" if self.bitwise else "values",
                output_tensor=matrix.output,
                padding_token=self._padding_token(),
                notes=(*matrix.notes, *self._padding()),
            ),
            census=_census_facts(census),
            n_beyond_tokenizer=matrix.n_beyond_tokenizer,
            norms={"min": float(norms.min()), **percentiles, "max": float(norms.max()), "mean": float(norms.mean())},
            l_inf=self.l_inf,
            output=None
            if self.judged is matrix
            else result.OutputFacts(tensor=self.judged.tensor, census=_census_facts(judgement.judged.census)),
            vocabulary=_vocabulary_facts(self.words, matrix),
            template_tokens=self._template_tokens(),
            indicators=_indicator_facts(judgement),
            grades=_grade_facts(judgement),
            n_never_emitted=_n_never_emitted(matrix, judgement),
            copies=self._copies(),
            neighbours=None if self.near is None else _neighbour_facts(self.near, matrix),
            black_holes=tuple(result.BlackHole(population=len(rows), **self._alike(rows)) for rows in census.members()),
            tokens=self._frame(),
        )

    def _alike(self, rows: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Return tokens, their texts and the norm of rows that are equal, or nearly."""
        ids = self.matrix.token_ids[rows].tolist()
        texts = tuple(self.matrix.texts.get(token) for token in ids)
        return {"token_ids": tuple(ids), "tokens": texts, "norm": float(self.norms[rows[0]])}

    def _template_tokens(self) -> tuple[int, ...] | None:
        """List the special tokens that the chat template names, by their text or as `bos_token` and the like."""
        source = self.matrix.source
        template = chat_template(source) if source else None
        if source is None or template is None:
            return None
        ids = (settings(source.config, f"{name}_id", int) for name in NAMED_TOKENS if name in template)
        named = set(chain.from_iterable(ids))
        every = zip(self.matrix.token_ids.tolist(), self.words.text, self.words.category, strict=True)
        special = {token: text for token, text, category in every if category == "special" and text}
        return tuple(token for token, text in special.items() if text in template or token in named)

    def _padding_token(self) -> int | None:
        said = settings(self.matrix.source.config, "pad_token_id", int) if self.matrix.source else []
        zero = self.matrix.token_ids[self.norms == 0]
        return said[0] if said and said[0] in zero else None

    def _frame(self) -> pl.DataFrame:
        """Tabulate every token: its vocabulary entry, black hole, neighbours, indicators, score and grade."""
        labels = self.census.groups.labels
        near = self.near
        unknown = [None] * self.matrix.n_tokens
        judgement = self.judgement
        shown = judgement.judged.indicators.of_first(self.matrix.n_tokens)
        of_input: dict[str, Any] = {}
        if self.judged is not self.matrix:
            side = judgement.sides[0]
            distance = pl.Series(unknown if side.distance is None else side.distance, dtype=pl.Float64)
            of_input = {"input_distance": distance, "input_score": side.indicators.score}
        columns = {
            "black_hole": pl.Series(self.census.numbers).replace(0, None),
            "population": self.census.groups.counts[labels],
            "n_touching": pl.Series(near.token_degrees[labels] if near else unknown, dtype=pl.Int64),
            "steps": pl.Series(self.steps if self.steps is not None else unknown, dtype=pl.Int64),
            "norm": self.norms,
            **({} if self.counts is None else {"count": self.counts[self.matrix.token_ids]}),
            **({} if self.judged is self.matrix else {"output_norm": shown.norms}),
            **shown.columns,
            **of_input,
            "score": judgement.score,
            "dark": judgement.dark,
            "grade": [GRADES[grade] for grade in judgement.grade.tolist()],
            "side": pl.Series(judgement.side(), dtype=pl.String),
        }
        return self.words.frame().with_columns(id=pl.Series(self.matrix.token_ids)).hstack(pl.DataFrame(columns))

    def _padding(self) -> list[str]:
        """Return a note on the output matrix's rows beyond those of the input, if it has any."""
        if not (n := self.judged.n_tokens - self.matrix.n_tokens):
            return []
        facts = {"tensor": printable(self.judged.tensor), "n": n, "n_tokens": self.matrix.n_tokens}
        return [SENTENCES["padding"].format(**facts, n_dark=self.judgement.judged.indicators.dark[-n:].sum())]

    def _copies(self) -> tuple[result.Copies, ...]:
        """List groups of trained tokens with equal rows, and pairs of trained rows that touch."""
        if self.grid != self.matrix.grid.name:  # rows that rounding made equal are no copies
            return ()
        groups = self.census.groups
        trained = self.judgement.grade < WEAK
        listed = [(rows.tolist(), True) for rows in self.census.members() if trained[rows].all()]
        if self.near is not None and self.near.n_pairs <= self.near.max_pairs:
            pairs = groups.first[self.near.pairs].T
            listed += [(pair.tolist(), False) for pair in pairs[trained[pairs].all(1)]]
        return tuple(result.Copies(equal=equal, **self._alike(rows)) for rows, equal in sorted(listed)[:MOST_COPIES])


def _census_facts(census: Census) -> result.CensusFacts:
    return result.CensusFacts(
        **census.counts(),
        populations=tuple(census.populations.tolist()),
        top2_population=census.top2_population,
        gini_coefficient=census.gini,
    )


def _vocabulary_facts(words: Vocabulary, matrix: EmbeddingMatrix) -> result.VocabularyFacts | None:
    if words.model is None:
        return None
    named = matrix.tokenizer and matrix.tokenizer.file
    facts = {name: getattr(words, name) for name in OF_VOCABULARY}
    return result.VocabularyFacts(tokenizer=str(named or matrix.path), **facts)


def _indicator_facts(judgement: Judgement) -> result.IndicatorFacts:
    shown = judgement.judged.indicators.of_first(judgement.n_tokens)
    dark = judgement.dark
    return result.IndicatorFacts(
        matrix=judgement.judged.matrix.tensor,
        reference=_reference_facts(shown.reference),
        by=shown.by,
        score=SENTENCES["score"].format(indicator=INDICATORS[shown.by][0]) if shown.by else None,
        threshold=shown.threshold,
        n_dark=int(dark.sum()),
        expected_false_positives=float(1 - judgement.score[dark].mean()) if dark.any() else None,
        columns=tuple(result.ColumnFacts(name, *INDICATORS[name]) for name in shown.columns),
    )


def _reference_facts(reference: Reference | None) -> result.ReferenceFacts:
    if reference is None:
        return result.ReferenceFacts(kind="none", n=0, n_left_out=0, how=SENTENCES["no_reference"])
    counts = {"n": len(reference.tokens), "n_left_out": reference.n_left_out}
    return result.ReferenceFacts(kind=reference.kind, **counts, how=SENTENCES["reference"])


def _grade_facts(judgement: Judgement) -> result.GradeFacts:
    counts = np.bincount(judgement.grade, minlength=len(GRADES)).tolist()
    sides = tuple(_side_facts(side, judgement.n_tokens) for side in judgement.sides)
    return result.GradeFacts(n_trained=counts[0], n_weak=counts[WEAK], n_untrained=counts[UNTRAINED], sides=sides)


def _side_facts(side: Side, n_tokens: int) -> result.SideFacts:
    shown = side.indicators
    grade = side.grade[:n_tokens]
    tail = side.tail
    n_weak = int((grade == WEAK).sum())
    near_zero = shown.near_zero[shown.near_zero < n_tokens]
    return result.SideFacts(
        side=side.name,
        matrix=side.matrix.tensor,
        reference=shown.reference.kind if shown.reference else "none",
        by=shown.by,
        n_untrained=int((grade == UNTRAINED).sum()),
        n_weak=n_weak,
        near_zero=tuple(side.matrix.token_ids[near_zero].tolist()),
        proves=_proves(side, near_zero),
        weak_up_to=float(np.exp(tail.bound)) if tail and n_weak else None,
        weak_expected_false=min(tail.expected / tail.n_below, 1.0) if tail and n_weak else None,
        weak_missed=tail.missed if tail else None,
        says=side.says,
    )


def _proves(side: Side, near_zero: np.ndarray) -> str | None:
    """Return a sentence on what rows near zero prove of the training; None unless they are stored in bfloat16.

    A step of weight decay multiplies a weight by 1 - lr * wd. Rounded to the nearest bfloat16 the weight stays the same
    where lr * wd < 2^-9, half the smallest relative distance of two neighbours, as it is with any usual rate and decay.
    """
    shrunk = near_zero[side.indicators.norms[near_zero] > 0]
    if side.matrix.stored != "bfloat16" or not len(shrunk):
        return None
    return SENTENCES["proves"].format(n=len(shrunk), least=side.indicators.norms[shrunk].min())


def _n_never_emitted(matrix: EmbeddingMatrix, judgement: Judgement) -> int | None:
    """Count the tokens whose logit always equals that of a token with a lower id; None without an output matrix.

    Equal output rows without a bias give equal logits, of which the greedy choice takes the first. See Demeter et al.,
    "Stolen Probability", and arXiv 2203.06462 for tokens that cannot win for other reasons.
    """
    if matrix.source is None or has_output_bias(matrix.source) or matrix.unembedding() is None:
        return None
    census = judgement.judged.census
    first = census.groups.first[census.groups.labels[: matrix.n_tokens]]
    return int((first < np.arange(matrix.n_tokens)).sum())


def _neighbour_facts(near: Neighbours, matrix: EmbeddingMatrix) -> result.NeighbourFacts:
    ids = matrix.token_ids
    edges = None
    if near.n_pairs <= min(MOST_EDGES, near.max_pairs):
        edges = tuple(map(tuple, ids[near.groups.first[near.pairs]].T.tolist()))
    cluster = near.cluster
    sizes = {"n_tokens": len(cluster), "n_core": len(near.core), "n_outliers": len(near.outliers)}
    return result.NeighbourFacts(
        touching=str(near.touching),
        n_pairs=near.n_pairs,
        n_components=near.n_components,
        degrees=tuple(map(tuple, np.transpose(near.degree_table()).tolist())),
        cluster=result.ClusterFacts(**sizes, token_ids=tuple(ids[cluster].tolist()), map=_mapped(near, matrix)),
        edges=edges,
    )


def _largest_two(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two largest eigenvalues of a symmetric matrix [n, n], ascending, and their vectors, last columns."""
    if len(gram) <= MOST_EXACT:
        return np.linalg.eigh(gram)
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(0).normal(size=len(gram))  # else eigsh draws its own
    return eigsh(gram, k=2, v0=start)


def _mapped(near: Neighbours, matrix: EmbeddingMatrix) -> tuple[tuple[int, float, float], ...] | None:
    """Lay out the cluster's distinct rows at their first two principal components: first token, x, y, weight units."""
    tokens = np.intersect1d(near.groups.first, near.cluster, assume_unique=True)
    if not 3 <= len(tokens) <= MOST_MAPPED:
        return None
    rows = matrix.rows(tokens).astype(np.float64)
    rows -= rows.mean(0)
    differing = rows[:, np.ptp(rows, 0) > 0]
    if differing.shape[1] < 2:
        return None
    values, vectors = _largest_two(differing @ differing.T)
    places = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0))
    places *= np.where(places[np.abs(places).argmax(0), [0, 1]] < 0, -1, 1)  # an axis's sign is arbitrary: fix it
    ids = matrix.token_ids[tokens].tolist()
    return tuple((token, x, y) for token, (x, y) in zip(ids, places.tolist(), strict=True))
