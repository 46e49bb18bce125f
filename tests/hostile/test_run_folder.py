"""Run folders: what is refused and left alone, and what an interruption or a full disk leaves behind."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

import polars as pl
import pytest

from darkvocab.landing import write_whole
from darkvocab.runs import folder as run_folder
from darkvocab.runs.records import RunFolder
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import Sweep, SweepRecord
from darkvocab.snowballs.run import Cost
from darkvocab.snowballs.settings import manifest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, locks and limits of POSIX")

SIGMAS = "1e-9:3e-9:16"
SWEEP = ("sweep", "--tokens", "50", "--sigma", SIGMAS)
SETTINGS = {"n_tokens": 50}
LONG = ("sweep", "--sigma", "1e-9:5e-9:80", "--sampler", "dense", "--tokens", "100")  # most of a second, sixteen parts


@pytest.fixture(scope="module", autouse=True)
def curves():
    """Expected curves by the settings they follow from: each is made once, as it takes a second. Sweeps that are killed
    have their bytes compared over processes, each of which makes its own."""
    result = {}
    expected = Sweep.expected

    def once(self):
        settings = self.sigmas, self.n_tokens, self.grid, self.distribution, self.arithmetic, self.seed, self.sampler
        key = repr(settings), self.base.vector.tobytes()
        if key not in result:
            result[key] = expected(self)
        return result[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sweep, "expected", once)
        yield


@pytest.fixture(scope="module")
def finished(cli, curves, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert cli(*SWEEP, "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(cli, tmp_path_factory, contents):
    """Return what the long run leaves behind when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert cli(*LONG, "--out", folder).code == 0
    return contents(folder)


