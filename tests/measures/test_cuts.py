"""Proofs that a pattern always cuts inside some characters: against the engine, on every short text."""

import itertools
import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern_drawn import CHARACTERS, PATTERNS, pattern
from tokenizers import Regex, decoders, pre_tokenizers

from darkvocab.measures.vocabulary.pattern import Cuts, NotRead, Pattern, code_points, members

FEW = "sB1 '.\n\u0e31中"  # a mark and a letter without case among them


def always(cuts, text):
    return cuts.always([np.array([ord(character)]) for character in text])


def whole(cutter, texts, longest):
    """Every part of two to `longest` characters that some text keeps whole."""
    pieces = {piece for text in texts for piece, _ in cutter.pre_tokenize_str(text)}
    return {piece[a:b] for piece in pieces for a in range(len(piece)) for b in range(a + 2, a + longest + 1)}


def every(characters, *lengths):
    return ["".join(some) for n in lengths for some in itertools.product(characters, repeat=n)]


@pytest.mark.parametrize("name", PATTERNS)
def test_of_a_models_pattern_exactly_the_parts_that_no_text_keeps_whole_are_proved(name):
    cuts = Cuts(PATTERNS[name])
    parts = every(FEW, 2, 3)
    kept = whole(pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated"), every(FEW, 2, 3, 4, 5), 3)
    assert {part for part in parts if not always(cuts, part)} == kept & set(parts)


@pytest.mark.parametrize("seed", range(60))
def test_of_a_pattern_drawn_by_lot_no_part_that_some_text_keeps_whole_is_proved(seed):
    lot = random.Random(seed)
    drawn = pattern(lot)
    try:
        cuts = Cuts(drawn)
    except NotRead:
        return
    kept = whole(pre_tokenizers.Split(Regex(drawn), "isolated"), lot.sample(every(CHARACTERS, 2, 3, 4, 5), 600), 3)
    proved = {part for part in every(CHARACTERS, 2, 3) if always(cuts, part)}
    assert not proved & kept, drawn


def test_most_patterns_drawn_by_lot_are_read_and_prove_something():
    n_read = n_proving = 0
    for seed in range(60):
        try:
            cuts = Cuts(pattern(random.Random(seed)))
        except NotRead:
            continue
        n_read += 1
        n_proving += any(always(cuts, part) for part in every(CHARACTERS, 2, 3))
    assert n_read > 25
    assert n_proving > 15


@given(st.data(), st.sampled_from(sorted(PATTERNS)))
@settings(deadline=None)
def test_no_part_of_a_piece_of_any_text_is_proved(data, name):
    cutter = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
    text = data.draw(
        st.text(st.one_of(st.sampled_from(FEW + "sStTrR\r\t\u00a0\u0130\u017f"), st.characters(codec="utf-8")))
    )
    cuts = _cuts(name)
    for piece, _ in cutter.pre_tokenize_str(text):
        assert not always(cuts, piece), piece


_READ = {}


def _cuts(name):
    return _READ.setdefault(name, Cuts(PATTERNS[name]))


@pytest.mark.parametrize(
    ("name", "part", "proved"),
    [
        *(("qwen", "กั", True), ("qwen", "ัก", False), ("qwen", "12", True), ("qwen", "'sa", True)),
        *(("qwen", "'Sa", True), ("qwen", "'\u017fa", True), ("qwen", "'xa", False), ("qwen", "\n a", True)),
        *(("llama3", "123", False), ("llama3", "1234", True), ("gpt2", "'sa", True), ("gpt2", "'Sa", True)),
        *(("o200k", "กั", False), ("o200k", "aB", True), ("o200k", "Ba", False), ("o200k", " I'D", False)),
        *(("cl100k", "กั", True), ("cl100k", "1234", True), ("deepseek", "กั", False), ("deepseek", ".a", False)),
    ],
)
def test_parts_worked_by_hand(name, part, proved):
    assert always(_cuts(name), part) is proved


def test_a_part_whose_ends_are_one_of_several_characters_is_proved_for_all_of_them():
    marks = np.arange(0x300, 0x340)  # whose UTF-8 begins with cc
    letter = np.array([ord("ê")])
    assert _cuts("qwen").always([letter, marks])
    assert not _cuts("qwen").always([letter, np.append(marks, ord("a"))])


def test_characters_that_are_in_no_match_are_not_proved():
    cuts = Cuts(r"\p{N}{1,2}")
    assert not always(cuts, "ab")  # is left as it is, between matches
    assert always(cuts, "a1")
    assert always(cuts, "123")
    assert not always(cuts, "12")


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "a*", "a|", "(a*)*", "(?<=a)b", "(?<!a)b", r"\bword", r"(a)\1", "(?>a+)b", "(?i)a", "(?:a|b)++", "a{2}+"),
        *(
            "a**",
            "a{,2}",
            "a{3}?",
            "[[:alpha:]]",
            "[a&&[b]]",
            r"\X",
            r"\R",
            r"\Ka",
            "^a",
            "(?i:st)",
            "(?i:é)",
            "(a",
            "a)",
        ),
        *(r"\x{10FFFF}", r"[a-\x{50000}]", "\U00040000", r"\p{NoSuchProperty}", "(?=ab)c", "(?#x)a", "(?<n>a)", "a{9"),
        *(r"\o{101}", "[]a]", "[^]", "(" * 60 + "a" + ")" * 60, "a" * 3000, "(?:a{99}){99}", "(?:(a|b)c?){9,}{2}"),
        *("(?i:a)(?i:b)", "".join(f"[{a}x]" for a in string.ascii_letters + string.digits + "!§%&")),
    ],
)
def test_a_pattern_whose_meaning_is_not_known_is_not_read(pattern):
    with pytest.raises(NotRead):
        Cuts(pattern)


@given(st.text(st.sampled_from(r"ab1\pLsS{}[]()^$|*+?.,:!<>=i'&- "), max_size=12))
@settings(deadline=None)
def test_any_pattern_is_read_or_not(pattern):
    try:
        Pattern(pattern)
    except NotRead:
        return
    Regex(pattern)  # the engine takes what is read


def test_the_engine_is_asked_which_characters_are_of_a_class():
    codes = code_points()
    for one in (r"\p{L}", r"\s", "[^a-z]", ".", r"\S", "x"):
        for n in range(0, len(codes), 5001):
            kept = decoders.Replace(Regex(one), "").decode([chr(codes[n])])
            assert members(one)[n] == (kept == ""), (one, hex(codes[n]))
    assert set(map(chr, codes[members("(?i:s)")])) == {"s", "S", "\u017f"}


@pytest.mark.parametrize("one", [r"\p{L}", r"\p{N}", r"\s", r"\p{M}", r"\p{P}", r"\p{S}", r"\p{Lu}", r"\p{C}"])
def test_code_points_that_are_left_out_are_like_the_next_one(one):
    codes = np.setdiff1d(np.arange(0x40000, 0x110000, 7), code_points())
    others = decoders.Replace(Regex(f"{one}+"), "").decode([codes.astype("<u4").tobytes().decode("utf-32-le")])
    matched = ~np.isin(codes, np.frombuffer(others.encode("utf-32-le"), "<u4"))
    np.testing.assert_array_equal(matched, members(one)[np.searchsorted(code_points(), codes)])
