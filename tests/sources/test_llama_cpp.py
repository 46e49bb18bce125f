"""Tokenizers inside GGUF files, by llama.cpp's rules.

The ids are those that llama.cpp itself gave for these vocabularies (xllamacpp 2026.10.11549, llama_tokenize with
parse_special and without add_special).
"""

import unicodedata
from pathlib import Path

import ggufs
import numpy as np
import pytest
import sentencepiece
import vocabularies
from tokenizers import Regex, pre_tokenizers

from darkvocab import scan
from darkvocab.errors import CorruptFile
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.sources.tokenizer import open_tokenizer
from darkvocab.sources.tokenizer.llama_cpp import PATTERN_OF, PATTERNS, WHOLE_WORDS_FIRST, of_15_1
from darkvocab.sources.tokenizer.sentencepiece import fields

MERGES = ["1 2", "12 3", "Ġ a", "a b", "Ġ ab", "Ġa b"]
SCORES = {"▁": -1.0, "a": -2.0, "b": -3.0, "aa": -4.0, "aaa": -5.0, "▁a": -6.0, "ab": -4.0, "ba": -4.0}
WORDS = ["▁un", "used", "▁a", "▁e", "▁.", "s", "▁中", "▁ᄒ", "▁the", "a"]
UNIGRAMS = {"▁": -3.0, "▁a": -2.0, "a": -4.0, "b": -4.0, "ab": -5.0, "▁ab": -7.0, "<x>": -1.0, "c": -20.0}


@pytest.fixture
def opened(tmp_path):
    """Write values of a header, with rows for the tokens, and open the tokenizer."""

    def write(values, name="a.gguf"):
        return open_tokenizer(ggufs.saved(tmp_path / name, {"token_embd.weight": np.ones((400, 2), "f4")}, values))

    return write


def ids(tokenizer, *texts):
    every, text_of = tokenizer.encode(list(texts))
    return [every[text_of == n].tolist() for n in range(len(texts))]


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        *((pre, [[257, 52, 260], [10, 10, 258]]) for pre in ("gpt-2", "llama-bpe", "default")),
        *((pre, [[49, 50, 51, 52, 260], [10, 10, 258]]) for pre in ("qwen2", "smollm", "tekken")),
    ],
)
def test_two_pre_tokenizers_give_one_vocabulary_two_answers(opened, pre, expected):
    tokenizer = opened(vocabularies.byte_level(MERGES, pre=pre))
    assert ids(tokenizer, "1234 ab", "\n\n a") == expected
    result = vocabulary(tokenizer)
    assert (result.runtime, result.category[257]) == (
        "llama.cpp",
        "unreachable" if len(expected[0]) > 3 else "reachable",
    )
    assert (result.text[258], result.data[258], tokenizer.pieces.name[258]) == (" a", b" a", "Ġa")


def test_special_tokens_are_cut_out_the_longest_first(opened):
    tokenizer = opened(vocabularies.byte_level(MERGES, special=["<|end|>", "<a>", "a>b>"]))
    assert ids(tokenizer, "x<|end|> ab", "<a>b>", "<a>", "<|end|><|end|>") == [
        [120, 261, 260],
        [60, 263],
        [262],
        [261] * 2,
    ]
    assert vocabulary(tokenizer).category[261:264] == ["special"] * 3


def test_what_ends_a_text_is_special_whatever_its_type(opened):
    tokenizer = opened(vocabularies.byte_level(MERGES, more=["<|im_end|>", "<|im_ending|>"]))
    assert ids(tokenizer, "a<|im_end|>b", "<|im_ending|>")[0] == [97, 261, 98]
    assert vocabulary(tokenizer).category[261:263] == ["special", "unreachable"]


def test_some_look_whole_words_up_before_they_merge(opened):
    whole, merged = (opened(vocabularies.byte_level(["a b"], more=["abc"], pre=pre)) for pre in ("llama-bpe", "gpt-2"))
    assert ids(whole, "abc", "abcd") == [[257], [256, 99, 100]]
    assert ids(merged, "abc", "abcd") == [[256, 99], [256, 99, 100]]
    assert vocabulary(whole).category[257] == "reachable"
    assert vocabulary(whole).differs[0].n_not_reached == 1
    assert vocabulary(merged).category[257] == "unreachable"


def test_merges_that_name_no_tokens_hold_their_place_and_fall_apart(opened):
    tokens = [*vocabularies.ALPHABET, "abc"]
    tokenizer = opened(vocabularies.of("gpt2", tokens, merges=["a b", "b c", "ab c", "Ġ x", "none", ""], pre="gpt-2"))
    assert ids(tokenizer, "ab", "abc", " x", "abx") == [[97, 98], [256], [120], [97, 98, 120]]
    without_b = [character for character in vocabularies.ALPHABET if character != "b"]
    tokenizer = opened(vocabularies.of("gpt2", [*without_b, "ab", "bc"], merges=["a b", "b c"], pre="gpt-2"))
    assert ids(tokenizer, "ab", "b", "cb", "bc", "abc") == [[255], [], [98], [256], [255, 98]]


