"""Vocabulary: the text that every token stands for, and a text or a proof that decides whether it can be reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import CorruptFile, InvalidInput
from ...progress import Report
from ...sources.tokenizer import Pieces, Tokenizer, by_rules, in_a_line, open_tokenizer
from .differences import Difference as Difference
from .differences import differences
from .names import reserved_patterns, script_of
from .reachability import Search

if TYPE_CHECKING:
    import tokenizers

CATEGORIES = ("reachable", "partial_utf8", "unreachable", "special", "beyond_tokenizer", "unknown")
FRAME_COLUMNS = ("id", "text", "bytes", "category", "witness", "script", "reserved")
SCHEMA_VERSION = 1
Names = list[str | None]
MOST_IDS_A_TEXT = 64  # times as many ids as texts
TEXTS_AT_A_TIME = 8192  # texts that are encoded alone


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Meaning of the rows of an embedding; lists are by token id.

    A category is one of

    - ``beyond_tokenizer``: the tokenizer has no token of this id;
    - ``special``: an added token, special or not, which is cut out of a text before the model sees it;
    - ``partial_utf8``: its bytes are no whole UTF-8 text, as they begin or end inside a character;
    - ``reachable``: the text `witness` encodes to it;
    - ``unreachable``: no text of the search does;
    - ``unknown``: nothing could be encoded, or the search ended before it was decided.

    Special tokens and parts of characters may have a witness, too.
    """

    model: str | None  # BPE, WordPiece, Unigram, WordLevel; or as a GGUF file names it; None without a tokenizer
    text: list[str | None] = field(repr=False)  # the tokenizer's name of it
    data: list[bytes | None] = field(repr=False)  # the bytes that it stands for
    category: list[str] = field(repr=False)
    witness: list[str | None] = field(repr=False)  # a text whose encoding holds it
    proof: list[str | None] = field(repr=False)  # reason why no text can reach it, where that is proved
    script: list[str | None] = field(repr=False)  # as `script_of`; None where the bytes are no whole UTF-8
    reserved: list[str | None] = field(repr=False)  # as `reserved_patterns`
    runtime: str | None  # the library that encoded; categories and witnesses hold for it
    n_texts: int  # of the tokenizer
    n_texts_beyond_matrix: int  # whose ids are no rows
    search: str  # a sentence on the texts that were encoded
    differs: tuple[Difference, ...] = ()  # other tokenizers that apply, compared
    tokenizer: str | None = None  # its file
    # Tokens whose text alone becomes other tokens, RT of Land and Bartolo; None if not asked for, or meaningless.
    no_round_trip: tuple[int, ...] | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.text)

    @property
    def categories(self) -> dict[str, int]:
        """Number of tokens of each category that occurs."""
        counts = Counter(self.category)
        return {name: counts[name] for name in CATEGORIES if counts[name]}

    def of(self, tokens: Iterable[int]) -> Vocabulary:
        """Return what these tokens mean, in this order."""
        lists = ("text", "data", "category", "witness", "proof", "script", "reserved")
        chosen = list(tokens)
        parts: dict[str, Any] = {name: [getattr(self, name)[token] for token in chosen] for name in lists}
        return replace(self, **parts)

    @property
    def n_fragments(self) -> int:
        """Number of tokens that are parts of characters, single bytes left out: Frag of Land and Bartolo."""
        pieces = zip(self.category, self.data, strict=True)
        return sum(category == "partial_utf8" and len(data or b"") > 1 for category, data in pieces)

    def listed(self, tokens: str = "all") -> Any:
        """Return `frame` with the proofs, of all tokens or of some categories; raises as `check_categories`."""
        import polars as pl

        asked = check_categories(tokens)
        frame = self.frame().with_columns(pl.Series("proof", self.proof, dtype=pl.String))
        return frame if "all" in asked else frame.filter(pl.col("category").is_in(asked))

    def to_json(self, tokens: str | None = None) -> dict[str, Any]:
        """Return the counts as JSON-ready data, with the tokens of `listed` where they are asked for."""
        proofs = Counter(reason for reason in self.proof if reason)
        facts = {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in ("tokenizer", "runtime", "model", "n_tokens", "n_texts")},
            "categories": self.categories,
            "n_witnesses": sum(witness is not None for witness in self.witness),
            "proofs": dict(proofs.most_common()),
            "no_round_trip": None if self.no_round_trip is None else list(self.no_round_trip),
            "n_fragments": self.n_fragments,
            "differs": [asdict(difference) for difference in self.differs],
            "search": self.search,
        }
        return facts if tokens is None else {**facts, "tokens": self.listed(tokens).to_dicts()}

    def frame(self) -> Any:
        """Return a polars frame with the columns `FRAME_COLUMNS`, one row per token; bytes are hexadecimal."""
        import polars as pl

        computed = {"id": range(self.n_tokens), "bytes": [None if data is None else data.hex() for data in self.data]}
        columns = {name: computed[name] if name in computed else getattr(self, name) for name in FRAME_COLUMNS}
        return pl.DataFrame(columns, schema={name: pl.Int64 if name == "id" else pl.String for name in FRAME_COLUMNS})


