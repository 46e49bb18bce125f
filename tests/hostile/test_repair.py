"""Repairs that are refused, interrupted, or written to a disk that is full or does not keep what it is given."""

import errno
import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from darkvocab.checkpoints import repair as writing

ROWS = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
ROWS[[3, 9]] = ROWS[3]


@pytest.fixture
def source(checkpoint):
    return checkpoint(ROWS, name="model/model.safetensors").parent


@pytest.fixture
def leaves_nothing(source, refuses, contents, tmp_path):
    """See a repair refuse; afterwards there is nothing that was not there before."""

    def run(*options, of=source, out=tmp_path / "out", code, says=()):
        before = contents(tmp_path)
        result = refuses("repair", of, "-o", out, *options, code=code, says=says)
        assert contents(tmp_path) == before
        return result

    return run


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--how", "magic"], "unknown how 'magic'; choose one of mean, pieces, gaussian"),
        (["--matrix", "all"], "unknown matrix 'all'"),
        (["--jitter", "0"], "jitter must be 1 to 16,777,216 steps, got 0"),
        (["--jitter", str(2**24 + 1)], "jitter must be 1 to"),
        (["--seed", "-1"], "seed must be from 0 to 2**64 - 1"),
        (["--tokens", "40"], "there is no token 40; there are 40, 0 to 39"),
        (["--tokens", "1,x"], "cannot read 'x' as tokens"),
        (["--tokens", "0-39"], "all 40 rows of embed_tokens.weight are chosen"),
        (["--tokens", "beyond-tokenizer"], "beyond-tokenizer needs a tokenizer"),
        (["--how", "pieces"], "pieces need a tokenizer"),
        (["--tensor", "nothing"], "no tensor 'nothing'"),
    ],
)
def test_choice_that_is_none_is_refused(leaves_nothing, options, says):
    leaves_nothing(*options, code=2, says=[says])


@pytest.mark.slow
def test_file_of_tokens_that_is_missing_or_holds_none_is_refused(leaves_nothing, tmp_path):
    (tmp_path / "ids.json").write_text("{}")
    leaves_nothing("--tokens", "@nothing.json", code=3, says=["nothing.json"])
    leaves_nothing("--tokens", f"@{tmp_path / 'ids.json'}", code=4, says=["must hold a list of token ids"])
    leaves_nothing("--tokenizer", "nothing.json", code=3, says=["no tokenizer at 'nothing.json'"])


def test_nothing_to_repair_is_refused(checkpoint, leaves_nothing):
    path = checkpoint(ROWS[:9], name="whole.safetensors")
    leaves_nothing(
        of=path, code=2, says=["has no such tokens (black-holes): nothing to repair; --tokens chooses others"]
    )


@pytest.mark.parametrize("place", ["model", "model/out", ".", "model/../model", "link", "link/out"])
def test_output_is_not_the_source_nor_in_it_nor_around_it(leaves_nothing, source, tmp_path, place):
    (tmp_path / "link").symlink_to(source)
    leaves_nothing(out=tmp_path / place, code=2, says=["is the source, or in it, or around it"])


