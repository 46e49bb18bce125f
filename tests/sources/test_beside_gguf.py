"""Files beside a GGUF file: a tokenizer that says otherwise, and chat templates."""

import json

import ggufs
import numpy as np
import pytest
import vocabularies
from tokenizers import Tokenizer, models, pre_tokenizers

from darkvocab import scan
from darkvocab.errors import CorruptFile
from darkvocab.sources import chat_template, open_source


def beside(folder, vocab):
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_tokenizer_beside_that_disagrees_is_a_finding(tmp_path):
    rows = {"token_embd.weight": np.ones((257, 2), "f4")}
    ggufs.saved(tmp_path / "a.gguf", rows, vocabularies.byte_level(["a b"]))
    texts = [*vocabularies.ALPHABET, "ab"]
    beside(tmp_path, {text: n for n, text in enumerate(texts)})
    (differing,) = scan(tmp_path / "a.gguf").to_json()["vocabulary"]["differs"]
    assert (differing["runtime"], differing["n_not_reached"]) == ("tokenizers", 1)
    assert differing["tokenizer"].endswith("tokenizer.json")
    beside(tmp_path, {text: n for n, text in enumerate([*texts[:-2], texts[-1], texts[-2]])})
    (differing,) = scan(tmp_path / "a.gguf").to_json()["vocabulary"]["differs"]
    assert differing["n_other_bytes"] == 2


def test_chat_template_is_the_one_of_the_file_or_of_its_folder(tmp_path):
    rows = {"token_embd.weight": np.ones((2, 2), "f4")}
    values = vocabularies.of("llama", ["a", "b"])
    path = ggufs.saved(tmp_path / "a.gguf", rows, values)
    assert chat_template(open_source(path)) is None
    named = [{"name": name, "template": text} for name, text in (("tools", "no"), ("default", "list"))]
    written = {"tokenizer_config.json": json.dumps({"chat_template": named})}
    written |= {"chat_template.json": '{"chat_template": "json"}', "chat_template.jinja": "jinja"}
    for (name, content), expected in zip(written.items(), ("list", "json", "jinja"), strict=True):
        (tmp_path / name).write_text(content)
        assert chat_template(open_source(path)) == expected
    values = [*values, ("tokenizer.chat_template", ggufs.value("text", "own"))]
    assert chat_template(open_source(ggufs.saved(path, rows, values))) == "own"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CorruptFile, match=r"chat_template\.jinja: not UTF-8"):
        chat_template(open_source(ggufs.saved(path, rows, values[:-1])))