@pytest.fixture
def complete(finished, tmp_path):
    """A finished run to change."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def unfinished(complete):
    """The same, interrupted after its last part landed."""
    for name in ("records.csv", "records.parquet", "report.html"):
        (complete / name).unlink()
    shutil.rmtree(complete / "figures")
    rewrite(complete, status="interrupted")
    return complete


def rewrite(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2) + "\n")


def part(folder, number=1):
    """The landed part of this number."""
    (path,) = folder.glob(f"records/part-{number:06d}*.parquet")
    return path


# A folder that is not ours ------------------------------------------------------------------------------------------


def test_folder_that_is_a_file_is_refused(tmp_path, refuses):
    (tmp_path / "file").write_text("mine")
    refuses(*SWEEP, "--out", tmp_path / "file", code=2, says=["is a file; choose another --out"])
    refuses(*SWEEP, "--out", tmp_path / "file" / "run", code=2, says=["choose another --out"])
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_that_is_a_link_to_nothing_is_refused(tmp_path, refuses):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    refuses(*SWEEP, "--out", tmp_path / "link", code=2, says=["choose another --out"])
    assert not (tmp_path / "nothing").exists()


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path, refuses, contents):
    (tmp_path / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    refuses(*SWEEP, "--out", tmp_path, code=2, says=["holds other files (mine.txt); choose another --out"])
    refuses(*SWEEP, "--out", tmp_path, "--resume", code=2, says=["holds other files"])
    assert contents(tmp_path) == before


def test_temporary_files_of_others_are_left_alone(tmp_path, refuses, contents):
    (tmp_path / "work" / "deep").mkdir(parents=True)
    (tmp_path / "work" / "deep" / ".film.partial").write_text("mine")
    before = contents(tmp_path)
    refuses(*SWEEP, "--out", tmp_path, code=2, says=["holds other files"])
    assert contents(tmp_path) == before


def test_records_of_others_are_left_alone(tmp_path, refuses, contents):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    refuses(*SWEEP, "--out", tmp_path, code=2, says=["holds other files (records)"])
    assert contents(tmp_path) == before


ANOTHER = {
    "sigmas": (["--sigma", "1e-9:3e-9:15"], "parameters.sigmas was"),
    "tokens": (["--tokens", "51"], "parameters.n_tokens was 50, now 51"),
    "trials": (["--trials", "2"], "parameters.trials was 1, now 2"),
    "seed": (["--seed", "7"], "seed was 42, now 7"),
    "base": (["--base", "random"], "parameters.base was"),
    "grid": (["--grid", "float16"], "parameters.grid was"),
    "sampler": (["--sampler", "dense"], "parameters.sampler was"),
    "epsilon": (["--epsilon", "1e-5"], "parameters.epsilon was null, now 1e-05"),
}


@pytest.mark.slow
@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize(("change", "says"), ANOTHER.values(), ids=ANOTHER)
def test_folder_with_another_run_is_refused_and_left_alone(finished, refuses, contents, change, says, resume):
    before = contents(finished)
    refuses(*SWEEP, *change, "--out", finished, *resume, code=2, says=["holds another run", says])
    assert contents(finished) == before


@pytest.mark.slow
def test_folder_with_a_run_from_another_base_of_that_name_is_refused(tmp_path, checkpoint, cli, refuses):
    def run(component):
        path = checkpoint(None, name="base.safetensors", centroid=[component, 1.0])
        return "sweep", "--sigma", "0", "--tokens", 5, "--base", path, "--out", tmp_path / "run"

    assert cli(*run(0.0)).code == 0
    refuses(*run(0.5), "--resume", code=2, says=["holds another run", "inputs was"])


@pytest.mark.slow
def test_folder_with_this_run_is_refused_without_resume_and_left_alone(complete, refuses, contents):
    for status in ("complete", "interrupted", "running"):
        rewrite(complete, status=status)
        before = contents(complete)
        refuses(*SWEEP, "--out", complete, code=2, says=[f"holds this run already ({status}); --resume goes on"])
        assert contents(complete) == before


def test_folder_in_use_by_another_process_is_refused_and_left_alone(tmp_path, process, contents):
    sweep = Sweep([1e-9, 2e-9], n_tokens=5)
    with RunFolder(tmp_path / "run", SweepRecord, manifest(sweep), records_per_part=Cost(sweep).part_size):
        before = contents(tmp_path)
        result = process("sweep", "--sigma", "1e-9,2e-9", "--tokens", 5, "--out", tmp_path / "run", "--resume")
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"darkvocab: {tmp_path / 'run'} is in use by another process")
        assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\x00", '{"schema_version": 99}'])
def test_manifest_that_is_none_is_refused_and_left_alone(unfinished, refuses, contents, text):
    (unfinished / "manifest.json").write_text(text)
    before = contents(unfinished)
    refuses(*SWEEP, "--out", unfinished, "--resume", code=4, says=[str(unfinished / "manifest.json")])
    assert contents(unfinished) == before


# Parts that are not ours --------------------------------------------------------------------------------------------


def with_another_sigma(path):
    """A part's bytes with one bit changed, such that polars reads another sigma and notices nothing."""
    content, frame = path.read_bytes(), pl.read_parquet(path)
    for result in re.finditer(re.escape(struct.pack("<d", frame["sigma"][0])), content):
        changed = bytearray(content)
        changed[result.start()] ^= 1
        if not pl.read_parquet(bytes(changed)).equals(frame):
            return changed
    raise AssertionError("sigma stands nowhere as it is")


def damaged(folder, change):
    path = part(folder)
    if change == "empty":
        path.write_bytes(b"")
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif change == "text":
        path.write_text("not parquet")
    elif change == "folder":
        path.unlink()
        path.mkdir()
    elif change == "other columns":
        pl.DataFrame({"sigma": [1.0]}).write_parquet(path)
    elif change == "one column more":
        pl.read_parquet(path).with_columns(more=1).write_parquet(path)
    elif change == "another part":
        shutil.copy(part(folder, 2), path)
    elif change == "no rows":
        pl.read_parquet(path).head(0).write_parquet(path)
    elif change == "another seed":
        pl.read_parquet(path).with_columns(seed=pl.lit(7, pl.Int64)).write_parquet(path)
    elif change == "another count":
        pl.read_parquet(path).with_columns(pl.col("n_black_holes") + 1).write_parquet(path)
    elif change == "one bit":
        path.write_bytes(with_another_sigma(path))
    return path


@pytest.mark.parametrize(
    "change",
    [
        "empty",
        "truncated",
        "text",
        "folder",
        "other columns",
        "one column more",
        "another part",
        "no rows",
        "another seed",
        "another count",
        "one bit",
    ],
)
def test_part_that_is_not_ours_is_named(unfinished, refuses, change):
    path = damaged(unfinished, change)
    refuses(*SWEEP, "--out", unfinished, "--resume", code=4, says=[str(path), "delete it and --resume"])
    assert not (unfinished / "records.csv").exists()


