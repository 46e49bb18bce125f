"""Compare the tokenizers of one model: tokens that one of them reaches and another does not."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import CorruptFile, InvalidInput
from ...sources.tokenizer import Tokenizer
from .reachability import Search

MERGES_ALONE = "merges alone"
MOST_NAMED = 12  # tokens of each kind
OTHER_TEXT, ONLY_HERE, ONLY_THERE = "other bytes", "not reached", "reached only by this one"


@dataclass(frozen=True, kw_only=True)
class Example:
    """Token that another tokenizer treats differently."""

    kind: str  # OTHER_TEXT, ONLY_HERE or ONLY_THERE
    token_id: int
    text: str | None  # as the first tokenizer has it


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Another tokenizer of the same model, and the tokens that it treats differently.

    Each is searched with all texts that reach a token by the other, too. The runtime `MERGES_ALONE` has no file: it is
    the first tokenizer without its lookup of whole words (of tiktoken, and of `tokenizers` with ``ignore_merges``).
    """

    runtime: str
    tokenizer: str | None  # its file
    n_other_bytes: int = 0  # ids that stand for other bytes, or for a text by only one of the two
    n_not_reached: int = 0  # tokens that a text reaches by the first tokenizer alone
    n_reached_only_here: int = 0  # and by this one alone
    first: tuple[Example, ...] = ()  # of each kind
    cannot_compare: str | None  # why nothing was compared, or not all


def differences(tokenizer: Tokenizer, search: Search | None, seconds: float) -> Iterator[Difference]:
    """Compare a tokenizer after its search with each other one of the model, and with its merges alone.

    Without a search, for a tokenizer that cannot encode, only texts are compared. Texts by which others reach tokens
    are encoded by `search`, too. `seconds` limits the search by each other one.
    """
    if search and tokenizer.merges:
        pieces = tokenizer.pieces
        asked = [n for n, token in enumerate(pieces.token) if n not in pieces.added and search.reaches(token)]
        alone = tokenizer.merges(asked)
        lost = [pieces.token[n] for n, merged in zip(asked, alone, strict=True) if not merged]
        if lost:
            n = len(lost)
            first = tuple(_named(tokenizer, ONLY_HERE, lost))
            yield Difference(runtime=MERGES_ALONE, tokenizer=None, n_not_reached=n, first=first, cannot_compare=None)
    for opened in tokenizer.others:
        try:
            other = opened()
        except (CorruptFile, InvalidInput) as error:
            yield Difference(runtime="unknown", tokenizer=None, cannot_compare=str(error))
            continue
        yield _compared(tokenizer, search, other, seconds)


def _compared(tokenizer: Tokenizer, search: Search | None, other: Tokenizer, seconds: float) -> Difference:
    ours = dict(zip(tokenizer.pieces.token, tokenizer.pieces.data, strict=True))
    theirs = dict(zip(other.pieces.token, other.pieces.data, strict=True))
    unlike = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    lost: list[int] = []
    gained: list[int] = []
    why = other.cannot_encode or (None if search else tokenizer.cannot_encode)
    if search and not other.cannot_encode:
        again = Search(tokenizer=other, n_tokens=search.n_tokens, seconds=seconds, seeds=search.texts())
        again.run()
        search.encode(again.texts())
        # Runtimes differ in added tokens by design.
        added = {one.pieces.token[n] for one in (tokenizer, other) for n in one.pieces.added}
        alike = sorted(ours.keys() & theirs.keys() - added - set(unlike))
        lost = [token for token in alike if search.reaches(token) and again.verdict(token) == "unreachable"]
        gained = [token for token in alike if again.reaches(token) and search.verdict(token) == "unreachable"]
        if not (search.ended and again.ended):
            why = f"the search was cut off after {seconds:g} seconds"
    kinds = {OTHER_TEXT: unlike, ONLY_HERE: lost, ONLY_THERE: gained}
    return Difference(
        runtime=other.runtime,
        tokenizer=str(other.file),
        n_other_bytes=len(unlike),
        n_not_reached=len(lost),
        n_reached_only_here=len(gained),
        first=tuple(example for kind, tokens in kinds.items() for example in _named(tokenizer, kind, tokens)),
        cannot_compare=why,
    )


def _named(tokenizer: Tokenizer, kind: str, tokens: list[int]) -> list[Example]:
    return [Example(kind=kind, token_id=token, text=tokenizer.texts.get(token)) for token in tokens[:MOST_NAMED]]