def check_categories(tokens: str) -> list[str]:
    """Split names of categories between commas; raises InvalidInput for a word that is none, nor "all"."""
    asked = tokens.split(",")
    if unknown := set(asked) - {"all", *CATEGORIES}:
        raise InvalidInput(f"unknown tokens {min(unknown)!r}; choose one of all, {', '.join(CATEGORIES)}")
    return asked


def vocabulary(
    tokenizer: str | Path | Tokenizer | tokenizers.Tokenizer | None,
    n_tokens: int | None = None,
    *,
    seconds: float = 120.0,
    round_trip: bool = False,
    progress: Report | None = None,
) -> Vocabulary:
    """Find text, bytes, category, witness, script and reserved name of every row of an embedding.

    Tokens are searched for by encoding texts: each token's own, then beside spaces, letters and so on; `search` says
    which. The ids of a witness hold the token. An unreachable token was reached by no text of the search; where `proof`
    gives a reason, no text can reach it (`measures.vocabulary.proofs`). Encoding runs in the library's own threads
    (`RAYON_NUM_THREADS`, `TOKENIZERS_PARALLELISM`).

    Raises as `open_tokenizer`; CorruptFile where the tokenizer breaks down while it encodes; InvalidInput for one that
    truncates, pads or encodes at random, and cannot be copied without.

    Parameters
    ----------
    tokenizer : path of a `tokenizer.json`, a loaded one, that of a checkpoint (`EmbeddingMatrix.tokenizer`), or None
    n_tokens : rows of the embedding; by default the tokenizer's number of ids
    seconds : time limit of the search, and of that of each other tokenizer (`differs`); what is not decided by then is
        `unknown`
    round_trip : encode each text alone, too, for `no_round_trip`, if the search was completed
    progress : called with (tokens decided, tokens) during the search

    Examples
    --------
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> made = Tokenizer(models.WordPiece({"[UNK]": 0, "un": 1, "##used": 2, "[unused1]": 3}, unk_token="[UNK]"))
    >>> made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    >>> words = vocabulary(made, 5)
    >>> words.category
    ['reachable', 'reachable', 'reachable', 'unreachable', 'beyond_tokenizer']
    >>> words.witness[2], words.data[2], words.proof[3]
    ('unused', b'used', 'the pre-tokenizer splits its characters, wherever they stand')
    """
    if n_tokens is not None and n_tokens < 0:
        raise InvalidInput(f"n_tokens must be >= 0, got {n_tokens}")
    if tokenizer is None:
        facts: dict[str, Any] = {"model": None, "runtime": None, "search": "no tokenizer"}
        empty = _explained(Pieces(token=[], text=[], name=[], data=[]), ([], []), n_tokens or 0, None, **facts)
        return replace(empty, category=["unknown"] * empty.n_tokens)
    if isinstance(tokenizer, str | Path):
        tokenizer = open_tokenizer(tokenizer)
    elif not isinstance(tokenizer, Tokenizer):
        tokenizer = by_rules(tokenizer)
    pieces = tokenizer.pieces
    if n_tokens is None:
        n_tokens = max(pieces.token, default=-1) + 1
        if n_tokens > MOST_IDS_A_TEXT * (len(pieces) + 1):
            raise InvalidInput(f"{tokenizer.file}: {len(pieces):,} texts with ids up to {n_tokens:,}; give n_tokens")
    file = tokenizer.file and str(tokenizer.file)
    facts = {"model": tokenizer.model, "runtime": tokenizer.runtime, "tokenizer": file}
    if tokenizer.cannot_encode:
        facts["search"] = f"nothing was encoded: {tokenizer.cannot_encode}"
        differs = tuple(differences(tokenizer, None, seconds))
        return _explained(pieces, _named(pieces), n_tokens, None, differs=differs, **facts)
    search = Search(tokenizer=tokenizer, n_tokens=n_tokens, seconds=seconds, progress=progress)
    with _breakdowns(), ThreadPoolExecutor(1) as pool:
        named = pool.submit(_named, pieces)  # while the library encodes
        search.run()
        facts |= {"differs": tuple(differences(tokenizer, search, seconds)), "search": search.sentence()}
        facts["no_round_trip"] = no_round_trip(tokenizer, n_tokens) if round_trip and search.ended else None
    return _explained(pieces, named.result(), n_tokens, search, **facts)