def test_pieces_of_equal_scores_merge_from_the_left_and_bytes_stand_in(opened):
    with_space, without = (
        opened(vocabularies.sentencepiece(SCORES, add_space_prefix=("bool", prefix))) for prefix in (True, False)
    )
    texts = "a", "aaaa", "aaaaa", " a", "é", "bab", "abab", "<s>a", "a</s> b", "▁a"
    assert ids(without, *texts) == [
        *([260], [262, 262], [262, 263], [264], [198, 172], [266, 261], [265, 265], [1, 260]),
        *([260, 2, 259, 261], [264]),
    ]
    assert ids(with_space, *texts) == [
        *([264], [259, 262, 262], [259, 262, 263], [259, 264], [259, 198, 172], [259, 266, 261], [259, 265, 265]),
        *([1, 264], [264, 2, 259, 259, 261], [259, 264]),
    ]
    result = vocabulary(without)
    assert result.text[3 + 0x41 : 3 + 0x42] + result.text[259:261] + result.text[264:265] == ["<0x41>", " ", "a", " a"]
    assert result.data[3 + 0xE4] == b"\xe4"


def test_words_are_taken_apart_as_llama_cpp_does(opened):
    texts = "unused", "UNUSED", "É é", "the.the", "한", "中the", "unuseds", "xyz the", "a\0a", "[PAD]", "▁a", "a▁a", "İ"
    tokenizer = opened(vocabularies.bert(WORDS))
    assert ids(tokenizer, *texts) == [
        *([2, 3], [2, 3], [5, 5], [10, 6, 10], [9], [8, 10], [2, 3, 7], [1, 10], [4, 11], [0], [1], [4, 4], [1]),
    ]
    cased = opened(vocabularies.bert(WORDS, **{"normalizer.lowercase": ("bool", False)}))
    assert ids(cased, "unused", "Unused", "é", "e") == [[2, 3], [1], [1], [5]]
    result = vocabulary(tokenizer)
    assert (result.model, result.text[2:4], result.data[3]) == ("WordPiece", ["un", "##used"], b"used")
    assert result.category[2:12] == ["reachable"] * 10


@pytest.mark.parametrize(
    ("prefix", "merged", "expected"),
    [
        (True, True, [[4, 6], [4, 3, 6], [4, 3, 6], [], [3, 2, 3, 2], [4, 9, 3, 6], [3, 10]]),
        (False, True, [[4, 6], [4, 3, 6], [4, 3, 6], [], [3, 2, 3, 2], [4, 9, 3, 6], [3, 10]]),
        (True, False, [[4, 6], [4, 3, 6], [3, 3, 4, 3, 3, 6, 3], [3, 3, 3], [3, 2, 3, 2], [4, 9, 3, 6], [3, 10]]),
        (False, False, [[7], [5, 3, 6], [3, 4, 3, 3, 6, 3], [3, 3, 3], [2, 3, 2], [5, 9, 6], [10]]),
    ],
)
def test_unigrams_of_the_largest_sum_and_spaces_as_the_file_has_them(opened, prefix, merged, expected):
    values = vocabularies.t5(
        UNIGRAMS, [1] * 6 + [4, 5], add_space_prefix=("bool", prefix), remove_extra_whitespaces=("bool", merged)
    )
    tokenizer = opened(values)
    assert ids(tokenizer, "ab", "a b", "  a  b ", "   ", "zz z", "a<x>b", "c") == expected
    assert (tokenizer.model, tokenizer.pieces.text[4]) == ("Unigram", " a")


def charsmap(replaced):
    spec = sentencepiece.SentencePieceNormalizer(norm_map=replaced).serialized_normalizer_spec()
    return dict(fields(spec))[2]


def test_character_map_is_applied_between_special_tokens(opened):
    held = charsmap([("b", "a"), ("cc", "ab"), ("\u3000", " ")])
    options = {"precompiled_charsmap": ("u8", list(held)), "add_space_prefix": ("bool", True)}
    tokenizer = opened(vocabularies.t5(UNIGRAMS, [1] * 6 + [4, 5], **options))
    assert ids(tokenizer, "bb", "cc", "a\u3000b", "b<x>cccb") == [[4, 5], [4, 6], [4, 4], [4, 9, 4, 6, 10, 5]]


