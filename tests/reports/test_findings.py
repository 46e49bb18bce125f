"""Findings as files: SARIF and JUnit by their standards, the card through a Markdown parser, lists by transformers."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from scans import scan_of

from darkvocab import Policy, check
from darkvocab.checkpoints.policy import RULES
from darkvocab.reports import findings

EVIL = {
    "end of CDATA": "]]>",
    "markup": "<script>alert(1)</script>&amp;",
    "control characters": "\x00\x08\x1b[2J\x7f\x9b",
    "no characters": "\ufffe\uffff",
    "newlines": "a\n\n# b\r\n- c\u2028d",
    "a table's bar": "| a | b |",
    "backticks": "`` ` ```",
    "backticks alone": "`",
    "a link": "[here](https://example.org)",
    "an image": "![x](https://example.org/x.png)",
    "placeholders": "{0} {1}",
    "a backslash": "\\",
    "quotes": "\"'",
    "right to left": "a\u202eb\u05d0",
    "blanks": "  ",
    "a blank at the end": "a ",
    "nothing": "",
    "half a surrogate pair": "\ud83d",
    "beyond the first plane": "\U0001f600\U000e0041",
}
HOSTILE = scan_of(*({"dark": True} for _ in EVIL), path="m<&>\n`o\\del/w{0}[x](y).bin", tensor="e]]>\x1b`|")


def verdict_of(scanned, policy=""):
    return check(scanned, Policy.parse(policy)).to_json()


def rule(verdict, name):
    return next(result for result in verdict["rules"] if result["name"] == name)


ORDINARY = verdict_of(
    scan_of({}, {"dark": True}, {"n_touching": 1}, {"category": "beyond_tokenizer", "dark": True}, n_without_row=1)
)
NO_TOKENIZER = verdict_of(scan_of({}, {"dark": True}, tokenizer=False))
CLEAN = verdict_of(scan_of({}))
CORRUPTED = verdict_of(HOSTILE)
for finding in CORRUPTED["rules"]:
    finding["tokens"] = list(EVIL.values())[: len(finding["tokens"])]
VERDICTS = {"ordinary": ORDINARY, "without a tokenizer": NO_TOKENIZER, "clean": CLEAN, "hostile": CORRUPTED}
each = pytest.mark.parametrize("verdict", VERDICTS.values(), ids=VERDICTS)


# SARIF 2.1.0 ---------------------------------------------------------------------------------------------------------

# No package brings the official schema, so here is what it says of the objects that are written: the required
# properties, and the type or object of each one that is allowed. [kind] is an array of it, {kind} a dict.
TEXT, COUNT, WORDS = str, int, {"text!": str}
OBJECTS = {
    "log": {"$schema": TEXT, "version!": TEXT, "runs!": ["run"]},
    "run": {
        "tool!": "tool",
        "invocations": ["invocation"],
        "artifacts": ["artifact"],
        "results": ["result"],
        "columnKind": TEXT,
    },
    "tool": {"driver!": "component"},
    "component": {"name!": TEXT, "version": TEXT, "rules": ["descriptor"]},
    "descriptor": {"id!": TEXT, "name": TEXT, "shortDescription": "words", "fullDescription": "words", "help": "words"},
    "words": {"text!": TEXT},
    "invocation": {"executionSuccessful!": bool, "exitCode": COUNT},
    "artifact": {"location": "place", "length": COUNT, "roles": [TEXT], "hashes": {"sha-256": TEXT}},
    "place": {"uri": TEXT, "index": COUNT},
    "result": {
        "ruleId": TEXT,
        "ruleIndex": COUNT,
        "level": TEXT,
        "message!": "words",
        "locations": ["location"],
        "partialFingerprints": {"primaryLocationLineHash": TEXT},
        "properties": {"measured": object, "allowed": object, "tokenIds": [COUNT]},
    },
    "location": {"physicalLocation": "physical", "logicalLocations": ["logical"]},
    "physical": {"artifactLocation!": "place", "region": "region"},
    "region": {"startLine!": COUNT},
    "logical": {"name": TEXT, "fullyQualifiedName": TEXT, "kind": TEXT},
}


def conform(value, kind):
    """Hold a value against `OBJECTS`."""
    if isinstance(kind, str):
        kind = OBJECTS[kind]
    if isinstance(kind, list):
        assert isinstance(value, list)
        for item in value:
            conform(item, kind[0])
    elif isinstance(kind, dict):
        assert {name.rstrip("!") for name in kind} >= value.keys() >= {n[:-1] for n in kind if n.endswith("!")}
        kinds = {name.rstrip("!"): of for name, of in kind.items()}
        for name, item in value.items():
            conform(item, kinds[name])
    else:
        assert isinstance(value, kind)


@each
def test_sarif_has_what_its_schema_asks_for_and_nothing_else(verdict):
    content = findings.sarif(verdict)
    assert content.isascii()
    log = json.loads(content)
    conform(log, "log")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert log["version"] == "2.1.0"
    assert [outcome["id"] for outcome in rules] == [outcome["id"] for outcome in verdict["rules"]]
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 0 if verdict["passed"] else 1}]
    (artifact,) = run["artifacts"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning")
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"] == {"uri": artifact["location"]["uri"], "index": 0}
        named = [token["fullyQualifiedName"] for token in location.get("logicalLocations", [])]
        assert len(set(named)) == len(named)
        # A URI reference of RFC 3986, as the schema wants it.
        assert re.fullmatch(r"([A-Za-z0-9/._~@:-]|%[0-9A-F]{2})+", artifact["location"]["uri"])
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(prints)) == len(prints)


def test_sarif_has_a_result_for_every_finding_at_the_weights():
    (run,) = json.loads(findings.sarif(ORDINARY))["runs"]
    assert run["artifacts"] == [
        {
            "location": {"uri": "model/model.safetensors"},
            "length": 4096,
            "roles": ["analysisTarget"],
            "hashes": {"sha-256": "0" * 64},
        }
    ]
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [
        ("DV003", "warning"),
        ("DV004", "error"),
        ("DV006", "warning"),
        ("DV007", "warning"),
        ("DV009", "error"),
    ]
    dark = run["results"][0]
    assert dark["message"]["text"] == (
        "1 dark token, at most 0 allowed (1 more exempt). Tokens: 1 't1'. "
        "Suppress them at sampling (--suppress), or drop them from the tokenizer."
    )
    assert dark["locations"][0]["logicalLocations"] == [
        {"name": "1 't1'", "fullyQualifiedName": "embed.weight[1]", "kind": "token"}
    ]
    assert dark["properties"] == {"measured": 1, "allowed": 0, "tokenIds": [1]}
    assert "logicalLocations" not in run["results"][4]["locations"][0]


def test_sarif_locates_a_hundred_tokens_and_has_the_ids_of_all():
    verdict = verdict_of(scan_of(*({"dark": True} for _ in range(150))))
    (result, _) = json.loads(findings.sarif(verdict))["runs"][0]["results"]
    assert len(result["locations"][0]["logicalLocations"]) == 100
    assert result["properties"]["tokenIds"] == list(range(150))
    assert "11 't11' and 138 more. " in result["message"]["text"]


def test_in_a_message_of_sarif_texts_are_neither_links_nor_placeholders():
    (result, *_) = json.loads(findings.sarif(CORRUPTED))["runs"][0]["results"]
    text = result["message"]["text"]
    assert not re.search(r"(?<!\\)(\\\\)*[\[\]]", text)
    assert not re.search(r"(?<!\{)(\{\{)*\{(?!\{)", text)
    assert r"'\[here\](https://example.org)'" in text


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("model/a b.bin", "model/a%20b.bin"),
        ("/models/x.bin", "file:///models/x.bin"),
        ("c:x.bin", "c%3Ax.bin"),
        ("caf\udce9.bin", "caf%E9.bin"),
    ],
)
def test_a_path_becomes_a_uri(path, uri):
    log = json.loads(findings.sarif(verdict_of(scan_of({}, path=path))))
    assert log["runs"][0]["artifacts"][0]["location"]["uri"] == uri


def test_a_file_on_the_hub_is_named_by_its_url():
    url = "https://hub.example/org/name/resolve/0123/model.safetensors"
    scanned = scan_of({}, path="org/name@0123/model.safetensors")
    scanned = replace(scanned, source=replace(scanned.source, hub={"url": url}))
    (run,) = json.loads(findings.sarif(verdict_of(scanned)))["runs"]
    assert run["artifacts"][0]["location"]["uri"] == url


# JUnit ---------------------------------------------------------------------------------------------------------------


@each
def test_junit_is_xml_whose_counts_agree(verdict):
    suites = ET.fromstring(findings.junit(verdict))
    (suite,) = suites
    cases = suite.findall("testcase")
    assert [element.tag for element in suite] == ["properties", *("testcase" for _ in verdict["rules"])]
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases) == len(RULES)
    for counted in (suites, suite):
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(counted.get(name)) == sum(case.find(tag) is not None for case in cases)
        assert int(counted.get("tests")) == len(cases)
    assert all(len(case) <= 1 for case in cases)
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0") or not verdict["passed"]


def test_junit_has_a_case_for_every_rule():
    cases = {case.get("name"): case for case in ET.fromstring(findings.junit(ORDINARY)).iter("testcase")}
    assert not len(cases["DV001 black-holes"])
    assert cases["DV002 black-hole-tokens"].find("skipped") is not None
    warning, failure = cases["DV003 dark-tokens"].find("system-out"), cases["DV004 dark-reachable-tokens"][0]
    assert warning.text.startswith("warning: 1 dark token, at most 0 allowed (1 more exempt).\n")
    assert (failure.tag, failure.get("type")) == ("failure", "dark-reachable-tokens")
    assert failure.get("message") == "1 dark token that a text reaches, at most 0 allowed."
    assert failure.text.endswith("\n1 't1'")
    unmeasured = {case.get("name"): case for case in ET.fromstring(findings.junit(NO_TOKENIZER)).iter("testcase")}
    assert unmeasured["DV004 dark-reachable-tokens"][0].tag == "error"
    assert unmeasured["DV005 unreachable-tokens"][0].tag == "system-out"


def test_texts_of_tokens_stand_in_junit_in_full():
    text = next(ET.fromstring(findings.junit(CORRUPTED)).iter("failure")).text
    for shown in ("]]>", "<script>alert(1)</script>&amp;", r"\x00\x08\x1b[2J\x7f\x9b", r"\ufffe\uffff", r"a\u202eb"):
        assert shown in text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", text)


# A model card --------------------------------------------------------------------------------------------------------


def rendered(verdict, **options):
    """The card as a renderer that lets HTML through shows it: kinds of tokens, and code spans."""
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    spans, kinds = [], []
    for token in parser.parse(findings.model_card(verdict, **options)):
        kinds.append(token.type)
        for child in token.children or []:
            kinds.append(child.type)
            if child.type == "code_inline":
                spans.append(child.content)
    return SimpleNamespace(spans=spans, kinds=kinds)


@each
def test_a_model_card_holds_no_markup_of_others(verdict):
    card = rendered(verdict, shown=50)
    assert not {"html_inline", "html_block", "link_open", "image"} & set(card.kinds)
    assert card.kinds.count("heading_open") == 3 + any(
        result["status"] in ("failed", "unmeasured") for result in verdict["rules"]
    )
    assert card.kinds.count("table_open") == 1
    assert card.kinds.count("tr_open") == 1 + len(RULES)


def test_texts_of_tokens_stand_in_a_model_card_in_full():
    spans = rendered(CORRUPTED, shown=50).spans
    for text in EVIL.values():
        if text:
            assert findings.printable(text) in spans
    assert findings.printable(HOSTILE.matrix.tensor) in spans
    assert findings.printable(HOSTILE.source.path) in spans


def test_a_model_card_by_hand():
    policy = "[near-duplicates]\nseverity = 'off'\n[[allow]]\nreason = 'rare `letters`'\ntexts = ['t1']"
    scanned = scan_of({}, {"dark": True}, {"dark": True, "text": None, "category": "special"})
    scanned = replace(
        scanned,
        matrix=replace(scanned.matrix, chosen="as asked", stored_grid="float32", equality="bits"),
        source=replace(scanned.source, asked="my model", sha256=None),
    )
    card = findings.model_card(verdict_of(scanned, policy) | {"policy": "p.toml"})
    assert card.startswith("## Vocabulary check\n\nChecked with darkvocab 0.1.0, passed: 0 errors, 1 warning.\n")
    assert "- File: `model/model.safetensors`, 4,096 bytes\n" in card
    assert "| DV003 dark-tokens | warning | 1 | at most 0 | failed |\n" in card
    assert "| DV007 near-duplicates | off |  | at most 0 | off |\n" in card
    assert "\n  Tokens: 2\n" in card
    assert "- 1 tokens from black-holes, " in card
    assert ": `` rare `letters` ``\n" in card
    command = "darkvocab check 'my model' --tensor embed.weight --grid bfloat16 --bitwise --policy p.toml"
    assert card.endswith(f"### Repeat it\n\n```console\n$ {command}\n```\n")


# For samplers --------------------------------------------------------------------------------------------------------


def test_lists_for_samplers_by_hand():
    assert findings.suppression("bad-words", [7, 9]) == b'{"bad_words_ids": [[7], [9]]}\n'
    assert findings.suppression("suppress-tokens", [7, 9]) == b'{"suppress_tokens": [7, 9]}\n'
    assert findings.suppression("logit-bias", [7, 9]) == b'{"7": -100, "9": -100}\n'
    assert [json.loads(findings.suppression(form, [])) for form in findings.SUPPRESSIONS] == [
        {},
        {"suppress_tokens": []},
        {},
    ]


@pytest.fixture(scope="module")
def gpt():
    """A GPT-2 of sixteen tokens that would say 3, and after that 5."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 16, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 1}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, tie_word_embeddings=False)).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[3], model.lm_head.weight[5], model.lm_head.weight[7] = 3.0, 2.0, 1.0
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("ids", "says"), [([], 3), ([3], 5), ([3, 5, 9], 7)])
@pytest.mark.parametrize("form", ["bad-words", "suppress-tokens"])
def test_transformers_does_not_sample_what_is_suppressed(gpt, tmp_path, form, ids, says):
    import torch
    from transformers import GenerationConfig

    (tmp_path / "suppress.json").write_bytes(findings.suppression(form, ids))
    config = GenerationConfig.from_pretrained(tmp_path, "suppress.json", pad_token_id=0, eos_token_id=1)
    result = gpt.generate(torch.tensor([[2]]), config, max_new_tokens=4, do_sample=False)
    assert result.tolist() == [[2, *[says] * 4]]


@each
def test_the_same_verdict_gives_the_same_bytes(verdict):
    again = json.loads(json.dumps(verdict))
    for write in (findings.junit, findings.sarif, findings.model_card):
        assert write(verdict) == write(again)
