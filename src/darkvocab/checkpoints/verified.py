"""Verified tokens of a scan: what a model said of its tokens, beside what its weights say of them."""

from dataclasses import replace
from pathlib import Path

from ..errors import InvalidInput
from ..measures.verdict import judge
from ..runs.folder import read_manifest
from ..runs.records import read_records, reading
from .scan_result import Scan


def join(scan: Scan, folder: str | Path) -> Scan:
    """Return a scan whose tokens have `p_max` and `verified` by a run of `verify`, null where it did not ask for them.

    Raises as `read_records`; InvalidInput where it is another run, or asked the model of a file with another SHA-256.
    """
    manifest = read_manifest(Path(folder))
    if manifest.get("experiment") != "verify":
        raise InvalidInput(f"{folder} holds a run of {manifest.get('experiment')}; give one of `darkvocab verify`")
    with reading(Path(folder) / "manifest.json", "the manifest of a run of verify"):
        source, theirs = manifest["inputs"][0]["source"], str(manifest["inputs"][0]["sha256"])
    if scan.source.sha256 not in (None, theirs):
        hashes = f"sha256 {theirs[:12]}, not {str(scan.source.sha256)[:12]}"
        raise InvalidInput(f"{folder} verified the tokens of another file, {source} ({hashes})")
    records = read_records(folder)
    with reading(Path(folder) / "records.parquet", "the answers of a run of verify"):
        verdict = judge(records, manifest["parameters"])
    asked = verdict.tokens.unique("token", keep="first", maintain_order=True)
    answers = asked.select("p_max", "verified", id="token")
    facts = {"run": str(folder), "n_asked": len(asked), **verdict.facts()}
    return replace(scan, verified=facts, tokens=scan.tokens.join(answers, on="id", how="left", maintain_order="left"))
