"""The neighbours command: streams, exit codes, and texts that others chose."""

import json

import numpy as np
import pytest

TEXTS = ["plain", "\x1b[2J\u202e", "[red]a[/red]"]


@pytest.mark.slow
def test_the_command_prints_a_table_or_json_and_writes_a_csv(model, cli, tmp_path):
    folder = model(np.array([[1, 1], [1, 1], [1, 1 + 2**-23], [5, 5]]), [*TEXTS, "far"])
    table = cli("neighbours", folder, "--csv", tmp_path / "t.csv")
    assert (table.code, table.err) == (0, "")
    assert "1       3     2            1  plain  \\x1b[2J\\u202e  [red]a[/red]\n" in table.out
    assert (tmp_path / "t.csv").read_text("utf-8").splitlines()[2] == "1,\\x1b[2J\\u202e,1,1,3,1,2,core"
    report = json.loads(cli("neighbours", folder, "--json").out)
    assert report["components"][0]["tokens"] == TEXTS
    strict = json.loads(
        cli("neighbours", folder, "--touching", 4, "--touching-unit", "weight", "--strict", "--json").out
    )
    assert (strict["touching"], strict["n_pairs"]) == ("< 4 weight", 1)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--touching", "-1"], 2, "must be a finite length >= 0"),
        (["--touching", "nan"], 2, "must be a finite length >= 0"),
        (["--touching-unit", "ulps"], 2, "unknown unit 'ulps' of touching; choose one of"),
        (["--grid", "bf16"], 2, "unknown grid 'bf16'"),
        (["--tensor", "x"], 2, "no tensor 'x'"),
        (["--csv", "SOURCE"], 2, "is part of the source"),
        (["--tokenizer", "none.json"], 3, "no tokenizer at"),
    ],
)
def test_what_cannot_be_is_refused(checkpoint, refuses, arguments, code, says):
    path = checkpoint(np.eye(3))
    refuses(
        "neighbours", path, *(str(path) if word == "SOURCE" else word for word in arguments), code=code, says=[says]
    )
