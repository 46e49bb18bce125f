"""Files land whole or not at all."""

import errno
import os

import pytest

from darkvocab.records import DiskFull, csv_text, write_whole


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