@pytest.mark.slow
def test_every_pattern_compiles_and_letters_are_those_of_unicode_15_1():
    assert {*PATTERN_OF} >= WHOLE_WORDS_FIRST
    for pattern in {pattern for patterns in PATTERNS.values() for pattern in patterns}:
        pre_tokenizers.Split(Regex(of_15_1(pattern)), "isolated").pre_tokenize_str("ab 12\n中é'S")
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    for kind, n in {"L": 136_726, "N": 1_831}.items():
        cutter = pre_tokenizers.Split(Regex(of_15_1(rf"\P{{{kind}}}+")), "removed")
        held = "".join(word for word, _ in cutter.pre_tokenize_str(every))
        assert len(held) == n
        older = {character for character in every if unicodedata.category(character) != "Cn"}
        assert {c for c in held if c in older} == {c for c in older if unicodedata.category(c)[0] == kind}


# What cannot be encoded, and what is no tokenizer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (vocabularies.byte_level(MERGES, pre="new-model"), "the pre-tokenizer 'new-model' (tokenizer.ggml.pre) is not"),
        (
            vocabularies.of("rwkv", ["a", "b"]),
            "tokenizers of the model 'rwkv' (tokenizer.ggml.model) are not supported",
        ),
        (vocabularies.of("gpt2", ["a"]), "the file has no tokenizer.ggml.merges"),
        (vocabularies.of("llama", ["a", "a"], scores=[0.0, 0.0]), "two of its tokens have the text 'a'"),
        (vocabularies.t5({"▁é": 0.0}, [4]), "llama.cpp breaks characters that begin like its user-defined token '▁é'"),
    ],
)
def test_what_is_not_known_is_named_and_leaves_reachability_unknown(opened, values, says):
    result = vocabulary(opened(values))
    assert says in result.search
    assert {*result.category} <= {"unknown", "special", "partial_utf8"}
    assert result.runtime == "llama.cpp"


WRONG = {
    "texts of numbers": ([("tokens", "i32", [1, 2])], "tokenizer.ggml.tokens is of type ndarray, not list"),
    "few scores": ([("scores", "f32", [0.0])], "tokenizer.ggml.scores has 1 float32 for 2 tokens"),
    "scores that are none": (
        [("scores", "f32", [0.0, float("nan")])],
        "tokenizer.ggml.scores holds numbers that are not",
    ),
    "endless scores": ([("scores", "f32", [0.0, float("-inf")])], "tokenizer.ggml.scores holds numbers that are not"),
    "few types": ([("token_type", "i32", [1])], "tokenizer.ggml.token_type has 1 int32 for 2 tokens"),
    "types as texts": ([("token_type", "text", ["1", "1"])], "tokenizer.ggml.token_type is of type list, not ndarray"),
    "types as fractions": ([("token_type", "f32", [1.0, 1.0])], "tokenizer.ggml.token_type has 2 float32"),
    "merges of numbers": ([("model", "text", "gpt2"), ("merges", "i32", [1])], "tokenizer.ggml.merges is of type"),
    "model of a number": ([("model", "u32", 7)], "tokenizer.ggml.model is of type int, not str"),
    "prefix of a number": (
        [("add_space_prefix", "u32", 7)],
        "tokenizer.ggml.add_space_prefix is of type int, not bool",
    ),
    "map of texts": ([("precompiled_charsmap", "text", ["a"])], "tokenizer.ggml.precompiled_charsmap is of type list"),
    "map that is none": (
        [("model", "text", "t5"), ("precompiled_charsmap", "u8", [255] * 40)],
        "precompiled_charsmap: ",
    ),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_header_that_contradicts_itself_is_refused_in_a_sentence(tmp_path, changes, says):
    kept = [*dict(vocabularies.of("llama", ["a", "b"])).items()]
    changed = {f"tokenizer.ggml.{key}": ggufs.value(kind, value) for key, kind, value in changes}
    path = ggufs.saved(
        tmp_path / "a.gguf", {"token_embd.weight": np.ones((2, 2), "f4")}, [*{**dict(kept), **changed}.items()]
    )
    with pytest.raises(CorruptFile) as caught:
        open_tokenizer(path)
    assert says in str(caught.value)
    assert str(caught.value).endswith("--tokenizer none goes without")
    assert scan(path, tokenizer="none").to_json()["n_tokens"] == 2


# A real one -----------------------------------------------------------------------------------------------------------

SMOLLM2 = Path("demo/SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_file(), reason=f"no {SMOLLM2}: make demo brings it")
def test_tokenizer_of_smollm2():
    tokenizer = open_tokenizer(SMOLLM2)
    assert ids(tokenizer, "Hello world, it's  12345 ok", "Hello <|im_start|> x") == [
        [19556, 905, 28, 357, 506, 256, 33, 34, 35, 36, 37, 10907],
        [19556, 216, 1, 1792],
    ]
    result = vocabulary(tokenizer)
    assert result.categories == {"reachable": 48_822, "partial_utf8": 313, "special": 17}
    assert [result.text[token] for token in (0, 1_003, 45_175, 49_151)] == [
        "<|endoftext|>",
        " return",
        " transistorsum",
        "ectable",
    ]
