"""Engines on this machine: order, laziness, what travels, what an error or a death does."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import engine_work as work
import pytest

from darkvocab.errors import EngineLost, OtherVersion, WorkerDied
from darkvocab.runs.engine import open_engine, parcels, processes

pytestmark = pytest.mark.slow

LOCAL = ("serial", "threads", "processes")
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(fact, seconds=5.0):
    """Wait for it to become true; return whether it did."""
    end = time.monotonic() + seconds
    while not fact() and time.monotonic() < end:
        time.sleep(0.02)
    return fact()


@pytest.mark.parametrize("spec", [*LOCAL, "local"])
def test_results_come_in_the_order_of_the_tasks(spec):
    with open_engine(spec, workers=2) as opened:
        assert list(opened.map(work.add, 10, range(50))) == list(range(10, 60))
        assert list(opened.map(work.add, 20, iter(range(3)))) == [20, 21, 22]  # other settings, the same workers
        assert list(opened.map(work.add, 20, [])) == []


def test_local_is_serial_threads_or_processes():
    for workers, nogil, kind in ((1, False, "Serial"), (2, True, "Threads"), (2, False, "Processes")):
        with open_engine("local", workers, nogil) as opened:
            assert type(opened).__name__ == kind


@pytest.mark.parametrize(("spec", "ahead"), [("serial", 1), ("threads", 4), ("processes", 4)])
def test_tasks_are_taken_only_so_far_ahead(spec, ahead):
    taken = []
    with open_engine(spec, workers=2) as opened:
        results = opened.map(work.add, 0, (taken.append(task) or task for task in range(100)))
        assert taken == []
        for done in range(10):
            assert next(results) == done
            assert len(taken) <= done + ahead
        results.close()
    assert len(taken) <= 9 + ahead


def test_a_slow_first_task_does_not_stop_the_others():
    gate = threading.Event()

    def wait_for_the_second(shared, task):
        return gate.wait(10) if task == 0 else gate.set()

    with open_engine("threads", workers=2) as opened:
        assert list(opened.map(wait_for_the_second, None, range(2))) == [True, None]


@posix
def test_settings_travel_once_to_a_process(tmp_path, monkeypatch):
    sent, send = [], processes._send
    monkeypatch.setattr(processes, "_send", lambda pipe, message: sent.append(len(message)) or send(pipe, message))
    shared = work.Counted(tmp_path, 3_000_000)
    with open_engine("processes", workers=2) as opened:
        done = list(opened.map(work.size_of, shared, range(20)))
    assert {size for size, _ in done} == {3_000_000}
    assert sorted(int(mark.name.split("-")[0]) for mark in tmp_path.iterdir()) == sorted({pid for _, pid in done})
    assert len({pid for _, pid in done}) == 2
    assert sum(length > 3_000_000 for length in sent) == 2
    assert len(sent) == 40


@pytest.mark.parametrize("spec", LOCAL)
def test_an_error_of_the_work_is_raised_as_it_is(spec):
    with open_engine(spec, workers=2) as opened, pytest.raises(KeyError, match="three") as raised:
        list(opened.map(work.refuse_three, 0, range(1000)))
    if spec == "processes":
        assert "refuse_three" in raised.value.__notes__[0]


@pytest.mark.parametrize("spec", ["threads", "processes"])
def test_an_error_does_not_wait_for_the_tasks_before_it(spec):
    started = time.monotonic()
    with open_engine(spec, workers=4) as opened, pytest.raises(KeyError, match="three"):
        list(opened.map(work.refuse_three, 0 if spec == "threads" else 60, range(4)))
    assert time.monotonic() - started < 50  # and not the 60 s of the others


def test_an_error_that_cannot_travel_is_told():
    with open_engine("processes", workers=1) as opened:
        with pytest.raises(RuntimeError, match="Unportable: 1 and 2"):
            list(opened.map(work.refuse_unportably, None, [0]))
        with pytest.raises(AttributeError, match="lambda"):
            list(opened.map(work.add, 0, [lambda: None]))
        with pytest.raises(KeyboardInterrupt):
            list(opened.map(work.interrupt, 0, [0]))
        assert list(opened.map(work.add, 0, [1])) == [1]


@posix
def test_work_neither_prints_to_stdout_nor_reads_stdin(capfd):
    with open_engine("processes", workers=1) as opened:
        assert list(opened.map(work.print_and_read, None, range(3))) == [b""] * 3
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "noise\n" * 3)


def test_tasks_not_begun_are_dropped_when_the_caller_stops():
    begun, gate = [], threading.Event()

    def wait_for_the_gate(shared, task):
        begun.append(task)
        return task == 0 or gate.wait(10)

    with ThreadPoolExecutor(1) as executor, open_engine(executor, workers=4) as opened:
        results = opened.map(wait_for_the_gate, None, range(100))
        assert next(results)
        assert soon(lambda: begun == [0, 1])
        results.close()
        gate.set()
        executor.submit(int).result()
    assert begun == [0, 1]


@pytest.mark.parametrize("spec", ["threads", "processes"])
def test_a_caller_that_stops_waits_for_nothing_that_was_not_begun(spec):
    started = time.monotonic()
    with open_engine(spec, workers=2) as opened:
        for task, _ in opened.map(work.where, 0.2, range(1000)):
            assert task == 0
            break
    assert time.monotonic() - started < 50  # and not the 100 s of the others


@posix
def test_processes_end_in_the_middle_of_a_task_when_the_engine_is_closed():
    with open_engine("processes", workers=2) as opened:
        pids = {pid for _, pid in opened.map(work.where, 0.1, range(4))}
        opened.map(work.where, 60, range(1000))
        results = opened.map(work.where, 60, range(1000))
        threading.Timer(0.5, opened.close).start()
        with pytest.raises(EngineLost):
            next(results)
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


@posix
def test_a_killed_process_is_replaced_and_its_task_done_again(tmp_path):
    said = []
    with open_engine("processes", workers=2, say=said.append) as opened:
        assert list(opened.map(work.die_once, str(tmp_path), range(40))) == [task**2 for task in range(40)]
        assert len(said) == 1
        assert "SIGKILL" in said[0]
        pids = set()
        for done, (task, pid) in enumerate(opened.map(work.where, 0.01, range(40))):
            assert task == done
            if pid not in pids and len(pids) < 2:
                os.kill(pid, signal.SIGKILL)  # idle or at work
            pids.add(pid)
    assert len(pids) > 2


@posix
def test_a_task_that_kills_every_process_is_given_up_by_name():
    said = []
    with open_engine("processes", workers=2, say=said.append) as opened:
        with pytest.raises(WorkerDied, match=r"task 5 ended its worker process 3 times \(the last: SIGKILL\); .*fewer"):
            list(opened.map(work.always_die, 5, range(100)))
        assert len(said) == 3
        assert list(opened.map(work.add, 0, range(5))) == list(range(5))


PARENT = """
    import json, signal, engine_work
    from darkvocab.runs.engine import open_engine

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with open_engine("processes", workers=2) as opened:
        pids = sorted({pid for _, pid in opened.map(engine_work.where, 0.1, range(6))})
        print(json.dumps(pids), flush=True)
        list(opened.map(engine_work.where, 60, range(2)))
