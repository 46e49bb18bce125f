"""Commands on checkpoints: scan, check, verify, corpus, vocabulary, neighbours, centroid, diff, repair."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import darkvocab

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
    """Which tokens did a checkpoint never learn, or too little, which share a row, bit for bit, and why?

    Of a model on the Hub only the embedding's bytes are read.

    Example: darkvocab scan path/to/model --tokens graded --csv graded.csv
    """
    from ..checkpoints.scan_result import check_which
    from ..reports.checkpoints import print_plan, print_scan

    if dry_run:
        from ..checkpoints.plan import plan

        put(as_json, print_plan, plan(source, **{name: read[name] for name in ("tensor", "tokenizer", "checksum")}))
        return
    check_which(tokens)
    for path in filter(None, (csv, html)):
        check_place(path, source)
    scanned = watched("reading", darkvocab.scan, source, in_bytes=True, **read)
    give_back()
    if csv is not None:
        scanned.write_tokens(csv, tokens)
    if html is not None:
        from ..reports.atlas import write_page

        write_page(scanned, html, command=shlex.join(["darkvocab", *sys.argv[1:]]))
        say(f"open {html}")
    put(as_json, print_scan, scanned, show, data=lambda: scanned.to_json(tokens))


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
    """A gate for releases: hold a checkpoint against a policy.

    Exits with 1 where a rule of severity error finds something. Example: darkvocab check path/to/model --junit dark.xml
    """
    from ..checkpoints.check import parse_suppressed
    from ..checkpoints.policy import Policy, default_policy
    from ..reports import findings

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
    for file, content in ((junit, findings.junit), (sarif, findings.sarif)):
        if file is not None:
            write_whole(file, content(verdict))
    if lists:
        _suppress(scanned, suppress_which, lists)
    if card is not None:
        write_whole(card, findings.model_card(verdict, show).encode())
    if model_card == "-":
        print(findings.model_card(verdict, show), end="")
    else:
        put(as_json, findings.print_verdict, verdict, show)
    if not verdict["passed"]:
        raise typer.Exit(shell.FINDINGS)


def _suppress(scanned: Scan, which: str, lists: list[tuple[str, Path]]) -> None:
    """Write the ids to suppress in each form, and say which special tokens are spared."""
    from ..checkpoints.check import to_suppress
    from ..reports.findings import suppression

    ids, spared = to_suppress(scanned, which)
    for form, path in lists:
        write_whole(path, suppression(form, ids))
    if spared:
        named = ", ".join(str(token) for token in spared[:12]) + (", ..." if len(spared) > 12 else "")
        say(f"not suppressed: {len(spared):,} special tokens whose names are not reserved ({named})")


def _form_and_file(asked: str) -> tuple[str, Path]:
    from ..reports.findings import SUPPRESSIONS

    form, _, path = asked.partition(":")
    if form not in SUPPRESSIONS or not path:
        raise InvalidInput(f"--suppress takes FORMAT:FILE, with FORMAT one of {', '.join(SUPPRESSIONS)}; got {asked!r}")
    return form, Path(path)


@app.command(no_args_is_help=True)
def verify(source: str, out: Path | None, show: int, as_json: bool, **settings: Any) -> None:
    """Ask the model itself: which tokens can it not repeat, and how many of them did the weights not name?

    Example: darkvocab verify path/to/model --out runs/verify
    """
    from ..reports.verification import print_verdict

    verdict = watched("asking", darkvocab.verify, source, out, say=say, **settings)
    written = darkvocab.report(out) if out else []
    put(as_json, print_verdict, verdict, show, data=verdict.to_json)
    say(f"open {written[0]}" if written else "nothing was kept: --out DIR lands every answer")


@app.command(no_args_is_help=True)
def corpus(
    files: list[str], out: Path | None, show: int, csv: Path | None, fail_on: str | None, as_json: bool, **settings: Any
) -> None:
    """Count the tokens of your texts: which untrained, weak or verified ones do they hold, and where?

    Exits with 1 where --fail-on names what occurs. Example: darkvocab corpus data.jsonl --model path/to/model
    """
    from ..measures.counts import COUNTS, FATAL
    from ..reports.checkpoints import print_counts
    from ..runs.records import write_csv

    fatal = [one_of(kind, "kind of token", FATAL) for kind in fail_on.split(",")] if fail_on else []
    if "verified" in fatal and not settings["verified"]:
        raise InvalidInput("--fail-on verified needs a run of verify, given as --verified")
    counts = watched("counting", darkvocab.corpus, files, out, in_bytes=True, say=say, **settings)
    if csv is not None:
        write_csv(csv, counts.occurring(), *files)
    put(as_json, print_counts, counts, show, data=counts.to_json)
    if out is not None:
        say(f"counts of all tokens: {out / COUNTS}, which `darkvocab scan --counts` takes")
    if any(counts.kinds()[kind]["n_occurring"] for kind in fatal):
        raise typer.Exit(shell.FINDINGS)


@app.command(no_args_is_help=True)
def vocabulary(tokenizer: str, tokens: str | None, seconds: float, show: int, csv: Path | None, as_json: bool) -> None:
    """Which tokens of a tokenizer can a text reach, which cannot it, and why? Needs no weights.

    Reachability holds for the library that runs the tokenizer, which is named; where two apply, both are asked.

    Example: darkvocab vocabulary path/to/tokenizer.json --tokens unreachable --csv unreachable.csv
    """
    from ..measures.vocabulary import check_categories
    from ..measures.vocabulary import vocabulary as explained
    from ..reports.checkpoints import print_vocabulary
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
    put(as_json, print_vocabulary, words, show, data=lambda: words.to_json(tokens))


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
    """Which tokens touch: pairs, components, degrees, and the cluster around the black holes ("frozen smoke").

    Example: darkvocab neighbours path/to/model --touching 2 --csv touching.csv
    """
    from ..reports.checkpoints import print_neighbourhood

    within = darkvocab.numerics.Touching(touching, touching_unit, strict)
    near = watched("reading", darkvocab.neighbourhood, source, within, in_bytes=True, **read)
    if csv is not None:
        near.write_tokens(csv)
    put(as_json, print_neighbourhood, near.report, show)


@app.command(no_args_is_help=True)
def centroid(source: str, output: Path, as_json: bool, **read: Any) -> None:
    """Write the population-weighted mean of the black-hole rows: a base for `sweep`, float32, key `centroid`.

    Example: darkvocab centroid path/to/model -o centroid.safetensors
    """
    from ..reports.checkpoints import print_centroid

    announce_compilation()
    put(as_json, print_centroid, darkvocab.centroid(source, output, **read))


@app.command(no_args_is_help=True)
def diff(a: str, b: str, show: int, csv: Path | None, exit_code: bool, as_json: bool, **settings: Any) -> None:
    """Compare two checkpoints row by row: equal rows, how far the others moved, what became of each black hole.

    Example: darkvocab diff base-model fine-tuned-model --csv moved.csv
    """
    from ..reports.checkpoints import print_diff

    compared = watched("reading", darkvocab.diff, a, b, in_bytes=True, **settings)
    if csv is not None:
        compared.write_csv(csv)
    put(as_json, print_diff, compared.to_json(), show)
    if exit_code and compared.differs:
        raise typer.Exit(shell.FINDINGS)


@app.command(no_args_is_help=True)
def repair(source: str, output: Path, as_json: bool, **settings: Any) -> None:
    """Copy a safetensors checkpoint, with fresh rows for tokens that were never trained; every other byte is the same.

    What was written is compared with the source, and its census taken.
    Example: darkvocab repair path/to/model -o repaired --how pieces
    """
    from ..reports.checkpoints import print_repair

    in_bytes = settings["how"] != "merges"
    put(as_json, print_repair, watched("repairing", darkvocab.repair, source, output, in_bytes=in_bytes, **settings))