@pytest.mark.slow
def test_part_that_was_deleted_as_told_is_drawn_again(unfinished, finished, cli, refuses, contents):
    damaged(unfinished, "truncated")
    refuses(*SWEEP, "--out", unfinished, "--resume", code=4)
    part(unfinished).unlink()
    assert cli(*SWEEP, "--out", unfinished, "--resume").code == 0
    assert contents(unfinished) == contents(finished)


@pytest.mark.parametrize("name", ["part-000016.parquet", "part-7.parquet", "mine.txt"])
def test_file_among_the_parts_that_is_none_is_named(unfinished, refuses, name):
    (unfinished / "records" / name).write_text("mine")
    refuses(*SWEEP, "--out", unfinished, "--resume", code=4, says=[f"records holds {name}", "move it away"])
    assert (unfinished / "records" / name).read_text() == "mine"
    assert not (unfinished / "records.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run [1]", "run ?"])
def test_folder_whose_name_is_a_pattern_is_a_folder(finished, tmp_path, cli, contents, name):
    shutil.copytree(finished, tmp_path / "run 2")
    assert cli(*SWEEP, "--out", tmp_path / name).code == 0
    assert contents(tmp_path / name) == contents(finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ["records.parquet"],
        ["records.csv"],
        ["report.html", "figures/sweep.png"],
    ],
)
def test_what_is_missing_of_a_complete_run_is_made_again(complete, finished, cli, contents, names):
    for name in names:
        (complete / name).unlink()
    assert cli(*SWEEP, "--out", complete, "--resume").code == 0
    assert contents(complete) == contents(finished)


# A report of what others made ---------------------------------------------------------------------------------------

BAD_MANIFESTS = [
    *(lambda manifest, key=key: manifest.pop(key) for key in ("status", "parameters", "seed", "packages", "command")),
    lambda manifest: manifest.update(parameters=5),
    lambda manifest: manifest.update(packages=5),
    lambda manifest: manifest.update(inputs=5),
    lambda manifest: manifest["parameters"].update(sigmas=5),
    lambda manifest: manifest["parameters"].update(sigmas=[]),
    lambda manifest: manifest["parameters"].update(sigmas=["<b>"]),
    lambda manifest: manifest["parameters"].update(n_tokens="<b>"),
]


@pytest.mark.slow
@pytest.mark.parametrize("change", BAD_MANIFESTS)
def test_report_of_a_manifest_that_lacks_something_is_refused(complete, refuses, change):
    manifest = json.loads((complete / "manifest.json").read_text())
    change(manifest)
    (complete / "manifest.json").write_text(json.dumps(manifest))
    refuses("report", complete, code=4, says=["manifest.json"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda frame: frame.drop("sigma"), id="no sigma"),
        *(
            pytest.param(change, id=name)
            for name, change in {
                "no rows": lambda frame: frame.head(0),
                "sigma is text": lambda frame: frame.with_columns(pl.col("sigma").cast(pl.String)),
                "sigma is missing": lambda frame: frame.with_columns(sigma=pl.lit(None, pl.Float64)),
                "count is text": lambda frame: frame.with_columns(n_black_holes=pl.lit("x")),
            }.items()
        ),
    ],
)
def test_report_of_records_of_another_kind_is_refused(complete, refuses, change):
    change(pl.read_parquet(complete / "records.parquet")).write_parquet(complete / "records.parquet")
    refuses("report", complete, code=4, says=["records.parquet"])


def test_report_of_damaged_records_is_refused(complete, refuses):
    (complete / "records.parquet").write_bytes(b"PAR1")
    refuses("report", complete, code=4, says=["records.parquet"])


def test_report_of_no_run_or_an_unfinished_one_is_refused(tmp_path, unfinished, refuses):
    refuses("report", tmp_path / "nothing", code=3, says=["holds no run"])
    refuses("report", unfinished, code=3, says=["a run that is interrupted", "--resume"])


# Interruptions ------------------------------------------------------------------------------------------------------


