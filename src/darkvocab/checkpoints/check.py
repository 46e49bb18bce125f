"""Check a scan against a policy, rule by rule; and choose the tokens to suppress at sampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import polars as pl

from ..errors import InvalidInput
from ..measures.verdict import LAND
from ..runs.folder import versions
from ..text import Shown
from .policy import BY_NAME, ERROR, FACTS, OFF, RULES, SENTENCES, SUPPRESSED, WARNING, Exemption, Limit, Policy, Rule
from .scan_result import Scan

SCHEMA_VERSION = 1
PASSED, FAILED, UNMEASURED = "passed", "failed", "unmeasured"
TO_SUPPRESS = "dark,beyond-tokenizer,black-holes"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one rule."""

    rule: Rule
    limit: Limit
    status: str  # passed, failed, unmeasured (the scan lacks what it needs), or off
    measured: int | float | None = None
    message: str
    token_ids: list[int] = field(default_factory=list)  # the tokens concerned, the most telling first
    tokens: list[str | None] = field(default_factory=list)  # their texts
    n_exempt: int = 0  # tokens that would be concerned, but are exempt

    @property
    def severity(self) -> str:
        return self.limit.severity

    @property
    def is_finding(self) -> bool:
        return self.status in (FAILED, UNMEASURED)

    def to_json(self) -> dict[str, Any]:
        rule = self.rule
        listed = {"token_ids": self.token_ids, "tokens": self.tokens}
        return {
            **{"id": rule.id, "name": rule.name, "severity": self.severity, "status": self.status},
            **{"measured": self.measured, "bound": rule.bound, "allowed": self.limit.allowed, "message": self.message},
            **{"counts": rule.counts, "why": rule.why, "remedy": rule.remedy, "n_exempt": self.n_exempt},
            **(listed if self.is_finding else {"token_ids": [], "tokens": []}),
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict(Shown):
    """Result of a check of a scan against a policy."""

    scan: Scan
    policy: Policy
    outcomes: list[Outcome]  # one a rule, in the order of their ids
    exempt: list[int]  # number of tokens of each exemption of the policy

    @property
    def findings(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.is_finding]

    @property
    def n_errors(self) -> int:
        return sum(finding.severity == ERROR for finding in self.findings)

    @property
    def n_warnings(self) -> int:
        return sum(finding.severity == WARNING for finding in self.findings)

    @property
    def passed(self) -> bool:
        return not self.n_errors

    def _shown(self) -> dict[str, Any]:
        findings = {finding.rule.name: finding.message for finding in self.findings}
        return {"source": self.scan.source.path, **self._outcome(), "findings": findings}

    def _outcome(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("passed", "n_errors", "n_warnings")}

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON-ready data; its keys: `docs/files.md`."""
        facts = self.scan.to_json()
        return {
            "schema_version": SCHEMA_VERSION,
            "made_by": f"darkvocab {versions()['darkvocab']}",
            **self._outcome(),
            "policy": self.policy.origin,
            "rules": [outcome.to_json() for outcome in self.outcomes],
            "exemptions": [
                {"reason": exemption.reason, "rules": list(exemption.rules), "n_tokens": n_tokens}
                for exemption, n_tokens in zip(self.policy.allow, self.exempt, strict=True)
            ],
            "scan": {key: facts[key] for key in FACTS},
        }


def check(scan: Scan, policy: Policy | None = None) -> Verdict:
    """Check a scan against a policy, by default `Policy()`."""
    policy = policy or Policy()
    repeated = (pl.col("p_max") >= LAND["doubtful"]) & ~pl.col("verified")
    near_zero = {token for side in scan.grades.sides for token in side.near_zero}
    tokens = scan.tokens.with_columns(
        rank=pl.Series(scan.rank),
        near_zero=pl.col("id").is_in(near_zero - {scan.matrix.padding_token}),  # whose row is zero by design
        copied=pl.col("id").is_in([token for copies in scan.copies for token in copies.token_ids]),
        in_template=pl.col("id").is_in(list(scan.template_tokens or ())),
        repeated=pl.lit(False) if scan.verified is None else repeated.fill_null(False),
    )
    named = tokens.select(_named(exemption).alias(str(n)) for n, exemption in enumerate(policy.allow))
    outcomes = []
    for rule in RULES:
        exempt = [named[str(n)] for n, exemption in enumerate(policy.allow) if rule.name in exemption.rules]
        marked = tokens.with_columns(exempt=pl.any_horizontal(exempt) if exempt else pl.lit(False))
        outcomes.append(_outcome(rule, policy.limits[rule.name], scan, marked))
    exempted = [int(column.sum()) for column in named.iter_columns()]
    return Verdict(scan=scan, policy=policy, outcomes=outcomes, exempt=exempted)


def _named(exemption: Exemption) -> pl.Expr:
    """Return an expression that is true for the tokens of an exemption."""
    text = pl.col("text")
    conditions = [
        pl.col("id").is_in(exemption.ids),
        pl.col("category").is_in(exemption.categories),
        text.is_in(exemption.texts),
        *(text.str.contains(pattern) for pattern in exemption.patterns),
    ]
    return pl.any_horizontal(condition.fill_null(False) for condition in conditions)


def _outcome(rule: Rule, limit: Limit, scan: Scan, tokens: pl.DataFrame) -> Outcome:
    outcome = partial(Outcome, rule=rule, limit=limit)
    if limit.severity == OFF:
        return outcome(status=OFF, message=SENTENCES["switched_off"])
    if rule.needs == "verified" and scan.verified is None:  # verification is optional
        return outcome(status=OFF, message=SENTENCES["not_asked"])
    if rule.needs and getattr(scan, rule.needs) is None:
        return outcome(status=UNMEASURED, message=f"Not measured: {SENTENCES['lacking'][rule.needs]}.")
    is_concerned = pl.col("norm") < limit.allowed if rule.bound == "least" else pl.sql_expr(rule.tokens)
    judged = tokens.filter(~pl.col("exempt"))
    n_exempt = len(tokens.filter(pl.col("exempt") & is_concerned))
    concerned = judged.filter(is_concerned).sort(pl.sql_expr(rule.first), "id")
    measured = MEASURED[rule.name](scan, judged, concerned) if rule.name in MEASURED else len(concerned)
    fails = measured < limit.allowed if rule.bound == "least" else measured > limit.allowed
    undecided = judged.filter(pl.sql_expr(rule.undecided))
    if len(undecided) and not fails:
        named = "dark tokens" if rule.name == "dark-reachable-tokens" else "tokens"
        message = SENTENCES["undecided"].format(n=len(undecided), tokens=named)
        return outcome(status=UNMEASURED, message=message, **_listed(undecided))
    message = _message(rule, limit, measured, len(concerned), n_exempt)
    repeated = concerned.filter("repeated")
    if rule.guesses and len(repeated):  # the model refutes the weights
        message += SENTENCES["repeated"].format(n=len(repeated), least=min(repeated["p_max"]))
        if fails and limit.severity == ERROR and measured - len(repeated) <= limit.allowed:
            limit = replace(limit, severity=WARNING)
    return outcome(
        limit=limit,
        status=FAILED if fails else PASSED,
        measured=measured if math.isfinite(measured) else None,
        message=message,
        **_listed(concerned),
        n_exempt=n_exempt,
    )


def _listed(tokens: pl.DataFrame) -> dict[str, Any]:
    return {"token_ids": tokens["id"].to_list(), "tokens": tokens["text"].to_list()}


# The measured number, where it is not the number of tokens concerned.
MEASURED: dict[str, Callable[[Any, pl.DataFrame, pl.DataFrame], int | float]] = {
    "black-holes": lambda scan, judged, concerned: concerned["black_hole"].n_unique(),
    "small-rows": lambda scan, judged, concerned: float(judged["norm"].to_numpy().min(initial=math.inf)),
    "tokens-without-row": lambda scan, judged, concerned: scan.vocabulary.n_texts_beyond_matrix,
    "tied-tensors": lambda scan, judged, concerned: scan.matrix.tying.n_differ or 0,
    "output-tensor": lambda scan, judged, concerned: int(scan.matrix.tying.lacks_output),
}


def _message(rule: Rule, limit: Limit, measured: int | float, n_concerned: int, n_exempt: int) -> str:
    if measured == math.inf:
        return SENTENCES["all_exempt"]
    noun = rule.one if (n_concerned if rule.bound == "least" else measured) == 1 else rule.many
    inside = f" with {n_concerned:,} tokens" if rule.name == "black-holes" and measured else ""
    exempt = f" ({n_exempt:,} more exempt)" if n_exempt else ""
    facts = {"measured": measured, "allowed": limit.allowed, "n": n_concerned, "noun": noun, "inside": inside}
    return SENTENCES[rule.bound].format(**facts, exempt=exempt)


def parse_suppressed(text: str) -> list[str]:
    """Split names of `SUPPRESSED` between commas; raises InvalidInput for an unknown one."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SUPPRESSED:
            raise InvalidInput(f"unknown tokens {name!r} to suppress; choose from {', '.join(SUPPRESSED)}")
    return names


def to_suppress(scan: Scan, which: str = TO_SUPPRESS) -> tuple[list[int], list[int]]:
    """Return the ids that a model should not sample, and those of special tokens that are spared.

    A special token is spared unless it has a reserved name: end-of-text is often never read, so that its input row is
    untrained, but a model that may not sample it never stops. `which` is parsed by `parse_suppressed`.
    """
    rules = (BY_NAME[SUPPRESSED[name]] for name in parse_suppressed(which))
    chosen = scan.tokens.filter(pl.any_horizontal(pl.sql_expr(rule.tokens) for rule in rules))
    spared = (pl.col("category") == "special") & pl.col("reserved").is_null()
    return chosen.filter(~spared)["id"].to_list(), chosen.filter(spared)["id"].to_list()
