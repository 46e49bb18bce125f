"""Policies: what a file may say, what is refused and how, and the default one, which the documents print."""

import re
from pathlib import Path

import pytest

from darkvocab import Policy
from darkvocab.checkpoints.policy import DEFAULT_ALLOW, DEFAULT_LIMITS, RULES, Exemption, Limit, default_policy

ROOT = Path(__file__).parents[2]


def test_the_printed_policy_is_the_default_and_the_one_in_the_documents():
    assert Policy.parse(default_policy()) == Policy()
    assert re.search(r"```toml\n(# Policy of .*?)```", (ROOT / "docs/check.md").read_text(), re.DOTALL)[1] == (
        default_policy()
    )
    for rule in RULES:
        assert f"# {rule.id}. " in default_policy()
        assert f"\n[{rule.name}]\n" in default_policy()
    assert max(map(len, default_policy().splitlines())) <= 120


def test_ids_and_names_of_rules_are_those_that_were_published():
    assert {rule.id: rule.name for rule in RULES} == {
        "DV001": "black-holes",
        "DV002": "black-hole-tokens",
        "DV003": "dark-tokens",
        "DV004": "dark-reachable-tokens",
        "DV005": "unreachable-tokens",
        "DV006": "rows-beyond-tokenizer",
        "DV007": "near-duplicates",
        "DV008": "small-rows",
        "DV009": "tokens-without-row",
        "DV010": "damaged-rows",
        "DV011": "weak-tokens",
        "DV012": "copied-rows",
        "DV013": "tied-tensors",
        "DV014": "output-tensor",
        "DV015": "chat-template-tokens",
        "DV016": "verified-tokens",
    }


def test_what_a_file_leaves_out_is_as_in_the_default():
    policy = Policy.parse('[near-duplicates]\nmost = 7\n[small-rows]\nleast = 1e-3\nseverity = "error"\n')
    assert policy.limits["near-duplicates"] == Limit(allowed=7, severity="warning")
    assert policy.limits["small-rows"] == Limit(allowed=1e-3, severity="error")
    assert policy.limits["black-holes"] == DEFAULT_LIMITS["black-holes"]
    assert policy.allow == DEFAULT_ALLOW
    assert Policy.parse("") == Policy()
    assert Policy(limits={"black-holes": Limit(allowed=2, severity="off")}) == Policy.parse(
        '[black-holes]\nmost = 2\nseverity = "off"'
    )


def test_exemptions_of_a_file_take_the_place_of_the_default_ones():
    policy = Policy.parse('[[allow]]\nreason = "reserved"\npatterns = ["^<r"]\nids = [3]\nrules = ["dark-tokens"]')
    assert policy.allow == (Exemption(reason="reserved", patterns=("^<r",), ids=(3,), rules=("dark-tokens",)),)
    assert Policy.parse("allow = []").allow == ()


