"""Findings: the verdict of a check as a table, JUnit, SARIF, a section of a model card, and lists for samplers.

All from the verdict's JSON alone. Texts of tokens are others' and stand in every form as text, never as markup.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from rich.console import Console

from ..landing import json_bytes
from ..numerics import GRIDS
from ..text import printable
from .console import SHOWN_TOKENS, facts, left_out, print_lines, show, table, token_texts, without

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LOCATED = 100  # tokens of a result that get a location; GitHub shows no more
OUTCOMES = {"passed": "passed", "failed": "failed", "unmeasured": "not measured", "off": "off"}


def print_verdict(verdict: dict[str, Any], to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print what was checked, a line for every rule, and of each finding the sentence and the first tokens."""
    scan = verdict["scan"]
    policy = verdict["policy"]
    pairs = [
        ("source", printable(scan["source"]["path"])),
        ("policy", "the default" if policy is None else printable(policy)),
        ("dark tokens", _reference(scan)),
    ]
    if scan["skipped"]:
        pairs.append(("left out", left_out(scan["skipped"])))
    show(facts(pairs), to)
    rows = []
    for rule in verdict["rules"]:
        allowed = f"{'>=' if rule['bound'] == 'least' else '<='} {_number(rule['allowed'])}"
        outcome = [rule["severity"], OUTCOMES[rule["status"]]]
        rows.append([rule["id"], rule["name"], _number(rule["measured"]), allowed, *outcome])
    headings = ("rule", "", "measured", "allowed", "severity", "outcome")
    to.print()
    show(table(headings, rows, left=("rule", "", "severity", "outcome")), to)
    for rule in _findings(verdict):
        ids = rule["token_ids"]
        texts = [token_texts({**rule, "population": len(ids)}, shown)] if ids else []
        to.print()
        heading = f"{rule['severity']} {rule['id']} {rule['name']}: {rule['message']}"
        print_lines([heading, *texts, rule["remedy"]], to)
    to.print()
    to.print(_conclusion(verdict))


def _findings(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for rule in verdict["rules"] if rule["status"] in ("failed", "unmeasured")]


def _conclusion(verdict: dict[str, Any]) -> str:
    errors, warnings = (
        f"{n} {kind}{'' if n == 1 else 's'}"
        for n, kind in ((verdict["n_errors"], "error"), (verdict["n_warnings"], "warning"))
    )
    return f"{'passed' if verdict['passed'] else 'failed'}: {errors}, {warnings}{without(verdict['scan']['skipped'])}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _reference(scan: dict[str, Any]) -> str:
    indicators = scan["indicators"]
    expected = indicators["expected_false_positives"]
    share = "" if expected is None else f", {expected:.1%} of them expected to be false"
    return f"{indicators['n_dark']:,}, by the reference {indicators['reference']['kind']}{share}"


def _token(token: int, text: str | None) -> str:
    return f"#{token}" if text is None else f"{token} '{printable(text)}'"


def _some(rule: dict[str, Any], shown: int = SHOWN_TOKENS) -> str:
    pairs = list(zip(rule["token_ids"], rule["tokens"], strict=True))
    left = len(pairs) - shown
    return ", ".join(_token(*pair) for pair in pairs[:shown]) + (f" and {left:,} more" if left > 0 else "")


# JUnit -------------------------------------------------------------------------------------------------------------


def junit(verdict: dict[str, Any]) -> bytes:
    """Return the verdict as JUnit XML: a test case for every rule.

    An error is a failure (where it could not be measured, an error), a warning a passed case that says so in its
    output, a rule that is off a skipped one. Characters that XML 1.0 has no way to hold are escapes here.
    """
    scan = verdict["scan"]
    rules = verdict["rules"]
    kinds = Counter(map(_junit_kind, rules))
    counts = {"failures": kinds["failure"], "errors": kinds["error"], "skipped": kinds["skipped"]}
    counted = {"tests": str(len(rules)), **{key: str(value) for key, value in counts.items()}}
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
    said = ET.SubElement(case, kind)
    if kind != "system-out":
        said.set("message", rule["message"])
    if kind in ("failure", "error"):
        said.set("type", rule["name"])
    if kind != "skipped":
        said.text = "\n".join(_lines(rule))


def _junit_kind(rule: dict[str, Any]) -> str | None:
    """Return the element that tells the outcome of a rule; None for a case that passed."""
    if rule["status"] in ("passed", "off"):
        return "skipped" if rule["status"] == "off" else None
    if rule["severity"] == "warning":
        return "system-out"
    return "failure" if rule["status"] == "failed" else "error"


