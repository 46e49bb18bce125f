"""Progress and messages that the command line writes while it works."""

import contextlib
import os
import sys
import threading

import pytest

from darkvocab import progress
from darkvocab.cli import shell


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    monkeypatch.setattr(progress, "time", Clock())
    return progress.time


def told(clock, *calls, **options):
    """Return what is written for calls (seconds, done, total)."""
    with shell.progress_bar("sweeping", **options) as report:
        for seconds, *done in calls:
            clock.now = 100.0 + seconds
            report(*done)


def test_a_line_is_written_every_ten_seconds(clock, capsys):
    told(clock, *((second, 310 * second, 10_000) for second in range(25)))
    assert capsys.readouterr().err.splitlines() == [
        "sweeping: 3,100 of 10,000, 310/s, about 22 s left",
        "sweeping: 6,200 of 10,000, 310/s, about 12 s left",
    ]


def test_what_had_landed_before_is_done_but_no_work_of_ours(clock, capsys):
    told(clock, (0, 900_000, 1_000_000), (10, 900_100, 1_000_000))
    assert capsys.readouterr().err == "sweeping: 900,100 of 1,000,000, 10/s, about 2.8 h left\n"


def test_the_rate_is_that_of_the_last_half_minute(clock, capsys):
    fast = [(second, 1000 * second, 100_000) for second in range(10)]
    slow = [(9 + second, 9000 + second, 100_000) for second in range(1, 60)]
    told(clock, *fast, *slow)
    assert capsys.readouterr().err.splitlines()[-1] == "sweeping: 9,051 of 100,000, 1/s, about 25.3 h left"


def test_a_rate_is_told_of_steps_longer_than_half_a_minute(clock, capsys):
    told(clock, (0, 0, 10), (40, 1, 10), (80, 2, 10))
    assert capsys.readouterr().err.splitlines()[-1] == "sweeping: 2 of 10, 0.025/s, about 5 min left"


def test_what_begins_anew_has_a_rate_of_its_own(clock, capsys):
    transfer = [(second, 1000 * second, 100_000) for second in range(10)]
    told(clock, *transfer, *((9 + second, 10 * second, 1000) for second in range(20)))
    assert capsys.readouterr().err.splitlines()[-1] == "sweeping: 110 of 1,000, 10/s, about 89 s left"


def test_bytes_are_told_as_bytes(clock, capsys):
    told(clock, (0, 0, 3 * 10**9), (10, 10**9, 3 * 10**9), in_bytes=True)
    told(clock, (20, 0, 10**8), (40, 10**7, 10**8), in_bytes=True)
    assert capsys.readouterr().err.splitlines() == [
        "sweeping: 1.0 of 3.0 GB, 100 MB/s, about 20 s left",
        "sweeping: 0.0 of 100.0 MB",
        "sweeping: 10.0 of 100.0 MB, 0.5 MB/s, about 3 min left",
    ]


def test_nothing_is_said_of_the_rate_before_it_is_known(clock, capsys):
    told(clock, (11, 5, 10))
    assert capsys.readouterr().err == "sweeping: 5 of 10\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_shows_rate_and_remaining_time_in_a_bar(clock, monkeypatch):
    """A label from the command line is no markup."""
    master, slave = os.openpty()
    read = []

    def listen():
        with contextlib.suppress(OSError):  # that nobody writes any more
            while part := os.read(master, 1 << 12):
                read.append(part)

    reader = threading.Thread(target=listen)
    reader.start()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("TERM", "xterm")
        with shell.progress_bar("[red]sweeping") as report:
            for second in range(3):
                clock.now = 100.0 + second
                report(1000 * second, 10_000)
    reader.join()
    os.close(master)
    shown = b"".join(read).decode()
    assert "[red]sweeping" in shown
    assert "2,000 of 10,000, 1,000/s, about 8 s left" in shown


def test_an_interruption_that_a_callback_swallowed_is_raised_once_more(monkeypatch):
    monkeypatch.setattr(shell, "_interrupted", True)
    with shell.progress_bar("counting") as report, pytest.raises(KeyboardInterrupt):
        report(1, 2)


def test_progress_is_shown_where_signals_cannot_be_made_to_interrupt(clock, capsys, monkeypatch):
    monkeypatch.delattr("signal.siginterrupt")  # as on Windows
    told(clock, (0, 0, 100), (10, 10, 100))
    assert capsys.readouterr().err == "sweeping: 10 of 100, 1/s, about 90 s left\n"
