"""Tokens to ask for: controls resemble those asked for, and the sample of the others knows its strata."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from darkvocab.errors import InvalidInput
from darkvocab.verification.tokens import EDGES, choose, kind_of

TEXTS = [*(f"w{'x' * (n % 5)}"[1:] or "y" for n in range(300)), *("({;"[n % 3] * (1 + n % 2) for n in range(100))]
TEXTS += [*(f"{n}" for n in range(100)), *("слово"[: 1 + n % 5] for n in range(100))]


def scanned(n_untrained=6):
    n = len(TEXTS)
    grades = ["untrained" if n - n_untrained <= number else "trained" for number in range(n)]
    category = ["special" if number < 3 else "unreachable" if number < 6 else "reachable" for number in range(n)]
    scripts = [("Cyrillic" if t > "z" else "Latin") if t[0].isalpha() else None for t in TEXTS]
    columns = {"grade": grades, "category": category, "script": scripts}
    tokens = pl.DataFrame({"id": range(n), "bytes": [t.encode().hex() for t in TEXTS], **columns})
    return SimpleNamespace(tokens=tokens, order=np.arange(n)[::-1])


def of(chosen, group):
    return [one for one in chosen if one.group == group]


def test_controls_are_of_the_kind_script_and_length_of_those_asked_for():
    asked = np.array([310, 311, 399, 550])  # marks, and a word in Cyrillic letters
    chosen, _ = choose(scanned(0), asked, n_controls=40, n_missed=0, seed=1)
    controls = of(chosen, "control")
    assert len({one.token for one in controls}) == 40
    assert not {one.token for one in controls} & set(asked.tolist())
    assert {one.kind for one in controls} == {"marks", "letters"}
    assert all(ord(one.text[0]) > 0x400 for one in controls if one.kind == "letters")
    assert all(one.token >= 6 for one in controls)  # none is special, or beyond the reach of a text


def test_where_too_few_are_alike_others_of_the_kind_are_taken_then_any():
    chosen, _ = choose(scanned(0), np.array([310]), n_controls=150, n_missed=0, seed=1)
    kinds = [one.kind for one in of(chosen, "control")]
    assert kinds.count("marks") == 99
    assert len(kinds) == 150


def test_the_sample_of_the_others_is_of_every_stratum_and_of_trained_tokens_alone():
    chosen, strata = choose(scanned(), np.arange(594, 600), n_controls=0, n_missed=50, seed=1)
    missed = of(chosen, "missed")
    n_trained = 600 - 6 - 3  # special ones apart
    assert sum(strata) == n_trained
    assert strata == np.diff([round(edge * n_trained) for edge in EDGES]).tolist()
    counts = [sum(one.stratum == number for one in missed) for number in range(len(strata))]
    assert counts == [2, 4, 7, 12, 25]  # as the roots of 6, 12, 41, 118 and 414
    places = {one.token: one.order for one in chosen}
    assert places[599] == 1  # the surest to be dark
    for one in missed:
        assert one.grade == "trained"
        assert sum(strata[: one.stratum]) < one.order - 6 <= sum(strata[: one.stratum + 1])


def test_the_same_seed_chooses_the_same_tokens():
    one, two, other = (choose(scanned(), np.arange(594, 600), n_controls=20, n_missed=20, seed=s)[0] for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_a_token_without_a_row_is_refused():
    with pytest.raises(InvalidInput, match="no row of token 600"):
        choose(scanned(), np.array([600]), n_controls=0, n_missed=0, seed=0)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("été", "letters"), (" 12", "digits"), ("½", "digits"), ("«»", "marks"), ("x=1", "mixed"), ("\t", "spaces")],
)
def test_kinds(text, kind):
    assert kind_of(text) == kind
