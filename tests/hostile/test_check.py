"""The check command: streams, files and exit codes, over scans made by hand; policies and places that will not do."""

import json
import os
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scans import scan_of

from darkvocab.checkpoints.policy import default_policy

DARK = ({}, {"dark": True, "text": "\x1b[2J]]><b>`|"}, {"dark": True, "category": "special", "text": "<end>"})


@pytest.fixture
def scanned(monkeypatch, tmp_path):
    """Whatever the source, the scan is of these tokens; the source is a file."""

    def give(*tokens, **options):
        result = scan_of(*tokens, **options)
        monkeypatch.setattr("darkvocab.scan", lambda source, **asked: result)
        np.save(tmp_path / "rows.npy", np.zeros((2, 2), np.float32))
        return tmp_path / "rows.npy"

    return give


def test_findings_end_with_1_and_a_table(scanned, cli):
    result = cli("check", scanned(*DARK))
    assert (result.code, result.err) == (1, "")
    assert "DV004  dark-reachable-tokens         1     <= 0  error     failed\n" in result.out
    assert "error DV004 dark-reachable-tokens: 1 dark token that a text reaches, at most 0 allowed.\n" in result.out
    assert "\n\\x1b[2J]]><b>`|\n" in result.out
    assert result.out.endswith("\nfailed: 1 error, 1 warning\n")


def test_a_clean_vocabulary_ends_with_0(scanned, cli):
    result = cli("check", scanned({}, {}))
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\npassed: 0 errors, 0 warnings\n")


def test_json_says_the_same_with_the_texts_as_they_are(scanned, cli):
    result = cli("check", scanned(*DARK), "--json")
    assert result.code == 1
    verdict = json.loads(result.out)
    assert verdict["passed"] is False
    assert verdict["rules"][3]["tokens"] == ["\x1b[2J]]><b>`|"]


def test_a_policy_decides_and_is_named(scanned, cli, tmp_path):
    policy = tmp_path / "p.toml"
    policy.write_text("[dark-reachable-tokens]\nmost = 1\n")
    result = cli("check", scanned(*DARK), "--policy", policy, "--json")
    assert (result.code, json.loads(result.out)["policy"]) == (0, str(policy))


def test_the_printed_policy_can_be_used(scanned, cli, tmp_path):
    printed = cli("check", "--print-policy")
    assert (printed.code, printed.out, printed.err) == (0, default_policy(), "")
    (tmp_path / "p.toml").write_text(printed.out, "utf-8")
    assert cli("check", scanned({}), "--policy", tmp_path / "p.toml").code == 0


def test_all_files_at_once_and_twice_the_same(scanned, cli, tmp_path):
    written = {}
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        files = [folder / name for name in ("d.xml", "d.sarif", "card.md", "bad.json", "flat.json", "bias.json")]
        junit, sarif, card, bad, flat, bias = files
        options = ["--junit", junit, "--sarif", sarif, "--model-card", card]
        options += ["--suppress", f"bad-words:{bad}", "--suppress", f"suppress-tokens:{flat}"]
        result = cli("check", scanned(*DARK), *options, "--suppress", f"logit-bias:{bias}")
        assert result.code == 1
        assert result.err == "not suppressed: 1 special tokens whose names are not reserved (2)\n"
        assert sorted(folder.iterdir()) == sorted(files)
        written[folder] = [path.read_bytes() for path in files]
    one, two = written.values()
    assert one == two
    assert ET.fromstring(one[0]).get("failures") == "1"
    assert json.loads(one[1])["version"] == "2.1.0"
    assert one[2].startswith(b"## Vocabulary check\n")
    assert [json.loads(text) for text in one[3:]] == [{"bad_words_ids": [[1]]}, {"suppress_tokens": [1]}, {"1": -100}]


def test_which_tokens_to_suppress_can_be_chosen(scanned, cli, tmp_path):
    source = scanned({"category": "unreachable"}, {"dark": True})
    chosen = ["--suppress", f"suppress-tokens:{tmp_path / 's.json'}", "--suppress-which", "unreachable"]
    cli("check", source, *chosen)
    assert json.loads((tmp_path / "s.json").read_text()) == {"suppress_tokens": [0]}


def test_a_model_card_is_printed_instead_of_the_table(scanned, cli):
    result = cli("check", scanned(*DARK), "--model-card", "-")
    assert result.code == 1
    assert result.out.startswith("## Vocabulary check\n")
    assert result.out.endswith("```\n")


REFUSED = {
    "no source": ((), "which checkpoint? give a SOURCE, or --print-policy"),
    "two things to print": (("SOURCE", "--json", "--model-card", "-"), "--json and --model-card - both print"),
    "a form without a file": (("SOURCE", "--suppress", "bad-words"), "takes FORMAT:FILE, with FORMAT one of bad-words"),
    "an unknown form": (("SOURCE", "--suppress", "bad:x.json"), "got 'bad:x.json'"),
    "unknown tokens": (("SOURCE", "--suppress-which", "dark,all"), "unknown tokens 'all' to suppress"),
    "a file over the source": (("SOURCE", "--junit", "SOURCE"), "is part of the source; choose another place"),
    "a card over the source": (("SOURCE", "--model-card", "SOURCE"), "is part of the source"),
    "a list over the source": (("SOURCE", "--suppress", "logit-bias:SOURCE"), "is part of the source"),
    "a folder as policy": (("SOURCE", "--policy", "."), "a policy is a TOML file, this is none"),
    "a policy with an unknown key": (("SOURCE", "--policy", "POLICY"), "did you mean 'black-holes'?"),
}


@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_before_the_scan(monkeypatch, cli, refuses, tmp_path, arguments, says):
    def scan(*_, **__):
        raise AssertionError("scanned")

    monkeypatch.setattr("darkvocab.scan", scan)
    np.save(tmp_path / "rows.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "p.toml").write_text("[black-hols]")
    words = {"SOURCE": str(tmp_path / "rows.npy"), "POLICY": str(tmp_path / "p.toml")}
    reports = [words.get(word, word.replace("SOURCE", words["SOURCE"])) for word in arguments]
    refuses("check", *(reports or ["--show", "3"]), code=2, says=[says])


def test_a_policy_that_is_not_there_ends_with_3(scanned, refuses, tmp_path):
    refuses("check", scanned({}), "--policy", tmp_path / "p.toml", code=3, says=["no policy at", "--print-policy"])


@pytest.mark.parametrize("option", ["--junit", "--sarif", "--model-card", "--suppress"])
def test_a_place_that_cannot_be_written_ends_with_2(scanned, refuses, tmp_path, option):
    place = f"bad-words:{tmp_path / 'no' / 'x'}" if option == "--suppress" else tmp_path / "no" / "x"
    refuses("check", scanned({}), option, place, code=2, says=["cannot write", "choose another place"])


def test_names_that_are_not_utf8_are_allowed(scanned, cli, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    source = scanned({"dark": True}, path=name, tensor="\x1b[2J\u202e")
    files = ["--sarif", tmp_path / f"{name}.sarif", "--model-card", tmp_path / f"{name}.md", "--junit", tmp_path / name]
    result = cli("check", source, *files)
    assert result.code == 1
    for text in (result.out, (tmp_path / f"{name}.md").read_text("utf-8")):
        assert all(line.isprintable() for line in text.split("\n"))
