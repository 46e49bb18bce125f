"""The command line: usage, exit codes, what stands on stdout, and readers that go away."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from darkvocab.cli import shell as command_line

FULL = Path("/dev/full")
HOLES = np.array([[1, 2], [1, 2], [3, 4]], np.float32)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nothing"],
        ["nothing"],
        ["scan"],
        ["scan", "a.npy", "--nothing"],
        ["scan", "a.npy", "b.npy"],
        ["scan", "a.npy", "--show", "0"],
        ["scan", "a.npy", "--show", "many"],
        ["centroid", "a.npy"],
        ["sweep", "--sigma"],
        ["sweep", "--tokens", "10"],
        ["sweep", "--sigma", "0", "--tokens", "1.5"],
        ["sweep", "--sigma", "0", "--nothing"],
        ["reproduce"],
        ["report"],
    ],
)
def test_usage_that_is_wrong_ends_with_2(cli, arguments):
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "Usage: " in result.err or "requires an argument" in result.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tokens", "-5"], "n_tokens must be >= 0, got -5"),
        (["--tokens", "-1"], "n_tokens must be >= 0"),
        (["--trials", "0"], "trials must be >= 1, got 0"),
        (["--dim", "0"], "dim must be >= 1, got 0"),
        (["--workers", "0"], "workers must be >= 1, got 0"),
        (["--seed", "-1"], "seed must be from 0 to 2**64 - 1, got -1"),
        (["--seed", str(2**64)], "seed must be from 0 to 2**64 - 1"),
        (["--grid", "bf16"], "unknown grid 'bf16'; choose one of bfloat16"),
        (["--spacing", "cubic"], "unknown spacing 'cubic'; choose linear or log"),
        (["--arithmetic", "float8"], "unknown arithmetic 'float8'; choose one of float32, exact"),
        (["--sampler", "fast"], "unknown sampler 'fast'; choose one of sparse, dense, notebook"),
        (["--redraw-base"], "only a drawn base (random, random-unit) can be redrawn"),
    ],
)
def test_setting_that_is_wrong_is_refused_before_anything_is_made(tmp_path, refuses, arguments, says):
    refuses("sweep", "--sigma", "0", *arguments, "--out", tmp_path / "run", code=2, says=[says])
    assert not (tmp_path / "run").exists()


def test_resume_without_a_folder_is_refused(refuses):
    refuses("sweep", "--sigma", "0", "--resume", code=2, says=["--resume needs the --out folder"])


def test_recipe_that_is_none_is_refused(refuses, tmp_path):
    refuses(
        "reproduce",
        "99.9z",
        code=2,
        says=["unknown recipe '99.9z'; choose one of 12.2a, 12.4b, 13.5a, 12.1a, 11.2c, 11.2b, 11.2a, 11.2c-init"],
    )
    refuses(
        "reproduce", "12.1a", "--out", tmp_path / "run", code=2, says=["--out and --resume are for 12.2a, 12.4b, 13.5a"]
    )
    refuses("reproduce", "12.1a", "--resume", code=2, says=["leaves no records"])
    refuses("reproduce", "12.1a", "--corpus", "text", code=2, says=["12.1a trains nothing"])
    refuses("reproduce", "12.2a", "--resume", code=2, says=["--resume needs the --out folder"])


@pytest.mark.parametrize("option", ["--grid", "--tokenizer"])
def test_scan_option_that_is_wrong_is_refused(checkpoint, refuses, option):
    refuses(
        "scan", checkpoint(HOLES), option, "nothing", code={"--grid": 2, "--tokenizer": 3}[option], says=["'nothing'"]
    )


@pytest.mark.parametrize("command", [["reproduce", "12.1a"], ["sweep", "--sigma", "0", "--sampler", "notebook"]])
def test_without_torch_the_command_that_installs_it_is_named(monkeypatch, refuses, command):
    monkeypatch.setitem(sys.modules, "torch", None)
    refuses(*command, code=3, says=["pip install 'darkvocab[train]'"])


TOO_MUCH = str(10**16)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sigma", f"1e-9:2e-9:{TOO_MUCH}"],
        ["--sigma", "1e-9", "--tokens", TOO_MUCH],
        ["--sigma", "1e-9", "--dim", TOO_MUCH, "--base", "random"],
    ],
)
def test_more_than_memory_holds_is_refused(refuses, arguments):
    refuses("sweep", *arguments, code=2, says=["memory"])


# Places to write ----------------------------------------------------------------------------------------------------

WRITERS = {"csv": ["scan", "--csv"], "centroid": ["centroid", "-o"]}


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("place", ["nothing/out", "file/out", "folder"])
def test_place_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, checkpoint, refuses, contents, writer, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    path = checkpoint(HOLES)
    before = contents(tmp_path)
    result = refuses(*writer, place, path, code=2, says=[f"cannot write {place}", "choose another place"])
    assert ".partial" not in result.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("linked", [False, True])
def test_source_is_not_overwritten(tmp_path, checkpoint, refuses, contents, writer, linked):
    path = checkpoint(HOLES)
    if linked:
        os.link(path, tmp_path / "same.safetensors")
    before = contents(tmp_path)
    place = tmp_path / "same.safetensors" if linked else path
    refuses(*writer, place, path, code=2, says=[str(place)])
    assert contents(tmp_path) == before


def test_centroid_of_no_black_holes_is_refused(tmp_path, checkpoint, refuses):
    path = checkpoint([[1.0, 1.0], [1.0001, 1.0]])
    says = ["no black holes on float32", "--grid bfloat16 asks"]
    refuses("centroid", path, "-o", tmp_path / "out.safetensors", code=2, says=says)
    assert not (tmp_path / "out.safetensors").exists()


# stdout -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_json_is_all_that_stands_on_stdout(tmp_path, checkpoint, cli):
    path, run = checkpoint(HOLES), tmp_path / "run"
    asked = {
        "black_holes": ["scan", path],
        "provenance": ["centroid", path, "-o", tmp_path / "out.safetensors"],
        "records": ["sweep", "--sigma", "0,1e-9", "--tokens", 5, "--out", run],
        "summary": ["sweep", "--sigma", "0,1e-9", "--tokens", 5, "--out", run, "--resume"],
        "written": ["report", run],
        "figures": ["reproduce", "12.2a"],
    }
    for key, arguments in asked.items():
        result = cli(*arguments, "--json")
        assert result.code == 0, result.err
        assert result.out.count("\n") == 1
        assert json.loads(result.out)[key]


def test_json_of_a_process_is_all_that_stands_on_stdout(checkpoint, process):
    result = process("scan", checkpoint(HOLES), "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["populations"] == [2]


def test_an_error_leaves_stdout_empty_with_json_too(refuses):
    refuses("scan", "nothing.npy", "--json", code=3)


@pytest.mark.parametrize("arguments", [["scan"], ["scan", "--json"], ["sweep", "--sigma", "0", "--base"]])
def test_reader_that_goes_away_is_no_error(checkpoint, process, arguments):
    path = checkpoint(HOLES, centroid=np.zeros(4))
    read, write = os.pipe()
    os.close(read)
    result = process(*arguments, path, stdout=write)
    os.close(write)
    assert result.code == 0
    assert "Error" not in result.err


@pytest.mark.parametrize("arguments", [["scan"], ["scan", "--json"]])
@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk_is_an_error_in_a_sentence(checkpoint, process, arguments):
    with FULL.open("w") as full:
        result = process(*arguments, checkpoint(HOLES), stdout=full)
    assert result.code != 0
    assert re.fullmatch(r"darkvocab: .*No space left on device.*\n", result.err)


@pytest.mark.parametrize("closed", [1, 2])
def test_stream_that_is_closed_from_the_start_is_no_error(checkpoint, process, closed):
    result = process("scan", checkpoint(HOLES), "--json", closed=closed)
    assert (result.code, result.err) == (0, "")
    assert result.out == "" if closed == 1 else json.loads(result.out)["n_tokens"] == 3


# Interruptions while libraries load ---------------------------------------------------------------------------------


def test_interruption_that_a_library_swallows_still_ends_with_130(monkeypatch, refuses):
    """Libraries that catch it while they load raise what they make of it."""
    monkeypatch.setattr(command_line, "_interrupted", False)  # and set back by the end of the test

    def interrupted(*arguments, **options):
        try:
            command_line._interrupt(15, None)
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None

    monkeypatch.setattr("darkvocab.scan", interrupted)
    refuses("scan", "a.npy", code=130, says=["interrupted"])


@pytest.mark.slow
def test_what_an_interruption_leaves_half_made_goes_without_a_word(tmp_path):
    # As llvmlite's iterators do, when a kernel was being loaded.
    code = (
        "import os, signal, sys, darkvocab\n"
        "from darkvocab.cli import main\n"
        "class HalfMade:\n"
        "    def __del__(self):\n"
        "        raise AttributeError('half made')\n"
        "def wait(run):\n"
        "    kept = HalfMade()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "darkvocab.report = wait\n"
        "sys.argv = ['darkvocab', 'report', 'run']\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (130, "darkvocab: interrupted\n")