REFUSED = {
    "a rule's name": ("[black-hole]", "policy: unknown key 'black-hole'; did you mean 'black-holes'?"),
    "a name unlike any": ("[qqq]", "unknown key 'qqq'; choose one of black-holes, black-hole-tokens"),
    "a rule's id": ("[DV001]", "unknown key 'DV001'; choose one of"),
    "a key": ("[black-holes]\nmosst = 1", "[black-holes] unknown key 'mosst'; did you mean 'most'?"),
    "most of a rule with least": ("[small-rows]\nmost = 1", "[small-rows] unknown key 'most'; choose one of least"),
    "a rule that is no table": ("black-holes = 3", "[black-holes] must be a table with most and severity, got 3"),
    "a limit below zero": ("[black-holes]\nmost = -1", "a limit must be a number >= 0, got -1"),
    "a limit beyond 64 bits": ("[black-holes]\nmost = 9223372036854775808", "a limit must be a number >= 0"),
    "a limit with a fraction": ("[black-holes]\nmost = 1.0", "most must be a whole number >= 0, got 1.0"),
    "a limit that is true": ("[black-holes]\nmost = true", "most must be a whole number >= 0, got True"),
    "a limit as text": ("[black-holes]\nmost = '1'", "most must be a whole number >= 0, got '1'"),
    "a norm that is no number": ("[small-rows]\nleast = nan", "a limit must be a number >= 0, got nan"),
    "a norm without end": ("[small-rows]\nleast = inf", "a limit must be a number >= 0, got inf"),
    "a norm that is true": ("[small-rows]\nleast = true", "a limit must be a number >= 0, got True"),
    "a severity": ("[black-holes]\nseverity = 'eror'", "unknown severity 'eror'; did you mean 'error'?"),
    "a severity that is no text": ("[black-holes]\nseverity = [1]", "unknown severity [1]; choose one of error"),
    "allow that is no list": ("allow = 3", "allow must be tables, each under [[allow]]"),
    "allow that is one table": ("[allow]\nreason = 'x'", "allow must be tables, each under [[allow]]"),
    "allow of numbers": ("allow = [3]", "[[allow]] number 1: must be a table, got 3"),
    "no reason": ("[[allow]]\nids = [1]", "[[allow]] number 1: needs a reason"),
    "an empty reason": ("[[allow]]\nreason = ' '\nids = [1]", "reason must say why"),
    "no tokens": ("[[allow]]\nreason = 'x'", "names no tokens: give ids, texts, patterns or categories"),
    "a key of an exemption": ("[[allow]]\nreason = 'x'\nid = [1]", "unknown key 'id'; did you mean 'ids'?"),
    "ids that are text": ("[[allow]]\nreason = 'x'\nids = ['1']", "ids must be a list of numbers, got ['1']"),
    "ids that are true": ("[[allow]]\nreason = 'x'\nids = [true]", "ids must be a list of numbers, got [True]"),
    "an id below zero": ("[[allow]]\nreason = 'x'\nids = [-1]", "ids must be token ids >= 0, got -1"),
    "an id beyond 64 bits": ("[[allow]]\nreason = 'x'\nids = [9223372036854775808]", "ids must be token ids >= 0"),
    "one text": ("[[allow]]\nreason = 'x'\ntexts = 'a'", "texts must be a list of texts, got 'a'"),
    "an unknown rule": ("[[allow]]\nreason = 'x'\nids = [1]\nrules = ['dark']", "unknown rule 'dark'; did you mean"),
    "a rule without rows": (
        "[[allow]]\nreason = 'x'\nids = [1]\nrules = ['tokens-without-row']",
        "tokens-without-row has no rows to be exempt; raise its limit instead",
    ),
    "a category": ("[[allow]]\nreason = 'x'\ncategories = ['specials']", "'specials'; did you mean 'special'?"),
    "a pattern": ("[[allow]]\nreason = 'x'\npatterns = ['(']", "no regular expression: '(' (unclosed group)"),
    "a pattern that looks around": ("[[allow]]\nreason = 'x'\npatterns = ['(?=a)']", "(look-around"),
    "a pattern that grows": ("[[allow]]\nreason = 'x'\npatterns = ['(a{999}){999}']", "exceeds size limit"),
    "too many patterns": (f"[[allow]]\nreason = 'x'\npatterns = {['a'] * 201}", "with 201 patterns; at most"),
    "too many exemptions": ("[[allow]]\nreason = 'x'\nids = [1]\n" * 1001, "1,001 [[allow]] with 0 patterns; at most"),
    "no TOML": ("[", "policy: not TOML ("),
    "nesting": ("a = " + "[" * 100_000, "policy: not TOML (nested too deeply)"),
    "a key of many parts": ("a" + ".a" * 100_000 + " = 1", "policy: line 1 has more than 1,000 points; break it up"),
    "a number of many digits": ("a = " + "9" * 5000, "policy: not TOML ("),
    "a long name": (f"{'x' * 10_000} = 1", "unknown key 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...;"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED)
def test_what_a_policy_may_not_say_is_refused_in_a_sentence(text, says):
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        Policy.parse(text)
    assert str(refused.value).startswith("policy: ")
    assert len(str(refused.value)) < 400


def test_a_policy_is_read_from_a_file(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text("[black-holes]\nmost = 13", "utf-8")
    assert Policy.read(path).limits["black-holes"].allowed == 13
    assert Policy.read(path).origin == str(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe[\x00", r"not UTF-8, which TOML is \(byte 0\); save it as UTF-8"),
        (b"# caf\xe9", r"not UTF-8, which TOML is \(byte 5\)"),
        (b"#" * ((1 << 20) + 1), "more than 1,048,576 bytes, which no policy needs"),
        (b"\x00", "not TOML"),
        (b"\xef\xbb\xbf[black-holes]", "not TOML"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_by_name(tmp_path, content, says):
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {says}"):
        Policy.read(path)


def test_a_folder_or_nothing_is_no_policy(tmp_path):
    with pytest.raises(ValueError, match="a policy is a TOML file, this is none"):
        Policy.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="--print-policy prints one to start from"):
        Policy.read(tmp_path / "policy.toml")