def test_place_that_is_taken_is_refused(leaves_nothing, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for place in ("full", "full/mine"):
        leaves_nothing(out=tmp_path / place, code=2, says=["is there already; choose another place"])
    leaves_nothing(out=tmp_path / "nothing" / "out", code=2, says=["cannot write", "choose another place"])


def test_empty_folder_is_taken(source, cli, tmp_path):
    (tmp_path / "out").mkdir()
    assert cli("repair", source, "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["npy", "bin"])
def test_other_formats_are_refused_with_what_to_do(leaves_nothing, tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "npy":
        np.save(path, ROWS)
    else:
        torch = pytest.importorskip("torch")
        torch.save({"wte.weight": torch.from_numpy(ROWS)}, path)
    leaves_nothing(of=path, code=2, says=["repair writes safetensors only", "save_pretrained"])


def test_states_of_a_history_are_not_repaired(leaves_nothing, tmp_path):
    save_file({"embedding_history": np.stack([ROWS, ROWS])}, tmp_path / "h.safetensors")
    leaves_nothing(of=tmp_path / "h.safetensors", code=2, says=["is a state of a history"])


def test_rows_that_are_scaled_are_not_repaired(leaves_nothing, tmp_path):
    rows = ROWS.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    scales = np.ones(40, np.float32)
    header = {
        "embed_tokens.weight": {"dtype": "F8_E4M3", "shape": [40, 16], "data_offsets": [0, 640]},
        "embed_tokens.weight_scale": {"dtype": "F32", "shape": [40], "data_offsets": [640, 800]},
    }
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + rows.tobytes() + scales.tobytes()
    (tmp_path / "m.safetensors").write_bytes(data)
    leaves_nothing(of=tmp_path / "m.safetensors", code=2, says=["are scaled by embed_tokens.weight_scale"])


def test_source_that_is_missing_or_truncated_is_refused(leaves_nothing, source):
    leaves_nothing(of="nothing", code=3, says=["no file or folder 'nothing'"])
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    leaves_nothing(code=4, says=["truncated"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_no_numbers_can_be_repaired_but_not_learned_from(
    checkpoint, cli, leaves_nothing, tmp_path, value
):
    rows = ROWS.copy()
    rows[5, 2] = rows[20] = value
    path = checkpoint(rows, name="bad.safetensors")
    leaves_nothing(of=path, code=4, says=["2 of 40 rows", "tokens 5, 20"])
    leaves_nothing("--tokens", "5", of=path, code=4, says=["are to be kept hold NaN or infinity: tokens 20"])
    result = cli("repair", path, "-o", tmp_path / "out", "--tokens", "5,20", "--json")
    assert result.code == 0
    assert json.loads(result.out)["matrices"][0]["black_holes"] == {"before": None, "after": [1, 2]}
    assert "rows that were no numbers" in cli("repair", path, "-o", tmp_path / "o2", "--tokens", "5,20").out


def test_tokenizer_larger_than_the_matrix_gives_no_pieces_beyond_it(checkpoint, cli, tmp_path):
    path = checkpoint(ROWS[:3], name="small/model.safetensors")
    vocab = {"ab": 0, "b": 1, "c": 2, "a": 7}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
    (path.parent / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    result = cli("repair", path.parent, "-o", tmp_path / "out", "--tokens", "0", "--how", "pieces", "--json")
    assert json.loads(result.out)["matrices"][0]["without_pieces"] == [0]


def test_names_cannot_leave_the_terminal_other_than_it_was(checkpoint, cli, tmp_path):
    path = checkpoint(ROWS, name="m/model.safetensors", tensor="\x1b[2J.embed_tokens.weight")
    (path.parent / "a\x1b[2Jb").write_text("")
    result = cli("repair", path.parent, "-o", tmp_path / "out")
    assert result.code == 0
    assert result.out.replace("\n", "").isprintable()


def test_the_source_is_left_alone(source, cli, contents, tmp_path):
    before = contents(source)
    for options in ([], ["--link"], ["--dry-run"], ["--how", "gaussian"]):
        assert cli("repair", source, "-o", tmp_path / f"out{len(options)}{options[-1:]}", *options).code == 0
        assert contents(source) == before


# Disks and interruptions --------------------------------------------------------------------------------------------


def test_full_disk_ends_with_130_and_leaves_nothing(source, process, tmp_path, contents):
    before = contents(tmp_path)
    result = process("repair", source, "-o", tmp_path / "out", largest=1000)
    assert result.code == 130
    assert "no space left to write" in result.err
    assert "make room" in result.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("at", ["copy_file", "_write_rows", "_alike", "_same_bytes"])
def test_interruption_leaves_nothing(leaves_nothing, monkeypatch, at):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, at, interrupted)
    leaves_nothing(code=130, says=["interrupted"])


@pytest.mark.parametrize("where", ["a row that is kept", "before the rows", "after the rows", "at the end"])
def test_disk_that_does_not_keep_what_it_is_given_is_found_out(checkpoint, leaves_nothing, monkeypatch, where):
    path = checkpoint(ROWS, name="m.safetensors", **{"a": np.ones(3), "z": np.ones(3)})
    size = path.stat().st_size
    # The library orders tensors of one type by name: a, embed_tokens.weight, z.
    places = {"a row that is kept": -700, "before the rows": -12 - 40 * 64 - 1, "after the rows": -12, "at the end": -1}
    written = writing._write_rows

    def worn(tensor, copy, tokens, words):
        written(tensor, copy, tokens, words)
        with copy.open("r+b") as file:
            file.seek(size + places[where])
            file.write(b"\x77")

    monkeypatch.setattr(writing, "_write_rows", worn)
    leaves_nothing(of=path, code=4, says=["is not what was meant; nothing is left of it: check the disk"])


def test_links_between_file_systems_are_refused(source, leaves_nothing, monkeypatch):
    (source / "config.json").write_text("{}")

    def apart(*arguments):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", apart)
    leaves_nothing("--link", code=2, says=["cannot be linked to from there", "go without --link"])


def test_copies_are_whole_where_the_system_cannot_copy_by_itself(source, cli, contents, monkeypatch, tmp_path):
    assert cli("repair", source, "-o", tmp_path / "one").code == 0

    def unable(*arguments):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", unable)
    assert cli("repair", source, "-o", tmp_path / "other").code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
