"""Work that is killed and goes on: attempts by forks of one process, which has loaded what takes long."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

LOOP = """
import os, sys
for out in map(str.strip, sys.stdin):
    if not (child := os.fork()):
        attempt(out)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@contextmanager
def forking(code, *arguments):
    """Run code that defines `attempt(out)`, whose `sys.argv[1:]` are the arguments; yield a function that attempts.

    It takes a folder, and what says that the moment to kill has come (None: never); returns whether it was killed
    before its end.
    """
    command = [sys.executable, "-c", code + LOOP, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forker:

        def attempt(out, has_come=None):
            print(out, file=forker.stdin, flush=True)
            child = int(forker.stdout.readline())
            if has_come is not None:
                _kill(child, has_come)
            status = int(forker.stdout.readline())
            assert status in (0, signal.SIGKILL)
            return status == signal.SIGKILL

        yield attempt


def killed_until_whole(attempt, place, n_kills, moment):
    """Attempt work in folders of a place, each anew until it ends, until so many attempts were killed; return them.

    `moment(out)` is what `attempt` takes as the moment to kill.
    """
    kills, wholes = 0, []
    while kills < n_kills:
        out = place / f"run{len(wholes)}"
        while attempt(out, moment(out) if kills < n_kills else None):
            kills += 1
        wholes.append(out)
    return wholes


def _kill(child, has_come):
    end = time.monotonic() + 300
    try:
        while not has_come():
            os.kill(child, 0)  # it is there
            assert time.monotonic() < end
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:  # it has ended meanwhile
        pass


def with_more_entries(out, more):
    """Say that a folder has so many entries more than now."""
    wanted = len([*out.rglob("*")]) + more
    return lambda: len([*out.rglob("*")]) >= wanted
