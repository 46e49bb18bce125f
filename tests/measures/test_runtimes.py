"""Reachability by runtime: who encoded a witness, where two that apply differ, and the command that explains it all."""

import csv
import json
import random

import pytest
from safetensors.numpy import save_file
from tokenizer_files import MERGED, PATTERN, of_ranks, ranks, tekken, trained
from tokenizer_files import known as let_be_known
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizing import merged

from darkvocab import scan
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.measures.vocabulary.differences import MERGES_ALONE, ONLY_HERE, ONLY_THERE, OTHER_TEXT
from darkvocab.reports.checkpoints import print_vocabulary
from darkvocab.reports.console import console
from darkvocab.reports.document import phrase
from darkvocab.sources.tokenizer import BYTE_LEVEL, by_rules, open_tokenizer

ORPHAN = 256 + MERGED.index(b"11")  # a pattern gives digits one at a time
WHOLE = 256 + MERGED.index(b"qrs")  # of which no two letters merge


def as_rules(vocab, merges=(), **options):
    """A byte-level BPE for the library, from ranks."""
    names = {byte: chr(code) for code, byte in BYTE_LEVEL.items()}
    spelt = {data: "".join(names[byte] for byte in data) for data in vocab}
    pairs = [(spelt[one], spelt[other]) for one, other in merges]
    rules = Tokenizer(models.BPE({spelt[data]: n for data, n in vocab.items()}, pairs, **options))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.decoder = decoders.ByteLevel()
    return rules


@pytest.mark.slow
def test_reachability_names_its_runtime_and_its_witnesses_are_the_runtimes(tmp_path):
    for path in (tekken(tmp_path / "tekken.json"), trained(tmp_path / "a.model")):
        tokenizer = open_tokenizer(path)
        result = vocabulary(tokenizer)
        assert result.runtime == tokenizer.runtime
        assert result.n_tokens == len(tokenizer.pieces)
        for token, witness in enumerate(result.witness):
            assert witness is None or token in tokenizer.encode([witness])[0]
    assert {"tiktoken", "sentencepiece"} == {vocabulary(tmp_path / name).runtime for name in ("tekken.json", "a.model")}


def test_what_tiktokens_pattern_cuts_is_not_reached_and_what_only_a_look_up_reaches_is_named(tmp_path):
    result = vocabulary(tekken(tmp_path / "tekken.json", merged=(b"11", b"qrs", b"x y", b"th")), round_trip=True)
    eleven, whole, words, th = (3 + 256 + n for n in range(4))
    assert [result.category[token] for token in (eleven, whole, words, th)] == [
        "unreachable",
        "reachable",
        "unreachable",
        "reachable",
    ]
    assert result.no_round_trip == (eleven, words)
    (alone,) = result.differs
    assert (alone.runtime, alone.n_not_reached, alone.first[0].token_id) == (MERGES_ALONE, 1, whole)


@pytest.mark.parametrize("seed", range(5))
def test_merges_alone_are_what_the_library_does_without_looking_up(seed):
    lot = random.Random(seed)
    result, merges = merged(lot, "abc", 20)
    lot.shuffle(merges)
    vocab = {text: n for n, text in enumerate(result)}
    rules = {kind: Tokenizer(models.BPE(vocab, merges, ignore_merges=kind)) for kind in (True, False)}
    looked_up = by_rules(rules[True])
    alone = looked_up.merges(list(range(len(result))))
    assert alone == [rules[False].encode(text).ids == [vocab[text]] for text in looked_up.pieces.text]
    assert looked_up.rules.model.ignore_merges
    assert by_rules(rules[False]).merges is None


def folder_of_two(tmp_path, monkeypatch):
    """A folder whose tokenizer.json merges alone what its file of ranks looks up, and names one token otherwise."""
    let_be_known(monkeypatch)
    of_ranks(tmp_path / "tokenizer.model")
    vocab = {**ranks(), b"zz": 256}
    del vocab[MERGED[0]]
    rules = as_rules(vocab)
    rules.add_special_tokens([AddedToken("<|end|>")])
    rules.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_two_tokenizers_of_a_folder_are_compared(tmp_path, monkeypatch):
    result = vocabulary(folder_of_two(tmp_path, monkeypatch))
    assert result.runtime == "tokenizers"
    (other,) = result.differs
    assert (other.runtime, other.tokenizer) == ("tiktoken", str(tmp_path / "tokenizer.model"))
    # The library merges nothing here; token 256 is another text, and tiktoken finds all the others but two.
    assert (other.n_other_bytes, other.n_not_reached, other.n_reached_only_here) == (1, 0, len(MERGED) - 3)
    by_kind = {kind: [one.token_id for one in other.first if one.kind == kind] for kind in (OTHER_TEXT, ONLY_THERE)}
    assert by_kind[OTHER_TEXT] == [256]
    assert WHOLE in by_kind[ONLY_THERE]
    assert ORPHAN not in by_kind[ONLY_THERE]


def test_a_text_that_only_the_other_search_tried_is_no_difference(tmp_path, monkeypatch):
    let_be_known(monkeypatch)
    of_ranks(tmp_path / "a.tiktoken")
    of_ranks(tmp_path / "tokenizer.model")
    result = vocabulary(tmp_path)
    alone, other = result.differs
    assert alone.runtime == MERGES_ALONE
    assert (other.n_other_bytes, other.n_not_reached, other.n_reached_only_here, other.first) == (0, 0, 0, ())
    assert "no differences" in phrase("differing", other=other)


