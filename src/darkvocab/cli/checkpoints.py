"""Commands on checkpoints: scan, centroid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import darkvocab

from .shell import Json, announce_compilation, app, command, print_json, progress_bar

Tensor = Annotated[
    str | None,
    typer.Option(help="Take this tensor instead of the one found; NAME[ROW] of a history.", show_default=False),
]
GridName = Annotated[
    str | None,
    typer.Option(
        help="Round to this grid first: bfloat16, float16, float32, float8_e4m3fn, float8_e5m2.", show_default=False
    ),
]
Bitwise = Annotated[bool, typer.Option("--bitwise", help="Compare bit patterns, so that -0.0 is not 0.0.")]
Tokenizer = Annotated[
    str | None, typer.Option(help='A tokenizer.json to name tokens by; "none" for ids only.', show_default=False)
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A .safetensors, .bin, .pt, .pth, .gguf, .npy or .npz file, a model folder, or org/name[@revision][/file] "
        "on the Hugging Face Hub.",
        metavar="SOURCE",
        show_default=False,
    ),
]


@app.command(no_args_is_help=True)
@command
def scan(
    source: SourceArgument,
    tensor: Tensor = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    tokenizer: Tokenizer = None,
    checksum: Annotated[
        bool, typer.Option("--sha256/--no-sha256", help="Hash the weights file, which reads all of it.")
    ] = True,
    show: Annotated[int, typer.Option(help="Tokens to print of each black hole.", min=1)] = 12,
    csv: Annotated[
        Path | None, typer.Option(help="Also write every token of a black hole to this CSV.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be read; read headers only.")] = False,
    as_json: Json = False,
) -> None:
    """Census of a checkpoint: which tokens share an embedding row, bit for bit?

    Of a model on the Hub only the embedding's bytes are read.

    Example: darkvocab scan path/to/model --grid bfloat16
    """
    if dry_run:
        from ..experiments.plan import plan

        found = plan(source, tensor=tensor, tokenizer=tokenizer, checksum=checksum)
        if as_json:
            print_json(found)
        else:
            from ..reports.tables import console, print_plan

            print_plan(found, console())
        return
    announce_compilation()
    with progress_bar("reading", in_bytes=True) as progress:
        report = darkvocab.scan(
            source, tensor=tensor, grid=grid, bitwise=bitwise, tokenizer=tokenizer, checksum=checksum, progress=progress
        )
    if csv is not None:
        from ..experiments.scan import write_tokens

        write_tokens(report, csv)
    if as_json:
        print_json(report)
    else:
        from ..reports.tables import console, print_scan

        print_scan(report, console(), show)


@app.command(no_args_is_help=True)
@command
def centroid(
    source: SourceArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.", show_default=False)],
    tensor: Tensor = None,
    grid: GridName = None,
    bitwise: Bitwise = False,
    as_json: Json = False,
) -> None:
    """Write the population-weighted mean of the black-hole rows: a base for `sweep`, float32, key `centroid`.

    Example: darkvocab centroid path/to/model -o centroid.safetensors
    """
    announce_compilation()
    made = darkvocab.centroid(source, output, tensor=tensor, grid=grid, bitwise=bitwise)
    if as_json:
        print_json(made)
    else:
        from ..matrix import printable

        facts = made["provenance"]
        print(
            f"{printable(made['path'])}: {made['hidden_dim']:,} components, norm {made['norm']:.6f}, the mean of "
            f"{facts['black_hole_population']:,} tokens in {facts['n_black_holes']:,} black holes on {facts['grid']}"
        )