"""


@posix
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_processes_do_not_outlive_the_one_that_asked(end):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    pids = json.loads(parent.stdout.readline())
    time.sleep(0.3)  # it asks for the long tasks
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    assert all(os.getpgid(pid) != parent.pid for pid in pids)  # Ctrl-C finds them not, not even as they start
    os.killpg(parent.pid, end)  # as a terminal does
    assert soon(lambda: not any(alive(pid) for pid in pids))
    errors = parent.communicate(timeout=10)[1].decode()
    assert errors.count("Traceback") == (end == signal.SIGINT)  # ours, and none of a worker


@pytest.mark.parametrize("from_stdin", [False, True])
def test_a_script_without_a_main_guard_may_use_processes(tmp_path, from_stdin):
    """A file, or what is typed: workers import no `__main__`."""
    (tmp_path / "script.py").write_text(
        textwrap.dedent(
            """
            import engine_work
            from darkvocab.runs.engine import open_engine
            with open_engine("processes", workers=2) as opened:
                print(list(opened.map(engine_work.add, 1, range(3))))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "script.py").open() as script:
        command = [sys.executable, "-" if from_stdin else script.name]
        ran = subprocess.run(command, stdin=script, capture_output=True, text=True, env=environment)
    assert (ran.stdout, ran.stderr) == ("[1, 2, 3]\n", "")


def test_an_executor_of_the_caller_is_used_and_left_open(tmp_path):
    with ThreadPoolExecutor(2) as executor:
        shared = object()
        with open_engine(executor) as opened:
            assert all(seen is shared for seen in opened.map(lambda shared, task: shared, shared, range(5)))
        assert executor.submit(int).result() == 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as executor, open_engine(executor) as opened:
        done = list(opened.map(work.size_of, work.Counted(tmp_path, 1000), range(10)))
        assert {size for size, _ in done} == {1000}
        assert len(list(tmp_path.iterdir())) == len({pid for _, pid in done})
        with pytest.raises(EngineLost, match="BrokenProcessPool"):
            list(opened.map(work.always_die, 3, range(10)))
        with pytest.raises(EngineLost, match="BrokenProcessPool"):
            list(opened.map(work.add, 3, range(10)))


def test_what_is_no_engine_is_refused():
    for spec in ("bogus", "", "dask:", "http://host:80"):
        with pytest.raises(ValueError, match=r"unknown engine .*; choose local, serial"):
            open_engine(spec)
    with pytest.raises(ValueError, match="workers must be >= 1, got 0"):
        open_engine("threads", 0)


def test_a_worker_of_another_version_refuses_before_it_unpickles_anything():
    versions = {**parcels.package_versions(), "numpy": "1.0"}
    with pytest.raises(OtherVersion, match=r"has numpy .*, we have 1\.0; install numpy==1\.0 there"):
        parcels.do_elsewhere(versions, b"no pickle", b"none either")