def until(what, child):
    """Wait for something that a child does."""
    deadline = time.monotonic() + 60
    while not what():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_resumes_to_the_same_bytes(tmp_path, start, cli, contents, undisturbed, number):
    folder = tmp_path / "run"
    with start(*LONG, "--out", folder) as child:
        until(lambda: list(folder.glob("records/part-*.parquet")), child)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert re.fullmatch(r"darkvocab: interrupted \(.*--resume.*\)\n", err)
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
    left = contents(folder)
    assert left.keys() < undisturbed.keys()
    assert all(content == undisturbed[name] for name, content in left.items() if name != "manifest.json")
    assert cli(*LONG, "--out", folder, "--resume").code == 0
    assert contents(folder) == undisturbed


@pytest.mark.slow
def test_temporary_file_of_a_killed_run_is_swept_away(unfinished, finished, cli, contents):
    rewrite(unfinished, status="running")
    part(unfinished, 3).rename(unfinished / "records" / f".{part(unfinished, 3).name}.123.partial")
    (unfinished / "figures").mkdir(exist_ok=True)
    (unfinished / "figures" / ".sweep.pdf.123.partial").write_bytes(b"%PDF")
    (unfinished / ".report.html.123.partial").write_bytes(b"<!doctype")
    assert cli(*SWEEP, "--out", unfinished, "--resume").code == 0
    assert contents(unfinished) == contents(finished)


@pytest.mark.slow
def test_caller_who_stops_asking_for_records_leaves_an_interrupted_run(tmp_path, finished, contents):
    sweep = Sweep(json.loads((finished / "manifest.json").read_text())["parameters"]["sigmas"], **SETTINGS)
    asking = run.records(sweep, out=tmp_path / "run")
    next(asking)
    asking.close()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "interrupted"
    again = list(run.records(sweep, out=tmp_path / "run", resume=True))
    assert len(again) == len(sweep)
    assert (tmp_path / "run" / "records.csv").read_bytes() == (finished / "records.csv").read_bytes()


def test_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"content")
    assert not list(tmp_path.iterdir())


# A full disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["manifest.json", "records/part-000000*.parquet", "records.parquet", "figures/sweep.png"]
)
def test_run_that_meets_a_full_disk_resumes_to_the_same_bytes(tmp_path, finished, process, cli, contents, name):
    """No file may be as large as this one: all that comes before it is smaller."""
    folder = tmp_path / "run"
    (met,) = finished.glob(name)
    result = process(*SWEEP, "--out", folder, largest=met.stat().st_size - 2)
    assert result.code == 130
    assert result.err.startswith(f"darkvocab: no space left to write {folder / met.relative_to(finished)}")
    assert "make room (" in result.err
    assert "--resume" in result.err
    whole = contents(finished)
    assert all(content == whole[item] for item, content in contents(folder).items() if item != "manifest.json")
    assert cli(*SWEEP, "--out", folder, "--resume").code == 0
    assert contents(folder) == whole


def test_where_compiled_kernels_cannot_be_kept_it_says_so(tmp_path, checkpoint, process, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    result = process("scan", checkpoint([[0.0] * 100] * 200), largest=300)
    assert (result.code, result.out) == (130, "")
    assert "darkvocab: no space left to write" in result.err
    assert "NUMBA_CACHE_DIR" in result.err


@pytest.mark.parametrize("command", [("scan", "--csv", "out.csv"), ("centroid", "-o", "out.safetensors")])
def test_file_that_meets_a_full_disk_is_not_half_written(tmp_path, checkpoint, process, contents, command):
    path = checkpoint([[0.0] * 100] * 200)
    assert process(*command, path, cwd=tmp_path).code == 0  # what it compiles is kept
    (tmp_path / command[-1]).write_text("earlier")
    before = contents(tmp_path)
    result = process(*command, path, cwd=tmp_path, largest=300)
    assert (result.code, result.out) == (130, "")
    assert result.err.startswith(f"darkvocab: no space left to write {command[-1]}")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_an_import_that_never_ends_does_not_keep_a_run_from_ending(tmp_path):
    # What draws is imported by a thread. Ctrl-C can leave Python's import lock taken, for which it then waits forever.
    code = (
        "import sys, threading; from darkvocab.cli import main, snowballs; "
        "snowballs.import_module = lambda name: threading.Event().wait(); "
        f"sys.argv = ['darkvocab', 'sweep', '--sigma', '1e-9', '--tokens', '50', '--out', {str(tmp_path / 'run')!r}]; "
        "main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "report.html").is_file()
