"""Commands on checkpoints: scan, check, verify, corpus, vocabulary, neighbours, centroid, diff, repair."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import darkvocab

from .. import reports
from ..errors import InvalidInput, one_of
from ..landing import check_place, write_whole
from ..memory import give_back
from . import shell
from .shell import announce_compilation, app, progress_bar, put, say, watched

if TYPE_CHECKING:
    from ..checkpoints.scan_result import Scan


@app.command(no_args_is_help=True)
def scan(
    source: str,
    tokens: str | None,
    show: int,
    csv: Path | None,
    html: Path | None,
    dry_run: bool,
    as_json: bool,
    **read: Any,
) -> None:
    from ..checkpoints.scan_result import check_which

    if dry_run:
        from ..checkpoints.plan import plan

        planned = plan(source, **{name: read[name] for name in ("tensor", "tokenizer", "checksum")})
        put(as_json, reports.print_plan, planned)
        return
    check_which(tokens)
    for path in filter(None, (csv, html)):
        check_place(path, source)
    scanned = watched("reading", darkvocab.scan, source, in_bytes=True, **read)
    give_back()
    if csv is not None:
        scanned.write_tokens(csv, tokens)
    if html is not None:
        reports.write_page(scanned, html, command=shlex.join(["darkvocab", *sys.argv[1:]]))
        say(f"open {html}")
    put(as_json, reports.print_scan, scanned, show, data=lambda: scanned.to_json(tokens))


@app.command(no_args_is_help=True)
def check(
    source: str | None,
    policy: Path | None,
    print_policy: bool,
    show: int,
    junit: Path | None,
    sarif: Path | None,
    model_card: str | None,
    suppress: list[str] | None,
    suppress_which: str,
    as_json: bool,
    **read: Any,
) -> None:
    from ..checkpoints.check import parse_suppressed
    from ..checkpoints.policy import Policy, default_policy

    if print_policy:
        print(default_policy(), end="")
        return
    if source is None:
        raise InvalidInput("which checkpoint? give a SOURCE, or --print-policy")
    if as_json and model_card == "-":
        raise InvalidInput("--json and --model-card - both print; give the card a file")
    held_against = Policy() if policy is None else Policy.read(policy)
    parse_suppressed(suppress_which)
    lists = [_form_and_file(asked) for asked in suppress or []]
    card = None if model_card in (None, "-") else Path(model_card)
    for path in filter(None, (junit, sarif, card, *(path for _, path in lists))):
        check_place(path, source)
    scanned = watched("reading", darkvocab.scan, source, in_bytes=True, **read)
    verdict = darkvocab.check(scanned, held_against).to_json()
    for file, content in ((junit, reports.findings.junit), (sarif, reports.findings.sarif)):
        if file is not None:
            write_whole(file, content(verdict))
    if lists:
        _suppress(scanned, suppress_which, lists)
    if card is not None:
        write_whole(card, reports.findings.model_card(verdict, show).encode())
    if model_card == "-":
        print(reports.findings.model_card(verdict, show), end="")
    else:
        put(as_json, reports.findings.print_verdict, verdict, show)
    if not verdict["passed"]:
        raise typer.Exit(shell.FINDINGS)


def _suppress(scanned: Scan, which: str, lists: list[tuple[str, Path]]) -> None:
    """Write the ids to suppress in each form, and say which special tokens are spared."""
    from ..checkpoints.check import to_suppress

    ids, spared = to_suppress(scanned, which)
    for form, path in lists:
        write_whole(path, reports.findings.suppression(form, ids))
    if spared:
        named = ", ".join(str(token) for token in spared[:12]) + (", ..." if len(spared) > 12 else "")
        say(f"not suppressed: {len(spared):,} special tokens whose names are not reserved ({named})")


def _form_and_file(asked: str) -> tuple[str, Path]:
    form, _, path = asked.partition(":")
    forms = reports.findings.SUPPRESSIONS
    if form not in forms or not path:
        raise InvalidInput(f"--suppress takes FORMAT:FILE, with FORMAT one of {', '.join(forms)}; got {asked!r}")
    return form, Path(path)


@app.command(no_args_is_help=True)
def verify(source: str, out: Path | None, show: int, as_json: bool, **settings: Any) -> None:
    verdict = watched("asking", darkvocab.verify, source, out, say=say, **settings)
    written = darkvocab.report(out) if out else []
    put(as_json, reports.verification.print_verdict, verdict, show, data=verdict.to_json)
    say(f"open {written[0]}" if written else "nothing was kept: --out DIR lands every answer")


@app.command(no_args_is_help=True)
def corpus(
    files: list[str], out: Path | None, show: int, csv: Path | None, fail_on: str | None, as_json: bool, **settings: Any
) -> None:
    from ..measures.counts import COUNTS_FILE, FATAL
    from ..runs.records import write_csv

    fatal = [one_of(kind, "kind of token", FATAL) for kind in fail_on.split(",")] if fail_on else []
    if "verified" in fatal and not settings["verified"]:
        raise InvalidInput("--fail-on verified needs a run of verify, given as --verified")
    counts = watched("counting", darkvocab.corpus, files, out, in_bytes=True, say=say, **settings)
    if csv is not None:
        write_csv(csv, counts.occurring(), *files)
    put(as_json, reports.print_counts, counts, show, data=counts.to_json)
    if out is not None:
        say(f"counts of all tokens: {out / COUNTS_FILE}, which `darkvocab scan --counts` takes")
    if any(counts.kinds()[kind]["n_occurring"] for kind in fatal):
        raise typer.Exit(shell.FINDINGS)


@app.command(no_args_is_help=True)
def vocabulary(tokenizer: str, tokens: str | None, seconds: float, show: int, csv: Path | None, as_json: bool) -> None:
    from ..measures.vocabulary import check_categories
    from ..measures.vocabulary import vocabulary as explained
    from ..runs.records import write_csv
    from ..sources.tokenizer import open_tokenizer

    check_categories(tokens or "all")
    if csv is not None:
        check_place(csv, tokenizer)
    with progress_bar("reading", in_bytes=True) as progress:
        opened = open_tokenizer(tokenizer, progress)
    with progress_bar("tokens") as progress:
        words = explained(opened, seconds=seconds, round_trip=True, progress=progress)
    if csv is not None:
        write_csv(csv, words.listed(tokens or "all"))
    put(as_json, reports.print_vocabulary, words, show, data=lambda: words.to_json(tokens))


@app.command(no_args_is_help=True)
def neighbours(
    source: str,
    touching: float,
    touching_unit: str,
    strict: bool,
    show: int,
    csv: Path | None,
    as_json: bool,
    **read: Any,
) -> None:
    within = darkvocab.numerics.Touching(touching, touching_unit, strict)
    near = watched("reading", darkvocab.neighbourhood, source, within, in_bytes=True, **read)
    if csv is not None:
        near.write_tokens(csv)
    put(as_json, reports.print_neighbourhood, near.report, show)


@app.command(no_args_is_help=True)
def centroid(source: str, output: Path, as_json: bool, **read: Any) -> None:
    announce_compilation()
    put(as_json, reports.print_centroid, darkvocab.centroid(source, output, **read))


@app.command(no_args_is_help=True)
def diff(a: str, b: str, show: int, csv: Path | None, exit_code: bool, as_json: bool, **settings: Any) -> None:
    compared = watched("reading", darkvocab.diff, a, b, in_bytes=True, **settings)
    if csv is not None:
        compared.write_csv(csv)
    put(as_json, reports.print_diff, compared.to_json(), show)
    if exit_code and compared.differs:
        raise typer.Exit(shell.FINDINGS)


@app.command(no_args_is_help=True)
def repair(source: str, output: Path, as_json: bool, **settings: Any) -> None:
    in_bytes = settings["how"] != "merges"
    repaired = watched("repairing", darkvocab.repair, source, output, in_bytes=in_bytes, **settings)
    put(as_json, reports.print_repair, repaired)
