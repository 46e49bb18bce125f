"""Commands on checkpoints: scan, check, vocabulary, neighbours, centroid."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import darkvocab

from ..errors import InvalidInput
from ..landing import check_place, write_whole
from .progress import progress_bar
from .shell import FINDINGS, USAGE, DeviceName, Json, announce_compilation, app, fail, print_json, say

if TYPE_CHECKING:
    from ..checkpoints.scan_result import Scan

Tensor = Annotated[str | None, typer.Option(help="Take this tensor instead of the one found; NAME[ROW] of a history.")]
GridName = Annotated[
    str | None, typer.Option(help="Round to this grid first: bfloat16, float16, float32, float8_e4m3fn, float8_e5m2.")
]
Tokenizer = Annotated[
    str | None, typer.Option(help='A tokenizer to name tokens by, a file or folder; "none" for ids only.')
]
Checksum = Annotated[bool, typer.Option("--sha256/--no-sha256", help="Hash the weights file, which reads all of it.")]
SkipNonfinite = Annotated[
    bool, typer.Option("--skip-nonfinite", help="Leave out tokens whose row holds NaN or infinity, and say which.")
]
Bitwise = Annotated[bool, typer.Option("--bitwise", help="Compare bit patterns, so that -0.0 is not 0.0.")]
SOURCE = typer.Argument(
    help="A .safetensors, .bin, .pt, .pth, .gguf, .npy or .npz file, a model folder, or org/name[@revision][/file] "
    "on the Hugging Face Hub.",
    metavar="SOURCE",
)
SourceArgument = Annotated[str, SOURCE]


def _scanned(source: str, **options: Any) -> Scan:
    announce_compilation()
    with progress_bar("reading", in_bytes=True) as progress:
        return darkvocab.scan(source, progress=progress, **options)


@app.command(no_args_is_help=True)
def scan(
    source: SourceArgument,
    tensor: Tensor = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    tokenizer: Tokenizer = None,
    checksum: Checksum = True,
    skip_nonfinite: SkipNonfinite = False,
    tokens: Annotated[
        str | None,
        typer.Option(help="List dark, weak, graded (both) or all tokens in --json and --csv, with all that is known."),
    ] = None,
    show: Annotated[int, typer.Option(help="Tokens to print of each kind and black hole.", min=1)] = 12,
    csv: Annotated[
        Path | None,
        typer.Option(help="Also write tokens to this CSV: those of --tokens, by default all in black holes."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the page of the scan, which opens offline.")] = None,
    device: DeviceName = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be read; read headers only.")] = False,
    as_json: Json = False,
) -> None:
    """Which tokens did a checkpoint never learn, or too little, which share a row, bit for bit, and why?

    Of a model on the Hub only the embedding's bytes are read.

    Example: darkvocab scan path/to/model --tokens graded --csv graded.csv
    """
    from ..checkpoints.scan_result import check_which
    from ..reports.console import console
    from ..reports.scan import print_plan, print_scan

    if dry_run:
        from ..checkpoints.scan import plan

        planned = plan(source, tensor=tensor, tokenizer=tokenizer, checksum=checksum)
        if as_json:
            print_json(planned)
        else:
            print_plan(planned, console())
        return
    check_which(tokens)
    for path in filter(None, (csv, html)):
        check_place(path, source)
    options = {"tensor": tensor, "grid": grid, "bitwise": bitwise, "tokenizer": tokenizer, "checksum": checksum}
    options["skip_nonfinite"] = skip_nonfinite
    scanned = _scanned(source, device=device, **options)
    if csv is not None:
        scanned.write_tokens(csv, tokens)
    if html is not None:
        from ..reports.atlas import write_page

        write_page(scanned, html, command=shlex.join(["darkvocab", *sys.argv[1:]]))
        say(f"open {html}")
    if as_json:
        print_json(scanned.to_json(tokens))
    else:
        print_scan(scanned, console(), show)


@app.command(no_args_is_help=True)
def check(
    source: Annotated[str | None, SOURCE] = None,
    policy: Annotated[Path | None, typer.Option(help="What is allowed, as TOML; by default as --print-policy.")] = None,
    print_policy: Annotated[
        bool, typer.Option("--print-policy", help="Print the default policy, to start from, and do nothing else.")
    ] = False,
    tensor: Tensor = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    tokenizer: Tokenizer = None,
    checksum: Checksum = True,
    skip_nonfinite: SkipNonfinite = False,
    show: Annotated[int, typer.Option(help="Tokens to print of each finding.", min=1)] = 12,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML to this file.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Also write SARIF 2.1.0 to this file.")] = None,
    model_card: Annotated[
        str | None,
        typer.Option(help="Also write a section for the model card to this file; - prints it instead of the table."),
    ] = None,
    suppress: Annotated[
        list[str] | None,
        typer.Option(
            help="Also write the ids to suppress at sampling: bad-words:FILE or suppress-tokens:FILE (transformers), "
            "logit-bias:FILE (OpenAI, vLLM); repeat for more.",
            metavar="FORMAT:FILE",
        ),
    ] = None,
    suppress_which: Annotated[
        str, typer.Option(help="Which tokens these are, of dark, beyond-tokenizer, black-holes, unreachable.")
    ] = "dark,beyond-tokenizer,black-holes",
    device: DeviceName = "cpu",
    as_json: Json = False,
) -> None:
    """A gate for releases: hold a checkpoint against a policy.

    Exits with 1 where a rule of severity error finds something. Example: darkvocab check path/to/model --junit dark.xml
    """
    from ..checkpoints.policy import Policy, default_policy

    if print_policy:
        print(default_policy(), end="")
        return
    from ..checkpoints.check import parse_suppressed
    from ..reports import findings
    from ..reports.console import console

    if source is None:
        fail("which checkpoint? give a SOURCE, or --print-policy", USAGE)
    if as_json and model_card == "-":
        fail("--json and --model-card - both print; give the card a file", USAGE)
    held_against = Policy() if policy is None else Policy.read(policy)
    parse_suppressed(suppress_which)
    lists = [_form_and_file(asked) for asked in suppress or []]
    card = None if model_card in (None, "-") else Path(model_card)
    for path in filter(None, (junit, sarif, card, *(path for _, path in lists))):
        check_place(path, source)
    options = {"tensor": tensor, "grid": grid, "bitwise": bitwise, "tokenizer": tokenizer, "checksum": checksum}
    options["skip_nonfinite"] = skip_nonfinite
    scanned = _scanned(source, device=device, **options)
    verdict = darkvocab.check(scanned, held_against).to_json()
    if junit is not None:
        write_whole(junit, findings.junit(verdict))
    if sarif is not None:
        write_whole(sarif, findings.sarif(verdict))
    if lists:
        _suppress(scanned, suppress_which, lists)
    if card is not None:
        write_whole(card, findings.model_card(verdict, show).encode())
    if as_json:
        print_json(verdict)
    elif model_card == "-":
        print(findings.model_card(verdict, show), end="")
    else:
        findings.print_verdict(verdict, console(), show)
    if not verdict["passed"]:
        raise typer.Exit(FINDINGS)


def _suppress(scanned: Scan, which: str, lists: list[tuple[str, Path]]) -> None:
    """Write the ids to suppress in each form, and say which special tokens are spared."""
    from ..checkpoints.check import to_suppress
    from ..reports.findings import SUPPRESSIONS

    ids, spared = to_suppress(scanned, which)
    for form, path in lists:
        write_whole(path, SUPPRESSIONS[form](ids))
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
def vocabulary(
    tokenizer: Annotated[
        str,
        typer.Argument(
            help="A tokenizer.json, vocab.json (with merges.txt), vocab.txt, SentencePiece model, .tiktoken, "
            "tekken.json or .gguf file, a folder with one, or org/name[@revision][/file] on the Hugging Face Hub.",
            metavar="TOKENIZER",
        ),
    ],
    tokens: Annotated[
        str | None,
        typer.Option(help="List tokens in --json and --csv: all, or of some categories, such as unreachable,special."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="End the search after so long; the rest is unknown.", min=0)] = 120,
    show: Annotated[int, typer.Option(help="Tokens to print of each kind.", min=1)] = 12,
    csv: Annotated[Path | None, typer.Option(help="Also write tokens to this CSV: those of --tokens, or all.")] = None,
    as_json: Json = False,
) -> None:
    """Which tokens of a tokenizer can a text reach, which cannot it, and why? Needs no weights.

    Reachability holds for the library that runs the tokenizer, which is named; where two apply, both are asked.

    Example: darkvocab vocabulary path/to/tokenizer.json --tokens unreachable --csv unreachable.csv
    """
    from ..measures.vocabulary import check_categories
    from ..measures.vocabulary import vocabulary as explained
    from ..reports.console import console
    from ..reports.vocabulary import print_vocabulary
    from ..runs.records import csv_bytes
    from ..sources.tokenizer import open_tokenizer

    check_categories(tokens or "all")
    if csv is not None:
        check_place(csv, tokenizer)
    with progress_bar("reading", in_bytes=True) as progress:
        opened = open_tokenizer(tokenizer, progress)
    with progress_bar("tokens") as progress:
        words = explained(opened, seconds=seconds, round_trip=True, progress=progress)
    if csv is not None:
        write_whole(csv, csv_bytes(words.listed(tokens or "all")))
    if as_json:
        print_json(words.to_json(tokens))
    else:
        print_vocabulary(words, console(), show)


@app.command(no_args_is_help=True)
def neighbours(
    source: SourceArgument,
    touching: Annotated[float, typer.Option(help="Rows touch where no column differs by more.")] = 1,
    touching_unit: Annotated[str, typer.Option(help="Of --touching: steps or weight.")] = "steps",
    strict: Annotated[bool, typer.Option("--strict", help="Rows touch at < (not <=) --touching.")] = False,
    tensor: Tensor = None,
    grid: GridName = None,
    tokenizer: Tokenizer = None,
    show: Annotated[int, typer.Option(help="Tokens to print of each component.", min=1)] = 12,
    csv: Annotated[Path | None, typer.Option(help="Also write every token with what it touches to this CSV.")] = None,
    as_json: Json = False,
) -> None:
    """Which tokens touch: pairs, components, degrees, and the cluster around the black holes ("frozen smoke").

    Example: darkvocab neighbours path/to/model --touching 2 --csv touching.csv
    """
    from ..reports.console import console
    from ..reports.scan import print_neighbourhood

    announce_compilation()
    within = darkvocab.numerics.Touching(touching, touching_unit, strict)
    with progress_bar("reading", in_bytes=True) as progress:
        near = darkvocab.neighbourhood(source, within, tensor=tensor, grid=grid, tokenizer=tokenizer, progress=progress)
    if csv is not None:
        near.write_tokens(csv)
    if as_json:
        print_json(near.report)
    else:
        print_neighbourhood(near.report, console(), show)


@app.command(no_args_is_help=True)
def centroid(
    source: SourceArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    tensor: Tensor = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    as_json: Json = False,
) -> None:
    """Write the population-weighted mean of the black-hole rows: a base for `sweep`, float32, key `centroid`.

    Example: darkvocab centroid path/to/model -o centroid.safetensors
    """
    announce_compilation()
    written = darkvocab.centroid(source, output, tensor=tensor, grid=grid, bitwise=bitwise)
    if as_json:
        print_json(written)
    else:
        from ..text import printable

        facts = written["provenance"]
        print(
            f"{printable(written['path'])}: {written['hidden_dim']:,} components, norm {written['norm']:.6f}, "
            f"the mean of {facts['black_hole_population']:,} tokens in {facts['n_black_holes']:,} black holes "
            f"on {facts['grid']}"
        )
