"""Verified tokens of a scan: what a model said of its tokens, beside what its weights say of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import InvalidInput
from ..measures.verdict import CONTROL, Verdict, judge
from ..runs.folder import read_manifest
from ..runs.records import read_records
from .scan_result import Scan, VerifiedFacts


def read_verdict(folder: str | Path, sha256: str | None = None) -> Verdict:
    """Judge the answers of a finished run of `verify`; raises as `read_records`.

    InvalidInput where it is another run, or asked the model of a file with another SHA-256.
    """
    manifest = read_manifest(Path(folder))
    if manifest.get("experiment") != "verify":
        raise InvalidInput(f"{folder} holds a run of {manifest.get('experiment')}; give one of `darkvocab verify`")
    asked = manifest["inputs"][0]
    if sha256 and asked.get("sha256") and asked["sha256"] != sha256:
        raise InvalidInput(
            f"{folder} verified the tokens of another file, {asked.get('source')} (sha256 {asked['sha256'][:12]}, "
            f"not {sha256[:12]})"
        )
    return judge(read_records(folder), manifest["parameters"])


def join(scan: Scan, folder: str | Path) -> Scan:
    """Return a scan whose tokens have `p_max` and `verified`, null where the model was not asked; as `read_verdict`."""
    verdict = read_verdict(folder, scan.source.sha256)
    asked = verdict.tokens.unique("token", keep="first", maintain_order=True)
    answers = asked.select("p_max", "verified", id="token")
    others = asked.filter(asked["group"] != CONTROL)
    facts = VerifiedFacts(
        run=str(folder),
        n_asked=len(asked),
        n_verified=int(others["verified"].sum()),
        thresholds=verdict.thresholds,
        precision=verdict.precision,
        recall=verdict.recall,
        n_missed=verdict.n_missed,
    )
    return replace(scan, verified=facts, tokens=scan.tokens.join(answers, on="id", how="left", maintain_order="left"))
