"""Checks: each rule by hand, exemptions, limits, and which tokens a model should not sample."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from scans import scan_of

from darkvocab import Policy, check, scan
from darkvocab.checkpoints.check import FACTS, to_suppress
from darkvocab.checkpoints.policy import RULES, Limit
from darkvocab.checkpoints.scan_result import Copies
from darkvocab.embedding.matrix import Tying

MODEL = Path(__file__).parents[2] / "demo" / "all-MiniLM-L6-v2"
HOLE = {"black_hole": 1}
SMALLER_HOLE = {"black_hole": 2}
PADDING = {"category": "beyond_tokenizer", "black_hole": 3, "dark": True}
# What each rule finds of these tokens, by id, the most telling first.
SCANNED = scan_of(
    SMALLER_HOLE,  # 0
    HOLE,
    HOLE | {"dark": True, "score": 0.9},
    SMALLER_HOLE | {"norm": 0.25},
    HOLE | {"n_touching": 3},
    {"dark": True, "score": 0.95, "category": "unreachable"},  # 5
    {"dark": True, "score": 0.99, "category": "partial_utf8", "witness": "ü"},
    {"dark": True, "score": 0.97, "category": "partial_utf8"},
    {"dark": True, "score": 0.98, "category": "special", "witness": "<end>"},
    {"n_touching": 1, "norm": 0.125},
    PADDING,  # 10
    PADDING,
    {"grade": "weak", "score": 0.2, "norm": 0.75},
    {"grade": "weak", "score": 0.3, "norm": 0.75},
    n_without_row=4,
    near_zero=(9, 10, 3),
    copies=(Copies(token_ids=(1, 4), tokens=("t1", "t4"), equal=True, norm=1.0),),
    template_tokens=(8, 9, 12),
    tying=Tying(said=True, tied=False, n_differ=7, lacks_output=True, sentence="at odds"),
)
ANSWERS = {2: (0.05, True), 3: (0.4, False), 5: (0.001, True), 9: (0.01, True)}  # P_max, verified
SCANNED = replace(
    SCANNED,
    verified={"run": "run"},
    tokens=SCANNED.tokens.with_columns(
        p_max=pl.Series([ANSWERS.get(n, (None, None))[0] for n in range(14)], dtype=pl.Float64),
        verified=pl.Series([ANSWERS.get(n, (None, None))[1] for n in range(14)], dtype=pl.Boolean),
    ),
)
FOUND = {
    "black-holes": (2, [1, 2, 4, 0, 3], 2),
    "black-hole-tokens": (5, [1, 2, 4, 0, 3], 2),
    "dark-tokens": (5, [6, 8, 7, 5, 2], 2),
    "dark-reachable-tokens": (2, [6, 2], 0),
    "unreachable-tokens": (1, [5], 0),
    "rows-beyond-tokenizer": (2, [10, 11], 0),
    "near-duplicates": (2, [4, 9], 0),
    "small-rows": (0.125, [9, 3], 0),
    "tokens-without-row": (4, [], 0),
    "damaged-rows": (2, [9, 3], 1),
    "weak-tokens": (2, [13, 12], 0),
    "copied-rows": (2, [1, 4], 0),
    "tied-tensors": (7, [], 0),
    "output-tensor": (1, [], 0),
    "chat-template-tokens": (2, [8, 12], 0),
    "verified-tokens": (2, [9, 2], 0),
}
ALL_ON = "[black-hole-tokens]\nseverity = 'error'\n[small-rows]\nleast = 0.5\nseverity = 'error'\n"


def outcome(verdict, name):
    return next(result for result in verdict.outcomes if result.rule.name == name)


@pytest.mark.parametrize("name", FOUND)
def test_what_a_rule_finds_by_hand(name):
    result = outcome(check(SCANNED, Policy.parse(ALL_ON)), name)
    assert (result.measured, result.token_ids, result.n_exempt) == FOUND[name]
    assert result.tokens == [SCANNED.tokens["text"][token] for token in result.token_ids]
    assert result.status == "failed"
    assert result.message.endswith(".")


def test_every_rule_is_tried_by_hand():
    assert list(FOUND) == [rule.name for rule in RULES]
    assert {rule.name for rule in RULES} == FOUND.keys()


@pytest.mark.parametrize("name", FOUND)
def test_a_limit_is_the_last_number_that_passes(name):
    measured, _, _ = FOUND[name]
    bound, worse = ("least", 0.126) if name == "small-rows" else ("most", measured - 1)
    for allowed, status in ((measured, "passed"), (worse, "failed")):
        policy = Policy.parse(f"[{name}]\n{bound} = {allowed}\nseverity = 'error'")
        assert outcome(check(SCANNED, policy), name).status == status


@pytest.mark.parametrize(
    ("answers", "severity", "said"),
    [
        ((0.86, 0.1), "warning", "2 of them (P_max at least 0.1)"),  # a model that repeats both refutes the weights
        ((0.86, 0.0999), "error", "1 of them (P_max at least 0.86)"),
        ((0.86, None), "error", "1 of them (P_max at least 0.86)"),  # one was not asked for
        ((0.0001, None), "error", None),
    ],
)
def test_tokens_that_the_model_repeats_are_no_error_of_a_rule_that_guesses_by_weights(answers, severity, said):
    weak = {"grade": "weak", "category": "special"}
    scanned = scan_of(weak, weak, {}, template_tokens=(0, 1, 2))
    asked = scanned.tokens.with_columns(p_max=pl.Series([*answers, 0.9], dtype=pl.Float64), verified=pl.lit(False))
    result = outcome(check(replace(scanned, verified={"run": "run"}, tokens=asked)), "chat-template-tokens")
    assert (result.status, result.measured, result.token_ids, result.severity) == ("failed", 2, [0, 1], severity)
    assert (f"The model repeats {said}." in result.message) if said else "repeats" not in result.message
    assert outcome(check(scanned), "chat-template-tokens").severity == "error"  # no model was asked
    undecided = asked.with_columns(verified=pl.lit(None, dtype=pl.Boolean))
    result = outcome(check(replace(scanned, verified={"run": "run"}, tokens=undecided)), "chat-template-tokens")
    assert result.severity == "error"


def test_what_the_model_repeats_stays_an_error_where_the_rule_states_a_fact_of_the_weights():
    scanned = scan_of({"black_hole": 1}, {"black_hole": 1})
    asked = scanned.tokens.with_columns(p_max=pl.Series([0.9, 0.9]), verified=pl.lit(False))
    assert outcome(check(replace(scanned, verified={"run": "run"}, tokens=asked)), "black-holes").severity == "error"


def test_only_errors_make_a_verdict_fail():
    scanned = scan_of({"n_touching": 1}, {"n_touching": 1})
    warned = check(scanned)
    assert (warned.passed, warned.n_errors, warned.n_warnings) == (True, 0, 1)
    assert [finding.rule.name for finding in warned.findings] == ["near-duplicates"]
    failed = check(scanned, Policy.parse("[near-duplicates]\nseverity = 'error'"))
    assert (failed.passed, failed.n_errors, failed.n_warnings) == (False, 1, 0)
    off = check(scanned, Policy.parse("[near-duplicates]\nseverity = 'off'"))
    assert (off.passed, off.findings, outcome(off, "near-duplicates").measured) == (True, [], None)


def test_a_vocabulary_without_trouble_passes_every_rule():
    scanned = scan_of({}, {}, {})
    verdict = check(scanned)
    assert verdict.passed
    assert not verdict.findings
    assert [result.measured for result in verdict.outcomes] == [0, None, 0, 0, 0, 0, 0, None, 0, 0, 0, 0, 0, 0, 0, None]


def test_rows_that_are_equal_are_no_near_duplicates_of_each_other():
    scanned = scan_of(HOLE, HOLE, HOLE)
    assert outcome(check(scanned), "near-duplicates").measured == 0


def test_without_a_tokenizer_what_needs_one_is_a_finding_of_its_severity():
    scanned = scan_of({}, {"dark": True}, tokenizer=False)
    verdict = check(scanned)
    unmeasured = [result.rule.name for result in verdict.findings if result.status == "unmeasured"]
    assert unmeasured == ["dark-reachable-tokens", "unreachable-tokens", "rows-beyond-tokenizer", "tokens-without-row"]
    assert (verdict.passed, verdict.n_errors, verdict.n_warnings) == (False, 2, 3)
    assert outcome(verdict, "dark-tokens").measured == 1
    off = "".join(f"[{name}]\nseverity = 'off'\n" for name in unmeasured)
    assert check(scanned, Policy.parse(off)).passed


def test_where_nothing_is_dark_no_tokenizer_is_needed_to_say_so():
    scanned = scan_of({}, {}, tokenizer=False)
    result = outcome(check(scanned), "dark-reachable-tokens")
    assert (result.status, result.measured) == ("passed", 0)


def test_tokens_that_a_search_left_undecided_are_not_passed_in_silence():
    unknown = {"category": "unknown", "dark": True}
    scanned = scan_of({}, unknown, {"category": "unknown"})
    verdict = check(scanned)
    dark, unreachable = outcome(verdict, "dark-reachable-tokens"), outcome(verdict, "unreachable-tokens")
    assert (dark.status, dark.token_ids) == ("unmeasured", [1])
    assert dark.message == "Not measured: of 1 dark tokens it is not known whether a text reaches them."
    assert (unreachable.status, unreachable.token_ids) == ("unmeasured", [1, 2])
    exempt = Policy.parse("[[allow]]\nreason = 'known'\nids = [1]\nrules = ['dark-reachable-tokens']")
    assert outcome(check(scanned, exempt), "dark-reachable-tokens").status == "passed"
    failing = scan_of({"dark": True}, unknown)
    result = outcome(check(failing), "dark-reachable-tokens")
    assert (result.status, result.measured, result.token_ids) == ("failed", 1, [0])


def test_neighbours_of_quantised_rows_are_not_measured():
    scanned = scan_of({}, {}, quantised=True)
    (finding,) = check(scanned).findings
    assert (finding.rule.name, finding.status, finding.severity) == ("near-duplicates", "unmeasured", "warning")
    assert finding.message == "Not measured: neighbours are not sought among quantised rows."


EXEMPTING = {
    "ids": ("ids = [1, 99999]", [2, 3, 4]),
    "texts": ("texts = ['ⱼ', 'nowhere']", [1, 3, 4]),
    "patterns": ("patterns = ['^<r[0-9]+>$', 'unused']", [1, 2]),
    "a pattern in the middle": ("patterns = ['r']", [1, 2, 4]),
    "categories": ("categories = ['special']", [1, 2, 4]),
    "any of them": ("ids = [1]\ncategories = ['special']", [2, 4]),
    "other rules": ("ids = [1]\nrules = ['black-holes']", [1, 2, 3, 4]),
    "this rule": ("ids = [1]\nrules = ['black-holes', 'dark-tokens']", [2, 3, 4]),
}


@pytest.mark.parametrize(("says", "left"), EXEMPTING.values(), ids=EXEMPTING)
def test_an_exemption_takes_out_the_tokens_that_it_names(says, left):
    scanned = scan_of(
        {},
        {"dark": True, "text": None, "category": "beyond_tokenizer"},
        {"dark": True, "text": "ⱼ"},
        {"dark": True, "text": "<r7>", "category": "special"},
        {"dark": True, "text": "[unused8]"},
    )
    verdict = check(scanned, Policy.parse(f"[[allow]]\nreason = 'known'\n{says}"))
    result = outcome(verdict, "dark-tokens")
    assert (result.token_ids, result.n_exempt) == (left, 4 - len(left))
    assert result.message.count("more exempt") == (len(left) < 4)
    assert verdict.to_json()["exemptions"][0]["reason"] == "known"


def test_a_black_hole_counts_until_all_its_tokens_are_exempt():
    scanned = scan_of(HOLE, HOLE, SMALLER_HOLE, SMALLER_HOLE)
    for ids, left in (("[0]", 2), ("[0, 1]", 1), ("[0, 1, 2, 3]", 0)):
        policy = Policy.parse(f"[[allow]]\nreason = 'known'\nids = {ids}")
        assert outcome(check(scanned, policy), "black-holes").measured == left


def test_where_every_row_is_exempt_nothing_is_found():
    scanned = scan_of({"norm": 0.0}, {"norm": 0.0})
    policy = "[small-rows]\nleast = 1\nseverity = 'error'\n[[allow]]\nreason = 'all'\ncategories = ['reachable']"
    result = outcome(check(scanned, Policy.parse(policy)), "small-rows")
    assert (result.status, result.measured, result.n_exempt) == ("passed", None, 2)


def test_a_verdict_is_json_that_is_the_same_every_time():
    verdicts = [json.dumps(check(SCANNED).to_json(), allow_nan=False) for _ in range(2)]
    assert verdicts[0] == verdicts[1]
    result = json.loads(verdicts[0])
    assert (result["schema_version"], result["passed"], result["n_errors"], result["policy"]) == (1, False, 8, None)
    assert result["exemptions"][0]["n_tokens"] == 2
    assert result["scan"] == {key: SCANNED.to_json()[key] for key in FACTS}


SAMPLED = scan_of(
    {},
    {"dark": True},
    {"dark": True, "category": "special", "text": "<end>"},
    {"dark": True, "category": "special", "text": "<reserved_4>", "reserved": "<reserved_#>"},
    {"category": "unreachable"},
    HOLE,
    HOLE,
    {"category": "beyond_tokenizer"},
)


@pytest.mark.parametrize(
    ("which", "ids", "spared"),
    [
        ("dark,beyond-tokenizer,black-holes", [1, 3, 5, 6, 7], [2]),
        ("dark", [1, 3], [2]),
        ("unreachable, beyond-tokenizer", [4, 7], []),
        ("black-holes", [5, 6], []),
    ],
)
def test_which_tokens_a_model_should_not_sample(which, ids, spared):
    assert to_suppress(SAMPLED, which) == (ids, spared)


def test_unknown_tokens_to_suppress_are_refused():
    with pytest.raises(
        ValueError, match="unknown tokens 'darkest' to suppress; choose from dark, weak, beyond-tokenizer"
    ):
        to_suppress(SAMPLED, "dark,darkest")


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.is_dir(), reason="make test downloads it")
def test_a_real_checkpoint_is_held_against_the_default_policy():
    scanned = scan(MODEL, checksum=False)
    verdict = check(scanned)
    measured = {outcome.rule.name: outcome.measured for outcome in verdict.outcomes}
    assert (measured["black-holes"], measured["unreachable-tokens"], measured["tokens-without-row"]) == (0, 1_331, 0)
    assert not verdict.passed
    reachable = next(finding for finding in verdict.findings if finding.rule.name == "dark-reachable-tokens")
    assert "ⱼ" in reachable.tokens
    limits = {"dark-reachable-tokens": Limit(allowed=len(reachable.tokens), severity="error")}
    assert check(scanned, Policy(limits=limits)).passed
    ids, spared = to_suppress(scanned)
    assert len(ids) == measured["dark-tokens"]
    assert not spared
