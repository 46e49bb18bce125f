"""Findings: the verdict of a check as a table, JUnit, SARIF, a section of a model card, and lists for samplers.

All from the verdict's JSON alone. Texts of tokens are others' and stand in every form as text, never as markup.
"""

import hashlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from rich.console import Console

from ..landing import json_bytes
from ..numerics import GRIDS
from ..text import listed, printable
from .console import SHOWN_TOKENS, cell, facts, left_out, print_lines, show, table, token_texts
from .document import facts_of, phrase, template

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LOCATED = 100  # tokens of a result that get a location; GitHub shows no more
OUTCOMES = {"passed": "passed", "failed": "failed", "unmeasured": "not measured", "off": "off"}


def print_verdict(verdict: dict[str, Any], to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print what was checked, a line for every rule, and of each finding the sentence and the first tokens."""
    show(facts(facts_of("check", verdict=verdict)), to)
    rows = []
    for rule in verdict["rules"]:
        allowed = f"{'>=' if rule['bound'] == 'least' else '<='} {cell(rule['allowed'])}"
        outcome = [rule["severity"], OUTCOMES[rule["status"]]]
        rows.append([rule["id"], rule["name"], cell(rule["measured"]), allowed, *outcome])
    headings = ("rule", "", "measured", "allowed", "severity", "outcome")
    show(table(headings, rows, left=("rule", "", "severity", "outcome")), to, apart=True)
    for rule in filter(_is_finding, verdict["rules"]):
        texts = [token_texts(rule["token_ids"], rule["tokens"], shown)] if rule["token_ids"] else []
        to.print()
        heading = f"{rule['severity']} {rule['id']} {rule['name']}: {rule['message']}"
        print_lines([heading, *texts, rule["remedy"]], to)
    to.print()
    to.print(phrase("conclusion", verdict))


def _is_finding(rule: dict[str, Any]) -> bool:
    return rule["status"] in ("failed", "unmeasured")


def _token(token: int, text: str | None) -> str:
    return f"#{token}" if text is None else f"{token} '{printable(text)}'"


def _pairs(rule: dict[str, Any]) -> list[tuple[int, str | None]]:
    """Return id and text of each token of a finding."""
    return list(zip(rule["token_ids"], rule["tokens"], strict=True))


# JUnit -------------------------------------------------------------------------------------------------------------


def junit(verdict: dict[str, Any]) -> bytes:
    """Return the verdict as JUnit XML: a test case for every rule.

    An error is a failure (where it could not be measured, an error), a warning a passed case that says so in its
    output, a rule that is off a skipped one. Characters that XML 1.0 has no way to hold are escapes here.
    """
    scan = verdict["scan"]
    rules = verdict["rules"]
    kinds = Counter(map(_junit_kind, rules))
    counts = {"tests": len(rules), "failures": kinds["failure"], "errors": kinds["error"], "skipped": kinds["skipped"]}
    counted = {name: str(n) for name, n in counts.items()}
    root = ET.Element("testsuites", {"name": "darkvocab check", **counted})
    suite = ET.SubElement(root, "testsuite", {"name": printable(scan["source"]["path"]), **counted})
    properties = ET.SubElement(suite, "properties")
    known = {
        "made_by": verdict["made_by"],
        "policy": "default" if verdict["policy"] is None else printable(verdict["policy"]),
        "tensor": printable(scan["tensor"]),
        "sha256": scan["source"]["sha256"] or "",
        **({"left_out": left_out(scan["skipped"])} if scan["skipped"] else {}),
    }
    for name, value in known.items():
        ET.SubElement(properties, "property", {"name": name, "value": value})
    for rule in rules:
        _add_case(suite, rule)
    ET.indent(root)
    return ET.tostring(root, "utf-8", xml_declaration=True) + b"\n"


def _add_case(suite: ET.Element, rule: dict[str, Any]) -> None:
    name = f"{rule['id']} {rule['name']}"
    case = ET.SubElement(suite, "testcase", {"classname": "darkvocab.check", "name": name})
    kind = _junit_kind(rule)
    if kind is None:
        return
    outcome = ET.SubElement(case, kind)
    if kind != "system-out":
        outcome.set("message", rule["message"])
    if kind in ("failure", "error"):
        outcome.set("type", rule["name"])
    if kind != "skipped":
        # The finding in full: the sentence, why it matters, what to do, and every token.
        tokens = (_token(*pair) for pair in _pairs(rule))
        outcome.text = "\n".join([f"{rule['severity']}: {rule['message']}", rule["why"], rule["remedy"], *tokens])


def _junit_kind(rule: dict[str, Any]) -> str | None:
    """Return the element that tells the outcome of a rule; None for a case that passed."""
    if _is_finding(rule) and rule["severity"] == "warning":
        return "system-out"
    return {"off": "skipped", "failed": "failure", "unmeasured": "error"}.get(rule["status"])


# SARIF -------------------------------------------------------------------------------------------------------------


def sarif(verdict: dict[str, Any]) -> bytes:
    """Return the verdict as SARIF 2.1.0: a result for every finding, at the file that holds the weights.

    The first hundred tokens are its logical locations, `TENSOR[ID]`; all ids are in the result's properties.
    """
    scan = verdict["scan"]
    source = scan["source"]
    uri = source.get("url") or _uri(source["path"])
    artifact = {"location": {"uri": uri}, "length": source["bytes"], "roles": ["analysisTarget"]}
    if source["sha256"]:
        artifact["hashes"] = {"sha-256": source["sha256"]}
    name, version = verdict["made_by"].split()
    run = {
        "tool": {
            "driver": {"name": name, "version": version, "rules": [_sarif_rule(rule) for rule in verdict["rules"]]}
        },
        "invocations": [{"executionSuccessful": True, "exitCode": 0 if verdict["passed"] else 1}],
        "artifacts": [artifact],
        "results": [
            _sarif_result(number, rule, scan, uri) for number, rule in enumerate(verdict["rules"]) if _is_finding(rule)
        ],
        "columnKind": "unicodeCodePoints",
        **({"properties": {"skipped": scan["skipped"]}} if scan["skipped"] else {}),
    }
    return json_bytes({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def _sarif_rule(rule: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": rule["id"],
        "name": rule["name"],
        "shortDescription": {"text": rule["name"].replace("-", " ").capitalize()},
        "fullDescription": {"text": rule["counts"]},
        "help": {"text": f"{rule['counts']} {rule['why']} {rule['remedy']}"},
    }


def _sarif_result(number: int, rule: dict[str, Any], scan: dict[str, Any], uri: str) -> dict[str, Any]:
    tensor = printable(scan["tensor"])
    pairs = _pairs(rule)
    location: dict[str, Any] = {
        # Weights have no lines, but GitHub asks for one.
        "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}, "region": {"startLine": 1}}
    }
    tokens = ""
    if pairs:
        names = [_token(*pair) for pair in pairs]
        tokens = f" Tokens: {listed(names, SHOWN_TOKENS)}."
        location["logicalLocations"] = [
            {"name": name, "fullyQualifiedName": f"{tensor}[{token}]", "kind": "token"}
            for name, (token, _) in list(zip(names, pairs, strict=True))[:LOCATED]
        ]
    fingerprint = hashlib.sha256(f"{rule['id']} {tensor}".encode()).hexdigest()
    return {
        "ruleId": rule["id"],
        "ruleIndex": number,
        "level": rule["severity"],
        "message": {"text": _sarif_text(f"{rule['message']}{tokens} {rule['remedy']}")},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},
        "properties": {"measured": rule["measured"], "allowed": rule["allowed"], "tokenIds": rule["token_ids"]},
    }


def _sarif_text(text: str) -> str:
    """Escape a message so that nothing is a placeholder (section 3.11.5 of the standard) or a link (3.11.6)."""
    return re.sub(r"([\\\[\]])", r"\\\1", text).replace("{", "{{").replace("}", "}}")


def _uri(path: str) -> str:
    """Return a path as a URI reference: relative ones as they are, against the folder that the check ran in."""
    escaped = quote(os.fsencode(path).replace(os.sep.encode(), b"/"))
    return f"file://{escaped}" if escaped.startswith("/") else escaped


# A model card ------------------------------------------------------------------------------------------------------


def model_card(verdict: dict[str, Any], shown: int = SHOWN_TOKENS) -> str:
    """Return a section for a model card, in GitHub's Markdown: facts, the rules, tokens, exemptions, how to repeat it.

    Texts of others stand in code spans outside the tables, where neither Markdown nor HTML means anything.
    """

    def spans(rule: dict[str, Any]) -> str:
        named = [f"{token}" if text is None else f"{token} {_code(text)}" for token, text in _pairs(rule)]
        return listed(named, shown)

    return template("card.md.j2", code=_code, spans=spans).render(
        **verdict,
        conclusion=phrase("conclusion", verdict),
        graded=phrase("graded", verdict["scan"]),
        command=_command(verdict),
        findings=list(filter(_is_finding, verdict["rules"])),
        outcomes=OUTCOMES,
    )


def _code(text: str) -> str:
    """Return text as a code span: between more backticks than it has in a row."""
    text = printable(text)
    if not text:
        return "(empty)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.strip(" ") and (text[0] in "` " or text[-1] in "` ") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _command(verdict: dict[str, Any]) -> str:
    scan = verdict["scan"]
    words = ["darkvocab", "check", scan["source"]["asked"]]
    if scan["chosen"].startswith("as asked"):
        words += ["--tensor", scan["tensor"]]
    if scan["grid"] != scan["stored_grid"] and scan["stored_grid"] in GRIDS:
        words += ["--grid", scan["grid"]]
    if scan["equality"] == "bits":
        words.append("--bitwise")
    if scan["skipped"]:
        words.append("--skip-nonfinite")
    if verdict["policy"] is not None:
        words += ["--policy", verdict["policy"]]
    return shlex.join(map(printable, words))


# For samplers ------------------------------------------------------------------------------------------------------


# What holds the ids: a `GenerationConfig` of transformers, with either key, or the `logit_bias` of OpenAI's API, which
# vLLM takes, too.
SUPPRESSIONS: dict[str, Callable[[list[int]], dict[str, Any]]] = {
    "bad-words": lambda ids: {"bad_words_ids": [[token] for token in ids]} if ids else {},
    "suppress-tokens": lambda ids: {"suppress_tokens": ids},
    "logit-bias": lambda ids: {str(token): -100 for token in ids},
}


def suppression(form: str, ids: list[int]) -> bytes:
    """Return the ids that a model should not sample as JSON in a form of `SUPPRESSIONS`."""
    return json_bytes(SUPPRESSIONS[form](ids), indent=None)
