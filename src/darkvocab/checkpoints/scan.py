"""Scan: which tokens of a checkpoint are dark, and why; and what a scan would read, by headers alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding.find import find_embedding, find_output
from ..embedding.matrix import EmbeddingMatrix
from ..gpu.batch import compared
from ..gpu.device import Device, open_device
from ..measures.census import Census
from ..measures.dark import Judgement, judge, judged_matrix
from ..measures.geometry import Geometry
from ..measures.indicators import COLUMNS, bytes_read
from ..measures.neighbours import Neighbours, neighbours
from ..measures.steps import steps_to_nearest
from ..numerics import as_grid
from ..numerics.grouping import n_cores
from ..progress import Advance, Progress, Report
from ..sources import File, Folder, RemoteFile, Source, Tensor, located, open_source, sha256
from ..sources.tokenizer import tokenizer_files
from ..text import finite
from . import scan_result as result
from .scan_result import Scan

if TYPE_CHECKING:
    import polars as pl

    from ..measures.vocabulary import Vocabulary

PLAN_VERSION = 1
MOST_COMPARED = 20_000  # black holes whose distances are taken: all pairs, over all columns
MOST_TARGETS = 64  # black holes, the most populous ones, that the nearest is sought among
MOST_EDGES = 20_000  # of the neighbour graph, that a scan lists
MOST_MAPPED = 4_000  # rows of the cluster that are laid out in a plane


def scan(
    source: str | Path,
    *,
    tensor: str | None = None,
    grid: str | None = None,
    bitwise: bool = False,
    tokenizer: str | Path | None = None,
    checksum: bool = True,
    device: str | Device = "cpu",
    progress: Report | None = None,
) -> Scan:
    """Take the census, indicators, neighbours and vocabulary of a checkpoint: which tokens are dark, and why.

    Black holes, neighbours and norms are of the input embedding, indicators and score of the matrix
    that `measures.dark.judge` names. Raises as `EmbeddingMatrix.open` and `EmbeddingMatrix.groups`.

    Parameters
    ----------
    source : a file of a kind that `docs/files.md` lists, a model folder, or `org/name[@revision]` on the Hub
    tensor, tokenizer : as `EmbeddingMatrix.open`
    grid, bitwise : of census and neighbours, as `census`; indicators are of the rows as they are stored
    checksum : hash the file that holds the tensor. This reads all of a local file, everything else only the
        embedding's rows; of a file on the Hub, the Hub's hash is taken
    device : "cuda", "cuda:N" or "mps" groups rows and compares black holes on a GPU; changes no result
    progress : called with (bytes done, bytes in all) as pieces arrive from the Hub, then anew as rows and
        checksum are read
    """
    opened = open_device(device)
    matrix = EmbeddingMatrix.open(open_source(source, progress), tensor=tensor, tokenizer=tokenizer)
    path = matrix.path
    assert path is not None
    size = path.stat().st_size
    on = as_grid(grid or matrix.grid).name
    judged = judged_matrix(matrix)
    n_bytes = 2 * matrix.words.nbytes + bytes_read(judged)  # census, steps; indicators
    n_bytes += 0 if judged is matrix else judged.words.nbytes  # its census
    n_bytes += size if checksum and isinstance(path, Path) else 0
    work = Progress(n_bytes, progress)
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256, path, work.advance) if checksum else None
        measured = _Measured(
            matrix=matrix, judged=judged, grid=on, bitwise=bitwise, device=opened, advance=work.advance
        )
        facts = result.SourceFacts(
            asked=str(source),
            path=str(path),
            sha256=digest.result() if digest else None,
            bytes=size,
            hub=path.origin() if isinstance(path, RemoteFile) else {},
        )
    work.finish()
    return measured.scan(facts)


@dataclass(kw_only=True)
class _Measured:
    """Measures of one matrix, and the scan that they make up."""

    matrix: EmbeddingMatrix
    judged: EmbeddingMatrix
    grid: str
    bitwise: bool
    device: Device | None
    advance: Advance

    def __post_init__(self) -> None:
        from ..measures.vocabulary import vocabulary

        with ThreadPoolExecutor(1) as pool:  # rows beside texts, whose search takes long where a tokenizer is slow
            counting = pool.submit(self._counted)
            self.words = vocabulary(self.matrix.tokenizer, self.matrix.n_tokens)
            self.census, self.near = counting.result()
        self.judgement = judge(
            self.matrix,
            judged=self.judged,
            census=self.census if self.judged is self.matrix else None,
            words=self.words,
            device=self.device,
            progress=self.advance,
        )
        self.norms = self.judgement.indicators.norms if self.judged is self.matrix else self.matrix.norms()
        self.l_inf = self._distances()
        self.steps = self._steps()

    def _counted(self) -> tuple[Census, Neighbours | None]:
        groups = self.matrix.groups(self.grid, bitwise=self.bitwise, device=self.device, progress=self.advance)
        near = None if self.matrix.quantised else neighbours(self.matrix, grid=self.grid, groups=groups)
        return Census(groups), near

    def _distances(self) -> result.DistanceFacts | None:
        """Compare one row of each black hole with all others; None where they are too many."""
        if self.census.n_black_holes > MOST_COMPARED:
            return None
        index = self.matrix.index(self.census.representatives, self.grid)
        spreads = None if self.device is None else compared(self.device, index, as_grid(self.grid))
        if spreads is None:
            among = Geometry(index, self.grid, over="black_holes", threads=n_cores())
            spreads = among.weight, among.steps
        weight, steps = spreads
        return result.DistanceFacts(
            rows="black_holes",
            max=finite(weight.max),
            mean=finite(weight.mean),
            median=finite(weight.lower_median),
            max_steps=int(steps.max),
        )

    def _steps(self) -> np.ndarray | None:
        """Measure how far each row is from a black hole, in steps; without any, from the row that most tokens touch.

        Returns None where neither exists.
        """
        near = self.near
        targets = self.census.representatives[:MOST_TARGETS]
        if not len(targets) and near is not None and near.n_pairs:
            targets = near.groups.first[[near.token_degrees.argmax()]]
        return steps_to_nearest(self.matrix, targets, self.grid, progress=self.advance) if len(targets) else None

    def scan(self, source: result.SourceFacts) -> Scan:
        matrix = self.matrix
        census = self.census
        judgement = self.judgement
        return Scan(
            source=source,
            matrix=result.MatrixFacts(
                n_tokens=matrix.n_tokens,
                hidden_dim=matrix.dim,
                grid=self.grid,
                stored_grid=matrix.stored,
                equality="bits" if self.bitwise else "values",
                tensor=matrix.tensor,
                chosen=matrix.chosen,
                output_tensor=matrix.output,
                output_shape=matrix.output_shape,
                tied=matrix.tied,
            ),
            census=_census_facts(census),
            n_beyond_tokenizer=matrix.n_beyond_tokenizer,
            norms=_norm_facts(self.norms),
            l_inf=self.l_inf,
            output=None
            if self.judged is matrix
            else result.OutputFacts(tensor=self.judged.tensor, census=_census_facts(judgement.census)),
            vocabulary=_vocabulary_facts(self.words, matrix),
            indicators=_indicator_facts(judgement, matrix.n_tokens),
            neighbours=None if self.near is None else _neighbour_facts(self.near, matrix),
            black_holes=tuple(
                result.BlackHole(
                    population=len(tokens),
                    token_ids=tuple(tokens.tolist()),
                    tokens=tuple(matrix.texts.get(token) for token in tokens.tolist()),
                    norm=float(self.norms[tokens[0]]),
                )
                for tokens in census.members()
            ),
            tokens=self._frame(),
        )

    def _frame(self) -> pl.DataFrame:
        """Tabulate every token: what it is, which rows it has and touches, its indicators, its score."""
        import polars as pl

        n = self.matrix.n_tokens
        labels = self.census.groups.labels
        near = self.near
        unknown = [None] * n
        shown = self.judgement.indicators
        columns = {
            "black_hole": pl.Series(self.census.numbers).replace(0, None),
            "population": self.census.groups.counts[labels],
            "n_touching": pl.Series(near.token_degrees[labels] if near else unknown, dtype=pl.Int64),
            "steps": pl.Series(self.steps if self.steps is not None else unknown, dtype=pl.Int64),
            "norm": self.norms,
            **({} if self.judged is self.matrix else {"output_norm": shown.norms[:n]}),
            **{name: column[:n] for name, column in shown.columns.items()},
            "score": shown.score[:n],
            "dark": shown.dark[:n],
        }
        return self.words.frame().hstack(pl.DataFrame(columns))


def _census_facts(census: Census) -> result.CensusFacts:
    return result.CensusFacts(
        **census.counts(),
        populations=tuple(census.populations.tolist()),
        top2_population=census.top2_population,
        gini_coefficient=census.gini,
    )


def _norm_facts(norms: np.ndarray) -> result.NormFacts:
    percentiles = {f"p{q}": float(np.percentile(norms, q)) for q in (1, 5, 25, 50, 75, 95, 99)}
    return result.NormFacts(min=float(norms.min()), **percentiles, max=float(norms.max()), mean=float(norms.mean()))


def _vocabulary_facts(words: Vocabulary, matrix: EmbeddingMatrix) -> result.VocabularyFacts | None:
    if words.model is None:
        return None
    named = matrix.tokenizer and matrix.tokenizer.file
    return result.VocabularyFacts(
        tokenizer=str(named or matrix.path),
        model=words.model,
        n_texts=words.n_texts,
        n_texts_beyond_matrix=words.n_texts_beyond_matrix,
        categories=words.categories,
        search=words.search,
        runtime=words.runtime,
        differs=words.differs,
    )


def _indicator_facts(judgement: Judgement, n_tokens: int) -> result.IndicatorFacts:
    shown = judgement.indicators
    reference = shown.reference
    return result.IndicatorFacts(
        matrix=judgement.matrix.tensor,
        reference=result.ReferenceFacts(
            kind=reference.kind if reference else "none",
            n=len(reference.tokens) if reference else 0,
            n_left_out=reference.n_left_out if reference else 0,
            how="rows that stand apart from the others, around a mean of their own"
            if reference
            else "no rows stand apart from the others: no token is called dark",
        ),
        by=shown.by,
        score=f"chance to be trained as little as the reference, by {COLUMNS[shown.by][0]}" if shown.by else None,
        threshold=shown.threshold,
        n_dark=int(shown.dark[:n_tokens].sum()),
        expected_false_positives=shown.expected_false_positives,
        columns=tuple(
            result.ColumnFacts(name=name, title=COLUMNS[name][0], formula=COLUMNS[name][1]) for name in shown.columns
        ),
    )


def _neighbour_facts(near: Neighbours, matrix: EmbeddingMatrix) -> result.NeighbourFacts:
    edges = None
    if near.n_pairs <= min(MOST_EDGES, near.max_pairs):
        edges = tuple(map(tuple, near.groups.first[near.pairs].T.tolist()))
    cluster = near.cluster
    return result.NeighbourFacts(
        touching=str(near.touching),
        n_pairs=near.n_pairs,
        n_components=near.n_components,
        degrees=tuple(map(tuple, np.transpose(near.degree_table()).tolist())),
        cluster=result.ClusterFacts(
            n_tokens=len(cluster),
            n_core=len(near.core),
            n_outliers=len(near.outliers),
            token_ids=tuple(cluster.tolist()),
            map=_mapped(near, matrix),
        ),
        edges=edges,
    )


def _mapped(near: Neighbours, matrix: EmbeddingMatrix) -> tuple[tuple[int, float, float], ...] | None:
    """Lay out the cluster's distinct rows at their first two principal components: first token, x, y, weight units."""
    tokens = np.intersect1d(near.groups.first, near.cluster)
    if not 3 <= len(tokens) <= MOST_MAPPED:
        return None
    rows = matrix.rows(tokens).astype(np.float64)
    rows -= rows.mean(0)
    differing = rows[:, np.ptp(rows, 0) > 0]
    if differing.shape[1] < 2:
        return None
    values, vectors = np.linalg.eigh(differing @ differing.T)
    places = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0))
    places *= np.where(places[np.abs(places).argmax(0), [0, 1]] < 0, -1, 1)  # a sign is no finding: make it the same
    return tuple((token, x, y) for token, (x, y) in zip(tokens.tolist(), places.tolist(), strict=True))