def _lines(rule: dict[str, Any]) -> list[str]:
    """Return a finding in full: the sentence, why it matters, what to do, and every token."""
    tokens = (_token(*pair) for pair in zip(rule["token_ids"], rule["tokens"], strict=True))
    return [f"{rule['severity']}: {rule['message']}", rule["why"], rule["remedy"], *tokens]


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
            _sarif_result(number, rule, scan, uri)
            for number, rule in enumerate(verdict["rules"])
            if rule["status"] in ("failed", "unmeasured")
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
    located = list(zip(rule["token_ids"], rule["tokens"], strict=True))[:LOCATED]
    location: dict[str, Any] = {
        # Weights have no lines, but GitHub asks for one.
        "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}, "region": {"startLine": 1}}
    }
    if located:
        location["logicalLocations"] = [
            {"name": _token(*pair), "fullyQualifiedName": f"{tensor}[{pair[0]}]", "kind": "token"} for pair in located
        ]
    tokens = f" Tokens: {_some(rule)}." if located else ""
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
    scan = verdict["scan"]
    source = scan["source"]
    digest = f", sha256 `{source['sha256']}`" if source["sha256"] else ""
    lines = [
        "## Vocabulary check",
        "",
        f"Checked with {verdict['made_by']}, {_conclusion(verdict)}.",
        "",
        f"- File: {_code(source['path'])}, {source['bytes']:,} bytes{digest}",
        f"- Embedding: {_code(scan['tensor'])}, {scan['n_tokens']:,} x {scan['hidden_dim']:,} {scan['stored_grid']}, "
        f"{'tied' if scan['tied'] else 'untied'}",
        f"- Census on {scan['grid']}: {scan['n_unique']:,} unique rows, {scan['n_black_holes']:,} black holes with "
        f"{scan['black_hole_population']:,} tokens",
        f"- Dark tokens: {_reference(scan)}",
        *([f"- Left out: {left_out(scan['skipped'])}"] if scan["skipped"] else []),
        "",
        "| rule | severity | measured | allowed | outcome |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for rule in verdict["rules"]:
        sign = "at least" if rule["bound"] == "least" else "at most"
        lines.append(
            f"| {rule['id']} {rule['name']} | {rule['severity']} | {_number(rule['measured'])} | "
            f"{sign} {_number(rule['allowed'])} | {OUTCOMES[rule['status']]} |"
        )
    if findings := _findings(verdict):
        lines += ["", "### Findings", ""]
        for rule in findings:
            lines.append(f"- **{rule['id']} {rule['name']}** ({rule['severity']}): {rule['message']} {rule['why']}")
            pairs = list(zip(rule["token_ids"], rule["tokens"], strict=True))
            spans = [f"{token}" if text is None else f"{token} {_code(text)}" for token, text in pairs[:shown]]
            if spans:
                left = f" and {len(pairs) - shown:,} more" if len(pairs) > shown else ""
                lines.append(f"  Tokens: {', '.join(spans)}{left}")
    if verdict["exemptions"]:
        lines += ["", "### Exempt", ""]
        lines += [
            f"- {exemption['n_tokens']:,} tokens from {', '.join(exemption['rules'])}: {_code(exemption['reason'])}"
            for exemption in verdict["exemptions"]
        ]
    lines += ["", "### Repeat it", "", "```console", f"$ {_command(verdict)}", "```", ""]
    return "\n".join(lines)


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


def bad_words(ids: Sequence[int]) -> bytes:
    """Return a `GenerationConfig` of transformers with `bad_words_ids`; without ids an empty one."""
    return json_bytes({"bad_words_ids": [[token] for token in ids]} if ids else {}, indent=None)


def suppress_tokens(ids: Sequence[int]) -> bytes:
    """Return a `GenerationConfig` of transformers with `suppress_tokens`."""
    return json_bytes({"suppress_tokens": list(ids)}, indent=None)


def logit_bias(ids: Sequence[int]) -> bytes:
    """Return the `logit_bias` of OpenAI's API, which vLLM takes, too: -100 for each token."""
    return json_bytes({str(token): -100 for token in ids}, indent=None)


SUPPRESSIONS = {"bad-words": bad_words, "suppress-tokens": suppress_tokens, "logit-bias": logit_bias}
