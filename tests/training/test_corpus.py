"""Corpora: what is read, what is unseen, and in which order examples come."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkvocab import Training
from darkvocab.training.choices import Architecture
from darkvocab.training.corpus import Corpus, load_corpus, shuffled


def batches(corpus, context, batch, seed, **settings):
    architecture = Architecture(context=context)
    return Training(corpus=corpus, architecture=architecture, batch=batch, seed=seed, **settings)


def written(tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return path


def test_the_default_is_pythons_own_help():
    corpus = load_corpus()
    assert (len(corpus.ids), corpus.n_vocabulary, corpus.n_dropped) == (265_905, 128, 0)
    if sys.version_info[:2] == (3, 11):
        assert len(corpus.unseen) == 34
        assert {0, 9, 36, 96, 127} <= set(corpus.unseen.tolist())


def test_bytes_beyond_the_vocabulary_are_dropped_and_counted(tmp_path):
    path = written(tmp_path, "aé\x01b".encode())
    ascii_only, whole = load_corpus(path), load_corpus(path, vocabulary=256)
    assert (ascii_only.ids.tolist(), ascii_only.n_dropped) == ([97, 1, 98], 2)
    assert (whole.ids.tolist(), whole.n_dropped) == ([97, 0xC3, 0xA9, 1, 98], 0)
    assert ascii_only.sha256 == whole.sha256
    assert np.array_equal(np.setdiff1d(np.arange(128), ascii_only.unseen), [1, 97, 98])
    assert ascii_only.description()["unseen"] == ascii_only.unseen.tolist()


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        (b"", {}, "is empty"),
        ("éé".encode(), {}, "no tokens of the vocabulary of 128"),
        (b"abc", {"vocabulary": 300}, "1 to 256"),
        (b"abc", {"vocabulary": 97}, "no tokens"),
    ],
)
def test_a_text_without_tokens_is_refused(tmp_path, content, settings, says):
    with pytest.raises(ValueError, match=says):
        load_corpus(written(tmp_path, content), **settings)


def test_a_missing_text_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_corpus(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="folder"):
        load_corpus(tmp_path)


def word_level(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"the": 0, "cat": 1, "dog": 2, "[UNK]": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizer_makes_the_tokens(tmp_path):
    corpus = load_corpus(written(tmp_path, b"the cat the cat"), tokenizer=word_level(tmp_path))
    assert (corpus.ids.tolist(), corpus.n_vocabulary, corpus.unseen.tolist()) == ([0, 1, 0, 1], 4, [2, 3])
    larger = load_corpus(tmp_path / "text.txt", tokenizer=tmp_path / "tokenizer.json", vocabulary=6)
    assert larger.unseen.tolist() == [2, 3, 4, 5]


def switched_on(path, **options):
    """The tokenizer of a file with these options switched on."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    for name, settings in options.items():
        getattr(tokenizer, name)(**settings)
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"enable_truncation": {"max_length": 3}},
        {"enable_padding": {"length": 64, "pad_id": 3, "pad_token": "[UNK]"}},
        {"enable_truncation": {"max_length": 3}, "enable_padding": {"pad_to_multiple_of": 8, "pad_id": 3}},
    ],
)
def test_a_tokenizer_that_truncates_or_pads_gives_all_tokens_of_the_text_and_no_others(tmp_path, options):
    text = written(tmp_path, b"the cat the dog the cat the")
    corpus = load_corpus(text, tokenizer=switched_on(word_level(tmp_path), **options))
    assert corpus.ids.tolist() == [0, 1, 0, 2, 0, 1, 0]
    assert corpus.unseen.tolist() == [3]


def test_the_demos_tokenizer_gives_all_tokens_of_a_page_of_the_documents():
    # As it is published, it cuts a text after 128 tokens and fills a shorter one up to them.
    root = Path(__file__).parents[2]
    tokenizer = root / "demo" / "all-MiniLM-L6-v2" / "tokenizer.json"
    if not tokenizer.is_file():
        pytest.skip("the encoder is not here; `make test` brings it")
    corpus = load_corpus(root / "docs" / "files.md", tokenizer=tokenizer)
    n_words = len((root / "docs" / "files.md").read_text("utf-8").split())
    assert len(corpus.ids) > n_words > 128
    assert 0 not in corpus.ids  # its padding


def test_a_bad_tokenizer_is_refused(tmp_path):
    path = written(tmp_path, b"the cat")
    with pytest.raises(ValueError, match="more than the vocabulary of 2"):
        load_corpus(path, tokenizer=word_level(tmp_path), vocabulary=2)
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        load_corpus(path, tokenizer=path)
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        load_corpus(path, tokenizer=tmp_path / "none.json")
    with pytest.raises(ValueError, match="not UTF-8 at byte 1"):
        load_corpus(written(tmp_path, b"a\xff"), tokenizer=tmp_path / "tokenizer.json")


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_shuffling_is_a_permutation(n, key):
    assert np.array_equal(np.sort(shuffled(np.arange(n), n, key)), np.arange(n))


def test_shuffled_places_are_spread_evenly_and_keys_differ():
    # Of 100,000 examples the first tenth, over 50 keys: each tenth of the range takes a tenth of them. Chi-square with
    # 9 degrees of freedom, summed over keys to 450; 5 standard deviations of the sum are 150: false alarm below 1e-6.
    total = 0.0
    for key in range(50):
        counts = np.bincount(shuffled(np.arange(10_000), 100_000, key) // 10_000, minlength=10)
        total += ((counts - 1000) ** 2 / 1000).sum() / 0.9  # drawn without replacement
    assert abs(total - 450) < 150
    orders = {tuple(shuffled(np.arange(20), 1000, key).tolist()) for key in range(100)}
    assert len(orders) == 100


def test_every_example_comes_once_an_epoch_in_another_order(tmp_path):
    corpus = load_corpus(written(tmp_path, bytes(range(1, 120))))
    training = batches(corpus, 8, 5, 3)
    n = training.n_examples
    assert n == 111
    starts = np.concatenate([training.starts(step) for step in range(1, 2 * n // 5 + 2)])[: 2 * n]
    assert np.array_equal(np.sort(starts[:n]), np.arange(n))
    assert np.array_equal(np.sort(starts[n:]), np.arange(n))
    assert not np.array_equal(starts[:n], starts[n:])
    assert not np.array_equal(training.starts(1), batches(corpus, 8, 5, 4).starts(1))


def test_the_order_of_a_long_text_is_one_permutation_an_epoch():
    # More examples than are ordered at once, and epochs that begin within what is.
    corpus = Corpus(name="long", sha256="", n_vocabulary=8, ids=np.arange(9_008) % 8)
    training = batches(corpus, 8, 37, 3)
    starts = np.concatenate([training.starts(step) for step in range(1, 490)])
    assert np.array_equal(np.sort(starts[:9_000]), np.arange(9_000))
    assert np.array_equal(np.sort(starts[9_000:18_000]), np.arange(9_000))
    assert (starts[:9_000] != starts[9_000:18_000]).mean() > 0.99


def test_a_text_no_longer_than_a_context_is_refused(tmp_path):
    corpus = load_corpus(written(tmp_path, b"12345678"))
    with pytest.raises(ValueError, match="8 tokens, no more than a context of 8"):
        batches(corpus, 8, 1, 0)
    assert len(batches(corpus, 7, 3, 0, label_shift=2).starts(1)) == 3
