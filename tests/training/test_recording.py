"""Recordings: loadable at every moment, continued, cut short, and refused where they are another's."""

import errno
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from darkvocab.errors import CorruptFile, DiskFull
from darkvocab.sources.safetensors import read_tensors
from darkvocab.training.recording import Recording


def opened(path, **settings):
    return Recording(path / "r.safetensors", "rows", 5, (2, 3), "float32", {"record_every": 4}, **settings)


def row(number):
    return np.full((2, 3), number, np.float32)


def recorded(path):
    with safe_open(path / "r.safetensors", "np") as file:
        return int(file.metadata()["recorded"])


def test_the_file_is_whole_at_every_moment_and_says_how_far_it_got(tmp_path):
    with opened(tmp_path) as recording:
        for number in range(1, 6):
            recording.extend(row(number)[None])
            rows = load_file(tmp_path / "r.safetensors")["rows"]
            assert rows.shape == (5, 2, 3)
            assert rows[:, 0, 0].tolist() == [*range(1, number + 1), *[0] * (5 - number)]
            assert recorded(tmp_path) == number
    with safe_open(tmp_path / "r.safetensors", "np") as file:
        assert file.metadata()["record_every"] == "4"
    assert read_tensors(tmp_path / "r.safetensors")["rows"].words().shape == (5, 2, 3)


def test_bfloat16_words_are_recorded_as_they_are(tmp_path):
    words = np.array([[0x3F80, 0xBF80], [1, 0x7F7F]], np.uint16)
    with Recording(tmp_path / "b", "rows", 1, (2, 2), "bfloat16") as recording:
        recording.extend(words[None])
    tensor = read_tensors(tmp_path / "b")["rows"]
    assert (tensor.dtype, tensor.words().tolist()) == ("BF16", [words.tolist()])


def test_going_on_writes_over_what_lay_behind(tmp_path):
    with opened(tmp_path) as recording:
        for number in (1, 2, 9, 9):
            recording.extend(row(number)[None])
    with opened(tmp_path, resume_at=2) as recording:
        assert recorded(tmp_path) == 2
        for number in (3, 4, 5):
            recording.extend(row(number)[None])
    whole = (tmp_path / "r.safetensors").read_bytes()
    with opened(tmp_path) as recording:
        for number in range(1, 6):
            recording.extend(row(number)[None])
    assert (tmp_path / "r.safetensors").read_bytes() == whole


def test_a_recording_cut_short_ends_with_its_last_row(tmp_path):
    with opened(tmp_path) as recording:
        recording.extend(row(1)[None])
        recording.extend(row(2)[None])
        recording.shorten()
    assert load_file(tmp_path / "r.safetensors")["rows"].shape == (2, 2, 3)
    assert recorded(tmp_path) == 2


def damage(path, change):
    content = bytearray((path / "r.safetensors").read_bytes())
    change(content)
    (path / "r.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop(), "not the recording of this run"),
        (lambda content: content.__setitem__(12, 0), "not the recording of this run"),
        (lambda content: content.clear(), "not the recording of this run"),
        (lambda content: content.__setitem__(slice(None), content.replace(b"0002", b"0001")), "fewer than the 2 rows"),
        (lambda content: content.__setitem__(slice(None), content.replace(b"0002", b"000x")), "fewer than the 2 rows"),
    ],
)
def test_going_on_in_a_damaged_file_is_refused(tmp_path, change, says):
    with opened(tmp_path) as recording:
        recording.extend(row(1)[None])
        recording.extend(row(2)[None])
    damage(tmp_path, change)
    with pytest.raises(CorruptFile, match=says):
        opened(tmp_path, resume_at=2)


def test_going_on_without_the_file_is_refused(tmp_path):
    with pytest.raises(CorruptFile, match="is gone"):
        opened(tmp_path, resume_at=1)


def test_a_row_of_another_size_or_too_many_are_refused(tmp_path):
    with opened(tmp_path) as recording:
        with pytest.raises(ValueError, match="no room for a row of 12 bytes"):
            recording.extend(np.zeros((1, 3), np.float32))
        for number in range(5):
            recording.extend(row(number)[None])
        with pytest.raises(ValueError, match="no room"):
            recording.extend(row(6)[None])


def test_a_full_disk_is_named_and_what_was_recorded_stays(tmp_path, monkeypatch):
    with opened(tmp_path) as recording:
        recording.extend(row(1)[None])

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(DiskFull):
            recording.extend(row(2)[None])
        assert recorded(tmp_path) == 1


def test_a_recording_goes_on_where_there_is_no_pread_and_no_pwrite(tmp_path, monkeypatch):
    for name in ("pread", "pwrite"):
        monkeypatch.delattr(os, name)  # as on Windows
    with opened(tmp_path) as recording:
        recording.extend(row(1)[None])
    with opened(tmp_path, resume_at=1) as recording:
        recording.extend(row(2)[None])
    assert load_file(tmp_path / "r.safetensors")["rows"][:, 0, 0].tolist() == [1, 2, 0, 0, 0]