def test_a_search_that_is_cut_off_tells_no_difference(tmp_path, monkeypatch):
    (other,) = vocabulary(folder_of_two(tmp_path, monkeypatch), seconds=0).differs
    assert (other.n_other_bytes, other.n_not_reached, other.n_reached_only_here) == (1, 0, 0)
    assert other.cannot_compare == "the search was cut off after 0 seconds"


def test_an_other_one_that_cannot_be_opened_or_encode_is_named(tmp_path, monkeypatch):
    let_be_known(monkeypatch)
    of_ranks(tmp_path / "tokenizer.model")
    (tmp_path / "tekken.json").write_text("{}")
    of_ranks(tmp_path / "b.tiktoken", merged=(b"ab",))
    _, pattern, broken = vocabulary(tmp_path).differs
    assert "not a tekken.json" in broken.cannot_compare
    assert "pattern" in pattern.cannot_compare
    assert pattern.n_other_bytes == len(MERGED) + 1
    assert "not compared" in phrase("differing", other=broken)


def test_one_that_cannot_encode_is_compared_by_its_texts(tmp_path):
    of_ranks(tmp_path / "tokenizer.model")
    tekken(tmp_path / "tekken.json")
    result = vocabulary(tmp_path)
    assert set(result.category) == {"unknown", "partial_utf8"}
    (other,) = result.differs
    assert other.n_other_bytes == 3 + 256 + len(MERGED)
    assert "pattern" in other.cannot_compare


def test_ranks_of_no_known_pattern_encode_by_the_one_beside_them(tmp_path):
    path = of_ranks(tmp_path / "a.tiktoken")
    assert "pat_str in a tokenizer_config.json" in vocabulary(path).search
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pat_str": PATTERN}))
    by_pattern = vocabulary(path)
    held = dict(zip(by_pattern.data, by_pattern.category, strict=True))
    assert (held[b" the"], held[b"x y"]) == ("reachable", "unreachable")
    assert by_pattern.witness == vocabulary(tekken(tmp_path / "tekken.json", n_marks=0)).witness


@pytest.mark.slow
def test_a_scan_says_so_too(tmp_path, monkeypatch, cli):
    import numpy as np

    folder = folder_of_two(tmp_path, monkeypatch)
    save_file({"model.embed_tokens.weight": np.eye(266, 8, dtype="f4")}, folder / "model.safetensors")
    facts = scan(folder, checksum=False).to_json()["vocabulary"]
    assert facts["runtime"] == "tokenizers"
    assert facts["differs"][0]["n_reached_only_here"] == len(MERGED) - 3
    assert facts["differs"][0]["first"][0] == {"kind": OTHER_TEXT, "token_id": 256, "text": "zz"}
    out = " ".join(cli("scan", folder, "--no-sha256").out.split())  # a table folds its lines
    assert "runtime" in out
    assert "tokens that it alone reaches" in out


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_prints_categories_proofs_and_counts(tmp_path, cli):
    path = tekken(tmp_path / "tekken.json")
    result = cli("vocabulary", path)
    assert result.code == 0
    for words in ("tiktoken", "reachable", "unreachable", "no round trip", "fragments", "merges alone", "1 parts of"):
        assert words in result.out, words


def test_json_has_the_counts_and_the_tokens_that_are_asked_for(tmp_path, cli):
    path = tekken(tmp_path / "tekken.json")
    facts = json.loads(cli("vocabulary", path, "--json").out)
    assert "tokens" not in facts
    assert facts["categories"]["special"] == 3
    assert facts["n_fragments"] == 1  # two of the three bytes of a character
    assert facts["no_round_trip"] == [3 + ORPHAN, 3 + 256 + MERGED.index(b"x y")]
    assert facts["differs"][0]["first"][0]["kind"] == ONLY_HERE
    listed = json.loads(cli("vocabulary", path, "--json", "--tokens", "unreachable,special").out)["tokens"]
    assert [one["id"] for one in listed] == [0, 1, 2, 3 + ORPHAN, 3 + 256 + MERGED.index(b"x y")]
    assert listed[3] | {"proof": None} == {
        **{"id": 3 + ORPHAN, "text": "11", "bytes": "3131", "category": "unreachable", "witness": None},
        **{"script": "Common", "reserved": None, "proof": None},
    }


def test_csv_has_every_token_by_default(tmp_path, cli):
    path = tekken(tmp_path / "tekken.json")
    assert cli("vocabulary", path, "--csv", tmp_path / "a.csv").code == 0
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 256 + len(MERGED)
    assert rows[3 + 256 + 3]["witness"] != ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nothing.json"], 3, "no tokenizer at 'nothing.json'"),
        (["{tmp}", "--tokens", "dark"], 2, "unknown tokens 'dark'"),
        (["{tmp}"], 3, "holds no tokenizer"),
        (["{tmp}/a.gguf"], 4, "too few for a GGUF file"),
    ],
)
def test_what_cannot_be_had_is_refused(tmp_path, cli, arguments, code, says):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    result = cli("vocabulary", *(one.replace("{tmp}", str(tmp_path)) for one in arguments))
    assert (result.code, result.out) == (code, "")
    assert says in result.err


def test_a_search_that_is_cut_off_leaves_the_rest_unknown(tmp_path, cli):
    facts = json.loads(cli("vocabulary", tekken(tmp_path / "tekken.json"), "--seconds", 0, "--json").out)
    assert set(facts["categories"]) == {"special", "unknown", "partial_utf8"}


def test_the_table_of_a_tokenizer_without_differences(tmp_path, capsys):
    print_vocabulary(vocabulary(trained(tmp_path / "a.model")), console())
    printed = capsys.readouterr().out
    assert "differs" not in printed
    assert "no round trip" not in printed  # a word begins with a space, so that no piece is a text alone