# Plan ----------------------------------------------------------------------------------------------------------------


def plan(
    source: str | Path, *, tensor: str | None = None, tokenizer: str | Path | None = None, checksum: bool = True
) -> dict[str, Any]:
    """List what `scan` would read with these settings, JSON-ready (keys: `docs/files.md`), without reading a tensor.

    Raises as `open_source` and `find_embedding`.
    """
    opened = open_source(source)
    embedding, chosen = find_embedding(opened, tensor)
    output = find_output(opened, embedding)
    if output and (output.path, output.offset) == (embedding.path, embedding.offset):
        output = None  # the same bytes
    tensors = {"embedding": embedding, "output": output}
    reads = [_read(name, held.path, held, held.nbytes, held.offset) for name, held in tensors.items() if held]
    texts = _tokenizer(opened, tokenizer)
    reads += [_read("tokenizer", file, None, file.stat().st_size, 0) for file in texts]
    if checksum and isinstance(embedding.path, Path):
        reads.append(_read("sha256", embedding.path, None, embedding.path.stat().st_size, 0))
    first = embedding.path
    return {
        "schema_version": PLAN_VERSION,
        "asked": str(source),
        "tensor": embedding.name,
        "chosen": chosen,
        "reads": reads,
        "bytes": sum(read["bytes"] for read in reads),
        "bytes_to_transfer": sum(read["bytes_to_transfer"] for read in reads),
        "source": {} if isinstance(first, Path) else first.origin(),
    }


def _tokenizer(opened: Source, tokenizer: str | Path | None) -> list[File]:
    if tokenizer is None:
        return tokenizer_files(opened.beside)
    if str(tokenizer) == "none":
        return []
    place = located(tokenizer)
    return tokenizer_files(place) if isinstance(place, Folder) else [place]


def _read(purpose: str, file: File, tensor: Tensor | None, size: int, offset: int) -> dict[str, Any]:
    return {
        "purpose": purpose,
        "file": str(file),
        "tensor": tensor and tensor.name,
        "dtype": tensor and tensor.dtype,
        "shape": tensor and list(tensor.shape),
        "bytes": size,
        "file_bytes": file.stat().st_size,
        "bytes_to_transfer": size - file.here(offset, size) if isinstance(file, RemoteFile) else 0,
    }
