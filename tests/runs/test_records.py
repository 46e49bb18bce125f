"""Files land whole or not at all; how and in which order parts landed does not show at the end."""

import errno
import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from darkvocab.errors import CorruptFile, DiskFull
from darkvocab.landing import write_whole
from darkvocab.runs import records
from darkvocab.runs.folder import read_manifest
from darkvocab.runs.records import Parts, Records, RunFolder, csv_bytes, csv_text, read_records, write_table


def test_a_disk_that_fills_up_under_a_table_is_a_full_disk(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DiskFull, match=r"no space left to write .*table"):
            write_table(tmp_path / "table", pl.DataFrame({"column": range(10_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_the_file_as_it_was(number, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"before")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=r"no space left to write .*file"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_file_is_renamed_into_place_only_after_it_is_synced(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: seen.append((path.exists(), os.fstat(d).st_size)) or fsync(d))
    write_whole(path, b"12345")
    assert seen == [(False, 5)]
    assert path.read_bytes() == b"12345"


def test_who_reads_a_file_while_it_is_replaced_reads_the_old_one_whole(tmp_path):
    write_whole(tmp_path / "file", b"before")
    with (tmp_path / "file").open("rb") as reader:
        write_whole(tmp_path / "file", b"after!")
        assert reader.read() == b"before"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot write .*missing/file: No such file"):
        write_whole(tmp_path / "missing" / "file", b"")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("=1+1", "'=1+1"),
        ("+a", "'+a"),
        ("-a", "'-a"),
        ("@a", "'@a"),
        ("a=b", "a=b"),
        ("\ta", "\\ta"),
    ],
)
def test_a_cell_of_a_csv_is_no_formula(text, safe):
    assert csv_text(text) == safe


def test_texts_of_a_csv_are_made_harmless_and_gaps_stay_empty():
    frame = pl.DataFrame({"text": ["=1", "plain", None, "=1"], "value": [0.1, None, 1e-9, 2.0]})
    assert csv_bytes(frame) == b"text,value\n'=1,0.1\nplain,\n,1e-9\n'=1,2.0\n"
    assert csv_bytes(frame, header=False) == csv_bytes(frame).removeprefix(b"text,value\n")


# Parts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    sigma: float | None
    count: int
    name: str


SCHEMA = {"sigma": pl.Float64, "count": pl.Int64, "name": pl.String}


def manifest(n_records):
    return {
        **{"status": "running", "command": "darkvocab nothing", "parameters": {}, "seed": 1, "packages": {}},
        **{"inputs": [], "n_records": n_records},
    }


def row(number):
    return Row(None if number % 7 == 3 else number / 8, number, "=plain"[number % 2 :])


def frame(start, stop):
    numbers = np.arange(start, stop)
    return pl.DataFrame({"sigma": numbers / 3, "count": numbers, "name": pl.repeat("same", len(numbers), eager=True)})


def opened(path, n_records, size, **options):
    return closing(RunFolder(path, Row, manifest(n_records), records_per_part=size, **options))


def land(folder, number, n_records, size):
    folder.land(number, [row(k) for k in range(number * size, min((number + 1) * size, n_records))])


def landed(path, n_records, size, numbers=None, *, finish=True):
    """A run folder where these parts have landed in this order."""
    with opened(path, n_records, size) as folder:
        for number in range(-(-n_records // size)) if numbers is None else numbers:
            land(folder, number, n_records, size)
        if finish:
            folder.finish()
    return path


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spans(path):
    """Numbers in the names of the parts."""
    return sorted(item.name[len("part-") : -len("-0123456789abcdef.parquet")] for item in (path / "records").iterdir())


def test_parts_land_in_any_order_and_each_is_one_file(tmp_path):
    order = [*range(70, 150), *range(70)]
    landed(tmp_path / "run", 299, 2, order, finish=False)
    assert spans(tmp_path / "run") == [f"{k:06d}" for k in range(150)]
    with opened(tmp_path / "run", 299, 2, resume=True) as folder:
        assert (folder.parts.missing(), folder.parts.n_landed) == ([], 299)
        assert folder.read(66) == [row(132), row(133)]
        assert folder.read(149) == [row(298)]
        folder.finish()
    assert read_records(tmp_path / "run").rows() == [(r.sigma, r.count, r.name) for r in map(row, range(299))]


def test_a_part_of_another_length_is_refused(tmp_path):
    with opened(tmp_path / "run", 10, 4) as folder:
        with pytest.raises(ValueError, match="part 2 must have 2 records, got 4"):
            folder.land(2, [row(0)] * 4)
        assert folder.parts.missing() == [0, 1, 2]


class Killed(BaseException):
    pass


@contextmanager
def killed(name: str, after: int) -> Iterator[None]:
    """The process ends when it calls this function of the system once too often."""
    original, calls = getattr(os, name), count()

    def kill(*arguments):
        if next(calls) == after:
            raise Killed
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(os, name, kill)
        yield


N, SIZE = 31, 3
ENDS = st.sampled_from(["replace", "unlink", "fsync"])  # where a process ends: amid any writing


@pytest.mark.slow
@given(
    order=st.permutations(range(11)),
    ends=st.lists(st.tuples(st.integers(0, 11), ENDS, st.integers(0, 5)), max_size=4),
)
@example(order=list(range(11)), ends=[(3, "replace", 2)])
@example(order=list(range(11)), ends=[(4, "replace", 0), (8, "fsync", 3)])
@settings(max_examples=80)
def test_whatever_the_order_and_the_interruptions_the_bytes_are_the_same(tmp_path_factory, order, ends):
    path = tmp_path_factory.mktemp("run")
    expected = files(landed(path / "undisturbed", N, SIZE))
    for stop, target, after in sorted(ends):
        with killed(target, after), opened(path / "run", N, SIZE, resume=True) as folder:
            for number in order[:stop]:
                if number in folder.parts.missing():
                    land(folder, number, N, SIZE)
    with opened(path / "run", N, SIZE, resume=True) as folder:
        for number in folder.parts.missing():
            land(folder, number, N, SIZE)
        folder.finish()
    assert files(path / "run") == expected
    shutil.rmtree(path)


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_write_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    """Parts, the final files and the manifest: each of them meets it once."""
    expected = files(landed(tmp_path / "undisturbed", N, SIZE))
    fsync, met = os.fsync, set()
    for full in count():
        calls = count()

        def fill(descriptor, calls=calls, full=full):
            if next(calls) == full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fill)
        path = tmp_path / str(full)
        try:
            landed(path, N, SIZE)
            break
        except OSError as error:
            met.add(re.search(r"no space left to write \S*/([^/\s]+)$", str(error))[1][:11])
        monkeypatch.setattr(os, "fsync", fsync)
        with opened(path, N, SIZE, resume=True) as folder:
            for number in folder.parts.missing():
                land(folder, number, N, SIZE)
            folder.finish()
        assert files(path) == expected
    assert {"manifest.js", "part-000003", "part-000000", "records.par", "records.csv"} <= met


KEPT = Path(__file__).parent.parent / "kept" / "parts"


@pytest.fixture(params=["merged", "torn"])
def kept(request, tmp_path):
    """A run that version 6d79372 began: it merged 64 parts of one record; `torn` was killed amid their deletion."""
    return Path(shutil.copytree(KEPT / request.param, tmp_path / "run"))


def part(path, span):
    (result,) = path.glob(f"records/part-{span}-{'[0-9a-f]' * 16}.parquet")
    return result


def kept_run(path):
    """The continuation of a kept run, which cuts its records into parts of another size by now."""
    return opened(path, 70, 8, resume=True)


def landing_the_rest(folder):
    for number in folder.parts.missing():
        land(folder, number, 70, folder.parts.size)
    folder.finish()


def test_a_run_whose_parts_an_earlier_version_merged_goes_on(kept, tmp_path):
    n_landed = 64 if "000064" not in spans(kept) else 66
    scanned = Records(kept)
    assert rows(scanned) == [(r.sigma, r.count, r.name) for r in map(row, range(n_landed))]
    assert len(scanned["count"]) == scanned.n_landed == n_landed
    with kept_run(kept) as folder:
        assert (folder.parts.size, folder.parts.n_landed, folder.parts.missing()) == (
            1,
            n_landed,
            list(range(n_landed, 70)),
        )
        assert folder.read(3) == [row(3)]
        landing_the_rest(folder)
    fresh = landed(tmp_path / "fresh", 70, 1)
    for name in ("manifest.json", "records.parquet", "records.csv"):
        assert (kept / name).read_bytes() == (fresh / name).read_bytes()


@pytest.mark.parametrize("change", ["garbage", "another run", "another part"])
def test_a_merged_part_that_is_not_ours_is_named_and_nothing_is_deleted(kept, tmp_path, change):
    path = part(kept, "000000-000063")
    if change == "garbage":
        path.write_bytes(b"PAR1")
    elif change == "another run":
        other = landed(tmp_path / "other", 71, 1, [2], finish=False)
        path.write_bytes(part(other, "000002").read_bytes())
    else:
        path.write_bytes(path.read_bytes()[:-1])
    before = {name: content for name, content in files(kept).items() if name != "manifest.json"}
    with (
        kept_run(kept) as folder,
        pytest.raises(CorruptFile, match=f"{path.name}: does not hold what this run wrote; delete it and"),
    ):
        landing_the_rest(folder)
    assert before.items() <= files(kept).items()
    path.unlink()
    with kept_run(kept) as folder:
        landing_the_rest(folder)
    assert (kept / "records.parquet").read_bytes() == (
        landed(tmp_path / "fresh", 70, 1) / "records.parquet"
    ).read_bytes()


@pytest.mark.parametrize("name", ["000001-000064", "000000-000002", "000064-000127", "000003-000000", "000070"])
def test_a_file_that_is_no_part_of_this_run_is_named_and_left(kept, name):
    stray = kept / "records" / f"part-{name}-0123456789abcdef.parquet"
    stray.write_text("mine")
    with (
        kept_run(kept) as folder,
        pytest.raises(CorruptFile, match=rf"holds {stray.name}, no part of this run; move it away"),
    ):
        landing_the_rest(folder)
    assert stray.read_text() == "mine"
    assert not (kept / "records.parquet").exists()


def test_a_second_file_of_a_part_is_named_and_left(tmp_path):
    path = landed(tmp_path / "run", N, SIZE, finish=False)
    stray = path / "records" / "part-000002-0000000000000000.parquet"
    stray.write_text("mine")
    with (
        opened(path, N, SIZE, resume=True) as folder,
        pytest.raises(CorruptFile, match=rf"holds {stray.name}, no part of this run; move it away"),
    ):
        folder.finish()
    assert stray.read_text() == "mine"


def test_a_run_keeps_to_the_size_of_its_parts(tmp_path):
    landed(tmp_path / "run", N, SIZE, range(4), finish=False)
    with opened(tmp_path / "run", N, SIZE + 2, resume=True) as folder:
        assert (folder.parts.size, folder.parts.n_landed) == (SIZE, 4 * SIZE)
        for number in folder.parts.missing():
            land(folder, number, N, SIZE)
        folder.finish()
    assert files(tmp_path / "run") == files(landed(tmp_path / "undisturbed", N, SIZE))


def test_a_folder_that_is_gone_when_a_run_ends_does_not_hide_why_it_ended(tmp_path):
    def work():
        with RunFolder(tmp_path / "run", Row, manifest(3), records_per_part=1):
            shutil.rmtree(tmp_path / "run")
            raise KeyError("the work's own")

    with pytest.raises(KeyError, match="the work's own"):
        work()


@pytest.mark.slow
def test_ten_thousand_parts_are_opened_by_their_names(tmp_path, monkeypatch):
    size = 2**18
    with opened(tmp_path / "run", 10_001 * size, size):
        for number in range(10_000):
            (tmp_path / "run" / "records" / f"part-{number:06d}-0123456789abcdef.parquet").touch()
    monkeypatch.setattr(Parts, "read", None)
    with opened(tmp_path / "run", 10_001 * size, size, resume=True) as folder:
        assert folder.parts.missing() == [10_000]
        assert folder.parts.n_landed == 10_000 * size


# The final files ----------------------------------------------------------------------------------------------------

QUARTER = 1 << 18
FINISH = """
import sys
sys.path.insert(0, {tests!r})
from test_records import Row, frame, manifest, opened
from pathlib import Path
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
size, path = int(sys.argv[1]), Path(sys.argv[2])
with opened(path, {n}, size) as folder:
    for number in range(-(-{n} // size)):
        folder.parts.land(number, frame(number * size, min((number + 1) * size, {n})))
        before = status("VmHWM") if number == 0 else before
    folder.finish()
print((status("VmHWM") - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_many_records_are_written_in_bounded_memory_to_the_same_bytes(tmp_path):
    """However they are cut into parts, on however many threads; with a CSV that is compressed."""
    code = FINISH.format(tests=str(Path(__file__).parent), n=QUARTER + 5)
    for size, threads in ((4096, 2), (1000, 1), (100_000, 5)):
        environment = {**os.environ, "POLARS_MAX_THREADS": str(threads)}
        command = [sys.executable, "-c", code, str(size), str(tmp_path / str(size))]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        assert int(ran.stdout) < 150  # MB, with parts and final files in turn
    first = tmp_path / "4096"
    assert spans(first) == [f"{k:06d}" for k in range(65)]
    expected = frame(0, QUARTER + 5)
    assert pl.read_parquet(first / "records.parquet").equals(expected)
    expected.write_parquet(tmp_path / "at once", compression="zstd", row_group_size=2**16)
    assert (first / "records.parquet").read_bytes() == (tmp_path / "at once").read_bytes()
    assert not (first / "records.csv").exists()
    content = (first / "records.csv.gz").read_bytes()
    assert gzip.decompress(content) == csv_bytes(expected)
    assert content[4:8] == bytes(4)  # no time
    assert pl.read_csv(first / "records.csv.gz").equals(expected)
    for other in ("1000", "100000"):
        for name in ("records.parquet", "records.csv.gz"):
            assert (tmp_path / other / name).read_bytes() == (first / name).read_bytes()


def test_a_frame_lands_as_its_records_do(tmp_path):
    with opened(tmp_path / "frames", 5, 5) as folder:
        folder.parts.land(0, pl.DataFrame([row(k) for k in range(5)], schema=SCHEMA))
        folder.finish()
    assert files(tmp_path / "frames") == files(landed(tmp_path / "records", 5, 5))


# Reading ------------------------------------------------------------------------------------------------------------


def rows(scanned):
    return [tuple(values) for frame in scanned.frames() for values in frame.rows()]


EXPECTED = [(r.sigma, r.count, r.name) for r in map(row, range(N))]


def test_records_of_a_finished_run_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROW_GROUP", 8)
    path = landed(tmp_path / "run", N, SIZE)
    shutil.rmtree(path / "records")  # records.parquet is all that it takes
    scanned = Records(path)
    assert (scanned.n_landed, dict(scanned.schema)) == (N, SCHEMA)
    assert [len(piece) for piece in scanned.frames()] == [8, 8, 8, 7]
    assert rows(scanned) == EXPECTED
    assert scanned["count"].to_list() == list(range(N))


def test_records_of_an_unfinished_run_are_those_that_landed(tmp_path):
    numbers = [0, 1, 2, 3, 6, 10, 8]
    path = landed(tmp_path / "run", N, SIZE, numbers, finish=False)
    before = files(path)
    with opened(path, N, SIZE, resume=True):  # another process may have it
        scanned = Records(path)
        expected = [EXPECTED[k] for number in sorted(numbers) for k in range(number * 3, min(number * 3 + 3, N))]
        assert scanned.n_landed == len(expected)
        assert rows(scanned) == expected
        assert scanned["count"].to_list() == [count for _, count, _ in expected]
    assert files(path).keys() == before.keys()
    (path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no run"):
        Records(path)


def test_records_are_those_of_the_moment_although_the_run_goes_on(tmp_path):
    path = landed(tmp_path / "run", N, SIZE, [0, 2, 3], finish=False)
    scanned = Records(path)
    expected = rows(scanned)
    with opened(path, N, SIZE, resume=True) as folder:
        land(folder, 1, N, SIZE)
        land(folder, 4, N, SIZE)
    assert rows(scanned) == expected
    assert scanned["count"].to_list() == [0, 1, 2, 6, 7, 8, 9, 10, 11]


def test_a_run_of_which_nothing_landed_has_no_records(tmp_path):
    scanned = Records(landed(tmp_path / "run", N, SIZE, [], finish=False))
    assert (scanned.n_landed, scanned.schema, list(scanned.frames())) == (0, {}, [])


@pytest.mark.parametrize("finish", [True, False])
def test_records_that_are_damaged_are_named(tmp_path, finish):
    path = landed(tmp_path / "run", N, SIZE, finish=finish)
    damaged = path / "records.parquet" if finish else part(path, "000002")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(CorruptFile, match=damaged.name):
        rows(Records(path))


def test_records_that_are_another_number_than_the_manifest_says_are_named(tmp_path):
    path = landed(tmp_path / "run", N, SIZE)
    read_records(path).head(3).write_parquet(path / "records.parquet")
    with pytest.raises(CorruptFile, match="holds 3 records, not those of a finished run"):
        Records(path)


@pytest.mark.parametrize("change", [{"records_per_part": 0}, {"n_records": -1}, {"n_records": "5"}])
def test_a_manifest_with_impossible_numbers_is_none(tmp_path, change):
    path = landed(tmp_path / "run", N, SIZE)
    write_whole(path / "manifest.json", json.dumps({**read_manifest(path), **change}).encode())
    with pytest.raises(CorruptFile, match="not a manifest"):
        Records(path)
