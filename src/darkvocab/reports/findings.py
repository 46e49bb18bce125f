"""Report the verdict of a check, from its JSON: table, JUnit, SARIF, a model card's section, and lists for samplers.

Texts of tokens are untrusted: in every format they are text, never markup.
"""

import hashlib
import json
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
from .console import SHOWN_TOKENS
from .document import phrase, print_text, template

LOCATED = 100  # locations in a result of SARIF; GitHub shows no more
OUTCOMES = {"passed": "passed", "failed": "failed", "unmeasured": "not measured", "off": "off"}


def print_verdict(verdict: dict[str, Any], to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print what was checked, a line for every rule, and the message and first tokens of each finding."""
    values = {"verdict": verdict, "findings": _findings(verdict), "outcomes": OUTCOMES}
    print_text("check", to, shown=shown, **values)


def _findings(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    return list(filter(_is_finding, verdict["rules"]))


def _is_finding(rule: dict[str, Any]) -> bool:
    return rule["status"] in ("failed", "unmeasured")


def _names(rule: dict[str, Any], code: Callable[[str], str] = "'{}'".format, without: str = "#{}") -> list[str]:
    """Return the id and text of each token of a finding; `code` quotes the text, `without` formats an id alone."""
    named = zip(rule["token_ids"], rule["tokens"], strict=True)
    return [without.format(n) if text is None else f"{n} {code(printable(text))}" for n, text in named]


def junit(verdict: dict[str, Any]) -> bytes:
    """Return the verdict as JUnit XML, with a test case for every rule.

    A rule of severity error that fails is a failure, and one that could not be measured an error. Warnings are passed
    cases with output; rules that are off are skipped. Characters that XML 1.0 cannot hold are escaped.
    """
    kinds = Counter(map(_junit_kind, verdict["rules"]))
    text = template("junit.xml.j2", kind=_junit_kind, names=_names).render(**verdict, kinds=kinds)
    root = ET.fromstring(text)
    ET.indent(root)
    return ET.tostring(root, "utf-8", xml_declaration=True) + b"\n"


def _junit_kind(rule: dict[str, Any]) -> str | None:
    """Return the JUnit element for the outcome of a rule; None if it passed."""
    if _is_finding(rule) and rule["severity"] == "warning":
        return "system-out"
    return {"off": "skipped", "failed": "failure", "unmeasured": "error"}.get(rule["status"])


def sarif(verdict: dict[str, Any]) -> bytes:
    """Return the verdict as SARIF 2.1.0, with a result for every finding, located in the file of the weights.

    The first hundred tokens are logical locations, `TENSOR[ID]`; all ids are in the properties of the result.
    """
    source = verdict["scan"]["source"]
    tensor = printable(verdict["scan"]["tensor"])

    def named(rule: dict[str, Any]) -> list[tuple[int, str]]:
        return list(zip(rule["token_ids"], _names(rule), strict=True))[:LOCATED]

    def fingerprint(rule: dict[str, Any]) -> str:
        return hashlib.sha256(f"{rule['id']} {tensor}".encode()).hexdigest()

    document = template("sarif.json.j2", named=named, fingerprint=fingerprint, message=_sarif_message)
    name, version = verdict["made_by"].split()
    facts = {"name": name, "version": version, "tensor": tensor, "uri": source.get("url") or _uri(source["path"])}
    return json_bytes(json.loads(document.render(**verdict, **facts, findings=_findings(verdict))))


def _sarif_message(rule: dict[str, Any]) -> str:
    """Return a finding's text, escaped so that nothing is a placeholder (3.11.5 of the standard) or a link (3.11.6)."""
    tokens = f" Tokens: {listed(_names(rule), SHOWN_TOKENS)}." if rule["token_ids"] else ""
    text = f"{rule['message']}{tokens} {rule['remedy']}"
    return re.sub(r"([\\\[\]])", r"\\\1", text).replace("{", "{{").replace("}", "}}")


def _uri(path: str) -> str:
    """Return a path as a URI reference; relative paths stay relative to the folder that the check ran in."""
    escaped = quote(os.fsencode(path).replace(os.sep.encode(), b"/"))
    return f"file://{escaped}" if escaped.startswith("/") else escaped


def model_card(verdict: dict[str, Any], shown: int = SHOWN_TOKENS) -> str:
    """Return a section for a model card in GitHub's Markdown: facts, rules, tokens, exemptions and the command.

    Untrusted texts stand in code spans outside of tables, where neither Markdown nor HTML is interpreted.
    """

    def spans(rule: dict[str, Any]) -> str:
        return listed(_names(rule, _code, "{}"), shown)

    return template("card.md.j2", code=_code, spans=spans).render(
        **verdict,
        conclusion=phrase("conclusion", verdict=verdict),
        graded=phrase("graded", scan=verdict["scan"]),
        command=_command(verdict),
        findings=_findings(verdict),
        outcomes=OUTCOMES,
    )


def _code(text: str) -> str:
    """Return text as a code span, between more backticks than it has in a row."""
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


# Two keys of transformers' `GenerationConfig`, and the `logit_bias` of OpenAI's API, which vLLM takes, too.
SUPPRESSIONS: dict[str, Callable[[list[int]], dict[str, Any]]] = {
    "bad-words": lambda ids: {"bad_words_ids": [[token] for token in ids]} if ids else {},
    "suppress-tokens": lambda ids: {"suppress_tokens": ids},
    "logit-bias": lambda ids: {str(token): -100 for token in ids},
}


def suppression(form: str, ids: list[int]) -> bytes:
    """Return the ids that a model must not sample, as JSON in a format of `SUPPRESSIONS`."""
    return json_bytes(SUPPRESSIONS[form](ids), indent=None)