def no_round_trip(tokenizer: Tokenizer, n_tokens: int) -> tuple[int, ...] | None:
    """Return the tokens whose text, encoded alone, is not this one token, ascending: RT of Land and Bartolo [1]_.

    Added tokens, single bytes, parts of characters and texts with U+FFFD are left out, as there. Beside other text such
    a token may be reached. Returns None for tokenizers that mark spaces or word starts, as most of their pieces have no
    text of their own.

    References
    ----------
    .. [1] Land and Bartolo, "Fishing for Magikarp", EMNLP 2024, section 3.1.
    """
    if not tokenizer.spelling.byte_level:
        return None
    pieces = tokenizer.pieces
    asked = [n for n, token in enumerate(pieces.token) if token < n_tokens and n not in pieces.added]
    asked = [n for n in asked if len(pieces.data[n]) > 1 and "\ufffd" not in (pieces.body[n] or "\ufffd")]
    failed: list[int] = []
    for begin in range(0, len(asked), TEXTS_AT_A_TIME):
        some = asked[begin : begin + TEXTS_AT_A_TIME]
        ids, text_of = tokenizer.encode([pieces.body[n] or "" for n in some])
        meant = np.array([pieces.token[n] for n in some])
        length = np.bincount(text_of, minlength=len(some))
        same = (length == 1) & np.isin(np.arange(len(some)), text_of[ids == meant[text_of]])
        failed += meant[~same].tolist()
    return tuple(sorted(failed))


def _named(pieces: Pieces) -> tuple[Names, Names]:
    """Return the script of each piece, and the pattern of its text if that is a reserved name."""
    patterns = reserved_patterns(pieces.text)
    return [None if body is None else script_of(body) for body in pieces.body], [*map(patterns.get, pieces.text)]


def _explained(
    pieces: Pieces, named: tuple[Names, Names], n_tokens: int, searched: Search | None, **facts: Any
) -> Vocabulary:
    """Build the vocabulary from the pieces, their scripts and reserved names, and the search, if there was one."""
    scripts, reserved = named
    piece_of = {token: n for n, token in enumerate(pieces.token)}
    piece_of_row = [*map(piece_of.get, range(n_tokens), repeat(-1))]

    def column(values: list[Any]) -> list[Any]:
        return [*map([*values, None].__getitem__, piece_of_row)]

    def category(token: int, n: int) -> str:
        if n < 0:
            return "beyond_tokenizer"
        if n in pieces.added:
            return "special"
        return "partial_utf8" if scripts[n] is None else searched.verdict(token) if searched else "unknown"

    return Vocabulary(
        **facts,
        text=column(pieces.text),
        data=column(pieces.data),
        category=[category(token, n) for token, n in enumerate(piece_of_row)],
        witness=searched.witnesses if searched else [None] * n_tokens,
        proof=[*map(searched.proofs.get, range(n_tokens))] if searched else [None] * n_tokens,
        script=column(scripts),
        reserved=column(reserved),
        n_texts=len(pieces),
        n_texts_beyond_matrix=sum(token >= n_tokens for token in pieces.token),
    )


@contextmanager
def _breakdowns() -> Any:
    """Turn a bare Exception or a panic of the library into CorruptFile."""
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            wrong = f"the tokenizer breaks down while it encodes ({in_a_line(error)})"
            raise CorruptFile(f"{wrong}; scan --tokenizer none goes without") from None
        raise
